"""Old rows of the ledger go, a few at a time, while their sums stay.

The only place that deletes them.  A row may go when the day (UTC) in which it began is over for
longer than the operator wants to keep it.  What is deleted is summed by a trigger of schema/006.sql
in the same transaction, so that the audit still proves every sum.

Note:
- the last row of all stays, however old it is: its number must not be given again;
- the file does not become smaller: the pages are used again;
- a part of an hour can be added up no more once its rows have gone (storage/sqlite/reports.py).
"""

import asyncio
import threading
import time
from pathlib import Path

import apsw

from headgate.storage.errors import StoreError
from headgate.storage.sqlite.database import BUSY_MS
from headgate.storage.sqlite.transactions import transaction

DAY_S = 86400
ROUND_S = 3600.0
RETRY_S = (60.0, 600.0, ROUND_S)  # for a disk that does not take it
# One transaction.  At some 50 us a row it holds the write lock for about 10 ms, and for one sync.
BATCH = 200
# After it: SQLite's busy handler asks again after 25 ms at most in its first ten tries
# (sqlite3.c, sqliteDefaultBusyCallback), so that a writer who waits has its turn.
REST_S = 0.05


def floor_s(days: int, now_s: float) -> int:
    """Rows that began before this midnight (UTC) are kept no longer; 0: all are kept."""
    return max(0, (int(now_s) // DAY_S - days) * DAY_S) if days else 0


def prune(
    data: str | Path, before_s: int, *, stop: threading.Event | None = None, rest_s: float = REST_S
) -> int:
    """Delete the rows that began before `before_s`, a midnight; how many there were.

    Any process may do it, also several at once, while others write.  StoreError when the disk does
    not take it; what was deleted until then is.
    """
    stop = stop or threading.Event()
    name = f"{data}/headgate.db"
    gone = 0
    try:
        db = apsw.Connection(name, flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            db.set_busy_timeout(BUSY_MS)
            db.execute("pragma synchronous = full")
            while not stop.is_set():
                batch = _batch(db, before_s)
                gone += batch
                if batch < BATCH:
                    break
                stop.wait(rest_s)
        finally:
            db.close()
    except apsw.Error as error:
        raise StoreError(f"{name}: {error}.") from None
    return gone


def _batch(db: apsw.Connection, before_s: int) -> int:
    with transaction(db):
        db.execute(
            "update retention set before_s = :before_s, gone_s = max(gone_s, :before_s)",
            {"before_s": before_s},
        )
        db.execute(
            "delete from ledger where seq in (select seq from ledger indexed by ledger_started"
            " where started_at < :before_s and seq < (select max(seq) from ledger)"
            " order by started_at limit :most)",
            {"before_s": before_s, "most": BATCH},
        )
        count = db.changes()
        db.execute("update retention set before_s = 0")
    return count


async def daily(data: str | Path, days: int) -> float:
    """Prune once, in a thread; how many seconds later to do so again.

    That is soon after the next midnight (UTC), and within an hour, as the clock may be put forward.
    StoreError when the disk does not take it: nothing is lost by rows that stay.
    """
    stop = threading.Event()
    now_s = time.time()
    try:
        await asyncio.to_thread(prune, data, floor_s(days, now_s), stop=stop)
    finally:
        stop.set()
    return min(ROUND_S, DAY_S - now_s % DAY_S + 1)
