"""What every handler of control shares: the ledger, the people, the catalog, templates, words.

`ConsoleContext` is one deployment, `RequestContext` one request of somebody.  Note: handlers are plain
functions that run in a few threads, as SQLite waits; each thread has its own connections.
"""

import ipaddress
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urlsplit

import jinja2
import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from headgate import __version__
from headgate.admin.operator import Operator, Reason, Refused
from headgate.call_loop import CallLoop
from headgate.catalog import stored
from headgate.catalog.catalog import Catalog
from headgate.catalog.detection import Detected
from headgate.catalog.presets import presets
from headgate.catalog.stored import Joined
from headgate.config import Settings, Upstream
from headgate.config.addresses import console_url
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut, Timeouts
from headgate.net.dial import NotSent, own_context
from headgate.policy import access
from headgate.policy.access import Action, Role, Via
from headgate.policy.guesses import GuessThrottle
from headgate.policy.keys import KEY_STATES
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.people import People
from headgate.web import formats, i18n
from headgate.web.auth.passwords import Throttle
from headgate.web.ledgers import Ledgers, LedgerView

T = TypeVar("T")
# No script but our files, nothing from elsewhere, no frame around us.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
MAX_FORM_BYTES = 256 << 10
EDGE_S = 5.0  # for what a page can do without


class Problem(Exception):
    """What a person did that cannot be done; shown to them, with the status."""

    def __init__(self, status: int, text: str, field: str = "", retry_after_s: int = 0) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.field = field  # of the form or the JSON body, where it is one
        self.retry_after_s = retry_after_s  # 0: waiting does not help

    @property
    def at(self) -> str:
        """Return the field of the form; its address in a body, `$.prices[0].input`, is that of `prices`."""
        return self.field.removeprefix("$.").partition(".")[0].partition("[")[0]


# How an operation that was refused is answered (admin/operator.py).
_STATUSES: dict[Reason, int] = {
    "absent": 404,
    "closed": 409,
    "taken": 409,
    "conflict": 409,
    "invalid": 422,
}


class Caller(msgspec.Struct, frozen=True):
    """Who is behind a request: a user, or a management key."""

    id: str
    name: str
    role: Role
    account: str
    via: Via
    csrf: str = ""

    def may(self, action: Action) -> bool:
        return access.may(self.role, action)

    @property
    def scope(self) -> str | None:
        """The account that all they see is narrowed to; None: everything."""
        return access.scope(self.role, self.account)


class ConsoleContext:
    def __init__(
        self, settings: Settings, catalog: Catalog, base_url: str, edge_url: str = ""
    ) -> None:
        self.settings = settings
        self._catalog = Joined(settings, catalog, {})
        self._models_version, self._models_lock = -1, threading.Lock()
        self._detected: dict[str, Detected] = {}  # what upstreams answered that they are, by name
        self.base_url = base_url  # as clients reach the edge
        self.edge_url = edge_url or base_url  # as this process does
        self.throttle = Throttle()
        self._guesses, self._guesses_lock = GuessThrottle(), threading.Lock()
        self._threads = threading.local()
        self.calls = CallLoop()
        self.ledgers = Ledgers(settings, self.calls)
        self.templates = jinja2.Environment(
            loader=jinja2.PackageLoader("headgate.web"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters.update(
            coded=formats.coded,
            usd=formats.usd,
            cost=formats.cost,
            when=formats.when,
            count=formats.count,
            percent=formats.percent,
            ms=formats.ms,
        )
        self.entries: tuple[NavigationEntry, ...] = ()  # of the navigation; web/main.py sets them
        self.templates.globals["key_states"] = KEY_STATES
        self.templates.globals["navigation"] = lambda: self.entries

    def _own(self, name: str, make: Callable[[], T]) -> T:
        found: T | None = getattr(self._threads, name, None)
        if found is None:
            found = make()
            setattr(self._threads, name, found)
        return found

    def wrong_key(self, peer: str, key_id: str) -> None:
        """Count a wrong management key from this address; a Problem when there were too many."""
        with self._guesses_lock:
            wait_s = self._guesses.failed(peer, key_id, time.monotonic())
        if wait_s:
            wait = math.ceil(wait_s)
            raise Problem(
                429,
                f"Too many wrong management keys were sent. Check the key, then try again in {wait}s.",
                retry_after_s=wait,
            )

    @property
    def joined(self) -> Joined:
        """The settings and the catalog with what is stored, as they are now."""
        version = self.store.data_version()
        with self._models_lock:
            if version != self._models_version:
                self._catalog = stored.joined(
                    self.settings, os.environ, stored.read(self.store), self._detected
                )
                self._models_version = version
            return self._catalog

    def refresh_detected(self) -> None:
        """Ask the edge what its upstreams answered that they are; without an answer all stays as it was."""
        if not any(presets()[u.preset].asks for u in self.upstreams.values()):
            return
        try:
            answer = self.edge("GET", "/internal/detected", total_s=EDGE_S)
            found = msgspec.convert(answer, dict[str, Detected])
        except (Problem, msgspec.ValidationError):  # of an edge of another version
            return
        with self._models_lock:
            if found != self._detected:
                self._detected, self._models_version = found, -1

    @property
    def catalog(self) -> Catalog:
        return self.joined.catalog

    @property
    def upstreams(self) -> dict[str, Upstream]:
        """The upstreams of the settings and those that are stored, by name."""
        return self.joined.settings.upstreams

    @property
    def local(self) -> bool:
        """Whether the embedded model answers."""
        return any(u.preset == "local" for u in self.upstreams.values())

    @property
    def console_url(self) -> str:
        """The address at which browsers reach the console."""
        return console_url(self.settings, self.base_url)

    @property
    def store(self) -> Store:
        return self._own(
            "store",
            lambda: Store(self.settings.data, create=False, database=self.settings.database),
        )

    @property
    def people(self) -> People:
        return self._own("people", lambda: People(self.store, self.settings.data))

    def edge(self, method: str, path: str, *, total_s: float = 60.0) -> Any:
        """Return what the edge says of itself at /internal/...; Problem 502 when it does not.

        Any: JSON, of the shapes that edge/internal_api.py has.
        """
        proof = {"x-headgate-internal": self.store.derived("internal").hex()}
        timeouts = Timeouts(connect_s=5, first_token_s=total_s, stall_s=total_s, total_s=total_s)

        async def ask() -> tuple[int, bytes]:
            own = own_context() if self.edge_url.startswith("https:") else None
            client = Client(proxies={}, ssl_context=own)
            try:
                response = await client.send(method, self.edge_url + path, proof, b"", timeouts)
                return response.status, await response.read_all(1 << 20)
            finally:
                await client.close()

        try:
            status, body = self.calls.run(ask())
        except (NotSent, Broken, TimedOut) as error:
            raise Problem(502, f"The edge does not answer: {error}.") from None
        if status == 404:
            raise Problem(404, "Not found.")
        if status != 200:
            raise Problem(502, f"The edge answered with status {status}.")
        return msgspec.json.decode(body)


class RequestContext:
    """One request; `who` is None on open pages only."""

    def __init__(
        self, console_context: ConsoleContext, request: Request, who: Caller | None, body: bytes
    ) -> None:
        self.console_context = console_context
        self.request = request
        self.known = who
        self.body = body
        self.figures = False  # whether the page has any of a ledger
        self.path: dict[str, str] = request.path_params
        self.query: Mapping[str, str] = request.query_params
        self.form: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}  # fields that a form may have more than once
        self.language = i18n.language(
            request.cookies.get("lang", ""), request.headers.get("accept-language", "")
        )

    @cached_property
    def ledger(self) -> LedgerView:
        """The ledger whose figures are shown: of all nodes, or of this one."""
        self.figures = True
        return self.console_context.ledgers.view(self.console_context.store.shares)

    @property
    def who(self) -> Caller:
        assert self.known is not None, "the route is open"
        return self.known

    @property
    def partial(self) -> bool:
        """Whether htmx asks, and wants a piece of the page."""
        return "hx-request" in self.request.headers

    def word(self, text: str, /, **values: object) -> str:
        """Return the text in the visitor's language; `{name}` in it stands for a value."""
        return i18n.word(self.language, text, **values)

    def render(
        self, template: str, status: int = 200, headers: Mapping[str, str] = {}, **context: object
    ) -> Response:
        html = self.console_context.templates.get_template(template).render(
            who=self.known,
            visit=self,
            _=self.word,
            language=self.language,
            languages=i18n.LANGUAGES,
            base_url=self.console_context.base_url,
            version=__version__,
            local=self.console_context.local,
            stated=NOTICES.get(self.query.get("said", "")),
            here=self.request.url.path,
            **context,
        )
        return Response(html, status, dict(headers), "text/html; charset=utf-8")

    def redirect(self, path: str, notice: str = "") -> Response:
        """Answer a form with the page to see next; `notice`: a name in NOTICES, shown on it."""
        mark = "&" if "?" in path else "?"
        return RedirectResponse(f"{path}{mark}said={notice}" if notice else path, 303)

    def json(self, value: object, status: int = 200) -> Response:
        return JSONResponse(msgspec.to_builtins(value), status)

    @property
    def operator(self) -> Operator:
        """Whoever asks, for the operations of admin/."""
        who = self.who
        return Operator(
            who.name, who.via, self.console_context.store, self.console_context.people, who.scope
        )

    def problem(self, refused: Refused, root: str = "") -> Problem:
        """Return how a refused operation is answered, in the visitor's language."""
        if refused.reason == "absent":
            return Problem(404, "Not found.")
        text = self.word(refused.text, **refused.values)
        field = root + refused.field if refused.field else ""
        return Problem(_STATUSES[refused.reason], text, field)

    @contextmanager
    def problems(self) -> Iterator[None]:
        """Let an operation that is refused be a problem of the request, in the visitor's language."""
        try:
            yield
        except Refused as refused:
            raise self.problem(refused) from None

    def record(self, action: str, subject: str, account: str = "", /, **detail: object) -> None:
        """Write down who changed what; never a secret."""
        self.operator.record(action, subject, account, **detail)

    def must_see(self, account: str) -> None:
        """Problem 404 for what belongs to an account that they do not see: as if it did not exist."""
        if self.who.scope is not None and self.who.scope != account:
            raise Problem(404, "Not found.")


class NavigationEntry(msgspec.Struct, frozen=True):
    """Puts a page into the navigation; each page module declares its own as `ENTRY`."""

    path: str
    title: str
    action: Action  # what one must be allowed to
    section: str = ""  # the heading that it stands under; "": none


# What a page says after a form was taken; a closed set, so that no link can put words there.
NOTICES = {
    "made": "Created.",
    "changed": "Changed.",
    "revoked": "Revoked.",
    "closed": "Closed.",
    "removed": "Removed.",
    "signed_out": "Signed out.",
}


def host_is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:  # not by how it begins: 127.example.org is anywhere
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def sentence(error: Exception) -> str:
    """What the store and the policies say of a bad value, as a sentence of its own."""
    text = str(error)
    return text[:1].upper() + text[1:]
