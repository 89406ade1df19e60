"""What the attacks share: a gateway with a configuration of its own, meters of its processes, raw sockets."""

import contextlib
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

import gateway as gateways
from gateway import Gateway, tree
from played import PlayedUpstream
from waiting import pause_thread, wait_for

_TICKS = os.sysconf("SC_CLK_TCK")


class Target(msgspec.Struct):
    """A running gateway that an attack may hurt."""

    gateway: Gateway
    config: Path

    @property
    def url(self) -> str:
        return self.gateway.url

    @property
    def key(self) -> str:
        """Return the first key of the data directory; it has no limits."""
        return self.gateway.key

    @property
    def data(self) -> Path:
        return self.gateway.data

    @property
    def pid(self) -> int:
        return self.gateway.process.pid

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    @property
    def log(self) -> str:
        """What the gateway has written to stderr so far."""
        return (self.data.parent / f"{self.data.name}.log").read_text()

    def connect(self) -> socket.socket:
        """Return a raw connection to the listener, with a time-out of 30 s."""
        return socket.create_connection(self.address, timeout=30)

    def cli(self, *arguments: str) -> str:
        """Run `headgate ARGUMENTS --data ...` and return what it printed; fails when it fails."""
        ran = subprocess.run(
            [*gateways.COMMAND, *arguments, "--data", str(self.data)],
            env=gateways.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def create_key(self, name: str, *options: str) -> str:
        """A new key with these options of `headgate keys create`; the secret."""
        printed = self.cli("keys", "create", name, *options)
        found = re.search(r"hg_live_\w+", printed)
        assert found is not None, printed
        return found[0]


def start_target(
    directory: Path,
    upstream: PlayedUpstream,
    config: str,
    env: dict[str, str],
    descriptors: int = 0,
) -> Target:
    """Start `headgate serve` with this headgate.toml.

    Without an `[upstreams...]` table in it and without a variable for one, the played upstream's
    chat completions are the upstream.
    """
    directory.mkdir()
    path = directory / "headgate.toml"
    path.write_text(config)
    if "[upstreams" not in config and "HEADGATE_UPSTREAM_URL" not in env:
        env = {
            "HEADGATE_UPSTREAM_URL": upstream.url("openai"),
            "HEADGATE_UPSTREAM_KEY": "upstream-secret",
            "HEADGATE_UPSTREAM_DIALECT": "openai",
            **env,
        }
    found = gateways.start(
        directory / "data", "--config", str(path), descriptors=descriptors, **env
    )
    found.upstream = upstream
    return Target(found, path)


class Meter(msgspec.Struct):
    """Of a gateway's whole process tree, over the block: CPU seconds and the growth of its memory."""

    cpu_s: float = 0.0
    peak_mb: float = 0.0  # the most that all processes together were above their start


@contextlib.contextmanager
def metered(pid: int) -> Iterator[Meter]:
    """Measure the process tree under `pid`; the figures are there after the block."""
    wait_for(lambda: _settled(pid))
    meter = Meter()
    before = tree(pid)
    for each in before:
        _reset_peak(each)
    cpu_s, memory = _cpu_s(before), {each: _kilobytes(each, "VmRSS") for each in before}
    yield meter
    after = tree(pid)
    meter.cpu_s = _cpu_s(after) - cpu_s
    grown = sum(_kilobytes(each, "VmHWM") - memory.get(each, 0) for each in after)
    meter.peak_mb = max(0.0, grown / 1024)


def _settled(pid: int) -> bool:
    """Return whether control, which starts after the gateway is ready, has started and does nothing."""
    pids = tree(pid)
    if not any(b"headgate.cli\0control" in _command(each) for each in pids):
        return False
    before = _cpu_s(pids)
    pause_thread(0.1, "the time over which nothing is done")
    return _cpu_s(pids) - before < 0.02


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def _cpu_s(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(ticks) for ticks in fields[11:13])
    return total / _TICKS


def _kilobytes(pid: int, name: str) -> int:
    with contextlib.suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
        return int(found[1]) if found else 0
    return 0


def _reset_peak(pid: int) -> None:
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
