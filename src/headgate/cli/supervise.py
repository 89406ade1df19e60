"""Control as a child of `serve`: started, started again when it ends, and ended with it.

The only place that starts it.  What will surprise: it reads our end of a pipe and goes when that
closes, so it never outlives the gateway; and when it dies nothing of the data plane notices.
"""

import asyncio
import contextlib
import sys
from collections.abc import Sequence

import click

AGAIN_S = (0.2, 1.0, 5.0, 30.0)  # after it ended, so many times in a row
STEADY_S = 60.0  # after so long it was well
STOP_S = 5.0


class Control:
    def __init__(self, arguments: Sequence[str]) -> None:
        """`arguments`: of `headgate control`."""
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        ended = 0
        while True:
            began = loop.time()
            try:
                # A session of its own: Ctrl-C in a terminal is for us, and pages go on while we drain.
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "headgate.cli", "control", *self._arguments,
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
                    start_new_session=True,
                )  # fmt: skip
                why = str(await self._process.wait())
            except OSError as error:  # no memory, or no more processes
                self._process, why = None, error.strerror or str(error)
            ended = 0 if loop.time() - began > STEADY_S else ended + 1
            wait_s = AGAIN_S[min(ended, len(AGAIN_S) - 1)]
            click.echo(f"note: control ended ({why}); it is started again.", err=True)
            await asyncio.sleep(wait_s)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
