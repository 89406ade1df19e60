"""Tables as files: CSV (RFC 4180) that a spreadsheet opens without running anything.

The only place that writes a cell.  A text that begins with what a spreadsheet takes for a formula
gets an apostrophe before it (owasp.org/www-community/attacks/CSV_Injection, read 2026-11-25); names
of keys and sessions are strangers' texts.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping

from starlette.responses import Response, StreamingResponse

Cell = str | int | float | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def safe(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return f"'{cell}" if cell.startswith(_FORMULA) else cell
    return str(cell)


def lines(rows: Iterable[Iterable[Cell]]) -> Iterator[str]:
    for row in rows:
        out = io.StringIO()
        csv.writer(out).writerow([safe(cell) for cell in row])
        yield out.getvalue()


def about(what: str, span: str, filters: Mapping[str, str], *more: str) -> list[str]:
    """The first line, before the columns' names: what was asked for, in one cell."""
    said = [
        f"# Headgate: {what}",
        span or "since ever",
        *(f"{n} = {v}" for n, v in filters.items()),
    ]
    return ["; ".join([*said, "times are UTC", *more])]


def whole(name: str, rows: Iterable[Iterable[Cell]]) -> Response:
    return Response("".join(lines(rows)), headers=_named(name), media_type=_TYPE)


def streamed(name: str, rows: Iterable[Iterable[Cell]]) -> Response:
    return StreamingResponse(_chunks(rows), headers=_named(name), media_type=_TYPE)


_TYPE = "text/csv; charset=utf-8"
_CHUNK = 500  # rows at a time: fewer hand-overs between threads


def _chunks(rows: Iterable[Iterable[Cell]]) -> Iterator[str]:
    waiting: list[str] = []
    for line in lines(rows):
        waiting.append(line)
        if len(waiting) >= _CHUNK:
            yield "".join(waiting)
            waiting = []
    if waiting:
        yield "".join(waiting)


def _named(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}
