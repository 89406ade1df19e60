"""What systemd is told, by which a unit of Type=notify knows when the gateway takes requests."""

import signal
import socket
from pathlib import Path

from gateway import start
from played import PlayedUpstream
from waiting import PATIENCE_S


def test_systemd_hears_of_the_start_a_reload_and_the_end(
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
        finally:
            gate.process.terminate()
        assert manager.recv(4096).decode() == "STOPPING=1"
        assert gate.process.wait(PATIENCE_S) == 0
