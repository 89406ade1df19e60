"""`headgate accounts`: teams, whose keys share a budget and whose figures are added up."""

import time
from collections import Counter
from typing import Any

import click
import msgspec

from headgate.admin import accounts as operations
from headgate.cli.group import CommandGroup
from headgate.cli.keys import budget_of, given, needs_a_budget, term_options
from headgate.cli.options import (
    as_json,
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
from headgate.policy.keys import Account, AccountChanges
from headgate.policy.pricing import usd
from headgate.policy.terms import ACCOUNT_TERMS


@click.group(cls=CommandGroup)
def command() -> None:
    """Make, list, change and close accounts: teams of several keys.

    A request is paid from the budget of its key and from that of its account. Changes take effect
    in a running gateway within a second.
    """


@command.command()
@click.argument("id")
@click.option("--name", help="For people; its id without it.")
@term_options(ACCOUNT_TERMS)
@places
@as_json
def create(
    id: str, name: str | None, config_file: str | None, data: str | None, json_: bool, **terms: Any
) -> None:
    """Make an account; its id is a-z, 0-9 and `-`, and stays."""
    budget = given(terms)
    needs_a_budget(budget)
    settings = settings_of(config_file, data=data)
    with operator_of(settings, create=True) as operator:
        account = operations.create(
            operator,
            id,
            name or id,
            terms=budget,  # type: ignore[arg-type]  # of the fields of BudgetTerms
            now_s=time.time(),
        )
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
@term_options(ACCOUNT_TERMS)
@places
@as_json
def change(
    id: str, name: str | None, config_file: str | None, data: str | None, json_: bool, **terms: Any
) -> None:
    """Give an account another name or budget; `none` takes it away. What is spent stays spent."""
    changes: AccountChanges = given(terms)  # type: ignore[assignment]  # of BudgetTerms
    if name is not None:
        changes["name"] = name
    if not changes:
        raise click.UsageError("say what to change; see: headgate accounts change --help")
    settings = settings_of(config_file, data=data)
    with operator_of(settings) as operator, open_one("account", id):
        account = operations.change(operator, id, changes, now_s=time.time())
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
    with operator_of(settings) as operator, open_one("account", id):
        if not operations.close(operator, id, now_s=time.time()):
            raise none_open("account", id)
    if json_:
        print_json({"id": id, "closed": True})
    else:
        click.echo(f"Closed {id}.")


def _plain(account: Account) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(account)
    budget = None if account.budget_nano is None else usd(account.budget_nano)
    return {**fields, "budget_usd": budget, "state": _state(account)}


def _state(account: Account) -> str:
    return "open" if account.good(time.time()) else "closed"
