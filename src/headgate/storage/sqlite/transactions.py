"""A transaction of SQLite that holds the write lock from its start."""

import contextlib
from collections.abc import Iterator

import apsw


@contextlib.contextmanager
def transaction(db: apsw.Connection, *, keep: bool = True) -> Iterator[None]:
    """Hold the write lock from the start to the commit; `keep` False: roll back at the end.

    Not apsw's own: that one waits for the lock without letting other threads run.
    """
    db.execute("begin immediate")
    try:
        yield
        db.execute("commit" if keep else "rollback")
    except BaseException:
        if db.in_transaction:  # a full disk has rolled it back already
            db.execute("rollback")
        raise
