"""How the questions of a checkup are asked: counted, timed and bounded.

Note: a chat stream is read twice, by its decoder and by a `RawReader`, as the decoder makes
all forms of thinking the same and the checkup wants to know which it was.
"""

import asyncio
import secrets

import msgspec
from msgspec import Struct

from headgate.catalog.routes import Route
from headgate.chat import Delta, Event, PartStart, Reply, Request, Usage, collect
from headgate.diagnostics.probes import ProbeResult
from headgate.diagnostics.raw_reader import RawReader
from headgate.dialects.registry import FACTS
from headgate.edge import upstream as upstreams
from headgate.errors import Failure, Refused
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut, Timeouts
from headgate.net.dial import NotSent
from headgate.stream import sse

_REPLY_BYTES = 8 << 20  # of one stream; cumulative thinking of MAX_TOKENS is below 1 MiB
_COUNT_BYTES = 1 << 20  # of the answer of a count endpoint, which may list every token


class Run:
    """The requests of one checkup: counted, timed, bounded."""

    def __init__(self, client: Client, timeouts: Timeouts, until: float) -> None:
        self._client = client
        self._timeouts = timeouts
        self._until = until
        self.requests = 0
        self.usage = Usage()

    async def ask(self, route: Route, request: Request) -> ProbeResult:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if began > self._until:
            return ProbeResult(failure=Failure("timeout", "", upstream_code="total"))
        self.requests += 1
        try:
            body = upstreams.encoded(route, request)
            # On a new connection: that a kept one had ended is no finding.
            attempt = await upstreams.begin(
                self._client, route, body, self._timeouts, secrets.token_hex(4), fresh=True
            )
        except Refused as refused:
            # `begin` keeps no cause, but the exception it was busy with says what was not reached.
            cause = refused.__context__
            reason = str(cause) if isinstance(cause, NotSent) else ""
            return ProbeResult(failure=refused.failure, reason=reason)
        tap = RawReader() if route.upstream.dialect == "openai" else None
        events: list[Event] = []
        first, pieces, size = 0.0, 0, 0
        try:
            while data := await attempt.response.read():
                size += len(data)
                if size > _REPLY_BYTES:
                    raise sse.EventTooLarge("a reply larger than it can be")
                if tap is not None:
                    tap.feed(data)
                fresh = attempt.decoder.feed(data)
                events += fresh
                pieces += sum(isinstance(e, Delta) for e in fresh)
                if not first and any(isinstance(e, Delta | PartStart) for e in fresh):
                    first = loop.time() - began
        except (Broken, TimedOut) as error:
            return ProbeResult(failure=upstreams.failure_of(error), total_s=loop.time() - began)
        except sse.EventTooLarge:
            attempt.response.abort()
            return ProbeResult(failure=Failure("upstream", "", upstream_code="too_large"))
        events += attempt.decoder.close()
        outcome = collect(events)
        if not isinstance(outcome, Reply):
            return ProbeResult(failure=outcome.failure, total_s=loop.time() - began)
        if (spent := outcome.finish.usage) is not None:
            self.usage = Usage(
                self.usage.input + spent.input,
                self.usage.output + spent.output,
                self.usage.cached + spent.cached,
                self.usage.cache_write + spent.cache_write,
                self.usage.reasoning + spent.reasoning,
            )
        return ProbeResult(
            outcome,
            first_s=first,
            total_s=loop.time() - began,
            pieces=pieces,
            channels=tap.channels() if tap is not None else (),
            habit=tap.habit() if tap is not None else "",
        )

    async def counts(self, route: Route) -> int | None:
        """How many tokens the upstream itself counts in a word or two; None when it cannot."""
        upstream, name, words = route.upstream, route.name, "Hello, world."
        base = upstream.base_url.rstrip("/")
        body: object
        url = base + FACTS[upstream.dialect].count_path.format(model=name)
        match upstream.dialect:
            case "anthropic":
                body = {"model": name, "messages": [{"role": "user", "content": words}]}
            case "responses":
                body = {"model": name, "input": words}
            case "gemini":
                body = {"contents": [{"role": "user", "parts": [{"text": words}]}]}
            case _:  # vLLM's and SGLang's, which stands beside /v1
                url = f"{base.removesuffix('/v1')}/tokenize"
                body = {"model": name, "prompt": words}
        self.requests += 1
        headers = {**upstreams.headers(route), "accept": "application/json"}
        try:
            response = await self._client.send(
                "POST", url, headers, msgspec.json.encode(body), self._timeouts
            )
            page = await response.read_all(_COUNT_BYTES)
        except (NotSent, Broken, TimedOut):
            return None
        if response.status != 200:
            return None
        try:
            reported = msgspec.json.decode(page, type=_CountIn)
        except (ValueError, msgspec.MsgspecError):
            return None
        return reported.input_tokens or reported.count or reported.total_tokens


class _CountIn(Struct):
    input_tokens: int | None = None
    count: int | None = None
    total_tokens: int | None = msgspec.field(default=None, name="totalTokens")
