"""From a path to what answers it: the only place where the edge's routes are followed.

What is not open asks for a key, and what is not in the tables of edge/paths.py is a 404.  The decision is
made on the raw path that was sent, never on a URL put together from headers, which a client could make up.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl, unquote

from headgate.dialects.contract import Dialect, RequestTarget
from headgate.dialects.registry import ANTHROPIC, GEMINI
from headgate.edge import answers, reports, stored_responses
from headgate.edge.answers import refusal
from headgate.edge.context import EdgeContext
from headgate.edge.control_proxy import ControlProxy
from headgate.edge.cors import Cors, is_preflight
from headgate.edge.count import count, quote
from headgate.edge.exchange import exchange
from headgate.edge.ids import new_id
from headgate.edge.open_pages import PAGES
from headgate.edge.paths import (
    COUNT,
    GENERATE,
    GENERATION,
    MODEL,
    MODELS,
    POST,
    PREFIXED,
    QUOTE,
    SESSION,
    TAKEN,
    credential,
    dialect_of,
    is_api,
    no_path,
    plain,
    wants_page,
)
from headgate.edge.refusals import NO_CERTIFICATE
from headgate.errors import FREQUENT, Failure, Refused
from headgate.net.inbound import Inbound
from headgate.net.server_limits import HEALTH
from headgate.node.client import LimitReached
from headgate.policy import limit_headers
from headgate.policy.keys import Key
from headgate.policy.limit_headers import LimitStatus

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
        self.cors = Cors(context.served.settings.cors.origins)
        self.control = control
        self._internal = internal

    async def close(self) -> None:
        if self.control is not None:
            await self.control.close()

    async def __call__(self, inbound: Inbound) -> None:
        path, method = inbound.path, inbound.method
        if "origin" in inbound.headers and self._preflight(inbound):
            return
        if (
            inbound.uncertified
            and path not in HEALTH
            and not self.context.storage.management.proves(inbound)
        ):
            dialect_asked = dialect_of(path, inbound.headers, inbound.query)
            self._refuse(inbound, dialect_asked, NO_CERTIFICATE)
            return
        if path not in TAKEN and (path.endswith("/") or path.startswith(PREFIXED)):
            path = inbound.path = plain(path)
        counts, quotes = path in COUNT, path in QUOTE or "/quote/models/" in path
        dialect = POST.get(path) or COUNT.get(path) or QUOTE.get(path)
        if dialect is not None:
            target = RequestTarget(headers=inbound.headers)
        elif found := GENERATE.fullmatch(path.replace("/quote/", "/", 1) if quotes else path):
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
            key = await self.context.credentials.key_of(shown, inbound.client)
            entry = await self.context.enter(key, "count" if counts or quotes else "exchange")
        except Refused as refused:
            left = refused.standings if isinstance(refused, LimitReached) else {}
            sent = None if counts or quotes else target
            self._refuse(inbound, dialect, refused.failure, key, sent, left)
            return
        self.context.reporting.refusals.let_in(inbound)
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
        if not is_api(path):
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
        self.context.reporting.metrics.requests.add(dialect.name, "", failure.kind)
        _, headers, body = refusal(dialect, failure, new_id())
        # "The server MUST send an Upgrade header field in a 426 response" (RFC 9110, 15.5.22)
        more = [("upgrade", "HTTP/1.1"), ("connection", "upgrade")]
        inbound.respond(426, [*headers, *more], body)

    async def _other(self, inbound: Inbound) -> None:
        """Lists of models, health, what control has, and whatever does not exist."""
        path = inbound.path
        dialect = dialect_of(path, inbound.headers, inbound.query)
        try:
            if not is_api(path) and (path not in PAGES or wants_page(inbound)):
                if path.startswith(INTERNAL) and self._internal and await self._internal(inbound):
                    return
                if self.control is None or path.startswith(INTERNAL):
                    raise Refused(no_path(path))
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
                known = MODELS.fullmatch(path) or path in PAGES
                raise Refused(
                    Failure("method", f"{path} takes GET, not {inbound.method}.")
                    if known
                    else no_path(path)
                )
            if page := PAGES.get(path):
                await page(self.context, inbound)
            elif MODELS.fullmatch(path):
                key = await self._key(inbound)
                query = dict(parse_qsl(inbound.query))
                cards = self.context.served.catalog.cards()
                if dialect is ANTHROPIC:
                    cards += self.context.served.catalog.alias_cards(key.owner, key.models)
                self._json(inbound, dialect.encode_models(cards, query))
            elif path == "/v1/key":
                key = await self._key(inbound)
                self._json(inbound, await reports.of_key(self.context, key))
            elif found := GENERATION.fullmatch(path):
                key = await self._key(inbound)
                self._json(inbound, await reports.of_generation(self.context, key, found[1]))
            elif found := SESSION.fullmatch(path):
                key, query = await self._key(inbound), dict(parse_qsl(inbound.query))
                page_of = await reports.of_session(self.context, key, unquote(found[1]), query)
                self._json(inbound, page_of)
            elif found := MODEL.fullmatch(path):
                key = await self._key(inbound)
                name = unquote(found[1])
                model = self.context.served.catalog.find(name, key.owner, key.models)
                if model is None:
                    raise Refused(
                        Failure(
                            "not_found",
                            f"The model `{name}` does not exist here. {self.context.served.catalog.hint(name)}",
                            code="model_not_found",
                        )
                    )
                card = next(c for c in self.context.served.catalog.cards() if c.id == model.id)
                self._json(inbound, dialect.encode_model(card))
            else:
                raise Refused(no_path(path))
        except Refused as refused:
            self._refuse(inbound, dialect, refused.failure)

    async def _stored(self, inbound: Inbound, id: str, items: bool) -> None:
        """Answer what a client asks about a response that is kept."""
        context, method = self.context, inbound.method
        if method not in ("GET", "HEAD") and (items or method != "DELETE"):
            raise Refused(Failure("method", f"{inbound.path} takes GET, not {method}."))
        key = await self._key(inbound)
        kept_here = context.storage.responses
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
        key = await self.context.credentials.key_of(shown, inbound.client)
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
            context.reporting.metrics.requests.add(dialect.name, "", failure.kind)
            inbound.respond(*refusal(dialect, failure, new_id()))
            return
        if key is not None and target is not None and standings:
            more = limit_headers.headers(dialect.facts.limit_headers, standings, time.time())
        key_id = key.id if key is not None else ""
        context.reporting.refusals.answer(inbound, dialect, failure, key_id, more, target)

    def refuse_early(
        self, failure: Failure, path: str, headers: Mapping[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """For net/server.py: what it found wrong before there was a request to hand over."""
        status, lines, body = refusal(dialect_of(path, headers, ""), failure, new_id())
        if "origin" in headers and is_api(path):
            lines += self.cors.lines(headers["origin"])
        return status, lines, body
