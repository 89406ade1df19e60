"""The embedded model of a gateway that runs on stored upstreams, from the moment the last one is removed.

At the start `serve` decides whether the model runs.  A stored upstream can be removed later, in the
console or by the admin API; nothing would answer then until a restart.  Note: the edges learn the model's
address when they start, so they are replaced, as a reload does it: no request is cut.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Protocol

from headgate.config import addresses
from headgate.supervisor.operations import Operations

LOOK_S = 1.0
AGAIN_S = 30.0  # after the model could not be started, or the edges not be replaced


class UpstreamSource(Protocol):
    """The part of the store that knows what is stored."""

    def data_version(self) -> int: ...

    def own_upstreams(self) -> dict[str, str]: ...


class StandIn:
    """Watches for the moment in which the embedded model is needed."""

    def __init__(
        self,
        store: UpstreamSource,
        operations: Operations,
        start: Callable[[], Awaitable[str]],
        running: Callable[[], None],
    ) -> None:
        """`start` starts the model and returns its address; `running` is called once edges know it."""
        self._store = store
        self._operations = operations
        self._start, self._running = start, running
        self._version = -1
        self._url = ""
        self._reported = ""

    async def round(self) -> float | None:
        """Start the model if no upstream is left; return how long to wait, None for the usual time."""
        if self._operations.has_local or not addresses.stands_in(self._operations.settings):
            return None
        version = await asyncio.to_thread(self._store.data_version)
        if version == self._version:
            return None
        if not await asyncio.to_thread(self._store.own_upstreams):
            why = await self._stand_in()
            if why:
                self._report(f"no upstream is left, and the embedded model does not answer: {why}")
                return AGAIN_S
        self._version = version
        return None

    async def _stand_in(self) -> str:
        """Have the model answer; return why it does not, "" when it does."""
        try:
            self._url = self._url or await self._start()
        except Exception as error:  # LocalModelMissing, of a layer beside this one, or the system's
            return str(error) or type(error).__name__
        answer = await self._operations.with_local(self._url)
        if not answer["ok"]:
            return str(answer["error"])
        self._running()
        self._report("no upstream is left: SmolLM2-135M on this machine answers for every model.")
        return ""

    def _report(self, text: str) -> None:
        """Write a note, the same one only once in a row."""
        if text != self._reported:
            print(f"note: {text}", file=sys.stderr)
        self._reported = text
