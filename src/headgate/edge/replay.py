"""Idempotency-Key at the edge: what a client is sent is kept, and sent again to one that asks again.

The only place where policy/idempotency.py meets clocks, the ledger and clients' connections.  A
Recorder stands between an exchange and its client; to the exchange the client never leaves, so that
it runs to its end and a client that comes back gets all of it.

Note: the node knows what runs and keeps the replies, so that of two equal requests one is the first, on
whichever edges they are.  A reply is kept before its last byte is written, so that a client may ask again at
once.
"""

import asyncio
import time
from collections.abc import Sequence

from headgate.edge.reads import Reads, no_node
from headgate.errors import MAY_BILL, Failure, Refused
from headgate.net import guard
from headgate.net.inbound import Headers, Inbound
from headgate.node.client import Keeping
from headgate.policy import idempotency
from headgate.policy.idempotency import Past, Saved, Slot
from headgate.storage.errors import LedgerFault, StoreError
from headgate.storage.figures import FINE
from headgate.storage.interface import OwnReports
from headgate.storage.rows import LedgerRow

HEADER = "idempotency-key"
SLICE_BYTES = 65536  # of a kept reply, after each of which a slow client is waited for
LOOKED_UP = 4  # attempts of a day that are asked for at a time; nearly always none is there
# Google's JS SDK 1.30 ignores `data: {"error": ...}` in a stream, but raises a bare JSON line that comes
# in a read of its own; so Gemini's failure is sent in both forms, this far apart.
FORMS_APART_S = 0.02


class ReplayStore:
    """Looks up and keeps the replies, with the node."""

    def __init__(
        self, secret: bytes, ledger_reports: OwnReports, reads: Reads, keeping: Keeping
    ) -> None:
        self._secret = secret
        self._ledger_reports = ledger_reports
        self._reads = reads
        self._keeping = keeping

    async def begin(self, inbound: Inbound, key: str, mine: bytes) -> "Saved | ReplyRecorder":
        """The reply that is kept, or who records it from now on; Refused where there is neither.

        `key` is the id of the API key, `mine` the request's fingerprint (policy/idempotency.py).
        """
        text = inbound.headers[HEADER]
        if not idempotency.valid(text):
            raise Refused(
                Failure(
                    "invalid",
                    "An Idempotency-Key has 1 to 255 visible ASCII characters.",
                    param=HEADER,
                    code="invalid_idempotency_key",
                )
            )
        slot = (key, text)
        try:
            found = await self._keeping.begin(slot, mine)
        except StoreError:
            raise no_node() from None
        if isinstance(found, Saved):
            return found
        if isinstance(found, str):
            raise Refused(idempotency.failure(found))
        try:
            id = await self._fresh(slot, time.time())
        except BaseException:  # also when the client leaves meanwhile
            self._keeping.drop(found)
            raise
        return ReplyRecorder(inbound, self._keeping, found, id)

    async def _fresh(self, slot: Slot, now_s: float) -> str:
        """The id for a key that this process does not know; Refused when the ledger does."""
        for day in idempotency.days(now_s):
            for attempt in range(0, idempotency.MAX_TRIES, LOOKED_UP):
                ids = [
                    idempotency.exchange_id(self._secret, slot, day, attempt + n)
                    for n in range(LOOKED_UP)
                ]
                used = await self._used(ids)
                for id in used:
                    verdict = idempotency.judge((used[id],), now_s)
                    if verdict is not None:
                        raise Refused(idempotency.failure(verdict, id))
                fresh = next((id for id in ids if id not in used), None)
                if fresh is not None:
                    break
        if fresh is None:
            raise Refused(idempotency.failure("spent"))
        return fresh

    async def _used(self, ids: Sequence[str]) -> dict[str, Past]:
        try:
            known = await self._reads.run(lambda: self._ledger_reports.begun(ids))
        except LedgerFault:
            raise Refused(
                Failure(
                    "unavailable",
                    "The ledger cannot be read now, and it knows what this Idempotency-Key was for.",
                    code="ledger_unavailable",
                    retry_after_s=5,
                )
            ) from None
        return {id: _past(row) for id, row in known.items()}


def _past(row: LedgerRow | None) -> Past:
    if row is None:
        return Past(time.time(), "open")
    if free(row):
        return Past(row.started_at, "free")
    broken = row.outcome in ("crashed", "client_gone", "shutdown")
    return Past(row.started_at, "broken_off" if broken else "done")


def free(row: LedgerRow) -> bool:
    """Whether the exchange surely cost nothing: no upstream answered, or it said that it failed."""
    if row.basis != "none" or row.outcome in MAY_BILL:
        return False
    if any(a.reply_began for a in row.attempts):
        return False
    if row.outcome == "shutdown" and row.attempts:  # the upstream may have worked
        return False
    return not any(a.outcome == "timeout" or a.upstream_code == "broken" for a in row.attempts)


class ReplyRecorder:
    """Stands for the client to the exchange, and keeps what is sent as well."""

    __slots__ = (
        "_apart",
        "_head",
        "_inbound",
        "_keeping",
        "_number",
        "_open",
        "_pieces",
        "_size",
        "_streamed",
        "gone",
        "id",
        "row",
    )

    def __init__(self, inbound: Inbound, keeping: Keeping, number: int, id: str) -> None:
        self._inbound = inbound
        self._keeping = keeping
        self._number = number
        self.id = id  # the exchange's
        self.gone = False  # what is sent is kept, whoever is there
        self.row: LedgerRow | None = None  # how the exchange is in the ledger, once it is known
        self._open = True
        self._streamed = False
        self._head = 0, b""  # status and headers
        self._pieces: list[bytes] = []
        self._size = 0
        self._apart = 0

    @property
    def headers(self) -> dict[str, str]:
        return self._inbound.headers

    @property
    def started(self) -> bool:
        return self._inbound.started

    @property
    def ended(self) -> bool:
        return self._inbound.ended

    @property
    def paused(self) -> bool:
        return self._inbound.paused

    async def drain(self) -> None:
        await self._inbound.drain()

    def respond(self, status: int, headers: Headers | bytes, body: bytes) -> None:
        block = headers if isinstance(headers, bytes) else guard.header_block(headers)
        self._head = status, block
        self._keep(body)
        self._end(complete=True)
        self._inbound.respond(status, block, body)

    def start(self, status: int, headers: bytes) -> None:
        self._inbound.start(status, headers)
        self._head, self._streamed = (status, headers), True

    def write(self, data: bytes) -> None:
        self._inbound.write(data)
        self._keep(data)

    def end(self) -> None:
        self._end(complete=True)
        self._inbound.end()

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        self._apart = len(data)
        if self._size <= idempotency.MAX_REPLY_BYTES:
            self._pieces.append(data)
        else:
            self._pieces.clear()

    def close(self) -> None:
        """No more will be sent; a second time changes nothing."""
        self._end(complete=self.ended)

    def _end(self, *, complete: bool) -> None:
        if not self._open:
            return
        self._open = False
        if self.row is None or free(self.row):
            self._keeping.drop(self._number)
        elif not complete:
            self._keeping.keep(self._number, "indeterminate")
        elif self._size > idempotency.MAX_REPLY_BYTES:
            self._keeping.keep(self._number, "not_kept")
        else:
            failed = self.row.outcome not in FINE
            apart = self._apart if self._streamed and failed else 0
            body = b"".join(self._pieces)
            saved = Saved(*self._head, body, self._streamed, apart)
            self._keeping.keep(self._number, saved)
        self._pieces = []


async def again(inbound: Inbound, saved: Saved) -> None:
    """Send a kept reply: the same bytes, and one header more."""
    headers = saved.headers + guard.header_block([("idempotent-replayed", "true")])
    if not saved.streamed:
        inbound.respond(saved.status, headers, saved.body)
        return
    inbound.start(saved.status, headers)
    at = len(saved.body) - saved.apart
    for begin in range(0, at, SLICE_BYTES):
        inbound.write(saved.body[begin : min(begin + SLICE_BYTES, at)])
        if inbound.paused:
            await inbound.drain()
    if saved.apart:
        await asyncio.sleep(FORMS_APART_S)
    inbound.write(saved.body[at:])
    if inbound.paused:
        await inbound.drain()
    inbound.end()
