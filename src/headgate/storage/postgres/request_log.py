"""Single exchanges of all nodes: one, those of a session, and pages of the log."""

from collections.abc import Mapping, Sequence

import msgspec

from headgate.storage.figures import (
    ALL,
    END_OF_TIME_S,
    Only,
    Order,
    RequestFacts,
    SessionSum,
    Where,
)
from headgate.storage.postgres.ledger_sql import (
    COLUMNS,
    FACTS,
    ORDER,
    TEXTS,
    Asked,
    Reading,
    last,
    row_of,
)
from headgate.storage.rows import LedgerRow


class RequestLog(Reading):
    """Reads rows of the ledger."""

    def generation(self, id: str) -> LedgerRow | None:
        """Return the row of one exchange; None while it runs or is on its way, and when there is none."""
        found = self._queries.fetch(f"select {COLUMNS} from ledger where request_id = $1", id)
        return row_of(found[0]) if found else None

    def nodes_of(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the ids of the nodes that answered these exchanges."""
        rows = "select request_id, node_id from ledger where request_id = any($1)"
        return dict(self._queries.fetch(rows, list(ids)))

    def session(
        self, id: str, key: str | None = None, *, most: int = 10_000, after: str = ""
    ) -> list[LedgerRow]:
        """Return the exchanges of one session, oldest first; of one key only, where others must not see.

        `after`: the id of the last one of the page before.
        """
        found = self._queries.fetch(
            f"select {COLUMNS} from ledger where session = $1 and session <> ''"
            " and ($2::text is null or key_id = $2)"
            " and seq > coalesce((select seq from ledger where request_id = $4), 0)"
            " order by seq limit $3",
            *(id, key, most, after),
        )
        return [row_of(columns) for columns in found]

    def session_sum(self, id: str, key: str) -> SessionSum:
        """What the exchanges of one session and key add up to."""
        (sums,) = self._queries.fetch(
            "select count(*), count(*) - count(cost_nano_usd), coalesce(sum(input_tokens), 0)::bigint,"
            " coalesce(sum(cached_tokens), 0)::bigint, coalesce(sum(output_tokens), 0)::bigint,"
            " coalesce(sum(cost_nano_usd), 0)::bigint"
            " from ledger where session = $1 and session <> '' and key_id = $2",
            *(id, key),
        )
        return SessionSum(*sums)

    def requests(
        self,
        where: Where = ALL,
        *,
        before: int | None = None,
        since_s: float = 0.0,
        until_s: float = END_OF_TIME_S,
        most: int = 50,
        only: Sequence[Only] = (),
        text: str = "",
    ) -> list[tuple[int, LedgerRow]]:
        """Exchanges in the order in which they came here, the last one first, each with its seq."""
        asked = Asked()
        rows = last(asked, COLUMNS, where, before, since_s, until_s, most, only, text)
        return [(seq, row_of(columns)) for seq, *columns in self._all(rows, asked)]

    def request_facts(
        self,
        where: Where = ALL,
        *,
        since_s: float = 0.0,
        until_s: float = END_OF_TIME_S,
        most: int,
        only: Sequence[Only] = (),
        text: str = "",
    ) -> list[RequestFacts]:
        """Return what figures over the last `most` exchanges of `requests` are made of."""
        asked = Asked()
        rows = last(asked, FACTS, where, None, since_s, until_s, most, only, text)
        return [RequestFacts(*columns) for _, *columns in self._all(rows, asked)]

    def requests_in_order(
        self,
        order: Order,
        where: Where = ALL,
        *,
        descending: bool,
        skip: int = 0,
        since_s: float = 0.0,
        until_s: float = END_OF_TIME_S,
        most: int = 50,
        of: int,
        only: Sequence[Only] = (),
        text: str = "",
        names: Mapping[str, str] = {},
    ) -> tuple[list[tuple[int, LedgerRow]], int]:
        """A page of the last `of` exchanges of `requests` in another order, and how many these are.

        What has no value comes last, either way.  `names`: what a value is shown as, and so put in order by.
        """
        asked = Asked()
        value = f"{ORDER[order]} as value"
        source = last(asked, value, where, None, since_s, until_s, of, only, text)
        shown = "value"
        if order in TEXTS:  # as Python puts texts in order
            known = asked.put(msgspec.json.encode(names).decode())
            shown = f"coalesce({known}::jsonb ->> value, value)" + ' collate "C"'
        way = "desc" if descending else "asc"
        sorted_ = f"select seq from last order by {shown} {way} nulls last, seq desc"
        page = f"{sorted_} limit {asked.put(most)} offset {asked.put(skip)}"
        ((count, seqs),) = self._all(
            f"with last as materialized ({source}) select (select count(*) from last), array({page})",
            asked,
        )
        rows = self._queries.fetch(
            f"select seq, {COLUMNS} from ledger where seq = any($1)", list(seqs)
        )
        by_seq = {seq: row_of(columns) for seq, *columns in rows}
        return [(seq, by_seq[seq]) for seq in seqs if seq in by_seq], count

    def requests_after(
        self,
        seq: int,
        where: Where = ALL,
        *,
        since_s: float = 0.0,
        most: int = 1000,
        only: Sequence[Only] = (),
    ) -> list[tuple[int, LedgerRow]]:
        """Return the exchanges whose number is above `seq`, the oldest first."""
        asked = Asked()
        rows = self._all(
            f"select seq, {COLUMNS} from ledger where seq > {asked.put(seq)}"
            f" and started_at >= {asked.moment(since_s)}{asked.where(where)}{asked.only(only)}"
            f" order by seq limit {asked.put(most)}",
            asked,
        )
        return [(seq, row_of(columns)) for seq, *columns in rows]

    def last_seq(self) -> int:
        """Return the number of the newest row; 0 when there is none."""
        return int(self._queries.fetch("select coalesce(max(seq), 0) from ledger")[0][0])
