"""What the fields of the console's forms must be; each refusal names the field.

The only place that reads them, as api/fields.py does for the admin API.

Note: a form with a field that is not its own is refused as a whole, so that nothing can be set that was
not meant to be.  An absent field is not an empty one: it changes nothing.
"""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from headgate.policy import pricing
from headgate.policy.keys import Account, Key
from headgate.policy.terms import MAX_NAME_CHARS, TERMS, TermFault, field_of, read, read_count
from headgate.web.context import Problem, RequestContext

T = TypeVar("T", bound=str)
# Offered, not required: any zone of the IANA's database is taken.
ZONES = (
    "UTC",
    "Asia/Shanghai",
    "Asia/Singapore",
    "Asia/Tokyo",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Los_Angeles",
)
MOST_TAKEN = 2000  # forms that are remembered: some 300 kB
MAX_NUMBER = 32  # characters of a form's number; ours have 16
A_PAGE = 100  # rows of a list
_MOMENT = "%Y-%m-%dT%H:%M"  # as <input type="datetime-local"> writes it


def only(visit: RequestContext, *names: str) -> None:
    """Refuse a form with any other field."""
    for found in visit.form:
        if found not in names and found != "csrf":
            text = visit.word("This form has no field {field}.", field=found[:64])
            raise Problem(422, text, found)


def name(visit: RequestContext) -> str:
    text = visit.form.get("name", "")
    if not text or len(text) > MAX_NAME_CHARS or not text.isprintable():
        text = visit.word("A name has 1 to {most} printable characters.", most=MAX_NAME_CHARS)
        raise Problem(422, text, "name")
    return text


def choice(visit: RequestContext, field: str, of: Sequence[T]) -> T:
    found = visit.form.get(field, "")
    for one in of:
        if one == found:
            return one
    text = visit.word("{field} is one of {choices}.", field=field, choices=", ".join(of))
    raise Problem(422, text, field)


def limit(visit: RequestContext, field: str) -> int | None:
    """Return a whole number; None for an empty field."""
    text = visit.form.get(field, "")
    try:
        return read_count(text) if text else None
    except TermFault as fault:
        raise Problem(422, visit.word(fault.text, **fault.values), field) from None


def terms(visit: RequestContext, of: Iterable[str]) -> dict[str, Any]:
    """Return the terms that a form has, by their names; an empty field takes one away.

    Any: the values that policy/terms.py reads.
    """
    found: dict[str, Any] = {}
    for name in of:
        field = field_of(name)
        if field in visit.form:
            try:
                found[name] = read(name, visit.form[field])
            except TermFault as fault:
                raise Problem(422, visit.word(fault.text, **fault.values), field) from None
    return found


def terms_text(owner: Key | Account, of: Iterable[str]) -> dict[str, str]:
    """Return the terms as the fields of a form show them."""
    return {field_of(name): _text(name, getattr(owner, name)) for name in of}


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if TERMS[name].kind == "money" and isinstance(value, int):
        return pricing.usd(value)
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def moment(
    visit: RequestContext, field: str, now_s: float, old_s: float | None = None
) -> float | None:
    """A moment to come, UTC, in Unix seconds; None for an empty field.

    What the form showed of the old one comes back without its seconds, and is the old one still.
    """
    text = visit.form.get(field, "")
    if not text:
        return None
    if old_s is not None and text == moment_text(old_s):
        return old_s
    try:
        found = datetime.strptime(text[:16], _MOMENT).replace(tzinfo=UTC).timestamp()
    except ValueError:
        stated = visit.word(
            "`{value}` is no time; write one like 2027-01-31T12:00.", value=text[:32]
        )
        raise Problem(422, stated, field) from None
    if found <= now_s:
        raise Problem(422, visit.word("That time is over already."), field)
    return found


def moment_text(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime(_MOMENT)


def page_number(text: str) -> int:
    """The number of a page of a list, from 0; what is none is the first."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else 0


class ListPage(msgspec.Struct, frozen=True):
    """Which part of a list is shown, and the links to the others."""

    number: int  # from 0
    of: int
    path: str
    query: dict[str, str]

    @property
    def rows(self) -> slice:
        return slice(self.number * A_PAGE, (self.number + 1) * A_PAGE)

    def link(self, number: int) -> str:
        return f"{self.path}?{urlencode({**{k: v for k, v in self.query.items() if v}, 'page': number})}"


def list_page(visit: RequestContext, path: str, count: int, **query: str) -> ListPage:
    """The page of a list of so many that the query asks for, or the last one; `query`: its filters."""
    of = max(1, -(-count // A_PAGE))
    return ListPage(min(page_number(visit.query.get("page", "")), of - 1), of, path, query)


def number() -> str:
    """A form's own, for `Taken`."""
    return secrets.token_urlsafe(12)


class Taken:
    """Forms whose answer shows a secret, so that loading that answer anew does not make another.

    Each form carries a number of its own, drawn when it was shown.  Remembered in memory only: after
    a restart such a form can be sent again, and makes another key.
    """

    def __init__(self, most: int = MOST_TAKEN) -> None:
        self._most = most
        self._led: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def before(self, number: str) -> str | None:
        """The path that its answer is about, if the form was taken before; else it is taken now."""
        number = number[:MAX_NUMBER]
        if not number:
            return None
        with self._lock:
            if number in self._led:
                return self._led[number]
            self._led[number] = ""
            while len(self._led) > self._most:
                self._led.popitem(last=False)
            return None

    def leads(self, number: str, path: str) -> None:
        number = number[:MAX_NUMBER]
        with self._lock:
            if number in self._led:
                self._led[number] = path

    def forget(self, number: str) -> None:
        """Let a form that came to nothing be sent again."""
        with self._lock:
            self._led.pop(number[:MAX_NUMBER], None)
