"""From a path to what answers it: the only place that knows the edge's routes.

Every route is a row with its own mark, `open` or not: what is not open asks for a key, and what is
not in the table is a 404.  The decision is made on the raw path that was sent, never on a URL put
together from headers, which a client could make up.  One function, `credential`, reads every door a key may
come through.
"""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl, unquote

from headgate import __version__
from headgate.dialects.contract import Dialect, RequestTarget
from headgate.dialects.registry import (
    ANTHROPIC,
    COMPACT,
    DIALECTS,
    GEMINI,
    OPENAI,
    REPLY_ID,
)
from headgate.edge import answers, reports, stored_responses
from headgate.edge.answers import refusal
from headgate.edge.context import EdgeContext
from headgate.edge.control_proxy import ControlProxy
from headgate.edge.cors import Cors, is_preflight
from headgate.edge.count import count, quote
from headgate.edge.exchange import exchange
from headgate.edge.ids import new_id
from headgate.errors import FREQUENT, Failure, Refused, invalid
from headgate.net.server import HEALTH, Inbound
from headgate.node.client import LimitReached
from headgate.policy import limits
from headgate.policy.keys import Key
from headgate.policy.limits import LimitStatus

# Google's clients in Vertex AI's mode put the publisher into the path.  Gemini CLI needs that mode, as
# without a settings file it takes a base URL from no other variables (0.61.0).
_GOOGLE = r"/(?:v1|v1beta|v1alpha|(?:v1|v1beta1)/publishers/google)/models"
# Nothing but a plain name is between the slash and the method; %3A is a colon.
# A model's name may have slashes, and colons of its own before the method's.
_NAME = r"((?!.*\.\.)[A-Za-z0-9](?:[A-Za-z0-9._:@+/-]|%(?:2[BbFf]|3[Aa]|40)){0,255})"
_GENERATE = re.compile(
    _GOOGLE + "/" + _NAME + r"(?::|%3[Aa])"
    r"(generateContent|streamGenerateContent|countTokens)"
)
_GEMINI_PATH = re.compile(_GOOGLE + r"(?:/|$)")
_MODEL = re.compile(_GOOGLE + "/" + _NAME)
_GENERATION = re.compile("/v1/generations/" + REPLY_ID)
_SESSION = re.compile(r"/v1/sessions/([A-Za-z0-9%._:-]{1,300})")
_MODELS = re.compile(_GOOGLE + "/?")
# What control never sees: there a mistaken path is refused in the protocol of who asked.
_API = re.compile(r"/(?:v1|v1beta|v1beta1|v1alpha|chat|responses|messages)(?:/|$)")
_POST: dict[str, Dialect] = {p: d for d in DIALECTS.values() for p in d.facts.served}
_POST["/v1/responses/compact"] = COMPACT
_COUNT: dict[str, Dialect] = {p: d for d in DIALECTS.values() for p in d.facts.counted}
# What a request would cost: its own path behind /quote, with the same body.
_QUOTE: dict[str, Dialect] = {
    p.replace("/v1/", "/v1/quote/", 1): d for d in DIALECTS.values() for p in d.facts.served
}
_QUOTE["/v1/quote"] = OPENAI
# Users put /v1 into a base URL to which their client adds it again, or leave it out where it does not.
for _table in (_POST, _COUNT, _QUOTE):
    _table.update([(p.removeprefix("/v1"), d) for p, d in _table.items()])
    _table.update([(f"/v1{p}", d) for p, d in _table.items() if p.startswith("/v1/")])
# Headers are looked at in this order, as a request may have those of two protocols.
_CLAIMING = sorted(DIALECTS.values(), key=lambda d: d is not GEMINI)
_TAKEN = frozenset((*_POST, *_COUNT, *_QUOTE))
_TEXT = [("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")]


_NO_CERTIFICATE = Failure(
    "forbidden",
    "This gateway asks for a client certificate, and none was shown. Use one that its `tls.client_ca`"
    " has signed.",
    code="client_certificate_required",
    should_retry=False,
)
_NOTHING: Mapping[str, LimitStatus] = {}
INTERNAL = "/internal/"  # what only control and the doctor on this machine may ask
InternalApi = Callable[[Inbound], Awaitable[bool]]


class App:
    """`control` answers the paths that are none of the API's; None: nothing does.

    `internal` answers what is below /internal/ and returns whether it did; None: nothing does.
    """

    def __init__(
        self,
        context: EdgeContext,
        control: ControlProxy | None = None,
        internal: InternalApi | None = None,
    ) -> None:
        self.context = context
        self.cors = Cors(context.settings.cors.origins)
        self.control = control
        self._internal = internal

    async def close(self) -> None:
        if self.control is not None:
            await self.control.close()

    async def __call__(self, inbound: Inbound) -> None:
        path, method = inbound.path, inbound.method
        if "origin" in inbound.headers and self._preflight(inbound):
            return
        if inbound.uncertified and path not in HEALTH and not self.context.proves(inbound):
            dialect_asked = dialect_of(path, inbound.headers, inbound.query)
            self._refuse(inbound, dialect_asked, _NO_CERTIFICATE)
            return
        if path.endswith("/") and path[:-1] in _TAKEN:
            path = path[:-1]
        counts, quotes = path in _COUNT, path in _QUOTE or "/quote/models/" in path
        dialect = _POST.get(path) or _COUNT.get(path) or _QUOTE.get(path)
        if dialect is not None:
            target = RequestTarget(headers=inbound.headers)
        elif found := _GENERATE.fullmatch(path.replace("/quote/", "/", 1) if quotes else path):
            dialect = GEMINI
            stream, counts = found[2] == "streamGenerateContent", found[2] == "countTokens"
            sse = dict(parse_qsl(inbound.query)).get(
                "alt", dict(parse_qsl(inbound.query)).get("$alt")
            )
            target = RequestTarget(
                unquote(found[1]), stream, stream and sse != "sse", inbound.headers
            )
        else:
            await self._other(inbound)
            return
        if method == "GET" and inbound.headers.get("upgrade", "").lower() == "websocket":
            self._no_websocket(inbound, dialect, path)
            return
        if method != "POST":
            self._refuse(
                inbound,
                dialect,
                Failure("method", f"{path} takes POST, not {method}.", code="method_not_allowed"),
            )
            return
        key: Key | None = None
        try:
            shown = credential(inbound.headers, inbound.query, path)
            key = await self.context.key_of(shown, inbound.client)
            entry = await self.context.enter(key, "count" if counts or quotes else "exchange")
        except Refused as refused:
            left = refused.standings if isinstance(refused, LimitReached) else {}
            sent = None if counts or quotes else target
            self._refuse(inbound, dialect, refused.failure, key, sent, left)
            return
        self.context.refusals.let_in(inbound)
        try:
            if quotes:
                await quote(inbound, self.context, dialect, target, entry)
            elif counts:
                await count(inbound, self.context, dialect, target, entry)
            else:
                await exchange(inbound, self.context, dialect, target, entry)
        finally:
            entry.leave()

    def _preflight(self, inbound: Inbound) -> bool:
        """Let a web page's browser read the answer, if it may; whether this was its preflight."""
        path, headers = inbound.path, inbound.headers
        if not _is_api(path):
            return False
        if not is_preflight(inbound.method, headers):
            inbound.extra = self.cors.headers(headers["origin"])
            return False
        found = self.cors.preflight(headers)
        if isinstance(found, Failure):
            self._refuse(inbound, dialect_of(path, headers, inbound.query), found)
        else:
            inbound.respond(204, found, b"")
        return True

    def _no_websocket(self, inbound: Inbound, dialect: Dialect, path: str) -> None:
        """Answer 426, on which Codex goes on with POST at once; other statuses it tries again."""
        failure = Failure(
            "method", f"{path} is not served over WebSocket; send POST.", code="upgrade_required"
        )
        self.context.metrics.requests.add(dialect.name, "", failure.kind)
        _, headers, body = refusal(dialect, failure, new_id())
        # "The server MUST send an Upgrade header field in a 426 response" (RFC 9110, 15.5.22)
        more = [("upgrade", "HTTP/1.1"), ("connection", "upgrade")]
        inbound.respond(426, [*headers, *more], body)

    async def _other(self, inbound: Inbound) -> None:
        """Lists of models, health, what control has, and whatever does not exist."""
        path = inbound.path
        dialect = dialect_of(path, inbound.headers, inbound.query)
        try:
            if not _is_api(path) and (path not in _PAGES or _wants_page(inbound)):
                if path.startswith(INTERNAL) and self._internal and await self._internal(inbound):
                    return
                if self.control is None or path.startswith(INTERNAL):
                    raise Refused(_no_path(path))
                place = self.context.overload.enter(f"peer {inbound.client}", visitor=True)
                try:
                    if (turn := self.context.overload.start(place.owner)) is not None:
                        await turn
                    await self.control(inbound, place)
                finally:
                    place.leave()
                return
            if found := stored_responses.PATH.fullmatch(path):
                await self._stored(inbound, found[1], found[2] is not None)
                return
            if inbound.method not in ("GET", "HEAD"):
                known = _MODELS.fullmatch(path) or path in _PAGES
                raise Refused(
                    Failure("method", f"{path} takes GET, not {inbound.method}.")
                    if known
                    else _no_path(path)
                )
            if page := _PAGES.get(path):
                await page(self.context, inbound)
            elif _MODELS.fullmatch(path):
                key = await self._key(inbound)
                query = dict(parse_qsl(inbound.query))
                cards = self.context.catalog.cards()
                if dialect is ANTHROPIC:
                    cards += self.context.catalog.alias_cards(key.owner, key.models)
                self._json(inbound, dialect.encode_models(cards, query))
            elif path == "/v1/key":
                key = await self._key(inbound)
                self._json(inbound, await reports.of_key(self.context, key))
            elif found := _GENERATION.fullmatch(path):
                key = await self._key(inbound)
                self._json(inbound, await reports.of_generation(self.context, key, found[1]))
            elif found := _SESSION.fullmatch(path):
                key, query = await self._key(inbound), dict(parse_qsl(inbound.query))
                page_of = await reports.of_session(self.context, key, unquote(found[1]), query)
                self._json(inbound, page_of)
            elif found := _MODEL.fullmatch(path):
                key = await self._key(inbound)
                name = unquote(found[1])
                model = self.context.catalog.find(name, key.owner, key.models)
                if model is None:
                    raise Refused(
                        Failure(
                            "not_found",
                            f"The model `{name}` does not exist here. {self.context.catalog.hint(name)}",
                            code="model_not_found",
                        )
                    )
                card = next(c for c in self.context.catalog.cards() if c.id == model.id)
                self._json(inbound, dialect.encode_model(card))
            else:
                raise Refused(_no_path(path))
        except Refused as refused:
            self._refuse(inbound, dialect, refused.failure)

    async def _stored(self, inbound: Inbound, id: str, items: bool) -> None:
        """Answer what a client asks about a response that is kept."""
        context, method = self.context, inbound.method
        if method not in ("GET", "HEAD") and (items or method != "DELETE"):
            raise Refused(Failure("method", f"{inbound.path} takes GET, not {method}."))
        key = await self._key(inbound)
        kept_here = context.responses
        if kept_here is None:
            raise Refused(
                Failure(
                    "not_found",
                    f"Response with id `{id[:64]}` not found: nothing is stored here, unless the"
                    " operator sets `responses.store`.",
                    code="response_not_found",
                )
            )
        if method == "DELETE":
            self._json(inbound, await kept_here.delete(key.owner, id))
            return
        query = dict(parse_qsl(inbound.query))
        place = context.overload.enter(key.owner)
        try:
            worker = context.overload.worker(place)
            if items:
                page = await kept_here.input_items(key.owner, id, query, worker)
            else:
                page = await kept_here.response(key.owner, id, worker)
        finally:
            place.leave()
        self._json(inbound, page)

    async def _key(self, inbound: Inbound) -> Key:
        """The key that asks for a list, a card or a report; Refused also when it asks too often."""
        shown = credential(inbound.headers, inbound.query, inbound.path)
        key = await self.context.key_of(shown, inbound.client)
        (await self.context.enter(key, "lookup")).leave()
        return key

    def _json(self, inbound: Inbound, body: bytes) -> None:
        inbound.respond(200, answers.json(new_id()), body)

    def _refuse(
        self,
        inbound: Inbound,
        dialect: Dialect,
        failure: Failure,
        key: Key | None = None,
        target: RequestTarget | None = None,
        standings: Mapping[str, LimitStatus] = _NOTHING,
    ) -> None:
        """Answer a request that gets no further; `target` is that of a request to a model.

        `standings` is what is left of the limits of its key.
        """
        context, more = self.context, []
        if failure.kind not in FREQUENT:
            context.metrics.requests.add(dialect.name, "", failure.kind)
            inbound.respond(*refusal(dialect, failure, new_id()))
            return
        if key is not None and target is not None and standings:
            more = limits.headers(dialect.facts.limit_headers, standings, time.time())
        key_id = key.id if key is not None else ""
        context.refusals.answer(inbound, dialect, failure, key_id, more, target)

    def refuse_early(
        self, failure: Failure, path: str, headers: Mapping[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """For net/server.py: what it found wrong before there was a request to hand over."""
        status, lines, body = refusal(dialect_of(path, headers, ""), failure, new_id())
        if "origin" in headers and _is_api(path):
            lines += self.cors.lines(headers["origin"])
        return status, lines, body


def _is_api(path: str) -> bool:
    """Also a path of the API that is cut, or behind a prefix: its client gets a hint."""
    if path.startswith("/docs/"):  # a guide may be called as a path of the API: /docs/responses
        return False
    known = (*_POST, *_COUNT)
    cut = len(path) > 4 and any(k.endswith(path) for k in known)  # "/messages"
    return cut or _API.match(path) is not None or path.endswith(known)


def _wants_page(inbound: Inbound) -> bool:
    """Whether a browser asks for the front page, and not a client or a probe."""
    return inbound.path == "/" and "text/html" in inbound.headers.get("accept", "")


def _no_path(path: str) -> Failure:
    hint = ""
    for known in (*_POST, *_COUNT):
        if path.endswith(known.removeprefix("/v1")) or (known.endswith(path) and len(path) > 4):
            hint = f" Did you mean {known}?"
            break
    return Failure("not_found", f"There is nothing at {path[:128]}.{hint}", code="unknown_path")


def dialect_of(path: str, headers: Mapping[str, str], query: str) -> Dialect:
    """The protocol of a path that several claim, by what its clients send."""
    if path in _POST:
        return _POST[path]
    for dialect in _CLAIMING:
        if path.startswith(dialect.facts.claims):
            return dialect
    if _GENERATE.fullmatch(path) or "key=" in query:
        return GEMINI
    for dialect in _CLAIMING:
        if any(name in headers for name in dialect.facts.client_headers):
            return dialect
    return OPENAI


def credential(headers: Mapping[str, str], query: str, path: str) -> str | None:
    """The one key a request presents, through whichever door; two different ones are refused."""
    found: set[str] = set()
    authorization = headers.get("authorization", "")
    if authorization:
        scheme, _, token = authorization.partition(" ")
        found.add(token.strip() if scheme.lower() == "bearer" else authorization)
    for name in ("x-api-key", "x-goog-api-key"):
        if value := headers.get(name, "").strip():
            found.add(value)
    # Only Google's clients put keys into addresses; elsewhere an address must not open anything.
    if "key=" in query and _GEMINI_PATH.match(path):
        found.update(v for k, v in parse_qsl(query) if k == "key" and v)
    found.discard("")
    if len(found) > 1:
        raise invalid(
            "Two different API keys were sent. Send one, in one header.",
            code="conflicting_credentials",
        )
    return found.pop() if found else None


async def _livez(context: EdgeContext, inbound: Inbound) -> None:
    inbound.respond(200, _TEXT, b"ok\n")


async def _readyz(context: EdgeContext, inbound: Inbound) -> None:
    why = context.unready()
    if why:
        inbound.respond(503, [*_TEXT, ("retry-after", "1")], f"{why}\n".encode())
    else:
        inbound.respond(200, _TEXT, b"ready\n")


async def _metrics(context: EdgeContext, inbound: Inbound) -> None:
    """Open when the operator says so, else for management keys, those of the admin API."""
    if context.settings.metrics != "open" and not context.proves(inbound):
        text = credential(inbound.headers, inbound.query, inbound.path)
        if text is None or not await context.manages(text):
            if text:
                context.failed_credential(inbound.client, "")
            raise Refused(
                Failure(
                    "unauthenticated",
                    "/metrics needs a management key: send it as `Authorization: Bearer hg_admin_...`;"
                    " `headgate admin keys create NAME --role viewer` makes one. Or set"
                    ' `metrics = "open"`, or give it a listener of its own: `metrics = "127.0.0.1:9464"`.',
                    code="invalid_api_key",
                    should_retry=False,
                )
            )
    await metrics_page(context, inbound)


async def metrics_page(context: EdgeContext, inbound: Inbound) -> None:
    kind = "text/plain; version=0.0.4; charset=utf-8"
    inbound.respond(
        200, [("content-type", kind), ("cache-control", "no-store")], await context.metrics_page()
    )


class MetricsApp:
    """What the listener answers that is for /metrics alone; it asks for no key."""

    def __init__(self, context: EdgeContext) -> None:
        self._context = context

    async def __call__(self, inbound: Inbound) -> None:
        if inbound.path in ("/metrics", "/") and inbound.method in ("GET", "HEAD"):
            await metrics_page(self._context, inbound)
        else:
            inbound.respond(404, _TEXT, b"Only GET /metrics is here.\n")


async def _root(context: EdgeContext, inbound: Inbound) -> None:
    body = (
        f"Headgate {__version__}, a gateway to MiniMax's text models.\n\n"
        "OpenAI     POST /v1/chat/completions, /v1/responses, /v1/responses/compact\n"
        "Anthropic  POST /v1/messages, /v1/messages/count_tokens\n"
        "Gemini     POST /v1beta/models/{model}:generateContent, :streamGenerateContent, :countTokens\n"
        "Prices     POST /v1/quote, /v1/quote/messages, /v1/quote/responses: what a request would cost\n"
        "Models     GET  /v1/models, /v1beta/models\n"
        "Pages      GET  /models.md, /providers/minimax.md, /docs.md, /llms.txt, /skills/minimax/SKILL.md\n\n"
        "Requests and lists of models need an API key (headgate keys create NAME); pages do not.\n"
    )
    inbound.respond(200, _TEXT, body.encode())


# All of these are open: they say nothing about anybody's traffic (but /metrics, which looks itself).
_PAGES = {
    "/": _root,
    "/api/hello": _livez,  # Claude Code knocks here before it has a key
    "/livez": _livez,
    "/readyz": _readyz,
    "/metrics": _metrics,
}
