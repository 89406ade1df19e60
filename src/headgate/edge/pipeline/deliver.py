"""The fourth step: the upstream's reply goes through its filters to the client.

Its siblings know the two forms of a reply: streamed.py and whole.py.
"""

import time

import msgspec

from headgate.catalog.routes import Route
from headgate.chat import Failed
from headgate.edge import relay as relays
from headgate.edge import upstream
from headgate.edge.pipeline import observe
from headgate.edge.pipeline.filters import filters_for
from headgate.edge.pipeline.prepare import Prepared
from headgate.edge.pipeline.searches import search_rounds
from headgate.edge.pipeline.state import UNKNOWN_USAGE, Exchange
from headgate.edge.pipeline.streamed import finish_streamed
from headgate.edge.pipeline.whole import finish_whole
from headgate.edge.relay import Relay
from headgate.edge.responder import Responder
from headgate.edge.upstream import UpstreamReply
from headgate.errors import Failure, Refused
from headgate.net.client_errors import Broken, TimedOut
from headgate.policy.fit import Fitted
from headgate.reasoning.cache import ReplyCollector
from headgate.stream.translate import Whole


class Delivery:
    """Takes one reply from its upstream to the client."""

    def __init__(
        self,
        exchange: Exchange,
        prepared: Prepared,
        responder: Responder,
        route: Route,
        fitted: Fitted,
    ) -> None:
        self._exchange = exchange
        self._prepared = prepared
        self._responder = responder
        self._route = route
        self._fitted = fitted
        self._counters = exchange.context.reporting.metrics.of(
            exchange.progress.model, route.upstream.name
        )
        exchange.attempt.counters = self._counters

    async def run(self, reply: UpstreamReply) -> Failure | None:
        """Deliver the reply; the answer is its failure, where the client has nothing of it yet."""
        exchange, fitted = self._exchange, self._fitted
        attempt = exchange.attempt
        response = attempt.response = reply.response
        sink = exchange.encoder if exchange.encoder is not None else Whole(self._whole_began)
        collectors: list[ReplyCollector] = []
        rounds = search_rounds(exchange, self._prepared, self._route, sink)
        searching = rounds.filter if rounds is not None else None
        chain = filters_for(exchange, self._route, fitted, collectors, searching)
        relay = Relay(reply, chain, sink, self._send, self._responder.connection)
        translator = attempt.translator = relay.translator
        try:
            end = await relay.run()
        except (Broken, TimedOut) as error:
            exchange.measure(translator)
            failure = upstream.failure_of(error)
            if relay.begun:
                self._had_begun(failure)
                raise Refused(failure) from None
            return failure
        exchange.measure(translator)
        if isinstance(end, Failed):
            response.abort()
            return self._reported(relay, end.failure)
        observe.answered(exchange)
        if rounds is not None and rounds.searched(end):
            if not response.complete:
                await relays.let_close(response)
            end, fitted = await rounds.run(end, fitted, self._send, self._responder)
            assert attempt.response is not None
            response = attempt.response
        else:
            self._learn(collectors)
        if isinstance(sink, Whole):
            await finish_whole(
                exchange, self._prepared, self._responder, self._route, fitted, end, sink
            )
        else:
            await finish_streamed(exchange, self._responder, end, sink)
        if not response.complete:
            await relays.let_close(response)
        return None

    def _send(self, out: bytes) -> None:
        """Send the client what there is of a streamed reply; called for every piece of it."""
        now_s = time.monotonic()
        responder = self._responder
        if self._exchange.progress.first_token_s:
            self._counters.gap.observe(now_s - responder.last_write_s)
        else:
            self._first_token(now_s)
            if self._exchange.attempt.probe is not None:  # it answers; a reply may take minutes
                observe.answered(self._exchange)
            responder.start()
        responder.write(out, now_s)

    def _whole_began(self) -> None:
        """Note the first token of a reply of which the client sees nothing before its end."""
        if not self._exchange.progress.first_token_s:
            self._first_token(time.monotonic())

    def _first_token(self, now_s: float) -> None:
        first_token_s = now_s - self._exchange.arrival.began_s
        self._exchange.progress.first_token_s = first_token_s
        self._counters.first_token.observe(first_token_s)

    def _reported(self, relay: Relay, failure: Failure) -> Failure:
        """Return a failure that the upstream reported itself; Refused when its reply had begun.

        One that failed before a word of its reply may be followed by another attempt; one that only
        broke off may have worked.
        """
        translator = relay.translator
        silent = not (relay.sent or translator.fed or translator.ascii or translator.other)
        if relay.begun and not (silent and failure.upstream_code):
            self._had_begun(failure)
            raise Refused(msgspec.structs.replace(failure, should_retry=False))
        self._exchange.progress.usage = UNKNOWN_USAGE
        return failure

    def _had_begun(self, failure: Failure) -> None:
        """Report the failure, and let the attempt show that its reply may have been billed."""
        observe.failed(self._exchange, failure)
        self._exchange.attempt.reply_began = True

    def _learn(self, collectors: list[ReplyCollector]) -> None:
        """Keep what a finished reply teaches: the size of its input, and its reasoning."""
        exchange, context, prepared = self._exchange, self._exchange.context, self._prepared
        usage = exchange.progress.usage
        if not usage.estimated and not exchange.record.dispute:
            context.outbound.counter.learn(
                exchange.progress.model, prepared.size.features, usage.input
            )
        if collectors and context.reasoning.cache is not None:
            (collector,), origin = collectors, self._route.upstream.name
            key_id, now_s = exchange.arrival.entry.key.id, time.monotonic()
            context.reasoning.cache.keep(key_id, prepared.request, collector.parts, now_s, origin)
