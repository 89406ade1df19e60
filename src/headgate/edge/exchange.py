"""THE SPINE: one client request with its upstream attempts, from top to bottom.

    key -> request -> routes -> reasoning put back -> repair and fit -> attempt (another route, if that one failed before
    anything was relayed) -> relay -> the end recorded -> terminal frame

Everything decided here is decided by a pure function elsewhere; everything that can go wrong ends
as a Failure in the caller's own protocol: as an HTTP status while nothing was sent, as an event in
the stream afterwards.  What will surprise: when the client hangs up, the server cancels this task
wherever it waits, and the `finally` below closes the upstream connection in the same turn of the
loop; not so where the key says `drain`, or an Idempotency-Key came (replay.py).
After anything was relayed there is no second attempt, as tools may have run on it.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import msgspec

from headgate.catalog import counting
from headgate.catalog.catalog import Route
from headgate.catalog.counting import Features
from headgate.chat import Failed, Finish, Reply, Request, Usage
from headgate.dialects.contract import Dialect, Encoder, ReplyFacts, RequestTarget
from headgate.edge import answers, replay, upstream
from headgate.edge import log as logs
from headgate.edge import relay as relays
from headgate.edge.context import EdgeContext, Entry
from headgate.edge.ids import new_id
from headgate.edge.metrics import RouteMetrics
from headgate.edge.overload import OFF_LOOP_BYTES
from headgate.edge.record import ExchangeRecord
from headgate.edge.relay import Relay
from headgate.errors import ABANDONED, FINAL, NO_WORK, Failure, Refused, invalid
from headgate.net import guard
from headgate.net.client import Broken, Response, TimedOut
from headgate.net.server import Inbound
from headgate.policy import fit, history, idempotency, reservations, retry, structured
from headgate.policy.fit import Fitted
from headgate.policy.keys import Key
from headgate.policy.limits import PacedTurn
from headgate.policy.retry import After, decide
from headgate.reasoning import sealing
from headgate.reasoning.cache import ReplyCollector
from headgate.storage.sqlite.ledger import LedgerRow
from headgate.stream import filters
from headgate.stream.translate import Translator, Whole

P = ParamSpec("P")
R = TypeVar("R")

BACKOFF_S = 0.05  # full jitter below it
_NO_FEATURES, _UNKNOWN = Features(), Usage(estimated=True)


async def exchange(
    inbound: Inbound, gate: EdgeContext, dialect: Dialect, target: RequestTarget, entry: Entry
) -> None:
    """Answer one request to a model, whatever happens; the caller leaves the entry afterwards."""
    run = _Exchange(inbound, gate, dialect, target, entry)
    try:
        await run.through()
    except Refused as refused:
        await run.fail(refused.failure)
    except asyncio.CancelledError:
        if not inbound.expired:
            run.left()
            raise
        await run.shut_down()
    except Exception as error:  # the one place: whatever else went wrong is ours, and is recorded
        run.where = logs.places(error)
        await run.fail(
            Failure(
                "internal",
                "The gateway failed on this request; its log says where.",
                should_retry=False if run.attempts else None,
            )
        )
    finally:
        run.close()


def _fitted(request: Request, route: Route, dialect: str) -> Fitted:
    """The request as the route takes it, with its history repaired; Refused when it cannot."""
    repaired = history.repair(request, route.capabilities, dialect)
    return fit.fit(
        repaired,
        route.capabilities,
        max_output=route.model.max_output,
        default_max_output=route.model.default_max_output,
    )


class _Exchange:
    # How an exchange begins; what does not change in most stays here, and costs them nothing.
    translator: Translator | None = None
    features = _NO_FEATURES
    input_estimate = 0
    outcome = "internal"
    where = ""
    model = ""
    status = 0
    stream = False
    large = False  # its body; the work on it is done in a thread
    relaying = False  # counted among the open streams
    attempts = 0
    attempt_began = 0.0  # 0: none is running
    began_s = 0.0  # of the last attempt
    route: Route | None = None
    response: Response | None = None
    counters: RouteMetrics | None = None
    encoder: Encoder | None = None
    usage = _UNKNOWN
    first_token_s = 0.0
    upstream_code = ""
    warnings: tuple[str, ...] = ()
    recalled: tuple[str, ...] = ()  # how reasoning came back that the client did not carry
    _paced: PacedTurn | None = None
    _probe: Route | None = None  # a paused route that nobody else asks meanwhile
    _fallbacks: tuple[str, ...] = ()  # warnings of what was asked before
    _keepalive: asyncio.TimerHandle | None = None

    def __init__(
        self,
        inbound: Inbound,
        gate: EdgeContext,
        dialect: Dialect,
        target: RequestTarget,
        entry: Entry,
    ) -> None:
        self.inbound: Inbound | replay.ReplyRecorder = inbound
        self.client = inbound
        self.gate = gate
        self.dialect = dialect
        self.target = target
        self.entry = entry
        self.key: Key = entry.key
        self.id = new_id()
        self.booking = ExchangeRecord(gate, self.id, dialect.name)
        self.began = self._last_write = time.monotonic()

    async def through(self) -> None:
        gate, dialect, key, place = self.gate, self.dialect, self.key, self.entry.place
        body = await self.client.body(gate.overload.max_body_bytes, place.reserve)
        self.large = len(body) >= OFF_LOOP_BYTES
        if (turn := gate.overload.start(place.owner, len(body))) is not None:
            await turn
        if self.large:
            request = await gate.overload.off_loop(place, dialect.decode_request, body, self.target)
        else:
            request = dialect.decode_request(body, self.target)
        routes = gate.routes(request.model, key, request)
        self.model = routes[0].model.id
        if replay.HEADER in self.client.headers and await self._answered_before(key, body):
            return
        del body  # the request has what it says, for as long as the answer takes
        if key.on_hang_up == "drain":
            self.client.drains = True
        self.stream = request.stream
        for message in request.messages:
            if message.role == "assistant":  # nobody else thinks
                request = await self._remembered(request, routes[0], key.id)
                break
        self.features = await self._worked(counting.features, request)
        self.input_estimate = gate.counter.estimate(self.model, self.features)
        facts = ReplyFacts(self.id, self.model, int(time.time()), self.input_estimate)
        if request.stream:
            self.encoder = dialect.encoder(request, facts, self.target)
            self._watch_silence()
        await self._attempt(routes, request, facts)

    async def _worked(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `work` makes of the request: in the thread for large ones, which would hold up others."""
        if self.large:
            return await self.gate.overload.off_loop(self.entry.place, work, *args, **kwargs)
        return work(*args, **kwargs)

    async def _answered_before(self, key: Key, body: bytes) -> bool:
        """Send the reply that this Idempotency-Key had, or record the one that it will have."""
        target, dialect = self.target, self.dialect.name
        address = (dialect, target.model, target.stream, target.array)
        mark = await self._worked(idempotency.fingerprint, body, *address)
        found = await self.gate.replays.begin(self.client, key.id, mark)
        if isinstance(found, replay.ReplyRecorder):
            self.inbound, self.id = found, found.id
            self.booking = ExchangeRecord(self.gate, self.id, dialect)
            self.client.drains = True
            return False
        self.outcome, self.status = "replayed", found.status
        await replay.again(self.client, found)
        return True

    async def _remembered(self, request: Request, first: Route, key_id: str) -> Request:
        """The request with the reasoning that the client returned sealed, or not at all."""
        origin = first.upstream.name
        request, sealed = await self._worked(sealing.unseal, request, self.gate.sealer, origin)
        warnings: list[str] = []
        if sealed:
            warnings.append("reasoning (sealed)")
        if self.gate.memory is not None:
            request, kept = self.gate.memory.recall(key_id, request, time.monotonic(), origin)
            if kept:
                warnings.append("reasoning (remembered)")
        self.recalled = tuple(warnings)
        return request

    async def _attempt(
        self, routes: tuple[Route, ...], request: Request, facts: ReplyFacts
    ) -> None:
        """Ask the routes in their order until one begins to answer, then relay it."""
        turns = self.gate.turns
        plan = list(routes)
        failed: Failure | None = None  # what the client gets if nothing else can be asked
        fresh = False
        while True:
            taken = turns.take(plan)
            if taken is None:  # also where what `others` saw was taken by another request meanwhile
                if failed is None:
                    raise Refused(turns.paused(routes))
                raise Refused(retry.final(failed, turns.wait_s(routes)))
            route, probe = taken
            self.route, self._probe = route, route if probe else None
            if route is not routes[0] and not self.attempts and not self._fallbacks:
                self._fallbacks = (f"fallback ({routes[0].served_by}: paused)",)
            # A signature says something only to the upstream that made it.
            known = request if route.upstream is routes[0].upstream else sealing.unsigned(request)
            fitted = await self._worked(_fitted, known, route, self.dialect.name)
            self.warnings = (*self._fallbacks, *fitted.request.warnings)
            if fitted.format is not None and (said := structured.fault(fitted.format)):
                raise invalid(said, "$.response_format")
            if not self.booking.opened:
                max_tokens = await self.booking.open(
                    self.key,
                    self.entry.admission,
                    request,
                    fitted.request,
                    route,
                    routes,
                    self.input_estimate,
                )
                if max_tokens is not None:  # the budget pays for less than was asked
                    request = reservations.lowered(request, max_tokens)
                    known = reservations.lowered(known, max_tokens)
                    fitted = await self._worked(_fitted, known, route, self.dialect.name)
                    self.warnings = (*self._fallbacks, *fitted.request.warnings)
            self.booking.sent(fitted.request, route)
            self.usage = _UNKNOWN  # also where an attempt that failed had reported some
            elsewhere = bool(plan) and turns.others(plan) == "good"
            try:
                patience_s = 0.0 if elsewhere else self.gate.settings.timeouts.pace
                self._paced = await turns.wait(route, self.input_estimate, patience_s)
            except Refused as no_room:
                self._untried()
                if not elsewhere:
                    raise
                failed = failed or no_room.failure
                self._fallbacks = (*self._fallbacks, f"fallback ({route.served_by}: paced)")
                continue
            failure = await self._asked(route, request, fitted, facts, fresh)
            if failure is None:
                return
            self._attempted(failure.kind, failure.upstream_code)
            self.upstream_code = failure.upstream_code
            stale = failure.upstream_code == retry.STALE
            kind = retry.STALE if stale else failure.kind
            self.gate.metrics.upstream_errors.add(route.upstream.name, kind)
            if stale or failure.code == upstream.NO_CONNECTION:  # nothing is known of the upstream
                self._untried()
            else:
                self._failed(failure)
            if failure.kind not in NO_WORK:  # which another key would meet as well
                plan = [r for r in plan if r.place != route.place]
            others = turns.others(plan)
            after = After(
                failure,
                self.attempts,
                self.gate.settings.retry.attempts,
                others,
                turns.closed(route),
                turns.retries.left(route.upstream.name if others == "none" else ""),
                fresh,
            )
            failed = retry.shown(failed, upstream.named(failure, route))
            decision = decide(after)
            fresh = decision == "fresh"
            match decision:
                case "stop":
                    if failure.kind in FINAL or failure.should_retry is False:
                        raise Refused(failure)
                    raise Refused(retry.final(failed, turns.wait_s(routes)))
                case "other":
                    if retry.demotes(after):
                        turns.demote(route)
                    turns.retries.spend()
                    code = failure.upstream_code or failure.kind
                    warning = f"fallback ({route.served_by}: {failure.kind} {code})"
                    self._fallbacks = (*self._fallbacks, warning)
                case "same" | "fresh":
                    turns.retries.spend(route.upstream.name)
                    plan.insert(0, route)
                    if decision == "same":
                        await asyncio.sleep(random.random() * BACKOFF_S)

    async def _asked(
        self, route: Route, request: Request, fitted: Fitted, facts: ReplyFacts, fresh: bool
    ) -> Failure | None:
        """One attempt that is counted; as `_try`."""
        if not self.attempts:
            self.gate.turns.retries.earned(route.upstream.name)
        self.attempts += 1
        self.attempt_began = self.began_s = time.monotonic()
        self.upstream_code = ""  # of the attempt before
        self.gate.metrics.attempts.add(route.upstream.name)
        return await self._try(route, request, fitted, facts, fresh)

    async def _try(
        self, route: Route, request: Request, fitted: Fitted, facts: ReplyFacts, fresh: bool
    ) -> Failure | None:
        """One attempt: None when the client has its answer, the failure when it has nothing yet."""
        gate = self.gate
        try:
            body = await self._worked(upstream.encoded, route, fitted.request)
            attempt = await upstream.begin(
                gate.client, route, body, gate.timeouts, self.id, fresh=fresh
            )
            del body
        except Refused as refused:
            return refused.failure
        response = self.response = attempt.response
        sink = self.encoder if self.encoder is not None else Whole()
        gathers: list[ReplyCollector] = []
        relay = Relay(attempt, self._filters(fitted, route, gathers), sink, self._say, self.inbound)
        translator = self.translator = relay.translator
        self.counters = gate.metrics.of(self.model, route.upstream.name)
        try:
            end = await relay.run()
        except (Broken, TimedOut) as error:
            self._measure(translator)
            failure = upstream.failure_of(error)
            if relay.begun:
                self._had_begun(failure)
                raise Refused(failure) from None
            return failure
        self._measure(translator)
        if isinstance(end, Failed):
            response.abort()
            # An upstream that says itself that it failed, before a word of its reply, may be followed
            # by another; one that only broke off may have worked.
            silent = not (relay.said or translator.fed or translator.ascii or translator.other)
            if relay.begun and not (silent and end.failure.upstream_code):
                self._had_begun(end.failure)
                raise Refused(msgspec.structs.replace(end.failure, should_retry=False))
            self.usage = _UNKNOWN
            return end.failure
        gate.turns.passed(route, self._probe is not None)
        self._probe = None
        if not self.usage.estimated and not self.booking.dispute:
            gate.counter.learn(self.model, self.features, self.usage.input)
        if gathers and gate.memory is not None:
            (gather,), origin = gathers, route.upstream.name
            gate.memory.keep(self._key_id, request, gather.parts, time.monotonic(), origin)
        if isinstance(sink, Whole):
            await self._finish_whole(end, sink, route, request, fitted, facts)
        else:
            await self._finish(end, sink)
        if not response.complete:
            await relays.let_close(response)
        return None

    def _say(self, out: bytes) -> None:
        """To the client, what there is of the reply."""
        now = time.monotonic()
        counters = self.counters
        assert counters is not None  # of the route that answers
        if self.first_token_s:
            counters.gap.observe(now - self._last_write)
        else:
            self._first_token(counters, now)
            if self._probe is not None:  # it answers; a reply may take minutes
                self.gate.turns.passed(self._probe, True)
                self._probe = None
            self._start()
        self._last_write = now
        self.inbound.write(out)

    def _filters(
        self, fitted: Fitted, route: Route, gathers: list[ReplyCollector]
    ) -> list[filters.Filter]:
        """`gathers` gets the one that gathers the reply, once the reply thinks."""
        asked = fitted.request
        show, capsules = asked.reasoning.show, self.dialect.capsules
        if show == "no" and capsules == "always":
            show = "omit"

        def keepers() -> tuple[filters.Filter, ...]:
            gathers.append(ReplyCollector())
            signed = capsules == "signed"
            return gathers[0], sealing.Seal(self.gate.sealer, route.upstream.name, signed)

        fidelity = self.gate.settings.fidelity
        return filters.build(
            show,
            fitted.stop,
            fitted.format is not None,
            keepers,
            tools=() if asked.choice.mode == "none" else asked.tools,
            seed=self.id,
            salvage=fidelity.salvage,
            coerce=fidelity.coerce,
        )

    async def _finish(self, end: Finish, sink: Encoder) -> None:
        """The end of a stream is known: record it, then let the terminal frame go."""
        self.outcome, self.status = end.reason, 200
        row = self._row()
        await self.booking.settle(row)
        # The client is shown what it is billed, and not what an upstream may claim beside it.
        tail = sink.feed([Finish(end.reason, self.usage, end.stop_sequence, row.cost_nano)])
        self._start()
        self.inbound.write(tail)
        self.inbound.end()

    async def _finish_whole(
        self,
        end: Finish,
        sink: Whole,
        route: Route,
        request: Request,
        fitted: Fitted,
        facts: ReplyFacts,
    ) -> None:
        """A whole reply is known: see that it is what was asked for, record it, let it go."""
        if self.counters is not None:
            self._first_token(self.counters, time.monotonic())
        sink.collector.feed([end])
        reply = sink.collector.reply
        assert reply is not None
        if fitted.format is not None:
            reply, reason = structured.settle(reply, fitted.format)
            if reason and self.gate.settings.fidelity.repair and structured.repairable(reply):
                reply, reason = await self._asked_again(route, fitted, reply, reason)
            if reason:
                self.warnings = (*self.warnings, "response_format (not valid)")
        self.outcome, self.status = reply.finish.reason, 200
        row = self._row()
        await self.booking.settle(row)
        finish = msgspec.structs.replace(reply.finish, usage=self.usage, cost_nano=row.cost_nano)
        reply = msgspec.structs.replace(reply, finish=finish)
        body = self.dialect.encode_reply(reply, request, facts)
        inbound, kind = self.inbound, "application/json"
        if isinstance(inbound, replay.ReplyRecorder):  # which keeps them one by one
            inbound.respond(200, self._headers(kind), body)
        else:
            inbound.respond(200, self._block(kind), body)

    async def _asked_again(
        self, route: Route, fitted: Fitted, reply: Reply, reason: str
    ) -> tuple[Reply, str | None]:
        """One more try at a structured reply, whose tokens are added; the old one if it fails."""
        assert fitted.format is not None
        again = structured.repair_request(fitted.request, reply, reason)
        booked = self.booking.again(again, route)
        if booked is None:
            self.warnings = (*self.warnings, "response_format (not asked again: the budget)")
            return reply, reason
        again = booked
        self._attempted("invalid_format", "")
        if self.response is not None and not self.response.complete:
            await relays.let_close(self.response)
        self.attempts += 1
        self.attempt_began = time.monotonic()
        try:
            body = await self._worked(upstream.encoded, route, again)
            attempt = await upstream.begin(
                self.gate.client, route, body, self.gate.timeouts, self.id, fresh=True
            )
            del body
            self.response = attempt.response
            sink = Whole()
            relay = Relay(attempt, self._filters(fitted, route, []), sink, self._say, self.inbound)
            self.translator = relay.translator
            end = await relays.read_whole(relay)
        except (Refused, Broken, TimedOut):
            return reply, reason
        self._measure(relay.translator)
        sink.collector.feed([end])
        better = sink.collector.reply
        return (reply, reason) if better is None else structured.settle(better, fitted.format)

    async def _settle(self) -> None:
        """Commit the row of this exchange, if it has a mark and no row yet."""
        if self.booking.opened and not self.booking.settled:
            await self.booking.settle(self._row())

    async def shut_down(self) -> None:
        """The gateway ends before this exchange has: tell the client, and record what was relayed."""
        if self.response is not None:
            self.response.abort()  # or it would go on writing while the row is committed
        if self.translator is not None and self.translator.end is None:
            self._measure(self.translator)
        await self.fail(
            Failure(
                "unavailable",
                "The gateway is shutting down, and the time for running requests is over.",
                code="shutting_down",
                retry_after_s=1,
                should_retry=not self.attempts,
            ),
            outcome="shutdown",
        )

    def left(self) -> None:
        """The client has gone: what was relayed is what is billed."""
        if self.outcome == "internal":  # else its end was known before it went
            self.outcome = "client_gone"
            if self.translator is not None and self.translator.end is None:
                self._measure(self.translator)

    def _attempted(self, outcome: str, code: str) -> None:
        if self.route is not None and self.attempt_began:
            took = time.monotonic() - self.attempt_began
            self.booking.attempted(self.route, outcome, code, took)
            self.attempt_began = 0.0

    def _row(self) -> LedgerRow:
        assert self.route is not None  # a mark is opened for a route
        self._attempted(self.outcome, self.upstream_code)
        row = self.booking.row(
            self.route,
            self.outcome,
            self.status,
            self.usage,
            first_token_s=self.first_token_s,
            total_s=time.monotonic() - self.began,
            warnings=(*self.warnings, *self.recalled) if self.recalled else self.warnings,
        )
        if isinstance(self.inbound, replay.ReplyRecorder):
            self.inbound.row = row
        return row

    def _measure(self, translator: Translator) -> None:
        self.usage = self.booking.measured(relays.measure(translator, self.input_estimate))

    def _had_begun(self, failure: Failure) -> None:
        """Let the row of a reply that nobody saw tell that there was one: it may have been billed."""
        self._failed(failure)
        self.first_token_s = self.first_token_s or time.monotonic() - self.began

    def _failed(self, failure: Failure) -> None:
        """Count a failed attempt against its route or key, and log what it paused."""
        route, gate = self.route, self.gate
        assert route is not None
        paused = gate.turns.failed(route, failure, self.began_s, self._probe is not None)
        self._probe = None
        if paused:
            gate.metrics.upstream_pauses.add(route.upstream.name, failure.kind)
            gate.log.write(
                logs.LogLine(
                    logs.now(), "warning", "upstream_paused", self.id, model=self.model,
                    upstream=route.served_by, outcome=failure.kind,
                    upstream_code=failure.upstream_code,
                )
            )  # fmt: skip

    def _untried(self) -> None:
        """Whatever kept us from asking a paused route, another request may."""
        if self._probe is not None:
            self.gate.turns.left(self._probe)
            self._probe = None

    def _first_token(self, counters: RouteMetrics, now: float) -> None:
        self.first_token_s = now - self.began
        counters.first_token.observe(self.first_token_s)

    def _start(self) -> None:
        if not self.inbound.started:
            self.status = 200
            kind = self.dialect.array_type if self.target.array else self.dialect.stream_type
            inbound = self.inbound
            if isinstance(inbound, replay.ReplyRecorder) or self.route is None:
                inbound.start(200, self._headers(kind))
            else:
                inbound.start(200, self._block(kind))
            self.relaying = True
            self.gate.metrics.open_streams += 1

    def _headers(self, content_type: str) -> list[tuple[str, str]]:
        """Of an answer that is none of a failure."""
        return [*answers.always(content_type, self.id), *self._more_headers()]

    def _block(self, content_type: str) -> bytes:
        """The same as the lines that they become."""
        assert self.route is not None
        id, told = self.id.encode(), self._told()
        block = answers.BLOCK % (content_type.encode(), id, id)
        block += answers.by(self.route.served_by)
        return block + guard.header_block(told) if told else block

    def _more_headers(self) -> list[tuple[str, str]]:
        """What is told of this exchange beside what every answer has."""
        route = self.route
        by = [] if route is None else [(answers.BY, route.served_by)]
        return by + self._told()

    def _told(self) -> list[tuple[str, str]]:
        out: list[tuple[str, str]] = []
        if self.warnings:
            out.append(("x-headgate-warnings", answers.header_list(self.warnings)))
        out += self.gate.admissions.headers(self.key, self.dialect.name)
        if self.stream:
            out.append(("x-accel-buffering", "no"))  # nginx in front must not gather the stream
        return out

    @property
    def _key_id(self) -> str:
        return self.key.id

    def _quiet(self) -> None:
        if self._keepalive is not None:
            self._keepalive.cancel()
            self._keepalive = None

    def _watch_silence(self) -> None:
        """Keep a silent stream alive, in the protocol's own way, from now to its end."""
        loop, every = asyncio.get_running_loop(), self.gate.settings.keepalive_s
        self._keepalive = loop.call_later(every, self._look, loop, every)

    def _look(self, loop: asyncio.AbstractEventLoop, every: float) -> None:
        if self.inbound.gone or self.inbound.ended:
            return
        silent = time.monotonic() - self._last_write
        if silent >= every:
            self._start()
            if not self.inbound.paused:
                self.inbound.write(self.dialect.keepalive)
            self._last_write = time.monotonic()
            silent = 0.0
        self._keepalive = loop.call_later(every - silent, self._look, loop, every)

    async def fail(self, failure: Failure, *, outcome: str = "") -> None:
        """Tell the client, in its own protocol and in the form that is still possible."""
        inbound = self.inbound
        self.outcome = outcome or failure.kind
        self.upstream_code = failure.upstream_code or self.upstream_code
        self._quiet()
        if inbound.gone or inbound.ended:
            return
        if self.encoder is None:
            self.usage = Usage()  # nothing of the reply is shown, so nothing of it is billed
        elif self.dialect.refuses_in_stream(failure, inbound.headers):
            self._start()
        status, headers, body = answers.refusal(self.dialect, failure, self.id)
        if not inbound.started:
            self.status = status
        await self._settle()
        if not inbound.started:
            inbound.respond(status, headers + self._more_headers(), body)
            return
        assert self.encoder is not None
        for n, piece in enumerate(self.encoder.fail(failure)):
            if n:
                await asyncio.sleep(
                    0.02
                )  # Gemini's two forms must not arrive as one (protocols.md, fact 5)
            inbound.write(piece)
        inbound.end()

    def close(self) -> None:
        """Whatever happened: nothing of this exchange stays behind, and it is counted once."""
        self._quiet()
        self._untried()
        if self.response is not None:
            self.response.abort()  # one that is complete has let go of its connection
        tokens = self.usage.input + self.usage.output
        # Of a reply that nobody waited for, the upstream may have counted all that was estimated.
        if self._paced is not None and (tokens or self.outcome not in ABANDONED):
            self.gate.turns.took(self._paced, tokens)
        if self.booking.opened and not self.booking.settled:
            self.booking.settle_soon(self._row())
        self.translator = None  # whose filters know us: else only the collector of garbage helps
        if isinstance(self.inbound, replay.ReplyRecorder):
            self.inbound.close()
        metrics, name = self.gate.metrics, self.route.upstream.name if self.route else ""
        if self.relaying:  # an error page has started an answer too
            metrics.open_streams -= 1
        metrics.requests.add(self.dialect.name, self.model, self.outcome)
        total_s = time.monotonic() - self.began
        usage = self.usage
        if self.counters is not None:
            self.counters.duration.observe(total_s)
            self.counters.spent(usage)
        level, remarks = "info", self.warnings
        if self.booking.dispute:
            level, remarks = "warning", (*remarks, self.booking.dispute)
        if self.where:
            level = "error"
        if self.gate.log.wants(level):
            self.gate.log.write(
                logs.LogLine(
                    logs.now(), level, "exchange", self.id,
                    self.dialect.name, self.model, name, self._key_id, self.status, self.outcome,
                    self.stream, self.attempts, usage.input, usage.output,
                    round(self.first_token_s * 1e3, 1), round(total_s * 1e3, 1),
                    self.upstream_code, remarks, self.where,
                )
            )  # fmt: skip
