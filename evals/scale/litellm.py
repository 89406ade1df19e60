"""How many requests LiteLLM's replicas grant of one key's limit: `make scale-litellm`, beside evals/scale/cluster.py.

Several proxies (`make bench-litellm` installs them) have one key with a limit of requests a minute, which their own
`custom_auth` hook states, as its keys otherwise need a database whose client downloads programs.  All are asked at
the same time, first alone and then with one Redis between them.  Loopback only; needs Debian's redis-server.
"""

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

ROOT = Path(__file__).parents[2]
PROXY = ROOT / ".venv-litellm" / "bin" / "litellm"
BODY = {"model": "MiniMax-M2", "messages": [{"role": "user", "content": "whole"}]}
AT_ONCE = 16  # requests in flight
AUTH = """
from litellm.proxy._types import UserAPIKeyAuth

async def authenticate(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, rpm_limit={rpm})
"""
CONFIG = """
model_list:
  - model_name: MiniMax-M2
    litellm_params: {{model: openai/MiniMax-M2, api_base: "http://127.0.0.1:{upstream}/v1", api_key: x}}
litellm_settings:
  telemetry: false
{cache}
general_settings:
  master_key: sk-bench
  custom_auth: limits.authenticate
"""
CACHE = "  cache: true\n  cache_params: {{type: redis, host: 127.0.0.1, port: {port}}}"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for_port(port: int, process: "subprocess.Popen[bytes]", path: str = "") -> None:
    """Return once something answers there; an error if its process ends, or after three minutes."""
    until_s = time.monotonic() + 180
    while time.monotonic() < until_s and process.poll() is None:
        with contextlib.suppress(OSError, httpx2.HTTPError):
            if not path:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            if httpx2.get(f"http://127.0.0.1:{port}{path}", timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"nothing answers on port {port}")


@contextlib.contextmanager
def running(*command: str | Path, **env: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [str(c) for c in command], env={**os.environ, **env},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


def granted(ports: list[int], count: int) -> dict[int, int]:
    """Ask all replicas in turn, many requests at once; how often each status came."""

    def ask(n: int) -> int:
        url = f"http://127.0.0.1:{ports[n % len(ports)]}/v1/chat/completions"
        headers = {"authorization": "Bearer sk-team"}
        return httpx2.post(url, json=BODY, headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(AT_ONCE) as pool:
        statuses = list(pool.map(ask, range(count)))
    return {status: statuses.count(status) for status in sorted(set(statuses))}


def measure(upstream: int, replicas: int, rpm: int, redis: int | None) -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        place = Path(name)
        (place / "limits.py").write_text(AUTH.format(rpm=rpm))
        cache = CACHE.format(port=redis) if redis is not None else ""
        (place / "config.yaml").write_text(CONFIG.format(upstream=upstream, cache=cache))
        ports = [free_port() for _ in range(replicas)]
        started = [
            stack.enter_context(
                running(
                    PROXY, "--config", place / "config.yaml", "--port", str(port),
                    "--host", "127.0.0.1", LITELLM_LOCAL_MODEL_COST_MAP="True",
                )
            )
            for port in ports
        ]  # fmt: skip
        for port, process in zip(ports, started, strict=True):
            wait_for_port(port, process, "/health/liveliness")
        time.sleep(60 - time.time() % 60 + 1)  # its windows are minutes; all are asked in one
        began_s = time.monotonic()
        statuses = granted(ports, 3 * replicas * rpm)
        took_s = time.monotonic() - began_s
    beside = "one Redis" if redis is not None else "nothing"
    print(
        f"LiteLLM, {replicas} replicas with {beside} between them, {rpm} requests a minute, asked"
        f" {3 * replicas * rpm} times in {took_s:.0f} s: {statuses.get(200, 0)} granted ({statuses})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--rpm", type=int, default=20)
    options = parser.parse_args()
    server = shutil.which("redis-server")
    if not PROXY.exists() or server is None:
        raise SystemExit("this needs `make bench-litellm` and redis-server (Debian: redis-server)")
    print(subprocess.run([PROXY, "--version"], capture_output=True, text=True).stdout.strip())
    played = subprocess.Popen(
        [sys.executable, str(ROOT / "evals" / "bench" / "upstream.py")], stdout=subprocess.PIPE
    )
    assert played.stdout is not None
    upstream = int(played.stdout.readline())
    port = free_port()
    try:
        with running(server, "--port", str(port), "--save", "", "--bind", "127.0.0.1") as redis:
            wait_for_port(port, redis)
            for shared in (None, port):
                measure(upstream, options.replicas, options.rpm, shared)
    finally:
        played.terminate()


if __name__ == "__main__":
    main()
