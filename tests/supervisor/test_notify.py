"""What systemd is told, by which a unit of Type=notify knows when the gateway takes requests."""

import os
import re
import signal
import socket
from pathlib import Path

from gateway import start
from played import PlayedUpstream
from reloading import lives
from waiting import PATIENCE_S, wait_for


def test_systemd_hears_of_the_start_a_reload_an_upgrade_and_the_end(
    upstream: PlayedUpstream, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)
        gate = start(
            tmp_path / "data",
            HEADGATE_UPSTREAM_URL=upstream.url("openai"),
            NOTIFY_SOCKET=str(tmp_path / "notify"),
        )
        try:
            first = manager.recv(4096).decode()
            assert first.splitlines()[0] == "READY=1"
            assert f"MAINPID={gate.process.pid}" in first
            gate.process.send_signal(signal.SIGHUP)
            reloading = manager.recv(4096).decode()
            assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(4096).decode().startswith("READY=1")
            assert gate.get("/readyz").status_code == 200
            # An upgrade: who is heard from now on is named first, by the process that is heard until then.
            gate.process.send_signal(signal.SIGUSR2)
            named = manager.recv(4096).decode()
            assert re.fullmatch(r"MAINPID=\d+", named)
            pid = int(named[8:])
            assert pid != gate.process.pid
            assert manager.recv(4096).decode().splitlines() == ["READY=1", named]
            assert gate.process.wait(PATIENCE_S) == 0
            assert gate.get("/readyz").status_code == 200
            os.kill(pid, signal.SIGTERM)
        finally:
            gate.process.terminate()
        assert manager.recv(4096).decode() == "STOPPING=1"
        wait_for(lambda: not lives(pid))
