"""One request to count tokens or to quote a price: the sibling of exchange.py, without an upstream's reply.

Whatever becomes of it, it is answered in the caller's protocol, counted and logged once.
"""

import asyncio
import time

import msgspec

from headgate.catalog import counting
from headgate.catalog.routes import Route
from headgate.chat import Request
from headgate.dialects.contract import Dialect, RequestTarget
from headgate.edge import answers
from headgate.edge import log as logs
from headgate.edge.context import EdgeContext
from headgate.edge.counter import ESTIMATED, WRITTEN, Count
from headgate.edge.entry import Entry
from headgate.edge.ids import new_id
from headgate.edge.masker import masker_of
from headgate.edge.model_routes import routes_of
from headgate.edge.overload import MASKED_BYTES, OFF_LOOP_BYTES
from headgate.edge.pipeline.prepare import ROUTE_HEADER, preferring
from headgate.errors import Failure, Refused
from headgate.net.inbound import Inbound
from headgate.policy import pricing, quotes
from headgate.reasoning import sealing


async def count(
    inbound: Inbound, context: EdgeContext, dialect: Dialect, target: RequestTarget, entry: Entry
) -> None:
    """Answer how many tokens a request would be; the caller leaves the entry afterwards."""
    await _Counting(inbound, context, dialect, target, entry).run()


async def quote(
    inbound: Inbound, context: EdgeContext, dialect: Dialect, target: RequestTarget, entry: Entry
) -> None:
    """Answer what a request would cost, which is not sent; the caller leaves the entry afterwards."""
    await _Quoting(inbound, context, dialect, target, entry).run()


class _Result(msgspec.Struct):
    """How it ended, for the log and the metrics."""

    outcome: str = "internal"
    status: int = 0
    model: str = ""
    tokens: int = 0
    where: str = ""
    warnings: tuple[str, ...] = ()


class _Counting:
    def __init__(
        self,
        inbound: Inbound,
        context: EdgeContext,
        dialect: Dialect,
        target: RequestTarget,
        entry: Entry,
    ) -> None:
        self.inbound = inbound
        self.context = context
        self.dialect = dialect
        self.target = target
        self.entry = entry
        self.result = _Result()
        self.id = new_id()
        self.began = time.monotonic()

    async def run(self) -> None:
        try:
            count, request, routes = await self._counted()
            self._answer(count, self._body(count, request, routes))
        except Refused as refused:
            self._fail(refused.failure)
        except asyncio.CancelledError:
            if not self.inbound.expired:
                self.result.outcome = "client_gone"
                raise
            self._fail(
                Failure(
                    "unavailable",
                    "The gateway is shutting down, and the time for running requests is over.",
                    code="shutting_down",
                    retry_after_s=1,
                    should_retry=True,
                )
            )
            self.result.outcome = "shutdown"
        except Exception as error:  # as in exchange.py: what else went wrong is ours
            self.result.where = logs.places(error)
            self._fail(
                Failure("internal", "The gateway failed on this request; its log says where.")
            )
        finally:
            self._record()

    async def _counted(self) -> tuple[Count, Request, tuple[Route, ...]]:
        """Return the count, with the request and its routes in the order in which they are asked."""
        context, dialect, place = self.context, self.dialect, self.entry.place
        body = await self.inbound.body(context.overload.max_body_bytes, place)
        if context.storage.responses is not None and dialect.name == "responses":
            worker = context.overload.worker(place)
            body = (await context.storage.responses.whole(self.entry.key.owner, body, worker)).body
        large = len(body) >= OFF_LOOP_BYTES
        if (turn := context.overload.start(place.owner, len(body))) is not None:
            await turn
        if large:
            request = await context.overload.off_loop(
                place, dialect.decode_request, body, self.target
            )
        else:
            request = dialect.decode_request(body, self.target)
        size = len(body)
        del body
        if ROUTE_HEADER in self.inbound.headers:
            request = preferring(request, self.inbound.headers[ROUTE_HEADER])
        routes = routes_of(context, request.model, self.entry.key, request)
        self.result.model = routes[0].model.id
        origin = routes[0].upstream.name
        masker = masker_of(self.entry.key, context.outbound.mask_secret)
        if not large and (masker is None or size < MASKED_BYTES):
            request, _ = sealing.unseal(request, context.reasoning.sealer, origin)
            if masker is not None:  # an upstream may count it
                request = masker.request(request)
            return (
                await context.outbound.counter.count(request, routes, dialect.name),
                request,
                routes,
            )
        request, _ = await context.overload.off_loop(
            place, sealing.unseal, request, context.reasoning.sealer, origin
        )
        if masker is not None:
            request = await context.overload.off_loop(place, masker.request, request)
        counted = await context.outbound.counter.count(
            request, routes, dialect.name, context.overload.worker(place)
        )
        return counted, request, routes

    def _body(self, count: Count, request: Request, routes: tuple[Route, ...]) -> bytes:
        return self.dialect.encode_count(count.tokens)

    def _answer(self, count: Count, body: bytes) -> None:
        self.result.outcome, self.result.status, self.result.tokens = "counted", 200, count.tokens
        headers = answers.json(self.id)
        if count.warning:
            self.result.warnings = (count.warning,)
            headers.append((answers.WARNINGS, count.warning))
        self.inbound.respond(200, headers, body)

    def _fail(self, failure: Failure) -> None:
        self.result.outcome = failure.kind
        inbound = self.inbound
        if inbound.gone or inbound.ended:
            return
        if inbound.started:  # an answer of known length that could not be written whole
            inbound.abort()
            return
        status, headers, body = answers.refusal(self.dialect, failure, self.id)
        self.result.status = status
        inbound.respond(status, headers, body)

    def _record(self) -> None:
        self.context.reporting.metrics.counts.add(
            self.dialect.name, self.result.model, self.result.outcome
        )
        if self.context.reporting.log.wants("info"):
            self.context.reporting.log.write(
                logs.LogLine(
                    logs.now(),
                    "error" if self.result.where else "info",
                    "count",
                    self.id,
                    self.dialect.name,
                    self.result.model,
                    key=self.entry.key.id,
                    status=self.result.status,
                    outcome=self.result.outcome,
                    input_tokens=self.result.tokens,
                    total_ms=round((time.monotonic() - self.began) * 1e3, 1),
                    warnings=self.result.warnings,
                    where=self.result.where,
                    client=self.inbound.client,
                )
            )


class _Quoting(_Counting):
    def _body(self, count: Count, request: Request, routes: tuple[Route, ...]) -> bytes:
        admissions, tier, now_s = self.context.admissions, request.service_tier, time.time()
        first = routes[0]
        paid = tuple({admissions.tariff(r.prices, tier, now_s): None for r in routes if not r.free})
        most = max(r.sizes.max_output for r in routes)
        asked = request.sampling.max_tokens
        found = quotes.quote(
            model=self.result.model,
            service_tier=tier,
            prices=first.prices,
            tariff=admissions.tariff(first.prices, tier, now_s),
            dearest=pricing.dearest(paid),
            input=count.tokens,
            counted=_COUNTED[count.warning],
            input_bound=counting.input_bound(request, max(r.sizes.context_window for r in routes)),
            max_output=most if asked is None else min(asked, most),
        )
        return msgspec.json.encode(found)


_COUNTED: dict[str, quotes.Counted] = {
    "": "exact",
    WRITTEN: "template_assumed",
    ESTIMATED: "estimated",
}
