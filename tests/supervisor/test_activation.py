"""Sockets that systemd has opened: which address each is for, and that a restart refuses no connection."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from gateway import start, stop
from headgate.config.addresses import Address
from headgate.supervisor import activation
from headgate.supervisor.activation import ActivationError
from played import PlayedUpstream
from reloading import ask, chat
from waiting import PATIENCE_S, wait_for

API = Address("api", "127.0.0.1", 8787, "--port")
METRICS = Address("metrics", "127.0.0.1", 9464, "`metrics`")


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_variables_for_another_process_are_taken_away_and_not_used() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "api", "HOME": "/"}
    assert activation.passed(environment) == []
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize("count", ["", "x", "-1", "0"])
def test_a_count_that_is_none_means_no_sockets(count: str) -> None:
    assert activation.passed({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}) == []


def test_a_named_socket_is_for_the_address_of_that_name(listening: socket.socket) -> None:
    found = activation.assign([("metrics", listening)], [API, METRICS])
    assert found["metrics"].sockets == [listening]
    assert found["metrics"].given and set(found) == {"metrics"}


def test_a_socket_without_a_name_is_for_the_address_with_its_port(
    listening: socket.socket,
) -> None:
    own = Address("metrics", "127.0.0.1", listening.getsockname()[1], "`metrics`")
    assert set(activation.assign([("headgate.socket", listening)], [API, own])) == {"metrics"}


def test_the_only_socket_is_for_the_api(listening: socket.socket) -> None:
    assert set(activation.assign([("", listening)], [API, METRICS])) == {"api"}


def test_a_socket_that_is_for_no_address_is_refused(listening: socket.socket) -> None:
    with pytest.raises(ActivationError, match="FileDescriptorName=api, admin or metrics"):
        activation.assign([("api", listening), ("other", listening)], [API, METRICS])


def test_what_is_no_listening_socket_of_tcp_is_refused() -> None:
    with socket.socket() as idle, pytest.raises(ActivationError, match="Accept=no"):
        activation.assign([("api", idle)], [API])
    with (
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        pytest.raises(ActivationError, match="ListenStream"),
    ):
        activation.assign([("api", datagrams)], [API])


def test_edges_share_a_given_socket_and_none_is_bound_beside_it(listening: socket.socket) -> None:
    listeners = activation.assign([("api", listening)], [API])["api"]
    assert listeners.of_edges(3) == [[listening]] * 3
    assert listeners.sockets == [listening]


def test_connections_wait_during_a_restart_and_are_answered(
    upstream: PlayedUpstream, tmp_path: Path, listening: socket.socket
) -> None:
    url = upstream.url("openai")
    env = {"HEADGATE_UPSTREAM_URL": url, "HEADGATE_EDGES": "2", "HEADGATE_DRAIN_S": "5"}
    gate = start(tmp_path / "data", passed=listening, **env)
    assert gate.url == f"http://127.0.0.1:{listening.getsockname()[1]}"
    assert ask(gate).status_code == 200
    assert stop(gate) == 0
    replies: list[int] = []

    def asks() -> None:
        headers = {"authorization": f"Bearer {gate.key}"}
        address = f"{gate.url}/v1/chat/completions"
        reply = httpx2.post(address, json=chat("x"), headers=headers, timeout=3 * PATIENCE_S)
        replies.append(reply.status_code)

    waiting = [threading.Thread(target=asks) for _ in range(8)]
    for each in waiting:
        each.start()
    again = start(tmp_path / "data", passed=listening, **env)
    wait_for(lambda: len(replies) == len(waiting))
    for each in waiting:
        each.join()
    assert set(replies) == {200}
    assert stop(again) == 0
