"""Which ledger a command reads: that of all nodes where they share a database, or this node's own."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
import msgspec

from headgate.cli.options import store_of
from headgate.config import Settings
from headgate.storage.errors import StoreError
from headgate.storage.interface import Reports
from headgate.storage.postgres.usage_reader import of_all_nodes
from headgate.storage.sqlite.reports import UsageReader

F = TypeVar("F", bound=Callable[..., Any])


class Ledgers(msgspec.Struct, frozen=True):
    """What a command reads, and what keys are called."""

    reports: Reports
    key_names: dict[str, str]
    whole: bool  # of all nodes


def which_ledger(command: F) -> F:
    """The options that choose the ledger."""
    command = click.option(
        "--all-nodes", is_flag=True, help="Of all nodes; the default where they share a database."
    )(command)
    return click.option(
        "--this-node", is_flag=True, help="Of this node only, from its data directory."
    )(command)


@contextlib.contextmanager
def ledgers(settings: Settings, all_nodes: bool, this_node: bool) -> Iterator[Ledgers]:
    """Return what to read.

    That is the database of all nodes if this data directory shares its keys through it, or is not there;
    a directory with keys of its own reads its own ledger.
    """
    if all_nodes and this_node:
        raise click.UsageError("--all-nodes and --this-node exclude each other.")
    if all_nodes and not settings.database:
        raise click.UsageError(
            "--all-nodes needs `database` in the configuration, or HEADGATE_DATABASE."
        )
    here = os.path.exists(os.path.join(settings.data, "headgate.db"))
    if settings.database and not here and not this_node:
        with _of_all(settings, {}) as found:
            yield found
        return
    with store_of(settings) as store:
        keys = store.keys()
        names = {key.id: key.name for key in keys}
        if settings.database and not this_node and (all_nodes or store.shares):
            with _of_all(settings, names) as found:
                yield found
            return
        reader = UsageReader(store.directory)
        try:
            yield Ledgers(reader, names, False)
        finally:
            reader.close()


@contextlib.contextmanager
def _of_all(settings: Settings, names: dict[str, str]) -> Iterator[Ledgers]:
    try:
        reader = of_all_nodes(settings.database)
        try:
            yield Ledgers(reader, names, True)
        finally:
            reader.close()
    except StoreError as error:
        raise click.ClickException(f"{error}\nThis node's own: --this-node.") from None
