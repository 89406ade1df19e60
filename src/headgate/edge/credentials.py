"""Whose key a request presents: the only place of the edge that judges API keys.

Note: keys are authenticated against a snapshot of the database.  Once the last check of it is older than
STALE_S no key opens anything, as one that was revoked meanwhile would still work.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from headgate.edge.metrics import Metrics
from headgate.edge.reads import unavailable
from headgate.errors import Failure, Refused
from headgate.policy import keys, networks
from headgate.policy.guesses import GuessThrottle
from headgate.policy.key_snapshot import KeySnapshot
from headgate.policy.keys import Key
from headgate.tasks import Tasks

STALE_S = 10.0  # SQLite waits for a lock for 5 s; a check that takes twice as long has failed
NO_KEY = Failure(
    "unauthenticated",
    "No valid API key. Send one as `Authorization: Bearer hg_live_...`, `x-api-key` "
    "or `x-goog-api-key`; `headgate keys create NAME` makes one.",
    code="invalid_api_key",
    should_retry=False,
)


def at_home(key: Key, peer: str) -> Key:
    """Return the key if it may be used from the client's address; else Refused."""
    if key.allowed_cidrs and not networks.allows(key.allowed_cidrs, peer):
        raise Refused(
            Failure(
                "forbidden",
                f"This key may not be used from {peer or 'an unknown address'}. Whoever manages it"
                f" can allow the address: `headgate keys change {key.id} --allow-from`.",
                code="address_not_allowed",
                should_retry=False,
            )
        )
    return key


class Credentials:
    """The keys as they were read last, and the guesses at them."""

    def __init__(
        self,
        ring: KeySnapshot,
        look: Callable[[], Awaitable[None]],
        metrics: Metrics,
        tasks: Tasks,
    ) -> None:
        """`look` reads the keys again, if they have changed."""
        self.ring = ring
        self.checked_s = math.inf  # when the last check of the keys began; inf: nobody watches
        self._look = look
        self._metrics = metrics
        self._tasks = tasks
        self._guesses = GuessThrottle()
        self._next_check: asyncio.Task[None] | None = None

    def authenticate(self, credential: str | None) -> Key:
        """The key behind what was presented; the same refusal for every reason there may be."""
        if time.monotonic() - self.checked_s > STALE_S:
            raise unavailable()
        key = self.ring.authenticate(credential, time.time()) if credential else None
        if key is None:
            raise Refused(NO_KEY)
        return key

    def failed_credential(self, peer: str, key_id: str) -> None:
        """Count a wrong credential; Refused with 429 when there were too many."""
        wait_s = self._guesses.failed(peer, key_id, time.monotonic())
        self._metrics.bad_keys.add("throttled" if wait_s else "refused")
        if wait_s:
            raise Refused(
                Failure(
                    "rate_limit",
                    "Too many wrong API keys were sent. Check the key, then try again in"
                    f" {math.ceil(wait_s)}s.",
                    code="too_many_bad_keys",
                    retry_after_s=math.ceil(wait_s),
                    should_retry=False,  # the same key will be as wrong
                )
            )

    async def key_of(self, credential: str | None, peer: str = "") -> Key:
        """As `authenticate`; a key that was created a moment ago is looked for in the database.

        One that was mistyped costs no look.  All who ask at the same time share one.  After too many
        failures from the address `peer`, or for one key id, failures get a 429 and cost no look
        either; a key that has expired or was revoked is no such failure, as its secret is right.
        """
        try:
            return at_home(self.authenticate(credential), peer)
        except Refused as refused:
            if refused.failure is not NO_KEY or not credential:
                raise
        parsed = keys.parse(credential)
        if parsed is not None and not self._guesses.waits(peer, time.monotonic()):
            if self._next_check is None:
                self._next_check = self._tasks.once("keys_of_a_request", self._check())
            await asyncio.shield(self._next_check)
            key = self.ring.authenticate(credential, time.time())
            if key is not None:
                return at_home(key, peer)
        if parsed is None or not self.ring.knows(credential):
            self.failed_credential(peer, parsed.id if parsed is not None else "")
        raise Refused(NO_KEY)

    async def _check(self) -> None:
        await self._look()

    def check_begins(self) -> None:
        """Let those who ask from now on wait for another check: this one may be too early for them."""
        self._next_check = None

    def age_s(self) -> float:
        """Return how old the snapshot of the keys is; 0 while nobody watches."""
        return max(0.0, time.monotonic() - self.checked_s)
