"""`headgate migrate`: a data directory's keys, people and ledger go into the database of all nodes."""

import asyncio
import sys
import time

import click
import msgspec

from headgate.cli.options import as_json, places, print_json, settings_of
from headgate.config import Settings
from headgate.node.shipping import Shipper
from headgate.storage.errors import StoreError
from headgate.storage.postgres import database
from headgate.storage.postgres.reports import LedgerDatabase
from headgate.storage.postgres.shared import changes
from headgate.storage.sqlite import retention
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.process_lock import ServeLock
from headgate.storage.sqlite.reports import UsageReader

BATCH = 500  # rows that are compared at a time


class Migrated(msgspec.Struct):
    """What was copied and compared."""

    shared_rows: int = 0
    requests: int = 0
    differences: list[str] = []


@click.command("migrate")
@places
@as_json
def command(config_file: str | None, data: str | None, json_: bool) -> None:
    """Copy keys, accounts, people, the audit log and the ledger of a data directory into `database`.

    Nodes share them from then on; the directory keeps a copy. The database must not have keys or people of
    another directory. Stop the gateway before. If it is interrupted, run it again: what is there is not
    copied twice. At the end every row is compared, and both sides are audited.

    Exit code 1 when anything is wrong or differs.
    """
    settings = settings_of(config_file, data=data)
    if not settings.database:
        raise click.UsageError("this needs `database` in the configuration, or HEADGATE_DATABASE.")
    try:
        Store(settings.data, create=False).close()  # there is something to copy
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    try:
        lock = ServeLock(settings.data)
        try:
            found = _migrate(settings, quiet=json_)
        finally:
            lock.release()
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    if json_:
        print_json(found)
    else:
        for line in found.differences:
            click.echo(line, err=True)
    if found.differences:
        raise click.ClickException("the copy differs; nothing was deleted here. Run it again.")
    if not json_:
        click.echo(
            f"{found.shared_rows:,} rows of keys, accounts and people are shared, {found.requests:,} requests"
            " are in the database; all of them were compared, and both ledgers add up."
        )


def _migrate(settings: Settings, *, quiet: bool) -> Migrated:
    store = Store(settings.data, database=settings.database)
    try:
        if not store.follows():
            store.bring()
        store.pull()
        found = Migrated(shared_rows=len(store.shared_rows()))
        asyncio.run(_ledger(settings, store, found, quiet))
        return found
    finally:
        store.close()


async def _ledger(settings: Settings, store: Store, found: Migrated, quiet: bool) -> None:
    def note(text: str) -> None:
        if not quiet:
            print(f"note: {text}", file=sys.stderr)

    shipper = Shipper(settings.data, settings.database, note)
    reader = UsageReader(settings.data)
    try:
        await shipper.work()
        db = await database.connect(settings.database)
        try:
            with database.faults(settings.database):
                here = {(e.kind, e.id): e.row for e in store.shared_rows()}
                there = {(e.kind, e.id): e.row for e in await changes(db, 0) if e.row is not None}
                for kind, id in sorted(here.keys() | there.keys()):
                    if here.get((kind, id)) != there.get((kind, id)):
                        found.differences.append(f"{kind} {id[:16]} differs")
                await _compare(LedgerDatabase(db), reader, settings, found)
                found.differences += [
                    f"{d.where}: rows {d.rows}, stored {d.stored}"
                    for d in [*reader.audit(), *await LedgerDatabase(db).audit()]
                ]
        finally:
            db.terminate()
    finally:
        reader.close()
        await shipper.close()
        shipper.end()


async def _compare(
    there: LedgerDatabase, reader: UsageReader, settings: Settings, found: Migrated
) -> None:
    """Compare each row of the ledger here with the one there."""
    days, seq = settings.retention.requests_days, 0
    # What is too old may have been deleted there, and will be here.
    since_s = retention.floor_s(days, time.time()) if days else 0.0
    while rows := reader.requests_after(seq, since_s=since_s, most=BATCH):
        seq = rows[-1][0]
        copies = await there.rows([row.request_id for _, row in rows])
        for _, row in rows:
            if copies.get(row.request_id) != row:
                found.differences.append(f"request {row.request_id} differs or is missing")
        found.requests += len(rows)
