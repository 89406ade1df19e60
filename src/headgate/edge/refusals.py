"""Refusals before a request's body is read: the only place that answers, counts and logs them.

A client that is refused may ask again as fast as it can, so a refusal must cost next to nothing: its
bytes are encoded once per protocol and failure, and its log lines are coalesced.  The first one of a
kind is written at once; those that follow within `COALESCE_S` become one line with their number.

Note: a client that was refused `FLOOD` times in that time gets the same answer to the same head for
`REPEAT_S`, without a look at its key, in the socket's own callback.  Then one request is decided anew
while the others still get that answer, as hundreds may come in one turn of the loop; when it is let in,
all are.  Measured (2026-11-30): some 7 us for each, where one that is decided anew takes 49 us.
"""

import math
import time
from collections.abc import Sequence

import msgspec

from headgate.chat import Request
from headgate.dialects.contract import Dialect, ReplyFacts, RequestTarget
from headgate.edge import answers
from headgate.edge import log as logs
from headgate.edge.ids import new_id
from headgate.edge.log import Log
from headgate.edge.metrics import Metrics
from headgate.errors import Failure
from headgate.net import guard
from headgate.net.heads import Head
from headgate.net.inbound import Inbound

COALESCE_S = 10.0
MAX_KINDS = 1024  # of log lines that are coalesced: dialect, key and outcome; the rest share one
MAX_ENCODED = 512  # then all are forgotten; waits are whole seconds, so there are few
FLOOD = 50  # refusals of a kind within COALESCE_S; clients that heed a Retry-After make fewer
REPEAT_S = 0.02
MAX_REPEATED = 1024  # heads; then all are forgotten
_ID = "0123456789abcdef01234567"  # stands for the request id, which is as long, until there is one
_ID_BYTES = _ID.encode()

id_of = id  # as `id` is a request's here
_Kind = tuple[str, str, str, int]  # dialect, key, outcome, status


class _Seen(msgspec.Struct):
    until_s: float
    more: int = 0  # refusals since the line that was written


class _Repeated(msgspec.Struct):
    """An answer that a head gets again."""

    head: Head
    until_s: float
    status: int
    block: bytes
    body: bytes
    counted: tuple[str, str, str]
    seen: _Seen
    extra: bytes  # depends on the head only


class Refusals:
    def __init__(self, metrics: Metrics, log: Log) -> None:
        self._metrics = metrics
        self._log = log
        self._encoded: dict[tuple[str, Failure], tuple[int, bytes, bytes]] = {}
        self._seen: dict[_Kind, _Seen] = {}
        self._repeated: dict[int, _Repeated] = {}  # by the head's id()

    def answer(
        self,
        inbound: Inbound,
        dialect: Dialect,
        failure: Failure,
        key_id: str = "",
        more: Sequence[tuple[str, str]] = (),
        target: RequestTarget | None = None,
    ) -> None:
        """Answer the request; `more` are headers beside those of the failure.

        `target` is that of a request to a model, which may be refused in the form of a stream.
        """
        request_id = new_id()
        counted = (dialect.name, "", failure.kind)
        self._metrics.requests.add(*counted)
        if target is not None and dialect.refuses_in_stream(failure, inbound.headers):
            self._line(dialect.name, key_id, failure.kind, 200, request_id, inbound.client)
            facts = ReplyFacts(request_id, "", int(time.time()))
            encoder = dialect.encoder(Request("", (), stream=True), facts, target)
            inbound.start(200, answers.always(dialect.facts.stream_type, request_id) + list(more))
            for piece in encoder.fail(failure):
                inbound.write(piece)
            inbound.end()
            return
        status, block, body = self._bytes(dialect, failure)
        seen = self._line(dialect.name, key_id, failure.kind, status, request_id, inbound.client)
        if more:
            block += guard.header_block(more)
        id = request_id.encode()
        inbound.respond(status, block.replace(_ID_BYTES, id), body.replace(_ID_BYTES, id))
        # Note: another client may send the same head from an address that the key allows.
        if seen.more >= FLOOD and failure.kind != "forbidden":
            if len(self._repeated) >= MAX_REPEATED:
                self._repeated.clear()
            until_s = time.monotonic() + REPEAT_S
            self._repeated[id_of(inbound.head)] = _Repeated(
                inbound.head, until_s, status, block, body, counted, seen, inbound.extra
            )

    def again(self, inbound: Inbound) -> bool:
        """Answer as the same head was answered a moment ago, if it was refused and is repeated often."""
        found = self._repeated.get(id_of(inbound.head)) if self._repeated else None
        if found is None or found.head is not inbound.head:
            return False
        now_s = time.monotonic()
        if now_s >= found.until_s:
            found.until_s = now_s + REPEAT_S
            return False
        id = new_id().encode()
        inbound.extra = found.extra
        body = found.body.replace(_ID_BYTES, id)
        inbound.respond(found.status, found.block.replace(_ID_BYTES, id), body)
        self._metrics.requests.add(*found.counted)
        if found.counted[2] == "overloaded":
            self._metrics.shed.add("repeated")
        found.seen.more += 1
        return True

    def let_in(self, inbound: Inbound) -> None:
        """Have requests with this head decided again, as one of them was let in."""
        if self._repeated:
            self._repeated.pop(id_of(inbound.head), None)

    def flush(self, now_s: float | None = None) -> None:
        """Write the lines of those whose time is over; to be called every second or so."""
        now_s = time.monotonic() if now_s is None else now_s
        over = [kind for kind, seen in self._seen.items() if seen.until_s <= now_s]
        for kind in over:
            self._write(kind, self._seen.pop(kind).more)

    def close(self) -> None:
        """Write what is still to be written."""
        self.flush(math.inf)
        self._repeated.clear()

    def _bytes(self, dialect: Dialect, failure: Failure) -> tuple[int, bytes, bytes]:
        if failure.retry_after_s is not None and math.isfinite(failure.retry_after_s):
            # As the header and the message say it, so that equal ones are encoded once.
            wait_s = float(max(1, math.ceil(failure.retry_after_s)))
            failure = msgspec.structs.replace(failure, retry_after_s=wait_s)
        known = self._encoded.get((dialect.name, failure))
        if known is None:
            if len(self._encoded) >= MAX_ENCODED:
                self._encoded.clear()
            status, headers, body = answers.refusal(dialect, failure, _ID)
            known = (status, guard.header_block(headers), body)
            self._encoded[dialect.name, failure] = known
        return known

    def _line(
        self, dialect: str, key_id: str, outcome: str, status: int, id: str, client: str
    ) -> _Seen:
        """Log the refusal, or count it among those that get a line together."""
        kind = (dialect, key_id, outcome, status)
        seen = self._seen.get(kind)
        if seen is None and len(self._seen) >= MAX_KINDS:
            kind = ("", "", "", 0)
            seen = self._seen.get(kind)
        if seen is not None:
            seen.more += 1
            return seen
        seen = self._seen[kind] = _Seen(time.monotonic() + COALESCE_S)
        if self._log.wants("info"):
            self._log.write(
                logs.LogLine(
                    logs.now(),
                    "info",
                    "exchange",
                    id,
                    dialect,
                    key=key_id,
                    status=status,
                    outcome=outcome,
                    client=client,
                )
            )
        return seen

    def _write(self, kind: _Kind, more: int) -> None:
        if more and self._log.wants("info"):
            dialect, key_id, outcome, status = kind
            self._log.write(
                logs.LogLine(
                    logs.now(),
                    "info",
                    "refusals",
                    dialect=dialect,
                    key=key_id,
                    status=status,
                    outcome=outcome,
                    count=more,
                )
            )


NO_CERTIFICATE = Failure(
    "forbidden",
    "This gateway asks for a client certificate, and none was shown. Use one that its `tls.client_ca`"
    " has signed.",
    code="client_certificate_required",
    should_retry=False,
)
