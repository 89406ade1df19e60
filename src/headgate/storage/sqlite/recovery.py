"""What becomes of the intents of a process that died: each is a `recovered` row.

This is the only module that writes rows for exchanges whose own process cannot do it any more.
"""

import contextlib
from collections.abc import Iterator

import apsw

from headgate.storage.errors import StoreFault
from headgate.storage.sqlite import writer
from headgate.storage.sqlite.entries import decode_intent, encode_row
from headgate.storage.sqlite.process_lock import Lives
from headgate.storage.sqlite.writer import GROUP, Row


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise StoreFault(f"headgate.db: {error}.") from None
    except OSError as error:
        raise StoreFault(f"{error.filename}: {error.strerror}.") from None


def instances(db: apsw.Connection, lives: Lives) -> set[str]:
    """The processes that have intents or a lock's file, whether they live or not; StoreFault."""
    with _faults():
        found = db.execute("select distinct instance_id from intents")
        return {str(id) for (id,) in found} | lives.instances()


def intents(db: apsw.Connection, instance: str) -> list[str]:
    """The open intents of one process, as JSON; StoreFault."""
    with _faults():
        found = db.execute("select intent from intents where instance_id = ?", (instance,))
        return [str(intent) for (intent,) in found]


def recover(db: apsw.Connection, lives: Lives, instance: str) -> list[Row] | None:
    """Write the rows of one process, if it is dead; None: it lives.

    The answer has the rows of those exchanges that had none yet.  StoreFault.
    """
    with _faults(), lives.dead(instance) as dead:
        if not dead:
            return None
        # One that has a row was sent again to a second writer, and its row was not any more.
        found = list(
            db.execute(
                "select intent, request_id in (select request_id from ledger)"
                " from intents where instance_id = ?",
                (instance,),
            )
        )
        encoded = [encode_row(decode_intent(str(intent)).recovered()) for intent, _ in found]
        rows = [_row(each) for each in encoded]
        for at in range(0, len(rows), GROUP):
            writer.insert(db, rows[at : at + GROUP])
        return [row for row, (_, settled) in zip(rows, found, strict=True) if not settled]


def _row(encoded: bytes) -> Row:
    (row,) = writer.decode_durable(b"[" + encoded + b"]")
    assert isinstance(row, Row)
    return row
