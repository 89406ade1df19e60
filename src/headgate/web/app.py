"""Control: everything that is not the API, as a Starlette app behind the edge.

The only place that decides who may open what, before a handler runs: session or management key, role,
CSRF token and Origin, size of the body; and what every answer carries.  A route is a row; one without
an action is open to everybody.  Note: handlers run in threads (desk.py), and a refusal
is a page for a browser and JSON below /admin/.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from hmac import compare_digest
from typing import Literal
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from headgate.catalog.catalog import Catalog
from headgate.policy import keys
from headgate.policy.access import EVERYTHING, MANAGEMENT_PREFIX, Action
from headgate.storage.errors import StoreError, StoreFault
from headgate.web import time_range
from headgate.web.auth import passwords
from headgate.web.context import (
    CSP,
    MAX_FORM_BYTES,
    Caller,
    ConsoleContext,
    Problem,
    RequestContext,
    host_is_loopback,
    sentence,
)
from headgate.web.formats import Html
from headgate.web.ledgers import NodesAway, TooSlow
from headgate.web.site.deployment import Site
from headgate.web.site.pages import Pages

COOKIE = "__Host-headgate"
THREADS = 4  # handlers at a time: each has connections of its own
# Handlers at a time that hash passwords, beside those: one of them takes 64 MiB and 50 ms of two cores.
HASHING = passwords.HASHES_AT_ONCE
HASHING_WAITING = 16  # more than these wait for about a second, and are refused instead
MEASURED_S = 24 * 3600.0  # over which the upstreams' speed and errors are measured
MEASURED_EVERY_S = 60.0

# Of the rules, those that are nobody's secret, and stay where the API is when the console has a listener
# of its own: the catalog's pages and what they show.
PUBLIC = frozenset(
    ("/", "/static/{name}", "/openapi.json", "/docs/api", "/language", "/{path:path}")
)
_SECRETS = ("password", "old")  # fields of forms
_METHODS = ["GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS"]
Handler = Callable[[RequestContext], Response]
CredentialSource = Literal["open", "session", "management"]
log = logging.getLogger("headgate.web")


class Rule(msgspec.Struct, frozen=True):
    method: Literal["GET", "POST", "PATCH", "DELETE", "PUT"]
    path: str  # as Starlette writes it: /api_keys/{id}
    handler: Handler
    action: Action | None = None  # None: anybody
    credential_source: CredentialSource = "session"
    hashes: bool = False  # a password, which takes long: in threads of its own


class _Full(Exception):
    """As many handlers wait as may."""


class _Slots:
    """How many handlers run at a time, and how many may wait for their turn."""

    def __init__(self, running: int, waiting: int | None = None) -> None:
        self._turns = asyncio.Semaphore(running)
        self._most = None if waiting is None else running + waiting
        self._inside = 0

    async def __aenter__(self) -> None:
        if self._most is not None and self._inside >= self._most:
            raise _Full
        self._inside += 1
        try:
            await self._turns.acquire()
        except BaseException:
            self._inside -= 1
            raise

    async def __aexit__(self, *_: object) -> None:
        self._inside -= 1
        self._turns.release()


def build(console_context: ConsoleContext, rules: Iterable[Rule]) -> Starlette:
    """Return the app; every path that no rule has is a page of the catalog, or a 404."""
    by_path: dict[str, dict[str, Rule]] = {}
    for rule in rules:
        by_path.setdefault(rule.path, {})[rule.method] = rule
    catalog = _CatalogPages(console_context)
    slots, hashing = _Slots(THREADS), _Slots(HASHING, HASHING_WAITING)
    routes = [
        Route(path, _endpoint(console_context, methods, slots, hashing), methods=_METHODS)
        for path, methods in by_path.items()
    ]
    routes.append(
        Route(
            "/admin/{path:path}", _endpoint(console_context, {}, slots, hashing), methods=_METHODS
        )
    )
    rest = Rule("GET", "/{path:path}", catalog, None, "open")
    routes.append(
        Route(
            rest.path, _endpoint(console_context, {"GET": rest}, slots, hashing), methods=_METHODS
        )
    )
    return Starlette(routes=routes)


def _endpoint(
    console_context: ConsoleContext, rules: dict[str, Rule], slots: _Slots, hashing: _Slots
) -> Callable[[Request], object]:
    async def endpoint(request: Request) -> Response:
        rule = rules.get("GET" if request.method == "HEAD" else request.method)
        api = request.url.path.startswith("/admin/")
        visit = RequestContext(console_context, request, None, b"")
        try:
            if not rules or (
                on_public_listener(request)
                and not any(each.path in PUBLIC for each in rules.values())
            ):
                response = _refusal(visit, Problem(404, "There is nothing at this path."), api)
            elif rule is None:
                problem = Problem(405, f"{request.url.path} takes {', '.join(sorted(rules))}.")
                response = _refusal(visit, problem, api)
                response.headers["allow"] = ", ".join(sorted(rules))
            else:
                visit.body = await _body(request)
                async with hashing if rule.hashes else slots:
                    response = await run_in_threadpool(_answer, visit, rule, api)
        except Problem as problem:
            response = _refusal(visit, problem, api)
        except _Full:
            text = visit.word("Too many passwords are being checked. Try again in a few seconds.")
            response = _refusal(visit, Problem(503, text), api)
            response.headers["retry-after"] = "2"
        except ClientDisconnect:
            response = Response(status_code=499)
        return _sealed(response)

    return endpoint


def _answer(visit: RequestContext, rule: Rule, api: bool) -> Response:
    try:
        _admit(visit, rule)
        return rule.handler(visit)
    except Problem as problem:
        return _refusal(visit, problem, api)
    except (NodesAway, TooSlow) as fault:
        return _refusal(visit, Problem(503, visit.word(str(fault)), retry_after_s=5), api)
    except StoreFault as error:
        log.error("store: %s", error)
        return _refusal(visit, Problem(503, "The database cannot be written now."), api)
    except StoreError as error:  # what the store refuses, it says in words for people
        return _refusal(visit, Problem(422, sentence(error)), api)
    except Exception:
        log.exception("a page failed: %s %s", visit.request.method, rule.path)
        return _refusal(visit, Problem(500, "This page failed; the log says where."), api)


async def _body(request: Request) -> bytes:
    pieces: list[bytes] = []
    left = MAX_FORM_BYTES
    async for piece in request.stream():
        left -= len(piece)
        if left < 0:
            raise Problem(413, f"The body is larger than {MAX_FORM_BYTES} bytes.")
        pieces.append(piece)
    return b"".join(pieces)


# --- who may ------------------------------------------------------------------------------------


def _admit(visit: RequestContext, rule: Rule) -> None:
    """Find out who asks; Problem, or a redirect to the sign-in, when they may not."""
    request = visit.request
    if rule.credential_source == "management":
        visit.known = _manager(visit)
    else:
        visit.known = session(visit)
        if request.method != "GET" and request.method != "HEAD":
            _form(visit)
            _same_origin(visit, rule)
    if rule.action is None:
        return
    if visit.known is None:
        if rule.credential_source == "management":
            raise Problem(
                401,
                "No valid management key. Send it as `Authorization: Bearer hg_admin_...`; "
                "`headgate admin keys create NAME` makes one. Keys of models manage nothing.",
            )
        raise Problem(401, "Sign in first.")
    if not visit.known.may(rule.action):
        raise Problem(403, f"Your role, {visit.known.role}, may not do this.")


def on_public_listener(request: Request) -> bool:
    """Whether it came where the API is, and the console is on a listener of its own."""
    return request.headers.get("x-headgate-listener") == "public"


def session(visit: RequestContext) -> Caller | None:
    """Who is signed in; nobody where the console is not, as a cookie is sent to every port of a host."""
    if on_public_listener(visit.request):
        return None
    token = visit.request.cookies.get(COOKIE, "")
    people = visit.console_context.people
    user = people.session(token, now_s=time.time()) if token else None
    if user is None:
        return None
    return Caller(user.id, user.name, user.role, user.account, "console", people.form_token(token))


def _manager(visit: RequestContext) -> Caller | None:
    headers = visit.request.headers
    scheme, _, token = headers.get("authorization", "").partition(" ")
    text = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    people = visit.console_context.people
    key = people.manager(text, now_s=time.time()) if text else None
    if text and key is None and people.presented_manager(text) is None:
        parsed = keys.parse(keys.PREFIX + text.removeprefix(MANAGEMENT_PREFIX))
        visit.console_context.wrong_key(
            headers.get("x-headgate-peer", ""), parsed.id if parsed else ""
        )
    return (
        Caller(key.id, f"{key.name} ({key.id})", key.role, EVERYTHING, "api")
        if key is not None
        else None
    )


def _form(visit: RequestContext) -> None:
    """Read a form's fields; the last of several of one name, and all of them in `lists`."""
    kind = visit.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        try:
            pairs = parse_qsl(visit.body.decode(), keep_blank_values=True, max_num_fields=200)
        except ValueError:
            raise Problem(400, "The form cannot be read.") from None
        for name, value in pairs:
            # A space is part of a password; the command line and the API take it as it is.
            value = value if name in _SECRETS else value.strip()
            visit.form[name] = value
            visit.lists.setdefault(name, []).append(value)


def _same_origin(visit: RequestContext, rule: Rule) -> None:
    """Refuse what another site made a browser send."""
    request = visit.request
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if origin is not None:
        if not _is_ours(
            origin, visit.console_context.console_url, request.headers.get("x-headgate-host", "")
        ):
            raise Problem(403, "This form came from another site.")
    elif site not in ("same-origin", "none"):
        raise Problem(403, "This form came from another site.")
    if visit.known is None or rule.action is None:
        return  # what is open to everybody uses no session's power
    given = request.headers.get("x-csrf-token") or visit.form.get("csrf", "")
    if not compare_digest(given.encode(), visit.known.csrf.encode()):
        raise Problem(403, "This form is too old, or not ours. Load the page again.")


def _is_ours(origin: str, public: str, host: str) -> bool:
    """Whether a page of this origin is one of ours; a proxy may have changed the host that we see."""
    stated = _origin(origin)
    if stated is None:
        return False
    known = _origin(public)
    if known is not None and stated[1] == known[1]:
        return stated[0] == known[0] or known[0] == "http"
    here = _origin(f"{stated[0]}://{host}")
    return here is not None and stated[1] == here[1]


def _origin(url: str) -> tuple[str, str] | None:
    """Scheme and host as browsers write them: in lower case, the usual port left out."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.scheme not in ("http", "https"):
        return None
    usual = port in (None, 443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname if usual else f"{parts.hostname}:{port}"


def secure(visit: RequestContext) -> bool:
    """Whether a browser takes a Secure cookie from us: over https, or on this very machine."""
    if on_public_listener(visit.request):
        return False
    if visit.console_context.settings.tls.cert or visit.console_context.console_url.startswith(
        "https://"
    ):
        return True
    return host_is_loopback(visit.request.headers.get("x-headgate-host", ""))


# --- answers ------------------------------------------------------------------------------------


def _refusal(visit: RequestContext, problem: Problem, api: bool) -> Response:
    path = visit.request.url.path
    if api:
        error = {"error": {"message": problem.text, "field": problem.field or None}}
        answer = visit.json(error, problem.status)
        if problem.status == 401:
            answer.headers["www-authenticate"] = "Bearer"
        if problem.retry_after_s:
            answer.headers["retry-after"] = str(problem.retry_after_s)
        return answer
    if problem.status == 401 and visit.request.method == "GET" and not visit.partial:
        query = visit.request.url.query
        return visit.redirect(f"/sign-in?next={quote(f'{path}?{query}' if query else path)}")
    accept = visit.request.headers.get("accept", "")
    if "text/html" not in accept and not visit.partial:
        return Response(problem.text + "\n", problem.status, media_type="text/plain")
    name = "problem_part.html" if visit.partial else "problem.html"
    return visit.render(name, problem.status, problem=problem)


def _sealed(response: Response) -> Response:
    headers = response.headers
    headers.setdefault("content-security-policy", CSP)
    headers.setdefault("x-content-type-options", "nosniff")
    headers.setdefault("referrer-policy", "same-origin")
    headers.setdefault("cache-control", "no-store")
    return response


class _CatalogPages:
    """The catalog's pages as they are today, with what this gateway measured lately.

    Who is signed in sees all of it; others what the settings `pages` make public.
    """

    def __init__(self, console_context: ConsoleContext) -> None:
        self._console_context = console_context
        self._made: dict[tuple[bool, bool], _Made] = {}

    def __call__(self, visit: RequestContext) -> Response:
        path = "/" + visit.path["path"]
        accept = visit.request.headers.get("accept", "")
        inside = visit.known is not None
        # Counts are of all requests: they lead to the log of who sees all of them.
        pages = self._pages(inside, visit.known is not None and visit.known.scope is None)
        if inside and (shown := pages.shown(path, accept)):
            title, text = shown
            return visit.render("site.html", title=title, text=Html(text))
        found = pages.answer(path, accept)
        if found is None:
            raise Problem(404, f"There is nothing at {path[:128]}.")
        headers, body = found
        answer = Response(body, headers=dict(headers))
        if inside:  # it may have what is not public
            answer.headers["cache-control"] = "private, no-store"
        return answer

    def _pages(self, inside: bool, everything: bool) -> Pages:
        now, today = time.monotonic(), datetime.now(UTC).date()
        made = self._made.get((inside, everything))
        if made is None or now - made.at_s > MEASURED_EVERY_S:
            made = None
            self._console_context.refresh_detected()
        catalog = self._console_context.catalog
        if made is None or made.on != today or made.of is not catalog:
            site = self._site(inside, everything, catalog, today)
            pages = Pages(site, catalog)
            self._made[inside, everything] = made = _Made(pages, today, now, catalog)
        return made.pages

    def _site(self, inside: bool, everything: bool, catalog: Catalog, today: date) -> Site:
        console_context, public = self._console_context, self._console_context.settings.pages
        named = inside or public.upstreams
        figures = inside or public.figures
        since_s, reports = (
            time.time() - MEASURED_S,
            console_context.ledgers.view(console_context.store.shares).reports,
        )
        upstreams = {
            m.id: tuple(r.upstream.name for r in catalog.routes(m.id)) for m in catalog.models
        }
        return Site(
            base_url=console_context.base_url,
            on=today,
            upstreams=upstreams if named else {},
            measured=reports.measured(since_s) if figures and named else {},
            routes=reports.measured_routes(since_s) if figures else {},
            named=named,
            errors=inside or public.errors,
            log=time_range.measured(since_s) if everything else {},
            local=console_context.local,
        )


class _Made(msgspec.Struct, frozen=True):
    """Pages, and what they were made of."""

    pages: Pages
    on: date
    at_s: float  # of the monotonic clock
    of: Catalog
