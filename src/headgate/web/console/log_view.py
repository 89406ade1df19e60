"""How the log is looked at: which of its columns, in which order, and the links that keep both.

The table of columns is the only place that names them; the template has what each cell looks like.
Note: in the ledger's own order the log has no end; in any other it is the order of the last MOST_SORTED
requests that the filters leave.
"""

from collections.abc import Mapping, Sequence

import msgspec

from headgate.storage.figures import Order
from headgate.web.context import Problem
from headgate.web.time_range import ReportQuery

MOST_SORTED = 100_000  # rows: as many as a file has, too; they are read for each page


class LogColumn(msgspec.Struct, frozen=True):
    name: str
    title: str
    order: Order | None = None  # None: it cannot be sorted by
    number: bool = False
    usual: bool = True  # shown where nobody chose


COLUMNS = (
    LogColumn("ended", "Ended", "ended"),
    LogColumn("started", "Began", "started", usual=False),
    LogColumn("key", "Key", "key"),
    LogColumn("account", "Account", "account", usual=False),
    LogColumn("session", "Session", "session", usual=False),
    LogColumn("user", "User", "user", usual=False),
    LogColumn("tags", "Tags", usual=False),
    LogColumn("node", "Node"),
    LogColumn("model", "Model", "model"),
    LogColumn("upstream", "Upstream", "upstream"),
    LogColumn("dialect", "Protocol", "dialect"),
    LogColumn("outcome", "Outcome", "outcome"),
    LogColumn("status", "Status", "status", number=True, usual=False),
    LogColumn("input", "Input", "input", number=True),
    LogColumn("cached", "Cached", "cached", number=True),
    LogColumn("output", "Output", "output", number=True),
    LogColumn("reasoning", "Thinking", "reasoning", number=True, usual=False),
    LogColumn("cost", "Cost", "cost", number=True),
    LogColumn("basis", "Basis", "basis"),
    LogColumn("ttft", "First token", "ttft", number=True),
    LogColumn("total", "Total", "total", number=True),
    LogColumn("attempts", "Attempts", "attempts", number=True, usual=False),
)
_BY_NAME = {c.name: c for c in COLUMNS}


def columns(nodes: bool) -> tuple[LogColumn, ...]:
    """Return the columns that there are; `nodes`: whether the log is that of several nodes."""
    return tuple(c for c in COLUMNS if nodes or c.name != "node")


class LogView(msgspec.Struct, frozen=True):
    asked: ReportQuery
    columns: tuple[LogColumn, ...]
    nodes: bool = False  # it is the log of several nodes
    sort: str = ""  # "": as they ended, the last one first; "-": before the name: the largest first

    @property
    def kept(self) -> dict[str, str]:
        """The part of the query that is not a filter."""
        names = tuple(c.name for c in self.columns)
        usual = tuple(c.name for c in columns(self.nodes) if c.usual)
        return {"columns": "" if names == usual else ",".join(names), "sort": self.sort}

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

    @property
    def order(self) -> tuple[Order, bool]:
        """By what a sorted log is sorted, and whether the largest comes first."""
        order = _BY_NAME[self.sort.lstrip("-")].order
        assert order is not None, "read() takes no other"
        return order, self.sort.startswith("-")


def read(
    query: Mapping[str, str], chosen: Sequence[str], asked: ReportQuery, *, nodes: bool = False
) -> LogView:
    """What a query says of columns and order; `chosen`: the ticked boxes of the form."""
    names = [n for n in query.get("columns", "").split(",") if n] or list(chosen)
    known = columns(nodes)
    shown = tuple(c for c in known if c.name in names)
    sort = query.get("sort", "")
    column = _BY_NAME.get(sort.removeprefix("-"))
    if sort and (column is None or column.order is None):
        raise Problem(400, "The log is not sorted by that.", "sort")
    return LogView(asked, shown or tuple(c for c in known if c.usual), nodes, sort)


def page_of(query: Mapping[str, str]) -> int:
    """The number of a page of the sorted log, from 0."""
    text = query.get("page", "") or "0"
    if not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise Problem(400, "`page` is the number of a page.", "page")
    return int(text)
