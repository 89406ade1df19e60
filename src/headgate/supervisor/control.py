"""Control as a child of `serve`: started, started again when it ends, and ended with it.

The only place that starts it.  Note: it reads our end of a pipe and goes when that
closes, so it never outlives the gateway; and when it dies nothing of the data plane notices.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence

from headgate.tasks import Tasks

AGAIN_S = (0.2, 1.0, 5.0, 30.0)  # after it ended, so many times in a row
STEADY_S = 60.0  # after so long it was well
STOP_S = 5.0
REPORTED = 5  # exits in a row that are reported one by one; then every REPORTED-th


class Control:
    def __init__(
        self, arguments: Sequence[str], exits: Callable[[int], None] = lambda count: None
    ) -> None:
        """`arguments` are of `headgate control`; `exits` gets how often it ended."""
        self._arguments = arguments
        self._notify_exits = exits
        self._exits = 0
        self._process: asyncio.subprocess.Process | None = None
        self._ended = 0  # in a row
        self._renewing = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self, tasks: Tasks) -> None:
        """Keep it running until `tasks` are stopped; then `stop` ends it."""
        tasks.every("control", AGAIN_S[0], self._run)

    async def _run(self) -> float:
        """Start it and wait for its end; how long to wait before it is started again."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            # A session of its own: Ctrl-C in a terminal is for us, and pages go on while we drain.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "headgate.cli",
                "control",
                *self._arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
            why = str(await self._process.wait())
        except OSError as error:  # no memory, or no more processes
            self._process, why = None, error.strerror or str(error)
        if self._renewing:
            self._renewing = False
            return 0.0
        self._ended = 1 if loop.time() - began > STEADY_S else self._ended + 1
        self._exits += 1
        self._notify_exits(self._exits)
        if self._ended <= REPORTED or not self._ended % REPORTED:
            again = f", for the {self._ended}th time in a row" if self._ended > 2 else ""
            print(f"note: control ended ({why}){again}; it is started again.", file=sys.stderr)
        return AGAIN_S[min(self._ended - 1, len(AGAIN_S) - 1)]

    async def renew(self) -> None:
        """End it, so that it is started again with the configuration as it is now."""
        if self._process is not None and self._process.returncode is None:
            self._renewing = True
            await self.stop()

    async def stop(self, within_s: float = STOP_S) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), within_s)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
