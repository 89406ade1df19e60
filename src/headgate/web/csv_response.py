"""Tables as files: what headgate/csv_export.py writes, as answers of the console."""

from collections.abc import Iterable, Iterator, Mapping

from starlette.responses import Response, StreamingResponse

from headgate.csv_export import Cell as Cell
from headgate.csv_export import lines


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
