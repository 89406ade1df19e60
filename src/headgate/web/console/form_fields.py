"""What the fields of the console's forms must be; each refusal names the field.

The only place that reads them, as admin_fields.py does for the admin API.  What will surprise: a form
with a field that is not its own is refused as a whole (promises.md T18), and a field that is absent is
not an empty one: it changes nothing.
"""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, get_args
from urllib.parse import urlencode

import msgspec

from headgate.policy import budgets, pricing
from headgate.policy import networks as policy_networks
from headgate.policy.keys import Account, Key, Period
from headgate.policy.terms import MAX_LIMIT, MAX_NAME_CHARS, BudgetTerms
from headgate.storage.errors import StoreError, StoreFault
from headgate.web.context import Problem, RequestContext, sentence

T = TypeVar("T", bound=str)
PERIODS: tuple[Period, ...] = get_args(Period)
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
BUDGET = ("budget_usd", "budget_period", "budget_zone")
MOST_TAKEN = 2000  # forms that are remembered: some 300 kB
MAX_NUMBER = 32  # characters of a form's number; ours have 16
A_PAGE = 100  # rows of a list
_MOMENT = "%Y-%m-%dT%H:%M"  # as <input type="datetime-local"> writes it


def only(visit: RequestContext, *names: str) -> None:
    """Problem for a form with any other field."""
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
    """A whole number; None, for an empty field, is no limit."""
    text = visit.form.get(field, "").replace(",", "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 13 and int(text) <= MAX_LIMIT):
        said = visit.word(
            "`{value}` is no limit; write a whole number, or nothing.", value=text[:32]
        )
        raise Problem(422, said, field)
    return int(text)


def networks(visit: RequestContext, field: str) -> tuple[str, ...]:
    """Networks with commas between them; an empty field allows every address."""
    try:
        return policy_networks.split(visit.form.get(field, ""))
    except ValueError as error:
        raise Problem(422, f"{sentence(error)}.", field) from None


def budget(visit: RequestContext) -> BudgetTerms:
    """What was said of a budget; an empty amount takes it away."""
    terms: BudgetTerms = {}
    form = visit.form
    if "budget_usd" in form:
        text = form["budget_usd"].removeprefix("$").replace(",", "")
        try:
            terms["budget_nano"] = budgets.nano_of(text) if text else None
        except ValueError:
            said = visit.word(
                "`{value}` is no amount in dollars; write one like 12.50.", value=text[:32]
            )
            raise Problem(422, said, "budget_usd") from None
    if "budget_period" in form:
        terms["budget_period"] = choice(visit, "budget_period", PERIODS)
    if "budget_zone" in form:
        zone = form["budget_zone"] or "UTC"
        try:
            budgets.zone_of(zone)
        except ValueError:
            said = visit.word(
                "No time zone `{zone}` is known; write UTC or one like Asia/Shanghai.",
                zone=zone[:64],
            )
            raise Problem(422, said, "budget_zone") from None
        terms["budget_zone"] = zone
    return terms


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
        said = visit.word("`{value}` is no time; write one like 2027-01-31T12:00.", value=text[:32])
        raise Problem(422, said, field) from None
    if found <= now_s:
        raise Problem(422, visit.word("That time is over already."), field)
    return found


def moment_text(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime(_MOMENT)


def open_account(visit: RequestContext, now_s: float, field: str = "account") -> str:
    """The id of an account that is open, or "" for none."""
    id = visit.form.get(field, "")
    if id and not any(a.id == id and a.good(now_s) for a in visit.desk.store.accounts()):
        raise Problem(422, visit.word("There is no open account {id}.", id=id[:64]), field)
    return id


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


def budget_text(owner: Key | Account) -> dict[str, str]:
    """The fields of a budget as a form shows them."""
    return {
        "budget_usd": "" if owner.budget_nano is None else pricing.usd(owner.budget_nano),
        "budget_period": owner.budget_period,
        "budget_zone": owner.budget_zone,
    }


def difference(old: msgspec.Struct, changes: Mapping[str, object]) -> dict[str, Any]:
    """Of the changes those that are any, for the record: what it was and what it is.

    Any: values of fields, as JSON can hold them.
    """
    return {
        field: {"from": getattr(old, field), "to": value}
        for field, value in changes.items()
        if getattr(old, field) != value
    }


def refused(error: StoreError) -> str:
    """What the store refuses, in words for people; raised again when it is the disk."""
    if isinstance(error, StoreFault):
        raise error
    return sentence(error)


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
        """Nothing came of it; it may be sent again."""
        with self._lock:
            self._led.pop(number[:MAX_NUMBER], None)
