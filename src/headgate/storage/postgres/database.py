"""This module has the connection to PostgreSQL: its errors in one sentence, its schema, and its migrations.

Everything is in the schema `headgate` of the database, so that it may be shared with other programs.
Migrations are numbered files in schema/; a schema that is newer than this code is refused.

Note: asyncpg is in the extra `postgres`, and is imported when the first connection is made.
"""

import contextlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from headgate.storage.errors import StoreError, StoreFault

Connection = Any  # asyncpg's, which has no types
TIMEOUT_S = 10.0  # for a connection and for a statement
_STEP_S = 3600.0  # for one migration: a large ledger gets new sums and indices
_MIGRATING = 0x68656164  # the advisory lock: one process migrates at a time


def shown(url: str) -> str:
    """Return the address without its user and password."""
    parts = urlsplit(url)
    where = parts.hostname or "localhost"
    port = f":{parts.port}" if parts.port else ""
    return f"postgresql://{where}{port}{parts.path}"


@contextlib.contextmanager
def faults(url: str) -> Iterator[None]:
    """Raise StoreFault for whatever is wrong with the database or the way to it."""
    import asyncpg

    try:
        yield
    except StoreError:
        raise
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StoreFault(f"{shown(url)}: {str(error).splitlines()[0]}") from None
    except (OSError, TimeoutError, ValueError) as error:
        why = str(error) or type(error).__name__
        raise StoreFault(f"{shown(url)}: {why}") from None


def check_installed() -> None:
    """StoreError when the driver is not installed."""
    if find_spec("asyncpg") is None:
        raise StoreError("`database` needs the extra `postgres`: pip install 'headgate[postgres]'.")


async def connect(url: str, *, create: bool = True) -> Connection:
    """Open a connection to a database that is up to date; StoreError.

    `create` False: nothing is created or migrated, so that who only reads changes nothing.
    """
    check_installed()
    import asyncpg

    with faults(url):
        db = await asyncpg.connect(
            url,
            timeout=TIMEOUT_S,
            command_timeout=TIMEOUT_S,
            **options(),
        )
        try:
            if create:
                await _migrate(db)
            else:
                await check(db, url)
        except BaseException:
            db.terminate()
            raise
        return db


def options() -> dict[str, Any]:
    """Return what every connection is opened with; Any: asyncpg's arguments."""
    return {"server_settings": {"search_path": "headgate", "application_name": "headgate"}}


async def check(db: Connection, url: str) -> None:
    """StoreError when the schema is not the one that this code knows."""
    newest, found = steps()[-1][0], await _version(db)
    if not found:
        raise StoreError(
            f"{shown(url)}: no node has sent anything yet; start one with `headgate serve`."
        )
    if found != newest:
        raise StoreError(
            f"{shown(url)}: its schema is {found}, this Headgate knows {newest}; upgrade"
            f" {'this command' if found > newest else 'a node, which brings it up to date'}."
        )


def steps() -> list[tuple[int, str]]:
    """Return the migrations, oldest first: number and script."""
    return sorted(
        (int(f.name.removesuffix(".sql")), f.read_text("utf-8"))
        for f in files("headgate.storage.postgres").joinpath("schema").iterdir()
        if f.name.endswith(".sql")
    )


async def _migrate(db: Connection) -> None:
    newest = steps()[-1][0]
    if await _version(db) == newest:
        return
    # Before the transaction, which then sees the tables that another process has made meanwhile.
    await db.execute("select pg_advisory_lock($1)", _MIGRATING, timeout=_STEP_S)
    try:
        async with db.transaction():
            await _upgrade(db, newest)
    finally:
        await db.execute("select pg_advisory_unlock($1)", _MIGRATING)


async def _upgrade(db: Connection, newest: int) -> None:
    found = await _version(db)
    if found > newest:
        raise StoreError(
            f"the database was written by a newer Headgate (schema {found}, this one knows"
            f" {newest}); upgrade this node."
        )
    if not found:
        await db.execute("create schema if not exists headgate")
        await db.execute(
            "create table if not exists migrations"
            " (version integer primary key, applied_at timestamptz not null default now())"
        )
    for number, script in steps():
        if number > found:
            await db.execute(script, timeout=_STEP_S)
            await db.execute("insert into migrations (version) values ($1)", number)


async def _version(db: Connection) -> int:
    if await db.fetchval("select to_regclass('headgate.migrations')") is None:
        return 0
    return int(await db.fetchval("select coalesce(max(version), 0) from migrations"))
