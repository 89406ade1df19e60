"""Idempotency-Key: what a request that may have been sent before is answered with.

The rules, and the table of one edge.  They follow the IETF's draft-07 (409 while
the first one runs, 422 for another body under the same key;
datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header, read 2026-11) and Stripe's (the
reply is kept once the work has begun, errors as well, for 24 hours;
docs.stripe.com/api/idempotent_requests, read 2026-11).

Note:
- the id of such an exchange is made of its Idempotency-Key, so that the ledger, which knows every id
  before an upstream hears of it, also knows after a crash that the key was used: nothing else is
  written.  A body is not in the ledger; after a restart another body is a 409 and no 422;
- replies are in memory only and bounded: one that was put out, or was too large, is a 409 that says so;
- an exchange that failed and surely cost nothing leaves the key free, so that a retry is one.
"""

import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from headgate.errors import Failure

TTL_S = 86400.0
DAY_S = 86400.0
MAX_REPLY_BYTES = 1 << 20
MAX_BYTES = 64 << 20  # of all replies together
MAX_ENTRIES = 10_000  # of exchanges that ended; those that run are as many as there are clients
MAX_TRIES = 256  # of a key in one day, that failed and cost nothing
_KEY = re.compile(r"[!-~]{1,255}")
_ENTRY_BYTES = 512  # what one takes beside its body

Slot = tuple[str, str]  # the API key's id, the Idempotency-Key
# running: still at work (here, or in another process); other_body: the key was used for something
# else; not_kept: done and billed, but its reply is gone; indeterminate: broken off in the middle
Verdict = Literal["running", "other_body", "not_kept", "indeterminate", "spent"]


class Saved(msgspec.Struct, frozen=True):
    """A reply as it was sent."""

    status: int
    headers: bytes  # their lines
    body: bytes
    streamed: bool = False
    apart: int = 0  # length of the last piece, if it must arrive in a read of its own


class Past(msgspec.Struct, frozen=True):
    """An exchange as the ledger knows it; `began_s` is Unix seconds."""

    began_s: float
    state: Literal["open", "broken_off", "free", "done"]


class KeptReply(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a request that has ended, for another process of the machine."""

    slot: Slot
    fingerprint: bytes
    until_s: float
    saved: Saved | None
    verdict: Verdict


class _Entry(msgspec.Struct):
    fingerprint: bytes
    until_s: float
    saved: Saved | None = None
    verdict: Verdict = "running"

    @property
    def size(self) -> int:
        return _ENTRY_BYTES + (len(self.saved.body) if self.saved is not None else 0)


def valid(key: str) -> bool:
    """Return 1 to 255 visible ASCII characters."""
    return _KEY.fullmatch(key) is not None


def fingerprint(body: bytes, *address: object) -> bytes:
    """What a request asks for: equal for bodies that say the same in another order or spacing.

    `body` is JSON that has been read once already.
    """
    try:
        decoded = msgspec.json.decode(body)
        same = msgspec.json.encode((*address, decoded), order="deterministic")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # What a dialect carries unread may be odder than this can say: then only the same bytes do.
        same = msgspec.json.encode(address) + body
    return hashlib.sha256(same).digest()


def exchange_id(secret: bytes, slot: Slot, day: int, attempt: int) -> str:
    """24 hexadecimal digits that nobody can guess without `secret`."""
    text = f"{slot[0]}\0{slot[1]}\0{day}\0{attempt}"
    return hmac.digest(secret, text.encode(), "sha256").hex()[:24]


def days(now_s: float) -> tuple[int, int]:
    """Those (UTC) in which an exchange that still counts can have begun, today last."""
    today = int(now_s // DAY_S)
    return today - 1, today


def judge(attempts: Iterable[Past], now_s: float) -> Verdict | None:
    """What the exchanges that a key was used for mean for the next one; None: it may run."""
    for past in attempts:
        if past.state == "free" or past.began_s <= now_s - TTL_S:
            continue
        match past.state:
            case "open":
                return "running"
            case "broken_off":
                return "indeterminate"
            case _:
                return "not_kept"
    return None


class Table:
    """The keys that were seen, and the replies that are kept; times are of one steady clock."""

    def __init__(
        self, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES, ttl_s: float = TTL_S
    ) -> None:
        self._max_entries, self._max_bytes, self._ttl_s = max_entries, max_bytes, ttl_s
        self._running: dict[Slot, _Entry] = {}
        self._ended: OrderedDict[Slot, _Entry] = OrderedDict()  # the oldest first
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._running) + len(self._ended)

    def look(self, slot: Slot, fingerprint: bytes, now_s: float) -> Saved | Verdict | None:
        """What a request is answered with; None when the key is not known here."""
        entry = self._running.get(slot)
        if entry is None:
            entry = self._ended.get(slot)
            if entry is not None and entry.until_s <= now_s:
                self._put_out(slot)
                entry = None
        if entry is None:
            return None
        if not hmac.compare_digest(entry.fingerprint, fingerprint):
            return "other_body"
        return entry.saved if entry.saved is not None else entry.verdict

    def start(self, slot: Slot, fingerprint: bytes, now_s: float) -> None:
        self._running[slot] = _Entry(fingerprint, now_s + self._ttl_s)

    def drop(self, slot: Slot) -> None:
        """It came to nothing: the key is free again."""
        self._running.pop(slot, None)

    def end(self, slot: Slot, reply: Saved | Verdict) -> None:
        """Keep a reply, or why there is none; the oldest ones make room for it."""
        entry = self._running.pop(slot, None)
        if entry is None:
            return
        if isinstance(reply, Saved):
            entry.saved = reply
        else:
            entry.verdict = reply
        self._ended[slot] = entry
        self.bytes += entry.size
        for oldest in self._crowded():
            self._put_out(oldest)

    def kept(self) -> list[KeptReply]:
        """What is kept, the oldest first."""
        return [
            KeptReply(slot, e.fingerprint, e.until_s, e.saved, e.verdict)
            for slot, e in self._ended.items()
        ]

    def restore(self, kept: Iterable[KeptReply]) -> None:
        """Go on with what another process has kept."""
        for each in kept:
            entry = _Entry(each.fingerprint, each.until_s, each.saved, each.verdict)
            self._ended[each.slot] = entry
            self.bytes += entry.size

    def _crowded(self) -> Iterator[Slot]:
        while self._ended and (
            self.bytes > self._max_bytes or len(self._ended) > self._max_entries
        ):
            yield next(iter(self._ended))

    def _put_out(self, slot: Slot) -> None:
        self.bytes -= self._ended.pop(slot).size


def failure(verdict: Verdict, id: str = "") -> Failure:
    """What the client gets; `id` is the request id of the exchange that the key stands for."""
    where = f" See GET /v1/generations/{id}." if id else ""
    match verdict:
        case "running":
            return Failure(
                "conflict",
                "The request with this Idempotency-Key is still running.",
                code="idempotency_key_in_use",
                retry_after_s=1,
                should_retry=True,
            )
        case "other_body":
            return Failure(
                "invalid",
                "This Idempotency-Key was used for another request; use a new one.",
                code="idempotency_key_reused",
                should_retry=False,
            )
        case "not_kept":
            return Failure(
                "conflict",
                "The request with this Idempotency-Key was answered, and its reply is not kept any"
                f" more. It was not run again.{where}",
                code="reply_not_kept",
                should_retry=False,
            )
        case "indeterminate":
            return Failure(
                "conflict",
                "The request with this Idempotency-Key was broken off, and may have been billed by"
                f" the upstream. It was not run again; to do so, use a new key.{where}",
                code="indeterminate",
                should_retry=False,
            )
        case "spent":
            return Failure(
                "conflict",
                f"This Idempotency-Key failed {MAX_TRIES} times today; use a new one.",
                code="idempotency_key_spent",
                should_retry=False,
            )
