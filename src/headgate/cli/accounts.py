"""`headgate accounts`: teams, whose keys share a budget and whose figures are added up."""

import time
from collections import Counter
from typing import Any

import click
import msgspec

from headgate.cli.keys import budget_of, budget_said, budget_terms, needs_a_budget
from headgate.cli.options import (
    as_json,
    places,
    print_json,
    print_table,
    record,
    settings_of,
    store_of,
    when,
)
from headgate.policy.keys import Account
from headgate.policy.pricing import usd
from headgate.policy.terms import AccountChanges


@click.group()
def command() -> None:
    """Make, list, change and close accounts: teams of several keys.

    A request is paid from the budget of its key and from that of its account. Changes take effect
    in a running gateway within a second.
    """


@command.command()
@click.argument("id")
@click.option("--name", help="For people; its id without it.")
@budget_terms
@places
@as_json
def create(
    id: str, name: str | None, config_file: str | None, data: str | None, json_: bool, **terms: Any
) -> None:
    """Make an account; its id is a-z, 0-9 and `-`, and stays."""
    said = budget_said(**terms)
    needs_a_budget(said)
    settings = settings_of(config_file, data=data)
    with store_of(settings, create=True) as store:
        account = store.create_account(id, name or id, now_s=time.time(), **said)
        record(store, settings, "account.create", id, id, name=account.name)
    if json_:
        print_json(_plain(account))
    else:
        click.echo(f"Made {id}. Give it keys: headgate keys create NAME --account {id}")


@command.command("list")
@places
@as_json
def list_(config_file: str | None, data: str | None, json_: bool) -> None:
    """List the accounts."""
    with store_of(settings_of(config_file, data=data)) as store:
        accounts, keys = store.accounts(), store.keys()
    now = time.time()
    open_keys = Counter(k.account for k in keys if k.good(now))
    if json_:
        print_json([_plain(a) | {"keys": open_keys[a.id]} for a in accounts])
        return
    if not accounts:
        click.echo("No accounts yet: headgate accounts create ID", err=True)
    rows = [
        (a.id, a.name, _state(a), when(a.created_s), str(open_keys[a.id]), budget_of(a))
        for a in accounts
    ]
    print_table(("id", "name", "state", "created (UTC)", "open keys", "budget"), rows)


@command.command()
@click.argument("id")
@click.option("--name", help="For people.")
@budget_terms
@places
@as_json
def change(
    id: str, name: str | None, config_file: str | None, data: str | None, json_: bool, **terms: Any
) -> None:
    """Give an account another name or budget; `none` takes it away. What is spent stays spent."""
    changes: AccountChanges = {**budget_said(**terms)}  # type: ignore[typeddict-item]  # has them all
    if name is not None:
        changes["name"] = name
    if not changes:
        raise click.UsageError("say what to change; see: headgate accounts change --help")
    settings = settings_of(config_file, data=data)
    with store_of(settings) as store:
        account = store.change_account(id, now_s=time.time(), **changes)
        if account is None:
            raise _none(id)
        record(store, settings, "account.change", id, id, **changes)
    if json_:
        print_json(_plain(account))
    else:
        click.echo(f"Changed {id}: {account.name}, {budget_of(account) or 'no budget'}.")


@command.command()
@click.argument("id")
@places
@as_json
def close(id: str, config_file: str | None, data: str | None, json_: bool) -> None:
    """Close an account for good: its keys open nothing any more."""
    settings = settings_of(config_file, data=data)
    with store_of(settings) as store:
        if not store.close_account(id, now_s=time.time()):
            raise _none(id)
        record(store, settings, "account.close", id, id)
    if json_:
        print_json({"id": id, "closed": True})
    else:
        click.echo(f"Closed {id}.")


def _none(id: str) -> click.ClickException:
    return click.ClickException(f"no open account has the id `{id}`; see: headgate accounts list")


def _plain(account: Account) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(account)
    budget = None if account.budget_nano is None else usd(account.budget_nano)
    return {**fields, "budget_usd": budget, "state": _state(account)}


def _state(account: Account) -> str:
    return "open" if account.good(time.time()) else "closed"
