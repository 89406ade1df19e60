"""One route of the admin API: its handler tells all there is to know of it, to us and to openapi.py.

The only place that decodes what a management key sends.  A handler is

    def change_key(visit: Visit, body: shapes.KeyChanges) -> shapes.Key:
        "Change a key."

and its annotations and its docstring are the document's schemas and words.  Note: a
parameter that a route does not have is refused, as an unknown field of a body is.
"""

import inspect
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal, TypeVar, get_type_hints

import msgspec
from starlette.responses import Response

from headgate.admin.operator import Refused
from headgate.policy.access import Action
from headgate.web.api.shapes import Asked
from headgate.web.app import Rule
from headgate.web.context import Problem, RequestContext

T = TypeVar("T")
ROOT = "/admin/v1"
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`(?: - at `(.*)`)?", re.S)
_MISSING = re.compile(r"Object missing required field `(.*?)`(?: - at `(.*)`)?", re.S)
_PLACED = re.compile(r"(.*?)\s+- at `(.*)`", re.S)


class Nothing(Asked, frozen=True, kw_only=True):
    """Takes no parameters."""


class Endpoint(msgspec.Struct, frozen=True, dict=True):
    group: str
    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str  # after ROOT, as Starlette writes it
    does: Callable[..., msgspec.Struct]
    action: Action
    status: int = 200
    example: str = ""  # a body

    @cached_property
    def _hints(self) -> dict[str, Any]:  # Any: types
        return get_type_hints(self.does)

    @property
    def shown_path(self) -> str:
        return ROOT + self.path.replace(":path}", "}")

    @property
    def name(self) -> str:
        return self.does.__name__

    @property
    def query(self) -> type[Asked]:
        found: type[Asked] = self._hints.get("query", Nothing)
        return found

    @property
    def body(self) -> type[Asked] | None:
        return self._hints.get("body")

    @property
    def answer(self) -> type[msgspec.Struct]:
        found: type[msgspec.Struct] = self._hints["return"]
        return found

    @property
    def words(self) -> tuple[str, str]:
        """What it does in one line, and what else there is to know."""
        first, _, rest = (inspect.getdoc(self.does) or "").partition("\n")
        return first, " ".join(rest.split())

    def rule(self) -> Rule:
        hashes = self.body is not None and "password" in self.body.__struct_fields__
        return Rule(
            self.method, ROOT + self.path, self._serve, self.action, "management", hashes=hashes
        )

    def _serve(self, visit: RequestContext) -> Response:
        given: dict[str, object] = {}
        query = _query(visit, self.query)
        if "query" in self._hints:
            given["query"] = query
        if self.body is not None:
            given["body"] = _body(visit, self.body)
        try:
            answer = self.does(visit, **given)
        except Refused as refused:
            raise visit.problem(refused, "$.") from None
        headers = {}
        id = getattr(answer, "id", None)
        if self.status == 201 and isinstance(id, str):
            collection = self.path.partition("/{")[0]
            headers["location"] = f"{ROOT}{collection}/{id}"
        data = msgspec.json.encode(answer)
        return Response(data, self.status, headers, media_type="application/json")


RENAMED = {"on_hang_up": "on_disconnect"}  # old names, which are refused with the new one


def _query(visit: RequestContext, kind: type[T]) -> T:
    pairs = visit.request.query_params.multi_items()
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise Problem(422, f"`{_short(name)}` is there twice.", _short(name))
        seen.add(name)
    try:
        return msgspec.convert(dict(pairs), kind, strict=False)
    except msgspec.ValidationError as error:
        raise _refused(error, kind, "parameter", "") from None


def _body(visit: RequestContext, kind: type[T]) -> T:
    try:
        # One whose fields can all be left out can be left out itself
        return msgspec.json.decode(visit.body.strip() or _nothing(kind), type=kind)
    except msgspec.ValidationError as error:
        raise _refused(error, kind, "field", "$.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = str(error) if isinstance(error, msgspec.DecodeError) else "it is no text in UTF-8"
        raise Problem(400, f"The body is not JSON: {text}.") from None


def _nothing(kind: type) -> bytes:
    return b"" if any(f.required for f in msgspec.structs.fields(kind)) else b"{}"


def _refused(error: msgspec.ValidationError, kind: type, what: str, root: str) -> Problem:
    """What is wrong, where, and what to write instead."""
    text = str(error)
    known = [f.name for f in msgspec.structs.fields(kind)]
    if found := _UNKNOWN.fullmatch(text):
        if new := RENAMED.get(found[1]):
            return Problem(422, f"The {what} `{found[1]}` is called `{new}` now.", root + found[1])
        fields = f"It takes {', '.join(known)}." if known else f"It takes no {what}s."
        return Problem(
            422, f"There is no {what} `{_short(found[1])}` here. {fields}", root + _short(found[1])
        )
    if found := _MISSING.fullmatch(text):
        return Problem(422, f"The {what} `{found[1]}` is missing.", root + found[1])
    if found := _PLACED.fullmatch(text):
        place = found[2] if root else found[2].removeprefix("$.")
        return Problem(422, f"{found[1]}.", place)
    return Problem(422, f"{text}.", root.rstrip("."))


def _short(text: str) -> str:
    return text if len(text) <= 64 else f"{text[:64]}..."


def page(
    items: Sequence[T], after: object, most: int, id: Callable[[T], str]
) -> tuple[list[T], str | None]:
    """The items behind the one with the id `after`, and where the next page begins."""
    start = 0
    if after is not msgspec.UNSET:
        places = [n for n, item in enumerate(items) if id(item) == after]
        if not places:
            raise Problem(422, "That is no `next` of a page of this list.", "after")
        start = places[0] + 1
    found = list(items[start : start + most])
    more = start + most < len(items)
    return found, id(found[-1]) if more else None


def given(value: T | msgspec.UnsetType) -> T | None:
    """None for what was left out."""
    return None if value is msgspec.UNSET else value


def nothing_here() -> Problem:
    return Problem(404, "Not found.")
