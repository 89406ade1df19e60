"""One attempt's reply on its way: upstream's socket -> translator -> whoever writes to the client.

The only place that waits for an upstream's reply, and that says what was used of one whose upstream
did not.  Note: what comes is passed on by the socket's own callback, so the exchange's
task sleeps here until the reply's end, or until the client reads too slowly.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from headgate.catalog import counting
from headgate.chat import Failed, Finish, Usage
from headgate.dialects.contract import Encoder
from headgate.edge.upstream import UpstreamReply
from headgate.net.client_errors import Broken, TimedOut
from headgate.net.upstream_connection import Response
from headgate.stream.translate import Filter, Translator, Whole

LONGEST_TOKEN = 16  # characters; no text of more than a few lines has longer ones on the average
SLACK = 64  # tokens that a report may be below that
TAIL_S = 1.0  # how long the upstream may take to close a finished reply before we do


class Backpressure(Protocol):
    """The client, as far as its pace goes."""

    @property
    def paused(self) -> bool: ...

    async def drain(self) -> None: ...


class Relay:
    """`say` is given what goes to the client, as soon as there is some of it."""

    def __init__(
        self,
        attempt: UpstreamReply,
        filters: Sequence[Filter],
        sink: Encoder | Whole,
        say: Callable[[bytes], None],
        reader: Backpressure,
    ) -> None:
        self.response = attempt.response
        self.translator = Translator(attempt.decoder, filters, sink)
        self.sent = False
        self._say = say
        self._reader = reader

    @property
    def begun(self) -> bool:
        """Whether the upstream has begun to answer, as far as anybody can tell."""
        return self.sent or self.translator.began

    async def run(self) -> Finish | Failed:
        """Pass on until the reply's end, which is held back; Broken, TimedOut."""
        response, translator, reader = self.response, self.translator, self._reader
        while translator.end is None:
            await response.pump(self._take)
            if reader.paused:
                await reader.drain()
            if translator.end is None and response.complete:
                self._pass_on(translator.close())
        return translator.end

    def _take(self, data: bytes) -> bool:
        """Whether to go on; called for every piece of every reply."""
        out = self.translator.feed(data)
        if out:
            self._pass_on(out)
        return self.translator.end is None and not self._reader.paused

    def _pass_on(self, out: bytes) -> None:
        if out:
            self.sent = True
            self._say(out)


async def read_whole(relay: Relay) -> Finish | Failed:
    """The end of a reply of which the client sees nothing yet; Broken, TimedOut."""
    translator = relay.translator
    while translator.end is None:
        data = await relay.response.read()
        translator.feed(data) if data else translator.close()
    return translator.end


async def let_close(response: Response) -> None:
    """Let the upstream close its reply, so that the connection can serve again."""
    try:
        async with asyncio.timeout(TAIL_S):
            for _ in range(16):
                if not await response.read():
                    return
    except (Broken, TimedOut, TimeoutError):
        pass
    response.abort()


def measure(translator: Translator, input_estimate: int) -> Usage:
    """The usage as reported, or an estimate from what was passed on, marked as such.

    A report is believed but where it cannot be: no input at all, or far less output than was passed
    on. Any other number is the upstream's, also one that seems low, as it is what the upstream asks for.
    """
    end = translator.end
    usage = end.usage if end is not None else None
    relayed = counting.of_counts(translator.ascii, translator.other)
    if usage is None or usage.estimated:
        begun = translator.begun
        return Usage(
            input=begun.input_tokens or input_estimate,
            output=relayed,
            cached=begun.cached,
            cache_write=begun.cache_write,
            estimated=True,
        )
    if type(end) is Failed:
        # Of a reply that broke off, Anthropic's counts are those of its start: next to no output.
        if 2 * usage.output < relayed:
            return msgspec.structs.replace(usage, output=relayed, estimated=True)
    else:
        input = usage.input if usage.input > 0 else input_estimate
        passed_on = (translator.ascii + translator.other) // LONGEST_TOKEN - SLACK
        output = usage.output if usage.output >= passed_on else relayed
        if input != usage.input or output != usage.output:
            return msgspec.structs.replace(usage, input=input, output=output, estimated=True)
    return usage
