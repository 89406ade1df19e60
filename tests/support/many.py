"""This module makes a data directory of thousands of keys with budgets and a million rows, written in bulk.

The ledger's trigger would take a minute per million rows; the sums are made at the end instead, by the
statements of schema/006.sql, and `audit` finds nothing wrong with them.
"""

import contextlib
import time
from pathlib import Path

import apsw

from headgate.storage.sqlite import reports
from headgate.storage.sqlite.database import Store

DAY_S = 86400


def fill(
    data: Path, *, keys: int, rows: int, budget: str = "month", now_s: float | None = None
) -> list[str]:
    """Create the keys and the rows, spread over 60 days; the secrets of the first ten keys."""
    now_s = time.time() if now_s is None else now_s
    store = Store(data)
    texts = []
    for n in range(10):
        _, text = store.create_key(
            f"first{n}", now_s=now_s - 90 * DAY_S, budget_nano=10**12, budget_period="month"
        )
        texts.append(text)
    store.close()
    with contextlib.closing(apsw.Connection(str(data / "headgate.db"))) as db:
        db.execute("pragma synchronous = off")
        db.execute("begin immediate")
        db.execute(
            "with recursive n(i) as (select 10 union all select i + 1 from n where i < ?1 - 1)"
            " insert into keys (id, name, mac, created_s, budget_nano, budget_period)"
            " select printf('k%07d', i), 'key ' || i, randomblob(32), ?2, 1000000000000, ?3 from n",
            (keys, now_s - 90 * DAY_S, budget),
        )
        (trigger,) = db.execute(
            "select sql from sqlite_schema where name = 'ledger_sums'"
        ).fetchone()
        db.execute("drop trigger ledger_sums")
        ids = [str(id) for (id,) in db.execute("select id from keys order by id")]
        db.execute("create temp table some (n integer primary key, id text)")
        db.executemany("insert into some values (?, ?)", list(enumerate(ids)))
        db.execute(
            "with recursive n(i) as (select 0 union all select i + 1 from n where i < ?1 - 1)"
            " insert into ledger select null, printf('%024x', i), some.id, '', printf('s%d', i / 50), '', '[]',"
            " 'openai', 'MiniMax-M2', 'custom', 'MiniMax-M2', 0, 'stop', 'upstream', 200,"
            " ?2 + i * ?3, ?2 + i * ?3 + 0.2, 100, 1000, 0, 0, 100, 0, 1000, 'v', '', '[]', '[]'"
            " from n join some on some.n = (i * 7919) % ?4",
            (rows, now_s - 60 * DAY_S, 60 * DAY_S / rows, len(ids)),
        )
        for table, (_, by, sums) in reports.TABLES.items():
            rows_ = ", ".join(f"{reports.ADDS.get(c, c)} as {c}" for c in by + sums)
            added = ", ".join(f"{reports.OVER.get(c, 'sum')}({c})" for c in sums)
            db.execute(
                f"insert into {table} select {', '.join(by)}, {added} from (select {rows_} from ledger)"
                f" group by {', '.join(by)}"
            )
        db.execute(trigger)
        db.execute("commit")
    return texts
