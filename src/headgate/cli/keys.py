"""`headgate keys`: who may use the gateway. The only commands that ever show a secret, once."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click
import msgspec

from headgate.admin import keys as operations
from headgate.cli import key_usage
from headgate.cli.group import CommandGroup
from headgate.cli.options import (
    Duration,
    as_json,
    catalog_of,
    none_open,
    open_one,
    operator_of,
    places,
    print_json,
    print_table,
    settings_of,
    store_of,
    when,
)
from headgate.config import Settings
from headgate.policy.keys import KEY_STATES, Account, Changes, Key, KeyState
from headgate.policy.pricing import usd
from headgate.policy.terms import TERMS, TermFault, option_of, read, summaries

F = TypeVar("F", bound=Callable[..., Any])


class Given(msgspec.Struct, frozen=True):
    """The value of an option that was given; None is a value, and takes a term away."""

    value: object


def _renamed(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value is not None:
        raise click.UsageError("--on-hang-up is called --on-disconnect now.")


def term_options(names: Iterable[str]) -> Callable[[F], F]:
    """Return what adds the options of these terms to a command."""

    def added(command: F) -> F:
        for name in reversed([*names]):
            term = TERMS[name]
            words = tuple(c or term.unset for c in term.choices)
            command = click.option(
                option_of(name),
                name,
                type=click.Choice(words) if words else str,
                metavar=None if words else term.kind.upper(),
                callback=_read,
                help=term.help
                + (f" `{term.unset}`: {term.empty}." if term.empty and term.unset else ""),
            )(command)
        return command

    return added


def _read(ctx: click.Context, param: click.Parameter, text: str | None) -> Given | None:
    if text is None:
        return None
    name = str(param.name)
    unset = TERMS[name].unset
    if not text and unset:  # an empty list of networks would allow every address
        raise click.BadParameter(f"it is empty; write a value, or `{unset}`.")
    try:
        return Given(read(name, text))
    except TermFault as fault:
        raise click.BadParameter(str(fault)) from None


def given(options: Mapping[str, Given | None]) -> dict[str, Any]:
    """Return the terms whose options were given.  Any: the values that policy/terms.py reads."""
    return {name: option.value for name, option in options.items() if option is not None}


def needs_a_budget(terms: Mapping[str, object]) -> None:
    """UsageError for the terms of a budget that there is not."""
    if terms.get("budget_nano") is None and ("budget_period" in terms or "budget_zone" in terms):
        raise click.UsageError("--budget-period and --budget-zone need --budget-usd.")


def _terms(command: F) -> F:
    """Add the options for what a key may take."""
    command = click.option(
        "--on-hang-up", expose_value=False, hidden=True, callback=_renamed, is_eager=True
    )(command)
    return term_options(TERMS)(command)


def _models(models: str, settings: Settings) -> tuple[str, ...]:
    """The catalog's ids of the models that were named."""
    catalog = catalog_of(settings)
    ids: list[str] = []
    for name in models.split(","):
        model = catalog.find(name)
        if model is None:
            raise click.BadParameter(
                f"no model `{name}`. {catalog.hint(name)}", param_hint="--models"
            )
        ids.append(model.id)
    return tuple(dict.fromkeys(ids))


@click.group(cls=CommandGroup)
def command() -> None:
    """Make, list, change, revoke and rotate API keys, and see what they use.

    They take effect in a running gateway within a second.
    """


command.add_command(key_usage.command)


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
    changed = given(terms)
    needs_a_budget(changed)
    # Also when the option is empty: an empty list would mean all
    ids = _models(models, settings) if models is not None else ()
    now = time.time()
    with operator_of(settings, create=True) as operator:
        key, text = operations.create(
            operator,
            name,
            ids,
            now + expires if expires else None,
            account=account,
            terms=changed,  # type: ignore[arg-type]  # of the fields of Terms
            now_s=now,
        )
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
    changes: Changes = given(terms)  # type: ignore[assignment]  # of the fields of Terms
    now = time.time()
    if models is not None:
        changes["models"] = () if models == "all" else _models(models, settings)
    if expires is not None:
        changes["expires_s"] = now + expires
    if account is not None:
        changes["account"] = "" if account == "none" else account
    if not changes:
        raise click.UsageError("say what to change; see: headgate keys change --help")
    with operator_of(settings) as operator, open_one("key", id):
        key = operations.change(operator, id, changes, now_s=now)
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
            KEY_STATES[_state(k, accounts.get(k.account))],
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
    with operator_of(settings) as operator, open_one("key", id):
        if not operations.revoke(operator, id, now_s=time.time()):
            raise none_open("key", id)
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
    with operator_of(settings) as operator, open_one("key", id):
        key, text, _ = operations.rotate(operator, id, overlap_s=overlap, now_s=time.time())
    _print_new(key, text, json_)


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
    """Return a budget for a person; "" when there is none."""
    if owner.budget_nano is None:
        return ""
    per = "" if owner.budget_period == "total" else f" a {owner.budget_period}"
    return f"{usd(owner.budget_nano)} USD{per}" + (f" ({owner.budget_zone})" if per else "")


def _takes(key: Key) -> list[str]:
    """Return what a key may take, for a person."""
    out = [] if key.budget_nano is None else [budget_of(key)]
    return out + [words.format(value=value) for words, value in summaries(key)]


def _state(key: Key, account: Account | None = None) -> KeyState:
    return key.state(account, time.time())
