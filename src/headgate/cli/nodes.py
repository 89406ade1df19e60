"""`headgate nodes`: the nodes whose ledgers are in the database."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from headgate.cli.group import CommandGroup
from headgate.cli.options import as_json, places, print_json, print_table, settings_of, when
from headgate.config import Settings
from headgate.policy.pricing import usd
from headgate.storage.errors import StoreError
from headgate.storage.postgres import database
from headgate.storage.postgres.nodes import CLOCK_S, SILENT_S
from headgate.storage.postgres.reports import LedgerDatabase

T = TypeVar("T")


def read_database(settings: Settings, work: Callable[[LedgerDatabase], Awaitable[T]]) -> T:
    """Return what `work` finds in the database of all nodes; ClickException when it cannot be read."""
    if not settings.database:
        raise click.UsageError("this needs `database` in the configuration, or HEADGATE_DATABASE.")

    async def run() -> T:
        db = await database.connect(settings.database, create=False)
        try:
            with database.faults(settings.database):
                return await work(LedgerDatabase(db))
        finally:
            db.terminate()

    try:
        return asyncio.run(run())
    except StoreError as error:
        raise click.ClickException(str(error)) from None


@click.group(cls=CommandGroup)
def command() -> None:
    """List the nodes that share a database, or forget one."""


@command.command("list")
@places
@as_json
def list_(config_file: str | None, data: str | None, json_: bool) -> None:
    """List the nodes, when each was last heard of, and how many rows it had not sent then.

    A clock is right when it is at most 30 s off the database's.

    Leased is what it may spend of shared budgets and has not spent.
    """
    found = read_database(settings_of(config_file, data=data), lambda db: db.nodes())
    if json_:
        print_json(found)
        return
    if not found:
        click.echo("No node has sent anything yet.", err=True)
    rows = [
        (
            n.node_id,
            n.name,
            n.version,
            when(n.seen_s),
            "silent" if n.silent_s > SILENT_S else "up",
            f"{n.clock_ahead_s:+.0f} s" if abs(n.clock_ahead_s) > CLOCK_S else "right",
            f"{n.behind:,}",
            f"{n.requests:,}",
            usd(n.leased_nano),
        )
        for n in found
    ]
    print_table(
        (
            "id",
            "name",
            "version",
            "seen (UTC)",
            "state",
            "clock",
            "behind",
            "requests",
            "leased USD",
        ),
        rows,
    )


@command.command()
@click.argument("name")
@places
@as_json
def forget(name: str, config_file: str | None, data: str | None, json_: bool) -> None:
    """Take a node off the list, by its name or id. What it has sent stays and is counted.

    What it had leased of budgets and has not spent, as far as its rows are there, is free for the others.
    It is refused while the node may still spend that: until it has been silent for 70 s.
    """
    gone = read_database(settings_of(config_file, data=data), lambda db: db.forget(name))
    if not gone:
        raise click.ClickException(f"no node is called `{name[:64]}`; see: headgate nodes list")
    if json_:
        print_json({"forgotten": gone})
    else:
        click.echo(f"Forgotten: {', '.join(gone)}.")
