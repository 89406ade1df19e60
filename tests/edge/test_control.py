"""Control behind the edge, as real processes: what passes, what does not, and its death."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

import gateway
from gateway import Gateway
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.people import People
from played import PlayedUpstream
from waiting import PATIENCE_S, ended, wait_for


@pytest.fixture
def gate(upstream: PlayedUpstream, tmp_path: Path) -> Iterator[Gateway]:
    running = gateway.start(
        tmp_path / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="sk-upstream",
    )
    running.upstream = upstream
    yield running
    assert gateway.stop(running) == 0


def control_pid(gate: Gateway) -> int:
    """The child of `serve` that is control."""
    own = Path(f"/proc/{gate.process.pid}/task").glob("*/children")
    children = [int(pid) for file in own for pid in file.read_text().split()]
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in children}
    return next(pid for pid, words in commands.items() if b"control" in words)


def test_the_first_page_a_browser_asks_for_is_there_at_once(gate: Gateway) -> None:
    page = gate.get("/", accept="text/html")
    assert page.status_code == 200 and gate.url in page.text


def test_a_probe_of_the_root_is_answered_by_the_edge_itself(gate: Gateway) -> None:
    assert httpx2.head(gate.url + "/").status_code == 200
    assert gate.get("/").text.startswith("Headgate ")


def test_what_control_says_reaches_the_client_and_what_it_must_not_does_not(gate: Gateway) -> None:
    page = gate.get("/sign-in", accept="text/html")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    assert "server" not in page.headers


@pytest.mark.parametrize("path", ["/docs/api", "/usage", "/api_keys", "/openapi.json"])
def test_the_pages_that_the_catalog_leads_to_are_there(path: str, gate: Gateway) -> None:
    assert gate.get(path, accept="text/html").status_code in (200, 303)


def test_what_the_command_line_changes_is_on_the_record(gate: Gateway) -> None:
    for words in (["accounts", "create", "team"], ["keys", "create", "x", "--account", "team"]):
        subprocess.run(
            [sys.executable, "-m", "headgate.cli", *words, "--data", str(gate.data)],
            check=True,
            capture_output=True,
        )
    with closing(Store(gate.data)) as store:
        people = People(store, gate.data)
        told = [(c.action, c.via, c.account) for c in people.changes()]
        people.close()
    assert told == [
        ("key.create", "cli", "team"),
        ("account.create", "cli", "team"),
        ("key.create", "cli", ""),  # the first key, made at the first start
    ]


def test_nobody_can_say_who_they_are_in_a_header_of_ours(gate: Gateway) -> None:
    # A forged host would make control believe that the browser is on this machine.
    page = gate.get(
        "/sign-in", accept="text/html", host="example.org", **{"x-headgate-host": "127.0.0.1"}
    )
    assert page.status_code == 403


def test_the_inside_of_the_edge_does_not_exist_for_others(gate: Gateway) -> None:
    for headers in ({}, {"x-headgate-internal": "0" * 64}, {"authorization": f"Bearer {gate.key}"}):
        assert gate.get("/internal/upstreams", **headers).status_code == 404


def test_a_path_of_the_api_is_refused_in_its_own_protocol_and_not_by_a_page(gate: Gateway) -> None:
    answer = gate.post("/elsewhere/v1/chat/completions", {})
    assert answer.status_code == 404
    assert "/v1/chat/completions" in answer.json()["error"]["message"]


def test_streams_go_on_while_control_dies_and_it_comes_back(gate: Gateway) -> None:
    assert gate.get("/models").status_code == 200
    said = [{"role": "user", "content": "held"}]
    body = {"model": "MiniMax-M2", "stream": True, "messages": said}
    with httpx2.stream(
        "POST",
        gate.url + "/v1/chat/completions",
        json=body,
        headers={"authorization": f"Bearer {gate.key}"},
        timeout=PATIENCE_S,
    ) as stream:
        lines = stream.iter_lines()
        next(lines)
        first = control_pid(gate)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: ended(first))
        gate.upstream.release(gate.upstream.last)
        text = "\n".join(lines)
    assert text.rstrip().endswith("data: [DONE]")
    page = gate.get("/models", accept="text/html")  # it waits until control is there again
    assert page.status_code == 200
    assert control_pid(gate) != first


def test_control_ends_with_a_gateway_that_was_killed(tmp_path: Path) -> None:
    running = gateway.start(
        tmp_path / "data", HEADGATE_UPSTREAM_URL="http://127.0.0.1:9", HEADGATE_UPSTREAM_KEY="k"
    )
    assert running.get("/models").status_code == 200
    pid = control_pid(running)
    running.process.kill()
    running.process.wait(PATIENCE_S)
    wait_for(lambda: ended(pid))


def test_ctrl_c_in_a_terminal_is_for_the_gateway_and_not_for_its_control(gate: Gateway) -> None:
    gate.get("/", accept="text/html")
    assert os.getpgid(control_pid(gate)) != os.getpgid(gate.process.pid)
