"""How the log is looked at: which of its columns, in which order, and the links that keep both.

The table of columns is the only place that names them; the template has what each cell looks like.
Note: in the ledger's own order the log has no end; in any other it is the order of the last MOST_SORTED
requests that the filters leave.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from headgate.storage.rows import LedgerRow
from headgate.web.context import Problem
from headgate.web.time_range import ReportQuery

MOST_SORTED = 5000  # rows: they are read and put in order for each page, which takes some 60 ms


class LogColumn(msgspec.Struct, frozen=True):
    name: str
    title: str
    order: Callable[[LedgerRow], float | str | None] | None = None  # None: it cannot be sorted by
    number: bool = False
    usual: bool = True  # shown where nobody chose


COLUMNS = (
    LogColumn("ended", "Ended", lambda r: r.ended_at),
    LogColumn("started", "Began", lambda r: r.started_at, usual=False),
    LogColumn("key", "Key", lambda r: r.key_id),
    LogColumn("account", "Account", lambda r: r.account, usual=False),
    LogColumn("session", "Session", lambda r: r.session, usual=False),
    LogColumn("user", "User", lambda r: r.user, usual=False),
    LogColumn("tags", "Tags", usual=False),
    LogColumn("model", "Model", lambda r: r.model),
    LogColumn("upstream", "Upstream", lambda r: r.upstream),
    LogColumn("dialect", "Protocol", lambda r: r.dialect),
    LogColumn("outcome", "Outcome", lambda r: r.outcome),
    LogColumn("status", "Status", lambda r: r.status, number=True, usual=False),
    LogColumn("input", "Input", lambda r: r.input_tokens, number=True),
    LogColumn("cached", "Cached", lambda r: r.cached_tokens, number=True),
    LogColumn("output", "Output", lambda r: r.output_tokens, number=True),
    LogColumn("reasoning", "Thinking", lambda r: r.reasoning_tokens, number=True, usual=False),
    LogColumn("cost", "Cost", lambda r: r.cost_nano_usd, number=True),
    LogColumn("basis", "Basis", lambda r: r.basis),
    LogColumn("ttft", "First token", lambda r: r.ttft_ms, number=True),
    LogColumn("total", "Total", lambda r: r.total_ms, number=True),
    LogColumn("attempts", "Attempts", lambda r: len(r.attempts), number=True, usual=False),
)
_BY_NAME = {c.name: c for c in COLUMNS}
USUAL = tuple(c.name for c in COLUMNS if c.usual)


class LogView(msgspec.Struct, frozen=True):
    asked: ReportQuery
    columns: tuple[LogColumn, ...]
    sort: str = ""  # "": as they ended, the last one first; "-": before the name: the largest first

    @property
    def kept(self) -> dict[str, str]:
        """The part of the query that is not a filter."""
        names = tuple(c.name for c in self.columns)
        return {"columns": "" if names == USUAL else ",".join(names), "sort": self.sort}

    def link(self, changes: Mapping[str, str] = {}, *, fixed: bool = False) -> str:
        return self.asked.link("/requests", {**self.kept, **changes}, fixed=fixed)

    def sorted_by(self, column: LogColumn) -> str:
        """The link of a column's title: the largest first, then the smallest, then the log's order."""
        after = {f"-{column.name}": column.name, column.name: ""}
        return self.link({"sort": after.get(self.sort, f"-{column.name}")})

    def direction(self, column: LogColumn) -> str:
        """The title's `aria-sort`; "" where it is not sorted by this column."""
        if not self.sort:
            return "descending" if column.name == "ended" else ""
        return {f"-{column.name}": "descending", column.name: "ascending"}.get(self.sort, "")

    def ordered(self, rows: Sequence[tuple[int, LedgerRow]]) -> list[tuple[int, LedgerRow]]:
        """The rows in this order; what has no value comes last, either way."""
        order = _BY_NAME[self.sort.lstrip("-")].order
        assert order is not None, "read() takes no other"
        some = [(value, pair) for pair in rows if (value := order(pair[1])) is not None]
        none = [pair for pair in rows if order(pair[1]) is None]
        some.sort(key=lambda one: one[0], reverse=self.sort.startswith("-"))
        return [pair for _, pair in some] + none


def read(query: Mapping[str, str], chosen: Sequence[str], asked: ReportQuery) -> LogView:
    """What a query says of columns and order; `chosen`: the ticked boxes of the form."""
    names = [n for n in query.get("columns", "").split(",") if n] or list(chosen)
    columns = tuple(c for c in COLUMNS if c.name in names)
    sort = query.get("sort", "")
    column = _BY_NAME.get(sort.removeprefix("-"))
    if sort and (column is None or column.order is None):
        raise Problem(400, "The log is not sorted by that.", "sort")
    return LogView(asked, columns or tuple(_BY_NAME[n] for n in USUAL), sort)


def page_of(query: Mapping[str, str]) -> int:
    """The number of a page of the sorted log, from 0."""
    text = query.get("page", "") or "0"
    if not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise Problem(400, "`page` is the number of a page.", "page")
    return int(text)
