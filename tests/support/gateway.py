"""A real `headgate serve` in a process of its own, in front of an upstream that we play."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import msgspec

from played import PlayedUpstream
from waiting import PATIENCE_S


class Gateway(msgspec.Struct):
    url: str
    key: str
    data: Path
    printed: str
    process: subprocess.Popen[str]
    upstream: PlayedUpstream | None = None

    def post(self, path: str, body: object, **headers: str) -> httpx2.Response:
        return httpx2.post(
            self.url + path,
            content=body if isinstance(body, bytes) else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {self.key}", **headers},
            timeout=PATIENCE_S,
        )

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return httpx2.get(self.url + path, headers=headers, timeout=PATIENCE_S)

    def catch_up(self) -> None:
        """Return when the gateway has read everything that had reached it before the call.

        Its event loop takes what is readable in turns; a request that is answered saw a later one.
        """
        for _ in range(3):
            assert self.get("/livez").status_code == 200

    def metric(self, line: str) -> float:
        """The value of one line of /metrics, such as `headgate_open_streams`."""
        page = self.get("/metrics").text
        found = re.search(rf"^{re.escape(line)} (\S+)$", page, re.M)
        return float(found[1]) if found else 0.0


COMMAND = (sys.executable, "-m", "headgate.cli")


def environment() -> dict[str, str]:
    """Our own environment without what could choose an upstream or change a setting."""
    return {
        k: v for k, v in os.environ.items() if not re.match(r"HEADGATE|MINIMAX|RUNAPI|OPENR", k)
    }


def start(
    data: Path,
    *options: str,
    ready_s: float = 3 * PATIENCE_S,
    descriptors: int = 0,
    passed: socket.socket | None = None,
    **env: str,
) -> Gateway:
    """Start the gateway with nothing of our own environment that could choose an upstream.

    `descriptors`: how many files it may open; 0: as many as we may.  `passed`: a socket that it is given as
    systemd would.
    """
    bounded: tuple[str, ...] = ()
    if descriptors:
        bounded = ("sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh")
    if passed is not None:
        given = f"exec 3<&{passed.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=api"
        bounded = ("bash", "-c", f'{given} exec "$@"', "bash")
    log = (data.parent / f"{data.name}.log").open("w")
    process = subprocess.Popen(
        [*bounded, *COMMAND, "serve", "--port", "0", "--data", str(data), *options],
        env={
            **environment(),
            "HEADGATE_METRICS": "open",
            "HEADGATE_UPSTREAM_CHECK_S": "0",
            **env,
        },  # for `metric` above
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        pass_fds=() if passed is None else (passed.fileno(),),
    )
    log.close()
    printed: list[str] = []
    assert process.stdout is not None
    hung = threading.Timer(ready_s, process.kill)  # its output ends then, and the loop with it
    hung.start()
    for line in process.stdout:
        printed.append(line)
        if line.startswith("headgate ready "):
            break
    else:
        process.kill()
        process.wait()
    hung.cancel()
    text = "".join(printed)
    errors = (data.parent / f"{data.name}.log").read_text()
    assert text.rstrip().splitlines()[-1:] and "headgate ready" in text, text + errors
    key = re.search(r"hg_live_\w+", text)
    url = text.rstrip().rpartition(" ")[2]
    return Gateway(url, key[0] if key else "", data, text, process)


def kill(gateway: Gateway) -> None:
    """Kill all of its processes at once, as the system does that runs out of memory or power."""
    for pid in tree(gateway.process.pid) if gateway.process.poll() is None else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    gateway.process.wait()


def tree(pid: int) -> list[int]:
    """A process and all its descendants that live."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def stop(gateway: Gateway) -> int:
    gateway.process.terminate()
    return gateway.process.wait(3 * PATIENCE_S)  # it may drain for half a minute
