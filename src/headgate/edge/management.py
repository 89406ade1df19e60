"""Who may read what is not for API keys: management keys, and processes that can read the data directory."""

import asyncio
import hmac
import time

from headgate.edge.reads import Reads
from headgate.net.inbound import Inbound
from headgate.policy.access import MANAGEMENT_PREFIX
from headgate.storage.interface import Keys
from headgate.storage.sqlite.people import People


class Management:
    """Judges management keys and the proof of control and the doctor."""

    def __init__(self, store: Keys, data: str, reads: Reads) -> None:
        self.proof = store.derived("internal").hex()  # of who has read this pepper
        self._store = store
        self._data = data
        self._reads = reads
        self._one_at_a_time = asyncio.Lock()
        self._people: People | None = None

    def proves(self, inbound: Inbound) -> bool:
        """Return whether the request comes from who can read the data directory: control, or the doctor."""
        given = inbound.headers.get("x-headgate-internal", "")
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self.proof.encode())

    async def manages(self, text: str) -> bool:
        """Whether this is a management key that is good now; Refused when the database fails."""
        if not text.startswith(MANAGEMENT_PREFIX):
            return False
        async with self._one_at_a_time:  # the connection is one
            return await self._reads(lambda: self._manages(text))

    def _manages(self, text: str) -> bool:
        if self._people is None:
            self._people = People(self._store, self._data)
        return self._people.manager(text, now_s=time.time()) is not None

    def close(self) -> None:
        """Close the connection."""
        if self._people is not None:
            self._people.close()
