"""`headgate keys`: who may use the gateway. The only commands that ever show a secret, once."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from headgate.cli.options import (
    Duration,
    as_json,
    catalog_of,
    places,
    print_json,
    print_table,
    record,
    settings_of,
    store_of,
    when,
)
from headgate.config import Settings
from headgate.dialects.capabilities import EFFORTS
from headgate.policy import budgets, networks
from headgate.policy.keys import Account, Key
from headgate.policy.pricing import usd
from headgate.policy.terms import BudgetTerms, Changes, Terms

F = TypeVar("F", bound=Callable[..., Any])
_NONE = -1  # said, and to be taken away; an option that was not said is None


class Count(click.ParamType[int]):
    """`60`; `none` takes a limit away."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value == "none":
            return _NONE
        if value.isascii() and value.isdecimal() and len(value) <= 12:
            return int(value)
        self.fail(f"`{value[:20]}` is no limit; write a whole number, or none.", param, ctx)


class Networks(click.ParamType[tuple[str, ...]]):
    """`10.0.0.0/8,192.0.2.7`; `any` takes the list away."""

    name = "networks"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        if value == "any":
            return ()
        try:
            found = networks.split(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        if not found:  # an empty list would allow every address
            self.fail("name a network like 10.0.0.0/8, or `any`.", param, ctx)
        return found


class Dollars(click.ParamType[int]):
    """`12.50`: nano-dollars, exactly; `none` takes a budget away."""

    name = "dollars"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value == "none":
            return _NONE
        try:
            return budgets.nano_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Zone(click.ParamType[str]):
    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            budgets.zone_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


def _renamed(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value is not None:
        raise click.UsageError("--on-hang-up is called --on-disconnect now.")


def budget_terms(command: F) -> F:
    """The options for what a key or an account may spend."""
    for option in reversed(
        (
            click.option(
                "--budget-usd", type=Dollars(), help="What it may spend, in dollars: 12.50."
            ),
            click.option(
                "--budget-period",
                type=click.Choice(("day", "month", "total")),
                help="In what time; total: once and for all.",
            ),
            click.option(
                "--budget-zone", type=Zone(), help="Where days begin: Europe/Berlin; UTC."
            ),
        )
    ):
        command = option(command)
    return command


def _terms(command: F) -> F:
    """The options for what a key may take."""
    for option in reversed(
        (
            click.option("--rpm", type=Count(), help="Requests a minute."),
            click.option("--tpm", type=Count(), help="Tokens a minute, input and output."),
            click.option("--concurrency", type=Count(), help="Requests at a time."),
            click.option(
                "--allow-from",
                type=Networks(),
                help="Networks it may be used from: 10.0.0.0/8,192.0.2.7; `any`.",
            ),
            click.option(
                "--effort",
                type=click.Choice((*EFFORTS, "default")),
                help="How much models think for requests that name no effort.",
            ),
            click.option(
                "--routing",
                help='Which routes it may take: "sort=price; only=a,b; ignore=c; regions=own"; "": any.',
            ),
            click.option(
                "--mask",
                help='What is masked before it leaves: email,phone,card,iban,key, or all; "": nothing.',
            ),
            click.option(
                "--on-hang-up",
                expose_value=False,
                hidden=True,
                callback=_renamed,
                is_eager=True,
            ),
            click.option(
                "--on-disconnect",
                type=click.Choice(("cancel", "drain")),
                help="When a client disconnects: cancel the upstream request (the default), or finish and bill.",
            ),
        )
    ):
        command = option(command)
    return budget_terms(command)


def budget_said(
    budget_usd: int | None,
    budget_period: Any,  # one of the choices above, which click has checked
    budget_zone: str | None,
) -> BudgetTerms:
    terms: BudgetTerms = {}
    if budget_usd is not None:
        terms["budget_nano"] = _or_none(budget_usd)
    if budget_period is not None:
        terms["budget_period"] = budget_period
    if budget_zone is not None:
        terms["budget_zone"] = budget_zone
    return terms


def needs_a_budget(said: BudgetTerms) -> None:
    """UsageError for the terms of a budget that there is not."""
    if said.get("budget_nano") is None and ("budget_period" in said or "budget_zone" in said):
        raise click.UsageError("--budget-period and --budget-zone need --budget-usd.")


def _said(
    rpm: int | None,
    tpm: int | None,
    concurrency: int | None,
    allow_from: tuple[str, ...] | None,
    effort: str | None,
    routing: str | None,
    mask: str | None,
    on_disconnect: Any,  # as budget_period
    **budget: Any,
) -> Terms:
    terms: Terms = {**budget_said(**budget)}  # type: ignore[typeddict-item]  # Terms has all of them
    if rpm is not None:
        terms["rpm"] = _or_none(rpm)
    if tpm is not None:
        terms["tpm"] = _or_none(tpm)
    if concurrency is not None:
        terms["concurrency"] = _or_none(concurrency)
    if allow_from is not None:
        terms["allowed_cidrs"] = allow_from
    if effort is not None:
        terms["effort"] = "" if effort == "default" else effort
    if mask is not None:
        terms["mask"] = mask
    if routing is not None:
        terms["routing"] = routing
    if on_disconnect is not None:
        terms["on_disconnect"] = on_disconnect
    return terms


def _or_none(number: int) -> int | None:
    return None if number == _NONE else number


def _models(models: str, settings: Settings) -> tuple[str, ...]:
    """The catalog's ids of the models that were named."""
    catalog = catalog_of(settings)
    ids: list[str] = []
    for said in models.split(","):
        model = catalog.find(said)
        if model is None:
            raise click.BadParameter(
                f"no model `{said}`. {catalog.hint(said)}", param_hint="--models"
            )
        ids.append(model.id)
    return tuple(dict.fromkeys(ids))


@click.group()
def command() -> None:
    """Make, list, change, revoke and rotate API keys.

    They take effect in a running gateway within a second.
    """


@command.command()
@click.argument("name")
@click.option("--models", help="Models it may use, separated by commas; all without it.")
@click.option("--expires", type=Duration(), help="When it ends: 30d, 12h.")
@click.option("--account", default="", help="The id of the account it is part of.")
@_terms
@places
@as_json
def create(
    name: str,
    models: str | None,
    expires: float | None,
    account: str,
    config_file: str | None,
    data: str | None,
    json_: bool,
    **terms: Any,
) -> None:
    """Make a key and print it: the only time it can be seen."""
    settings = settings_of(config_file, data=data)
    said = _said(**terms)
    needs_a_budget(said)
    # Also when the option is empty: an empty list would mean all
    ids = _models(models, settings) if models is not None else ()
    now = time.time()
    with store_of(settings, create=True) as store:
        key, text = store.create_key(
            name, ids, now + expires if expires else None, now_s=now, account=account, **said
        )
        record(store, settings, "key.create", key.id, key.account, name=name)
    _print_new(key, text, json_)


@command.command()
@click.argument("id")
@click.option("--models", help="Models it may use, separated by commas; `all`.")
@click.option("--expires", type=Duration(), help="When it ends, from now on: 30d, 12h.")
@click.option("--account", help="The id of the account it is part of from now on; `none`.")
@_terms
@places
@as_json
def change(
    id: str,
    models: str | None,
    expires: float | None,
    account: str | None,
    config_file: str | None,
    data: str | None,
    json_: bool,
    **terms: Any,
) -> None:
    """Give a key other limits, another budget, other models; `none` takes one away.

    What is spent stays spent. Its rotations have the same limits, budget and account.
    """
    settings = settings_of(config_file, data=data)
    changes: Changes = {**_said(**terms)}  # type: ignore[typeddict-item]  # Changes has all of Terms
    now = time.time()
    if models is not None:
        changes["models"] = () if models == "all" else _models(models, settings)
    if expires is not None:
        changes["expires_s"] = now + expires
    if account is not None:
        changes["account"] = "" if account == "none" else account
    if not changes:
        raise click.UsageError("say what to change; see: headgate keys change --help")
    with store_of(settings) as store:
        key = store.change_key(id, now_s=now, **changes)
        if key is None:
            raise click.ClickException(f"no open key has the id `{id}`; see: headgate keys list")
        record(store, settings, "key.change", id, key.account, **changes)
    if json_:
        print_json(_plain(key))
    else:
        click.echo(f"Changed {id}: {', '.join(_takes(key)) or 'no limits'}.")


@command.command("list")
@places
@as_json
def list_(config_file: str | None, data: str | None, json_: bool) -> None:
    """List the keys, without their secrets."""
    with store_of(settings_of(config_file, data=data)) as store:
        keys, accounts = store.keys(), {a.id: a for a in store.accounts()}
    if json_:
        print_json([_plain(k, accounts.get(k.account)) for k in keys])
        return
    if not keys:
        click.echo("No keys yet: headgate keys create NAME", err=True)
    rows = [
        (
            k.id,
            k.name,
            k.account,
            _state(k, accounts.get(k.account)),
            when(k.created_s),
            when(k.expires_s),
            ", ".join(k.models) or "all",
            ", ".join(_takes(k)),
        )
        for k in keys
    ]
    titles = ("id", "name", "account", "state", "created (UTC)", "expires", "models", "limits")
    print_table(titles, rows)


@command.command()
@click.argument("id")
@places
@as_json
def revoke(id: str, config_file: str | None, data: str | None, json_: bool) -> None:
    """Close a key for good."""
    settings = settings_of(config_file, data=data)
    with store_of(settings) as store:
        if not store.revoke(id, now_s=time.time()):
            raise click.ClickException(f"no open key has the id `{id}`; see: headgate keys list")
        keys = store.keys()
        key = next(k for k in keys if k.id == id)
        record(store, settings, "key.revoke", id, key.account, name=key.name)
    if json_:
        print_json({"id": id, "revoked": True})
    else:
        click.echo(f"Revoked {id}.")


@command.command()
@click.argument("id")
@click.option(
    "--overlap", type=Duration(), default=0.0, help="How long the old one still works: 1h."
)
@places
@as_json
def rotate(id: str, overlap: float, config_file: str | None, data: str | None, json_: bool) -> None:
    """Replace a key by a new one with the same rights, and print that."""
    settings = settings_of(config_file, data=data)
    with store_of(settings) as store:
        made = store.rotate(id, now_s=time.time(), overlap_s=overlap)
        if made is None:
            raise click.ClickException(f"no open key has the id `{id}`; see: headgate keys list")
        new = made[0]
        record(
            store,
            settings,
            "key.rotate",
            id,
            new.account,
            name=new.name,
            new=new.id,
            overlap_s=int(overlap),
        )
    _print_new(*made, json_)


def _print_new(key: Key, text: str, json_: bool) -> None:
    if json_:
        print_json({**_plain(key), "key": text})
        return
    click.echo(text)
    click.echo(f"Key {key.id} ({key.name}). It is shown only now: keep it.", err=True)


def _plain(key: Key, account: Account | None = None) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(key)
    budget = None if key.budget_nano is None else usd(key.budget_nano)
    return {**fields, "budget_usd": budget, "state": _state(key, account)}


def budget_of(owner: Key | Account) -> str:
    """A budget for a person; "" when there is none."""
    if owner.budget_nano is None:
        return ""
    per = "" if owner.budget_period == "total" else f" a {owner.budget_period}"
    return f"{usd(owner.budget_nano)} USD{per}" + (f" ({owner.budget_zone})" if per else "")


def _takes(key: Key) -> list[str]:
    """What a key may take, for a person."""
    out = [] if key.budget_nano is None else [budget_of(key)]
    for most, what in ((key.rpm, "rpm"), (key.tpm, "tpm"), (key.concurrency, "at a time")):
        if most is not None:
            out.append(f"{most} {what}")
    if key.mask:
        out.append(f"masks {key.mask}")
    if key.routing:
        out.append(f"routing {key.routing}")
    if key.effort:
        out.append(f"effort {key.effort}")
    if key.allowed_cidrs:
        out.append(f"from {', '.join(key.allowed_cidrs)}")
    if key.on_disconnect == "drain":
        out.append("finishes and bills on disconnect")
    return out


def _state(key: Key, account: Account | None = None) -> str:
    now = time.time()
    if key.good(now):
        if account is not None and not account.good(now):
            return "account closed"
        return "ends soon" if key.revoked_s is not None else "open"
    return "revoked" if key.revoked_s is not None and key.revoked_s <= now else "expired"
