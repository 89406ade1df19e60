"""The rounds of a reply that searches the web: search, then ask the same route once more.

The client gets one reply.  Each round is an upstream call of its own, whose cost is reserved before it
and added to the exchange's row after it (edge/record.py).
Note: after a round nothing is asked of another route, as the client may have seen the reply begin.
"""

import time
from collections.abc import Callable, Sequence

import msgspec

from headgate.catalog import counting
from headgate.catalog.routes import Route
from headgate.chat import Failed, Finish, Found, Searched, ToolCall
from headgate.dialects.contract import Encoder
from headgate.edge import relay as relays
from headgate.edge import upstream
from headgate.edge.pipeline import observe
from headgate.edge.pipeline.filters import filters_for
from headgate.edge.pipeline.prepare import Prepared, fitted_to
from headgate.edge.pipeline.record import attempted
from headgate.edge.pipeline.state import Exchange
from headgate.edge.relay import Relay
from headgate.edge.responder import Responder
from headgate.edge.web_search import SearchProvider
from headgate.errors import Failure, Refused
from headgate.net.client_errors import Broken, TimedOut
from headgate.policy import web_search
from headgate.policy.fit import Fitted
from headgate.reasoning.cache import ReplyCollector
from headgate.stream.searching import Citations, Continued, SearchCalls
from headgate.stream.translate import Whole


def search_rounds(
    exchange: Exchange, prepared: Prepared, route: Route, sink: Encoder | Whole
) -> "SearchRounds | None":
    """Return the rounds of a reply that may search the web; None for any other."""
    provider, wish = exchange.context.outbound.search, prepared.request.search
    if provider is None or wish is None:
        return None
    return SearchRounds(exchange, prepared, route, sink, provider)


class SearchRounds:
    """What one reply has searched for, and the request of its next round."""

    def __init__(
        self,
        exchange: Exchange,
        prepared: Prepared,
        route: Route,
        sink: Encoder | Whole,
        provider: SearchProvider,
    ) -> None:
        wish = prepared.request.search
        assert wish is not None
        self._exchange = exchange
        self._request = prepared.request
        self._prepared = prepared
        self._route = route
        self._sink = sink
        self._provider = provider
        most = exchange.context.served.settings.search.searches
        self._left = most if wish.most is None else max(0, min(most, wish.most))
        self._name = prepared.request.tools[-1].name if prepared.request.tools else ""
        self._found: dict[int, Found] = {}  # by the number that the model knows it by
        self._count = 0  # searches that were made
        self._refusals = 0  # rounds that asked for more than they may
        self.filter = SearchCalls(self._name)

    def searched(self, end: Finish) -> bool:
        """Return whether the round asked for searches and came to its end."""
        return bool(self.filter.calls) and end.reason in ("tool_calls", "stop")

    async def run(
        self,
        end: Finish,
        fitted: Fitted,
        send: Callable[[bytes], None],
        responder: Responder,
    ) -> tuple[Finish, Fitted]:
        """Search and ask again until the model answers; return the end of its reply.

        Refused when a later round fails, as the reply has begun.
        """
        exchange = self._exchange
        while self.searched(end):
            first = len(self._found) + 1
            searches = await self._searches()
            for searched in searches:
                for found in searched.results:
                    self._found[len(self._found) + 1] = found
            self._notify(searches, send, responder)
            if self.filter.others:  # the client's own tools are its turn
                break
            if all(searched.error == "max_uses_exceeded" for searched in searches):
                self._refusals += 1
                if self._refusals > 1:  # the model was refused once before
                    end = msgspec.structs.replace(end, reason="stop")
                    break
            self._request = web_search.asked_again(
                self._request, self.filter.parts, searches, first
            )
            end, fitted = await self._round(send, responder)
        progress = exchange.progress
        progress.warnings = (*progress.warnings, f"web_search ({self._count} made)")
        return end, fitted

    async def _searches(self) -> list[Searched]:
        """Make the searches that the round asked for, one after the other."""
        out: list[Searched] = []
        for call in self.filter.calls:
            if self._left <= 0 or len(out) >= web_search.MAX_CALLS:
                out.append(self._provider.refused(call))
                continue
            self._left -= 1
            self._count += 1
            out.append(await self._search(call))
        return out

    async def _search(self, call: ToolCall) -> Searched:
        """Make one search; its query leaves masked, and the client sees it as it was."""
        masker = self._exchange.masker
        masked = call if masker is None else masker.call(call)
        wish = self._prepared.request.search
        assert wish is not None
        searched = await self._provider.search(masked, wish)
        if masked is call:
            return searched
        query = web_search.query_of(call.arguments)[: web_search.MAX_QUERY]
        return msgspec.structs.replace(searched, query=query)

    def _notify(
        self, searches: Sequence[Searched], send: Callable[[bytes], None], responder: Responder
    ) -> None:
        if out := self._sink.feed(searches):
            send(out)

    async def _round(
        self, send: Callable[[bytes], None], responder: Responder
    ) -> tuple[Finish, Fitted]:
        """Ask the route for the next part of the reply, and pass it on."""
        exchange, route = self._exchange, self._route
        context, progress, attempt = exchange.context, exchange.progress, exchange.attempt
        request = self._request
        size = await exchange.worked(counting.measure, request)
        exchange.input_estimate = context.outbound.counter.estimate(progress.model, size.features)
        before = progress.warnings
        prepared = msgspec.structs.replace(self._prepared, request=request, size=size)
        fitted = await fitted_to(exchange, prepared, route)
        progress.warnings = tuple(dict.fromkeys((*before, *progress.warnings)))
        reserved = await exchange.record.again(fitted.request, route)
        if reserved is None:
            raise Refused(_NO_ROOM)
        fitted = msgspec.structs.replace(fitted, request=reserved)
        attempted(exchange, "searched", "", "")
        progress.attempts += 1
        attempt.running_since_s = attempt.began_s = time.monotonic()
        context.reporting.metrics.attempts.add(route.upstream.name)
        body = await exchange.encoded(route, fitted.request)
        try:
            reply = await upstream.begin(
                context.outbound.client,
                route,
                body,
                context.outbound.timeouts,
                exchange.id,
                fresh=True,
            )
        except Refused as refused:
            observe.failed(exchange, refused.failure)
            failure = upstream.named(refused.failure, route)
            raise Refused(msgspec.structs.replace(failure, should_retry=False)) from None
        del body
        response = attempt.response = reply.response
        self.filter = SearchCalls(self._name)
        last = (Continued(), Citations(self._found))
        collectors: list[ReplyCollector] = []
        chain = filters_for(exchange, route, fitted, collectors, self.filter, last)
        relay = Relay(reply, chain, self._sink, send, responder.connection)
        attempt.translator = relay.translator
        try:
            end = await relay.run()
        except (Broken, TimedOut) as error:
            exchange.measure(relay.translator)
            broken = upstream.failure_of(error)
            observe.failed(exchange, broken)
            raise Refused(broken) from None
        exchange.measure(relay.translator)
        if isinstance(end, Failed):
            response.abort()
            observe.failed(exchange, end.failure)
            raise Refused(msgspec.structs.replace(end.failure, should_retry=False))
        observe.answered(exchange)
        if not response.complete:
            await relays.let_close(response)
        return end, fitted


_NO_ROOM = Failure(
    "no_credit",
    "The budget has no room for the rest of this reply, which searched the web.",
    code="budget_exceeded",
    should_retry=False,
)
