"""Changes of the rows that all nodes share: made in PostgreSQL first, then in the copy of the data directory.

A change runs against the copy, so that its rules are the same with and without a database:

    take the lock in PostgreSQL, and bring the copy up to date
    run the change in a transaction of SQLite, note which rows it changed, and roll it back
    write these rows to PostgreSQL and commit
    apply them to the copy; if this process dies before, the node does it (node/following.py)

Note: SQLite's write lock is not held while PostgreSQL is waited for, as the ledger needs it.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import apsw

from headgate.storage.errors import StoreError, StoreFault
from headgate.storage.postgres import database
from headgate.storage.postgres import shared as remote
from headgate.storage.postgres.database import Connection
from headgate.storage.postgres.shared import SharedState
from headgate.storage.sqlite import shared
from headgate.storage.sqlite.shared import Joined, SharedRow
from headgate.storage.sqlite.transactions import transaction

T = TypeVar("T")
BUSY_MS = 5000  # as the Store waits for a lock
AGAIN_S = 1.0  # after the database could not be reached: the console has several reasons to ask


class Sharing:
    """The database through which a data directory shares rows."""

    def __init__(self, url: str) -> None:
        database.check_installed()
        self._url = url
        self._failed: tuple[float, StoreError] | None = (
            None  # when it could not be reached, and why
        )

    @contextlib.contextmanager
    def _link(self) -> Iterator["_Link"]:
        if self._failed is not None and time.monotonic() < self._failed[0] + AGAIN_S:
            raise StoreFault(str(self._failed[1]))
        try:
            link = _Link(self._url)
        except StoreError as error:
            self._failed = time.monotonic(), error
            raise
        try:
            yield link
        finally:
            link.close()

    def state(self) -> SharedState:
        with self._link() as link:
            return link.run(remote.state)

    def join(self, db: apsw.Connection, fingerprint: bytes, *, bring: bool = False) -> None:
        """Share the rows of a data directory from now on; StoreError.

        Its copy becomes what the database has.  `bring`: what the directory has is written to the
        database before, which must have none of it yet.  A new database then takes the place of the one
        that the directory knew, also for other nodes.
        """
        before = shared.joined(db)
        with self._link() as link:
            found = link.begin()
            if found.fingerprint not in (None, fingerprint):
                raise StoreError(
                    f"the keys in {database.shown(self._url)} were created with another pepper:"
                    " begin with an empty data directory that has a copy of the `pepper` of a node."
                )
            rows = link.run(lambda pg: remote.changes(pg, 0))
            if bring:
                if any(each.row is not None and each.kind != "setup" for each in rows):
                    raise StoreError(
                        f"{database.shown(self._url)} has keys, accounts or people already;"
                        " one data directory can be copied there, into a database without them."
                    )
                with transaction(db, keep=False):
                    own = shared.everything(db)
                after = max(found.version, before.version if before is not None else 0)
                rows = link.run(lambda pg: remote.push(pg, own, after))
            cluster = before.cluster if bring and before is not None else found.cluster
            link.run(lambda pg: remote.claim(pg, cluster, fingerprint))
            version = rows[-1].version if rows else found.version
            link.commit()
        with transaction(db):
            shared.replace(db, rows, Joined(cluster, version))

    def pull(self, db: apsw.Connection) -> None:
        """Bring the copy up to date; StoreError."""
        with self._link() as link:
            link.run(lambda pg: pull(pg, db))

    @contextlib.contextmanager
    def writing(self, db: apsw.Connection, here: Joined) -> Iterator[None]:
        """Let the block change shared rows, here and in the database, or nowhere; StoreError."""
        changed: list[SharedRow] = []
        with self._link() as link:
            found = link.begin()
            _check(self._url, here, found)
            rows = link.run(lambda pg: remote.changes(pg, here.version))
            with transaction(db, keep=False):
                shared.apply(db, rows)
                with shared.capture(db, changed):
                    yield
            if changed:
                rows += link.run(lambda pg: remote.push(pg, changed, found.version))
                link.commit()
        with transaction(db):
            shared.apply(db, rows)


@contextlib.contextmanager
def writing(db: apsw.Connection, sharing: Sharing | None) -> Iterator[None]:
    """A transaction that may change shared rows; StoreError.

    Nothing is changed here alone once the directory shares its rows.
    """
    here = shared.joined(db)
    if here is None:
        with transaction(db):
            yield
    elif sharing is None:
        raise StoreError(
            "the keys, accounts and people of this data directory are shared through a database;"
            " set `database` in the configuration, or HEADGATE_DATABASE."
        )
    else:
        with sharing.writing(db, here):
            yield


async def pull(pg: Connection, db: apsw.Connection) -> bool:
    """Bring the copy up to date; whether it was not.  StoreError."""
    here = shared.joined(db)
    found = await remote.state(pg)
    if here is None or (here.cluster, here.version) == (found.cluster, found.version):
        return False
    if here.cluster != found.cluster:
        raise StoreError(
            "`database` is not the one that this data directory shares its keys through."
        )
    older = found.version < here.version  # it was restored from a backup: its word counts
    rows = await remote.changes(pg, 0 if older else here.version)

    def work() -> None:
        with transaction(db):
            if older:
                shared.replace(db, rows, Joined(found.cluster, found.version))
            else:
                shared.apply(db, rows)

    await asyncio.to_thread(work)
    return True


class Copy:
    """The shared rows of a data directory, for the node that keeps them up to date."""

    def __init__(self, data: str | Path) -> None:
        self._db = apsw.Connection(f"{data}/headgate.db", flags=apsw.SQLITE_OPEN_READWRITE)
        self._db.set_busy_timeout(BUSY_MS)
        self._db.execute("pragma synchronous = full")
        self._db.execute("pragma foreign_keys = on")

    @property
    def shared(self) -> bool:
        """Whether this directory shares its rows."""
        return shared.joined(self._db) is not None

    async def pull(self, pg: Connection) -> bool:
        """Bring the copy up to date; whether it was not.  StoreError."""
        try:
            return await pull(pg, self._db)
        except apsw.Error as error:
            raise StoreFault(f"headgate.db: {error}.") from None

    def close(self) -> None:
        with contextlib.suppress(apsw.ThreadingViolationError):  # a thread writes it
            self._db.close()


def check_pepper(url: str, directory: Path) -> None:
    """StoreError when keys are in the database and this new directory has no pepper for them."""
    if Sharing(url).state().fingerprint is not None:
        raise StoreError(
            f"the keys in {database.shown(url)} need their pepper: copy `pepper` from the data directory"
            f" of a node to {directory}/pepper, or name a copy in `pepper_file`."
        )


def _check(url: str, here: Joined, found: SharedState) -> None:
    if here.cluster != found.cluster or found.version < here.version:
        raise StoreError(
            f"{database.shown(url)} is not as this data directory knows it: another database, or one"
            " restored from a backup. Nothing was changed; a node that runs follows a restored one."
        )


class _Link:
    """One connection, for code that waits for its answers: its loop has a thread of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._db: Connection = None
        try:
            self._db = self._wait(database.connect(url))
        except BaseException:
            self.close()
            raise

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Return what `work` does with the connection; StoreError."""

        async def running() -> T:
            return await work(self._db)

        with database.faults(self._url):
            return self._wait(running())

    def begin(self) -> SharedState:
        """Start the transaction in which nobody else changes anything."""

        async def work(db: Connection) -> SharedState:
            await db.execute("begin")
            await remote.lock(db)
            return await remote.state(db)

        return self.run(work)

    def commit(self) -> None:
        self.run(lambda db: db.execute("commit"))

    def close(self) -> None:
        """End the connection, and with it a transaction that is open."""

        async def end() -> None:
            if self._db is not None:
                self._db.terminate()

        self._wait(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
