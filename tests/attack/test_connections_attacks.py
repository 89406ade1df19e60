"""Attacks through connections: many of them, pipelines, slow readers, heads and bodies that cost work."""

import contextlib
import re
import resource
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from attacking import Target, descriptors, metered
from waiting import pause_thread

HELLO = {"model": "MiniMax-M2", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def sockets(target: object) -> Iterator[list[socket.socket]]:
    """Sockets of one test, closed before its gateways are stopped; it may open as many as the user may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held: list[socket.socket] = []
    yield held
    for each in held:
        each.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def deaf(target: Target) -> socket.socket:
    """A connection whose client takes next to nothing; sending on it gives up after a second."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(1)
    sock.connect(target.address)
    return sock


def post(target: Target, *lines: str, length: int | None = None) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    start = "POST /v1/chat/completions HTTP/1.1"
    all_lines = (start, "Host: x", f"Authorization: Bearer {target.key}", framing, *lines, "", "")
    return "\r\n".join(all_lines).encode()


def pour(sock: socket.socket, piece: bytes, times: int) -> None:
    """Send until all is sent, or the gateway takes no more, or has closed."""
    with contextlib.suppress(OSError):
        for _ in range(times):
            sock.sendall(piece)


def answer(sock: socket.socket) -> bytes:
    """What the gateway still says before it closes."""
    out = b""
    with contextlib.suppress(OSError):
        while data := sock.recv(65536):
            out += data
    return out


def steady(figure: Callable[[], float]) -> None:
    """Wait until a figure no longer changes."""
    before = -1.0
    for _ in range(60):
        now = figure()
        if now == before:
            return
        before = now
        pause_thread(0.3, "the time over which a figure must stay as it is")


def test_idle_connections_above_the_file_limit_shut_nobody_out(
    target: Callable[..., Target], sockets: list[socket.socket]
) -> None:
    running = target(descriptors=1024)
    sockets += [running.connect() for _ in range(1100)]
    for _ in range(3):
        assert running.gateway.get("/readyz").status_code == 200
        assert running.gateway.post("/v1/chat/completions", HELLO).status_code == 200
    assert running.gateway.get("/sign-in").status_code == 200
    assert descriptors(running.pid) < 1000


def test_one_peers_idle_connections_do_not_make_the_gateway_unready(
    target: Callable[..., Target], sockets: list[socket.socket]
) -> None:
    running = target()
    sockets += [running.connect() for _ in range(2100)]
    assert running.gateway.get("/readyz").status_code == 200
    assert running.gateway.post("/v1/chat/completions", HELLO).status_code == 200


def test_health_is_answered_while_every_connection_is_busy(
    target: Callable[..., Target], sockets: list[socket.socket]
) -> None:
    running = target(config="connections = 20\nconnections_per_peer = 20\n")
    body = b'{"model": "MiniMax-M2", "messages": [{"role": "user", "content": "silent 30"}]}'
    upstream = running.gateway.upstream
    assert upstream is not None
    before = len(upstream.seen)
    for _ in range(20):
        sockets.append(running.connect())
        sockets[-1].sendall(post(running, length=len(body)) + body)
    steady(lambda: len(upstream.seen))
    assert len(upstream.seen) == before + 20
    refused = running.gateway.post("/v1/chat/completions", HELLO)
    assert refused.status_code == 503 and "retry-after" in refused.headers
    assert running.gateway.get("/livez").status_code == 200
    assert running.gateway.get("/readyz").status_code == 200


@pytest.mark.long
@pytest.mark.parametrize("path", ["/metrics", "/", "/static/pico.min.css"])
def test_pipelined_requests_of_a_client_that_reads_nothing_take_no_memory(
    path: str, target: Callable[..., Target], sockets: list[socket.socket]
) -> None:
    running = target()
    piece = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 3000
    with metered(running.pid) as meter:
        for _ in range(4):
            sockets.append(deaf(running))
            pour(sockets[-1], piece, 60)
        assert running.gateway.get("/livez").status_code == 200
    assert meter.peak_mb < 30


@pytest.mark.long
def test_pipelined_requests_behind_a_stream_take_no_memory(
    target: Callable[..., Target], sockets: list[socket.socket]
) -> None:
    running = target()
    body = b'{"model": "MiniMax-M2", "stream": true, "messages": [{"role": "user", "content": "slow 1"}]}'
    with metered(running.pid) as meter:
        sockets.append(deaf(running))
        sockets[-1].sendall(post(running, length=len(body)) + body)
        pour(sockets[-1], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3000, 200)
    assert meter.peak_mb < 10


@pytest.mark.long
def test_a_slow_reader_costs_less_than_256_kilobytes(
    target: Callable[..., Target], sockets: list[socket.socket]
) -> None:
    running = target()
    upstream = running.gateway.upstream
    assert upstream is not None
    body = b'{"model": "MiniMax-M2", "stream": true, "messages": [{"role": "user", "content": "flood 8"}]}'
    assert running.gateway.post("/v1/chat/completions", HELLO).status_code == 200
    with metered(running.pid) as meter:
        for _ in range(100):
            sockets.append(deaf(running))
            sockets[-1].sendall(post(running, length=len(body)) + body)
        steady(lambda: upstream.written)
        assert running.gateway.metric("headgate_open_streams") == 100
    assert meter.peak_mb < 100 * 256 / 1024


@pytest.mark.parametrize("trailer", [b"X-T: " + b"t" * 1000 + b"\r\n", b"X:y\r\n" * 200])
def test_trailers_cost_next_to_nothing(
    trailer: bytes, target: Callable[..., Target], sockets: list[socket.socket]
) -> None:
    running = target()
    sock = running.connect()
    sockets.append(sock)
    with metered(running.pid) as meter:
        sock.sendall(post(running) + b"a00000\r\n" + b"a" * (10 << 20) + b"\r\n0\r\n")
        pour(sock, trailer * 64, (20 << 20) // (64 * len(trailer)))
        assert re.match(rb"HTTP/1.1 4\d\d ", answer(sock))
    assert meter.cpu_s < 0.5


@pytest.mark.parametrize(
    ("head", "piece", "times"),
    [
        ("chunked", b"1\r\na\r\n" * 10_000, 300),
        ("chunked", b"1;" + b"e" * 250 + b"\r\na\r\n", 20_000),
        ("", b"a:b\r\n" * 10_000, 1),
        ("", b"x-a: " + b"b" * 1000 + b"\r\n", 60),
    ],
    ids=["small chunks", "extensions", "small headers", "one header again and again"],
)
def test_what_is_small_and_many_is_refused_before_it_costs_anything(
    head: str, piece: bytes, times: int, target: Callable[..., Target], sockets: list[socket.socket]
) -> None:
    running = target()
    with metered(running.pid) as meter:
        for _ in range(4):
            sock = running.connect()
            sockets.append(sock)
            sock.sendall(post(running) if head else b"GET / HTTP/1.1\r\nHost: x\r\n")
            pour(sock, piece, times)
            pour(sock, b"\r\n", 1)
            assert re.match(rb"HTTP/1.1 [24]\d\d ", answer(sock) if head else sock.recv(64))
    assert meter.cpu_s < 1


def test_a_page_that_has_not_changed_has_no_body_and_no_framing(
    target: Callable[..., Target], sockets: list[socket.socket]
) -> None:
    running = target()
    page = running.gateway.get("/static/pico.min.css")
    ask = (
        f"GET /static/pico.min.css HTTP/1.1\r\nHost: x\r\nIf-None-Match: {page.headers['etag']}\r\n"
    )
    sock = running.connect()
    sockets.append(sock)
    sock.sendall(f"{ask}\r\n{ask}Connection: close\r\n\r\n".encode())
    out = answer(sock)
    assert out.count(b"HTTP/1.1 304 ") == 2 and out.endswith(b"\r\n\r\n")
    assert b"transfer-encoding" not in out and b"content-length" not in out
    sock = running.connect()
    sockets.append(sock)
    sock.sendall(b"HEAD /static/pico.min.css HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    out = answer(sock)
    assert out.endswith(b"\r\n\r\n") and b"content-length: %d\r\n" % len(page.content) in out


@pytest.mark.long
def test_only_a_trusted_proxy_can_name_the_client_of_the_sign_in(
    target: Callable[..., Target],
) -> None:
    """The throttle of the sign-in counts by address: whoever could choose it could guess for ever."""

    def guess(running: Target, forwarded: str) -> int:
        form = f"name=user{time.monotonic_ns()}&password=wrong".encode()
        kind = "application/x-www-form-urlencoded"
        given = {"content-type": kind, "x-forwarded-for": forwarded}
        return running.gateway.post("/sign-in", form, **given).status_code

    running = target(config="trusted_proxies = ['127.0.0.0/8']\n")
    codes = [guess(running, f"198.51.100.{n}, 192.0.2.7") for n in range(8)]
    assert codes[0] == 401 and codes[-1] == 429
    assert guess(running, "192.0.2.7, 192.0.2.8") == 401
    # A loopback address is never held up, and nobody is believed to have another.
    open_to_all = target()
    assert {guess(open_to_all, "192.0.2.7") for n in range(8)} == {401}
