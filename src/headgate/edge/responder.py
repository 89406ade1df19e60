"""The answer to one exchange: its head, its stream or its body, and the comments of a silent stream.

This is the only module of the pipeline that knows whether the answer is also kept for an
Idempotency-Key (replay.py): the other steps write to the responder, whoever reads.
"""

import asyncio
import time

from headgate.dialects.contract import Encoder
from headgate.edge import answers
from headgate.edge.pipeline.state import Arrival, Progress
from headgate.edge.replay import FORMS_APART_S, ReplyRecorder
from headgate.errors import Failure
from headgate.net import guard
from headgate.net.inbound import Inbound
from headgate.policy import limit_headers
from headgate.storage.rows import LedgerRow


class Responder:
    """Answers the client once, and keeps the answer when it may be asked for again."""

    streaming = False  # counted among the open streams
    _recorder: ReplyRecorder | None = None
    _keepalive: asyncio.TimerHandle | None = None

    def __init__(self, arrival: Arrival, progress: Progress, id: str) -> None:
        self.connection: Inbound | ReplyRecorder = arrival.client
        self.id = id
        self.last_write_s = arrival.began_s
        self._arrival = arrival
        self._progress = progress

    def keep(self, recorder: ReplyRecorder) -> None:
        """Send through `recorder` from now on; the exchange then ends whether its client stays or not."""
        self.connection = self._recorder = recorder
        self.id = recorder.id
        self._arrival.client.drains = True

    def committed(self, row: LedgerRow) -> None:
        """Show the row to the recorder, which keeps the reply by its outcome."""
        if self._recorder is not None:
            self._recorder.row = row

    @property
    def started(self) -> bool:
        return self.connection.started

    @property
    def over(self) -> bool:
        """Whether the client has gone or has the whole answer."""
        return self.connection.gone or self.connection.ended

    def start(self) -> None:
        """Send the head of a stream, unless it has been sent."""
        if not self.connection.started:
            self._progress.status = 200
            dialect = self._arrival.dialect
            array = self._arrival.target.array
            kind = dialect.facts.array_type if array else dialect.facts.stream_type
            self.connection.start(200, self._block(kind))
            self.streaming = True
            self._arrival.context.reporting.metrics.open_streams += 1

    def write(self, data: bytes, now_s: float) -> None:
        self.last_write_s = now_s
        self.connection.write(data)

    def finish(self, tail: bytes) -> None:
        """Send the end of a stream."""
        self.start()
        self.connection.write(tail)
        self.connection.end()

    def respond(self, body: bytes) -> None:
        """Send a whole reply."""
        self.connection.respond(200, self._block("application/json"), body)

    def refuse(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send a failure instead of a reply."""
        route = self._progress.route
        if route is not None:
            headers = [*headers, (answers.BY, route.served_by)]
        self.connection.respond(status, headers + self._more_headers(), body)

    async def break_off(self, encoder: Encoder, failure: Failure) -> None:
        """Send a failure into a stream that has begun, and end it."""
        for n, piece in enumerate(encoder.fail(failure)):
            if n:
                await asyncio.sleep(FORMS_APART_S)
            self.connection.write(piece)
        self.connection.end()

    def close(self) -> None:
        """Stop what still runs; no more is sent."""
        self.quiet()
        if self._recorder is not None:
            self._recorder.close()
        if self.streaming:  # a refusal may have started an answer too
            self._arrival.context.reporting.metrics.open_streams -= 1

    def _block(self, content_type: str) -> bytes:
        """Return the header lines of a reply."""
        block = answers.block(content_type, self.id)
        if self._progress.route is not None:
            block += answers.by(self._progress.route.served_by)
        more = self._more_headers()
        return block + guard.header_block(more) if more else block

    def _more_headers(self) -> list[tuple[str, str]]:
        """Return the headers about this exchange that replies and refusals have alike."""
        out: list[tuple[str, str]] = []
        arrival, warnings = self._arrival, self._progress.warnings
        if warnings:
            out.append((answers.WARNINGS, answers.header_list(warnings)))
        if standings := arrival.entry.admission.standings:
            out += limit_headers.headers(
                arrival.dialect.facts.limit_headers, standings, time.time()
            )
        if self._progress.stream:
            out.append(("x-accel-buffering", "no"))  # nginx in front must not gather the stream
        return out

    # --- keep-alive ---------------------------------------------------------------------------------

    def watch_silence(self) -> None:
        """Keep a silent stream alive, in the protocol's own way, from now to its end."""
        loop, every_s = (
            asyncio.get_running_loop(),
            self._arrival.context.served.settings.keepalive_s,
        )
        self._keepalive = loop.call_later(every_s, self._look, loop, every_s)

    def quiet(self) -> None:
        """Stop the keep-alive."""
        if self._keepalive is not None:
            self._keepalive.cancel()
            self._keepalive = None

    def _look(self, loop: asyncio.AbstractEventLoop, every_s: float) -> None:
        if self.over:
            return
        silent_s = time.monotonic() - self.last_write_s
        if silent_s >= every_s:
            self.start()
            if not self.connection.paused:
                self.connection.write(self._arrival.dialect.facts.keepalive)
            self.last_write_s = time.monotonic()
            silent_s = 0.0
        self._keepalive = loop.call_later(every_s - silent_s, self._look, loop, every_s)
