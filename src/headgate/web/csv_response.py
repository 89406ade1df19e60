"""Tables as files: what headgate/csv_export.py writes, as answers of the console."""

from collections.abc import Iterable, Iterator

from starlette.responses import Response, StreamingResponse

from headgate.csv_export import Cell as Cell
from headgate.csv_export import lines


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
