"""Faults around a running gateway: outputs nobody reads, signals, locked and lost databases, a slow start.

Each of them once froze the gateway, ended it without a word, or let it go on blind.
"""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

import gateway as gateways
from attacking import Target, tree
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.reports import UsageReader
from many import fill
from played import PlayedUpstream
from waiting import pause_thread, wait_for

M = "MiniMax-M2"
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
GENERATE = f"/v1beta/models/{M}:generateContent"
STREAM = f"/v1beta/models/{M}:streamGenerateContent"


def chat(text: str, **fields: object) -> dict[str, object]:
    return {"model": M, "messages": [{"role": "user", "content": text}], **fields}


def ended(running: Target, within_s: float = 30) -> int:
    return running.gateway.process.wait(within_s)


def rows(running: Target) -> list[LedgerRow]:
    with contextlib.closing(UsageReader(running.data)) as books:
        return [row for _, row in books.requests()]


# --- outputs that nobody reads --------------------------------------------------------------------


@contextlib.contextmanager
def unread(data: Path, upstream: PlayedUpstream) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A gateway whose standard error is a full pipe that nobody reads, and its URL."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write_end, b"x" * 4096)
    os.set_blocking(write_end, True)
    process = subprocess.Popen(
        [*gateways.COMMAND, "serve", "--port", "0", "--data", str(data)],
        env={
            **gateways.environment(),
            "HEADGATE_UPSTREAM_URL": upstream.url("openai"),
            "HEADGATE_METRICS": "open",
        },
        stdout=subprocess.PIPE,
        stderr=write_end,
    )
    os.close(write_end)
    try:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line.decode())
            if line.startswith(b"headgate ready "):
                break
        yield process, "".join(printed)
    finally:
        process.kill()
        process.wait()
        os.close(read_end)


@pytest.mark.parametrize("count", [300, pytest.param(12_000, marks=pytest.mark.long)])
def test_a_full_pipe_as_standard_error_stops_neither_requests_nor_the_end(
    tmp_path: Path, upstream: PlayedUpstream, count: int
) -> None:
    with unread(tmp_path / "data", upstream) as (process, printed):
        url = printed.rstrip().rpartition(" ")[2]
        (key,) = set(re.findall(r"hg_live_\w+", printed.partition("curl")[0]))
        with httpx2.Client(timeout=20, headers={"authorization": f"Bearer {key}"}) as client:
            for _ in range(count):
                assert client.post(url + CHAT, json=chat("hello")).status_code == 200
            page = client.get(url + "/metrics").text
        (dropped,) = re.findall(r"^headgate_log_lines_dropped_total (\S+)$", page, re.M)
        assert (float(dropped) > 0) == (count > 10_000)
        process.terminate()
        assert process.wait(20) == 0


def test_a_greeting_that_nobody_reads_does_not_keep_the_gateway_from_starting(
    tmp_path: Path, upstream: PlayedUpstream
) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write_end, b"x" * 4096)
    os.set_blocking(write_end, True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*gateways.COMMAND, "serve", "--port", str(port), "--data", str(tmp_path / "data")],
        env={**gateways.environment(), "HEADGATE_UPSTREAM_URL": upstream.url("openai")},
        stdout=write_end,
        stderr=subprocess.DEVNULL,
    )
    os.close(write_end)
    try:

        def ready() -> bool:
            with contextlib.suppress(httpx2.HTTPError):
                return httpx2.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
            return False

        wait_for(ready)
        pause_thread(0.5, "the greeting comes after the listener; SIGTERM must find its handler")
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(read_end)


# --- signals --------------------------------------------------------------------------------------


class Asking:
    """One request in a thread of its own: status, body, and what kept it from an answer."""

    def __init__(self, running: Target, path: str, body: object, **headers: str) -> None:
        self.status, self.text, self.error = 0, "", ""
        self.headers: dict[str, str] = {}
        self._target, self._path, self._body, self._more = running, path, body, headers
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        headers = {"authorization": f"Bearer {self._target.key}", **self._more}
        url = self._target.url + self._path
        try:
            with httpx2.stream("POST", url, json=self._body, headers=headers, timeout=60) as found:
                self.status, self.headers = found.status_code, dict(found.headers)
                for piece in found.iter_text():
                    self.text += piece
        except httpx2.HTTPError as error:
            self.error = repr(error)

    def done(self) -> "Asking":
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self


def on_its_way(upstream: PlayedUpstream, before: int, count: int = 1) -> None:
    wait_for(lambda: len(upstream.seen) >= before + count)


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_lets_a_running_stream_end(
    target: Callable[..., Target], upstream: PlayedUpstream, number: signal.Signals
) -> None:
    running, before = target(), len(upstream.seen)
    stream = Asking(running, CHAT, chat("slow 0.02", stream=True))
    on_its_way(upstream, before)
    os.kill(running.pid, number)
    assert stream.done().text.rstrip().endswith("data: [DONE]"), stream.error
    assert ended(running) == 0
    assert [row.outcome for row in rows(running)] == ["stop"]


def test_signals_for_other_daemons_end_nothing(target: Callable[..., Target]) -> None:
    running = target()
    for number in (signal.SIGUSR1, signal.SIGPIPE):
        for pid in tree(running.pid)[:1]:
            os.kill(pid, number)
    assert running.gateway.post(CHAT, chat("hello")).status_code == 200


BODIES: dict[str, tuple[str, dict[str, object], dict[str, str]]] = {
    "chat": (CHAT, chat("silent 50", stream=True), {}),
    "chat whole": (CHAT, chat("silent 50"), {}),
    "messages": (MESSAGES, chat("silent 50", stream=True, max_tokens=9), {}),
    "messages whole": (MESSAGES, chat("silent 50", max_tokens=9), {}),
    "responses": (RESPONSES, {"model": M, "input": "silent 50", "stream": True}, {}),
    "responses whole": (RESPONSES, {"model": M, "input": "silent 50"}, {}),
    "gemini": (f"{STREAM}?alt=sse", {"contents": [{"parts": [{"text": "silent 50"}]}]}, {}),
    "gemini whole": (GENERATE, {"contents": [{"parts": [{"text": "silent 50"}]}]}, {}),
    "with a key": (CHAT, chat("silent 50", stream=True), {"idempotency-key": "abc"}),
}


@pytest.mark.parametrize("begun", [False, True])
def test_what_is_left_after_the_grace_gets_an_error_of_its_protocol_and_a_row(
    target: Callable[..., Target], upstream: PlayedUpstream, begun: bool
) -> None:
    """`begun`: the streams have sent a keep-alive, so that there is no status any more."""
    pause = 0.1 if begun else 50
    running = target(config=f"drain_s = 0.5\nkeepalive_s = {pause}\n")
    before = len(upstream.seen)
    asking = {name: Asking(running, p, b, **more) for name, (p, b, more) in BODIES.items()}
    on_its_way(upstream, before, len(BODIES))
    if begun:
        wait_for(lambda: sum(a.status == 200 for a in asking.values()) == 5)
    os.kill(running.pid, signal.SIGTERM)
    assert ended(running) == 0
    for name, each in asking.items():
        each.done()
        assert not each.error, (name, each.error)
        assert "shutting down" in each.text, (name, each.text)
        whole = not begun or "whole" in name
        assert each.status == (503 if whole else 200), (name, each.status)
        if whole:
            assert each.headers["connection"] == "close" and "retry-after" in each.headers
    if begun:
        assert '"error"' in asking["chat"].text.splitlines()[-1] or "error" in asking["chat"].text
        assert "event: error" in asking["messages"].text
        assert re.search("event: (error|response.failed)", asking["responses"].text)
    found = rows(running)
    assert [row.outcome for row in found] == ["shutdown"] * len(BODIES)
    with contextlib.closing(UsageReader(running.data)) as books:
        assert books.audit() == [] and books.intents() == 0


COUNTS = (
    "/v1/messages/count_tokens",
    "/v1/responses/input_tokens",
    f"/v1beta/models/{M}:countTokens",
)


def test_a_request_that_is_still_read_and_one_whose_client_left_are_ended_in_order(
    target: Callable[..., Target], upstream: PlayedUpstream
) -> None:
    running = target(config="drain_s = 0.5\n")
    drains = running.create_key("drains", "--on-disconnect", "drain")
    wait_for(lambda: running.gateway.get("/v1/models", authorization=f"Bearer {drains}").is_success)
    before = len(upstream.seen)
    head = "POST {} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n"
    body = json.dumps(chat("silent 50", stream=True)).encode()
    with running.connect() as gone:
        gone.sendall(head.format(CHAT, drains, len(body)).encode() + body)
        on_its_way(upstream, before)
    paths = (CHAT, *COUNTS)
    with contextlib.ExitStack() as open_:
        reading = [open_.enter_context(running.connect()) for _ in paths]
        for conn, path in zip(reading, paths, strict=True):
            conn.sendall(head.format(path, running.key, 1000).encode() + b'{"model"')
        wait_for(lambda: running.gateway.metric("headgate_open_streams") == 0)
        wait_for(lambda: running.gateway.metric("headgate_in_flight") == 1 + len(paths))
        os.kill(running.pid, signal.SIGTERM)
        for conn, path in zip(reading, paths, strict=True):
            said = b""
            while data := conn.recv(65536):
                said += data
            assert said.startswith(b"HTTP/1.1 503 "), (path, said)
            assert b"shutting down" in said and b"connection: close" in said, said
    assert ended(running) == 0
    assert [row.outcome for row in rows(running)] == ["shutdown"]
    lines = [json.loads(line) for line in running.log.splitlines() if line.startswith("{")]
    counts = [line for line in lines if line["event"] == "count"]
    assert [(c["outcome"], c["status"]) for c in counts] == [("shutdown", 503)] * len(COUNTS)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait_for_running_requests(
    target: Callable[..., Target], upstream: PlayedUpstream, second: signal.Signals
) -> None:
    running, before = target(config="drain_s = 600\ndrain_delay_s = 600\n"), len(upstream.seen)
    stream = Asking(running, CHAT, chat("silent 50", stream=True))
    on_its_way(upstream, before)
    os.kill(running.pid, signal.SIGTERM)
    wait_for(lambda: running.gateway.get("/readyz").status_code == 503)
    os.kill(running.pid, signal.SIGHUP)  # systemd sends one beside the first: no second signal
    assert running.gateway.get("/readyz").status_code == 503
    os.kill(running.pid, second)
    assert ended(running) == 0
    assert "shutting down" in stream.done().text
    assert [row.outcome for row in rows(running)] == ["shutdown"]


def test_requests_are_served_during_the_delay_while_readiness_is_gone(
    target: Callable[..., Target],
) -> None:
    running = target(config="drain_delay_s = 600\n")
    with running.connect() as idle:
        os.kill(running.pid, signal.SIGTERM)
        wait_for(lambda: running.gateway.get("/readyz").status_code == 503)
        assert running.gateway.get("/readyz").text == "draining\n"
        served = running.gateway.post(CHAT, chat("hello"))
        assert served.status_code == 200 and served.headers["connection"] == "close"
        idle.sendall(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 200 ")
    os.kill(running.pid, signal.SIGTERM)
    assert ended(running) == 0


# --- the database ---------------------------------------------------------------------------------


@pytest.mark.long
def test_keys_open_nothing_once_the_database_has_been_away_for_long_and_again_when_it_is_back(
    target: Callable[..., Target],
) -> None:
    running = target()
    path, away = running.data / "headgate.db", running.data / "away.db"
    path.rename(away)
    wait_for(lambda: running.gateway.get("/readyz").status_code == 503)
    assert "has not been read" in running.gateway.get("/readyz").text
    refused = running.gateway.post(CHAT, chat("hello"))
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0
    assert refused.json()["error"]["code"] == "storage_unavailable"
    failures = 'headgate_task_failures_total{task="keys"}'
    assert running.gateway.metric(failures) > 1
    away.rename(path)
    wait_for(lambda: running.gateway.get("/readyz").status_code == 200)
    running.cli("keys", "revoke", running.key[8:16])
    wait_for(lambda: running.gateway.post(CHAT, chat("hello")).status_code == 401)


def test_a_database_that_is_locked_for_a_moment_costs_no_request(
    target: Callable[..., Target],
) -> None:
    running = target()
    code = (
        "import apsw, sys; db = apsw.Connection(sys.argv[1]); db.execute('begin immediate');"
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(running.data / "headgate.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == b"locked\n"
        answers = Asking(running, CHAT, chat("hello"))
        assert running.gateway.get("/v1/models", authorization=f"Bearer {running.key}").is_success
        unknown = running.gateway.get("/v1/models", authorization="Bearer hg_live_nope")
        assert unknown.status_code == 401
        holder.stdin.close()
    assert answers.done().status == 200


# --- the start ------------------------------------------------------------------------------------


def cpu_of_start(data: Path, upstream: PlayedUpstream) -> float:
    """CPU seconds that the gateway takes until it is ready."""
    running = gateways.start(data, ready_s=600, HEADGATE_UPSTREAM_URL=upstream.url("openai"))
    total = 0
    for pid in tree(running.process.pid):
        if b"\0control\0" not in Path(f"/proc/{pid}/cmdline").read_bytes():  # it starts later
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(ticks) for ticks in fields[11:13])
    assert gateways.stop(running) == 0
    return total / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("keys", "count"),
    [(2000, 50_000), pytest.param(2000, 1_000_000, marks=pytest.mark.long)],
)
def test_a_start_reads_the_sums_once_however_many_keys_there_are(
    tmp_path: Path, upstream: PlayedUpstream, keys: int, count: int
) -> None:
    fill(tmp_path / "many", keys=keys, rows=count)
    base = cpu_of_start(tmp_path / "few", upstream)
    assert cpu_of_start(tmp_path / "many", upstream) - base < 2


def serve(data: Path, *options: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*gateways.COMMAND, "serve", "--port", "0", "--data", str(data), *options],
        env={**gateways.environment(), "HEADGATE_UPSTREAM_URL": "http://127.0.0.1:9/v1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,  # type: ignore[call-overload]
    )


def in_one_sentence(ran: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr and "headgate ready" not in ran.stdout
    (said,) = [line for line in ran.stderr.splitlines() if line.startswith("Error: ")]
    assert words in said


@pytest.mark.parametrize("room", [0, 4096, 65536, 120_000, 160_000])
def test_a_start_on_a_full_disk_ends_with_a_sentence_and_a_code(tmp_path: Path, room: int) -> None:
    """No file may grow above `room` bytes, as on a disk that has no more."""
    ran = serve(
        tmp_path / "data",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    in_one_sentence(ran, 3, str(tmp_path / "data"))


def test_a_start_that_cannot_be_says_why(tmp_path: Path, upstream: PlayedUpstream) -> None:
    data = tmp_path / "data"
    running = gateways.start(data, HEADGATE_UPSTREAM_URL=upstream.url("openai"))
    port = running.url.rpartition(":")[2]
    taken = serve(tmp_path / "other", "--port", port)
    assert gateways.stop(running) == 0
    in_one_sentence(taken, 4, "Choose another with --port")
    pepper = (data / "pepper").read_bytes()
    (data / "pepper").write_bytes(bytes(32))
    in_one_sentence(serve(data), 3, "is not the pepper")
    for words in (["keys", "list"], ["keys", "create", "a"], ["admin", "keys", "create", "a"]):
        ran = subprocess.run(
            [*gateways.COMMAND, *words, "--data", str(data)],
            env=gateways.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        in_one_sentence(ran, 1, "is not the pepper")
    (data / "pepper").write_bytes(pepper)
    (data / "headgate.db").write_bytes(b"no database at all" * 1000)
    in_one_sentence(serve(data), 3, "headgate.db")
    (tmp_path / "file").write_text("")
    in_one_sentence(serve(tmp_path / "file" / "below"), 3, "file")


READING = (
    ["keys", "list"],
    ["keys", "list", "--json"],
    ["keys", "revoke", "a"],
    ["keys", "rotate", "a"],
    ["keys", "change", "a", "--rpm", "1"],
    ["accounts", "list"],
    ["accounts", "close", "a"],
    ["accounts", "change", "a", "--name", "b"],
    ["usage"],
    ["usage", "--by", "key", "--json"],
    ["audit"],
    ["backup", "copy.db"],
    ["admin", "list"],
    ["admin", "keys", "list"],
    ["admin", "keys", "revoke", "a"],
    ["models"],
    ["config", "check"],
    ["config", "show"],
    ["env"],
)


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_a_command_that_only_reads_creates_nothing(tmp_path: Path, words: list[str]) -> None:
    subprocess.run(
        [*gateways.COMMAND, *words],
        env={**gateways.environment(), "HEADGATE_DATA": str(tmp_path / "data")},
        capture_output=True,
        cwd=tmp_path,
        check=False,
        timeout=60,
    )
    assert list(tmp_path.iterdir()) == []


# --- pages and figures ----------------------------------------------------------------------------


def test_sixty_four_sign_ins_leave_the_pages_alone(target: Callable[..., Target]) -> None:
    running = target()
    statuses: list[int] = []

    def sign_in(n: int) -> None:
        with contextlib.suppress(httpx2.HTTPError):
            answer = httpx2.post(
                running.url + "/sign-in",
                data={"name": f"nobody{n}", "password": "a sentence that is wrong"},
                timeout=60,
            )
            statuses.append(answer.status_code)

    threads = [threading.Thread(target=sign_in, args=(n,)) for n in range(64)]
    for thread in threads:
        thread.start()
    wait_for(lambda: statuses)
    checked = statuses.count(401)
    assert running.gateway.get("/models.md").status_code == 200
    assert statuses.count(401) - checked < 16  # the page did not wait for its turn behind them
    for thread in threads:
        thread.join(60)
    assert set(statuses) == {401, 503} and statuses.count(401) >= 16


def test_figures_are_for_management_keys_unless_the_operator_opens_them(
    target: Callable[..., Target],
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    closed, own = target(HEADGATE_METRICS="key"), target(HEADGATE_METRICS=f"127.0.0.1:{port}")
    made = json.loads(closed.cli("admin", "keys", "create", "m", "--role", "viewer", "--json"))
    for running in (closed, own):
        assert running.gateway.get("/metrics").status_code == 401
        ours = {"authorization": f"Bearer {running.key}"}
        assert running.gateway.get("/metrics", **ours).status_code == 401
    shown = closed.gateway.get("/metrics", authorization=f"Bearer {made['key']}")
    assert shown.status_code == 200
    for line in ("headgate_ledger_faults_total 0.0", "headgate_log_lines_dropped_total 0.0"):
        assert line in shown.text
    assert 'headgate_upstream_errors_total{kind="timeout",upstream="custom"} 0.0' in shown.text
    assert "headgate_open_streams" in httpx2.get(f"http://127.0.0.1:{port}/metrics").text
    assert httpx2.get(f"http://127.0.0.1:{port}/v1/models").status_code == 404
    closed.cli("admin", "keys", "revoke", made["id"])
    shown = closed.gateway.get("/metrics", authorization=f"Bearer {made['key']}")
    assert shown.status_code == 401


def test_a_long_session_is_answered_page_by_page(target: Callable[..., Target]) -> None:
    running = target()
    for n in range(5):
        body = chat("hello", prompt_cache_key="long")
        assert running.gateway.post(CHAT, body).status_code == 200, n
    ours = {"authorization": f"Bearer {running.key}"}
    seen: list[str] = []
    address = "/v1/sessions/long?limit=2"
    while True:
        page = running.gateway.get(address, **ours).json()
        assert page["requests"] == 5 and len(page["generations"]) <= 2
        seen += [each["request_id"] for each in page["generations"]]
        if not page["has_more"]:
            break
        address = f"/v1/sessions/long?limit=2&after={page['next']}"
    assert len(seen) == len(set(seen)) == 5
    refused = running.gateway.get("/v1/sessions/long?limit=100000", **ours)
    assert refused.status_code == 400
