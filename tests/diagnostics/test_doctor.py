"""`headgate doctor`: each thing that can be wrong is red, says what to do, and shows no secret."""

import asyncio
import json
import os
import re
import shutil
import socket
import time
import tomllib
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
from click.testing import CliRunner, Result

import headgate.diagnostics.machine as machine
from fake_upstream import FakeUpstream
from gateway import start, stop
from headgate import __version__
from headgate.catalog import building
from headgate.cli.doctor import command
from headgate.config import loading
from headgate.diagnostics.clock import judge_clock
from headgate.diagnostics.running import judge_metrics
from headgate.net.dial import NotSent
from headgate.storage.sqlite.database import Store
from lab import ALL, KEY, MINIMAX, REPLY, THOUGHT, Lab
from own_server import OwnServer
from played import PlayedUpstream
from waiting import wait_for


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, upstream: PlayedUpstream) -> Path:
    """A data directory that was used once, a free port, and nothing of our own environment."""
    for name in os.environ:
        if re.match(r"HEADGATE|MINIMAX|RUNAPI|OPENROUTER|(?i:.*_proxy$)", name):
            monkeypatch.delenv(name)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HEADGATE_PORT", str(sock.getsockname()[1]))
    monkeypatch.setenv("HEADGATE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HEADGATE_UPSTREAM_URL", upstream.url("openai"))
    Store(tmp_path / "data").close()
    return tmp_path / "data"


def run(*arguments: str, input: str | None = None) -> Result:
    return CliRunner().invoke(command, arguments, input=input)


def examined(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code, and the reddest finding of each check."""
    result = run("--json", *arguments)
    told = json.loads(result.stdout)
    assert told["ok"] == (result.exit_code == 0) and told["version"] == __version__
    rank = ["ok", "warn", "fail"]
    found = sorted(told["findings"], key=lambda f: rank.index(f["state"]))
    assert all(f["do"] for f in found if f["state"] == "fail"), "each failed check says what to do"
    return result.exit_code, {f["check"]: f for f in found}


def only_red(check: str, *arguments: str) -> dict[str, str]:
    code, found = examined(*arguments)
    assert code == 1
    assert [c for c, f in found.items() if f["state"] == "fail"] == [check], found
    return found[check]


def test_a_healthy_installation_is_all_green() -> None:
    code, found = examined()
    assert code == 0
    assert {f["state"] for f in found.values()} == {"ok"}, found
    assert found["database"]["result"].startswith("whole, schema ")
    for check in (
        "python",
        "libraries",
        "configuration",
        "data",
        "modes",
        "space",
        "file limit",
        "proxies",
        "upstream custom",
        "TLS",
        "local model",
        "port",
        "clock",
    ):
        assert check in found
    printed = run().stdout
    assert printed.endswith("All checks passed.\n") and "fail" not in printed


def test_nothing_is_made_where_nothing_is(data: Path) -> None:
    shutil.rmtree(data)
    code, found = examined()
    assert code == 0 and "first start makes it" in found["data"]["result"]
    assert not data.exists()


def test_nothing_is_changed_where_something_is(data: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in data.iterdir()}
    examined()
    after = {p.name: p.stat().st_mtime_ns for p in data.iterdir()}
    assert after == before


def test_a_red_line_is_printed_with_what_to_do(data: Path) -> None:
    (data / "pepper").chmod(0o644)
    result = run()
    assert result.exit_code == 1
    assert re.search(r"^fail +modes .+\n +-> chmod 600 .+pepper$", result.stdout, re.M)
    assert "1 of " in result.stdout


def test_a_mistake_in_the_configuration_is_red_and_the_rest_is_left(tmp_path: Path) -> None:
    file = tmp_path / "headgate.toml"
    file.write_text("prot = 1\n")
    assert "Did you mean `port`?" in only_red("configuration", "--config", str(file))["result"]


def test_an_upstream_without_its_key_is_red(tmp_path: Path) -> None:
    file = tmp_path / "headgate.toml"
    file.write_text('[upstreams.mm]\npreset = "minimax"\n')
    assert "MINIMAX_API_KEY" in only_red("configuration", "--config", str(file))["result"]


def test_a_directory_that_others_can_write_is_red(data: Path) -> None:
    data.chmod(0o777)
    assert f"chmod 700 {data}" in only_red("modes")["do"]


def test_a_data_directory_that_is_none_is_red(data: Path) -> None:
    shutil.rmtree(data)
    data.write_text("a file")
    assert "chown" in only_red("data")["do"]


def test_a_database_that_is_none_is_red(data: Path) -> None:
    (data / "headgate.db").write_bytes(b"no database at all, " * 500)
    assert "put back a copy" in only_red("database")["do"]


def test_a_database_with_a_broken_page_is_red(data: Path) -> None:
    file = data / "headgate.db"
    for p in data.glob("headgate.db-*"):
        p.unlink()
    content = bytearray(file.read_bytes())
    content[4096 : len(content)] = b"\xee" * (len(content) - 4096)
    file.write_bytes(content)
    assert only_red("database")["result"] == "is damaged"


def test_a_database_of_a_newer_headgate_is_red(data: Path) -> None:
    db = apsw.Connection(str(data / "headgate.db"))
    db.execute("pragma user_version = 99")
    db.close()
    assert "Upgrade" in only_red("database")["do"]


@pytest.mark.parametrize("content", [None, b"short"])
def test_a_pepper_that_is_not_whole_is_red(data: Path, content: bytes | None) -> None:
    (data / "pepper").unlink()
    if content is not None:
        (data / "pepper").write_bytes(content)
        (data / "pepper").chmod(0o600)
    assert "Put back a copy" in only_red("pepper")["do"]


def test_the_pepper_of_another_data_directory_is_red(data: Path, tmp_path: Path) -> None:
    Store(tmp_path / "other").close()
    shutil.copy(tmp_path / "other" / "pepper", data / "pepper")
    found = only_red("pepper")
    assert "is not the one that the keys" in found["result"]
    assert "belongs to this database" in found["do"]


def test_a_database_from_the_future_makes_the_clock_red(data: Path) -> None:
    later = time.time() + 7200
    os.utime(data / "headgate.db", (later, later))
    assert "timedatectl" in only_red("clock")["do"]


def test_a_disk_without_room_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage("/")._replace(free=10 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    assert "Make room" in only_red("space")["do"]


def test_few_open_files_are_red(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    assert "ulimit -n" in only_red("file limit")["do"]


def test_a_proxy_that_is_none_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.example:1080")
    assert "HTTPS_PROXY" in only_red("proxies")["do"]


def test_a_proxy_before_an_upstream_is_named_without_its_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HEADGATE_UPSTREAM_URL")
    monkeypatch.setenv("MINIMAX_API_KEY", KEY)
    monkeypatch.setenv("HTTPS_PROXY", "http://canary-user:canary-word@proxy.example:3128")
    result = run("--json")
    assert result.exit_code == 0 and "https by proxy.example; for minimax" in result.stdout
    assert "canary" not in result.output


def test_certificates_that_are_not_there_are_red(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    assert "SSL_CERT_FILE" in only_red("TLS")["do"]
    (tmp_path / "empty.pem").write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert "ca-certificates" in only_red("TLS")["do"]


def test_no_upstream_and_no_local_model_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADGATE_UPSTREAM_URL")
    monkeypatch.setattr(machine.local, "available", lambda *_: False)
    assert "MINIMAX_API_KEY" in only_red("local model")["do"]


def test_a_port_that_another_program_has_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeUpstream() as other:
        monkeypatch.setenv("HEADGATE_PORT", str(other.port))
        assert "--port" in only_red("port")["do"]


def test_a_host_that_is_not_ours_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_HOST", "192.0.2.7")

    async def nobody(*_: object) -> None:
        raise NotSent("OSError")

    monkeypatch.setattr("headgate.diagnostics.running.get", nobody)
    assert "0.0.0.0" in only_red("port")["do"]


def test_a_running_gateway_is_asked_for_its_health(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    running = start(tmp_path / "other", HEADGATE_UPSTREAM_URL="http://127.0.0.1:1/v1")
    try:
        monkeypatch.setenv("HEADGATE_PORT", running.url.rpartition(":")[2])
        code, found = examined()
    finally:
        stop(running)
    assert code == 0, found
    assert found["gateway"]["result"] == "ready" and found["load"]["state"] == "ok"
    assert found["ledger"]["state"] == "ok" and "version" not in found


def test_the_numbers_of_a_gateway_in_trouble_are_red() -> None:
    page = (
        'headgate_requests_total{dialect="openai"} 9.0\nheadgate_open_streams 12.0\n'
        "headgate_loop_lag_seconds 0.4\nheadgate_ledger_faults_total 3.0\n"
        'headgate_unpriced_total{model="M"} 2.0\n'
    )
    found = {f.check: f for f in judge_metrics(page)}
    assert (found["load"].state, found["ledger"].state) == ("fail", "fail")
    assert found["load"].result == "12 open streams, the loop is 400 ms late"
    assert found["prices"].state == "warn" and "3 rows" in found["ledger"].result


@pytest.mark.parametrize(
    ("now_s", "state", "said"),
    [
        (1_700_000_000.5, "ok", "as h has it"),
        (1_700_000_010.5, "warn", "10 s ahead of h"),
        (1_699_999_000.5, "fail", "1000 s behind h"),
    ],
)
def test_the_clock_is_judged_by_the_hosts_date(now_s: float, state: str, said: str) -> None:
    found = judge_clock("h", "Tue, 14 Nov 2023 22:13:20 GMT", now_s)
    assert (found.state, found.result) == (state, said)
    assert judge_clock("h", "yesterday", now_s).state == "warn"


@pytest.mark.parametrize("online", [False, True])
def test_no_other_machine_is_dialled_unless_online_is_said(
    monkeypatch: pytest.MonkeyPatch, online: bool
) -> None:
    monkeypatch.setenv("MINIMAX_API_KEY", KEY)
    dialled: list[str] = []

    async def refuse(self: object, make: object, host: str = "", *_: object, **__: object) -> None:
        dialled.append(host)
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", refuse)
    code, found = examined(*(["--online"] if online else []))
    assert set(dialled) == ({"127.0.0.1", "api.minimax.io"} if online else {"127.0.0.1"})
    assert found["clock"]["state"] == ("fail" if online else "ok")
    assert (code, found["upstream custom"]["state"]) == (1, "fail")  # it is on this machine


# --- an upstream


def written(tmp_path: Path, url: str, more: str = "", preset: str = "minimax") -> str:
    file = tmp_path / "headgate.toml"
    (tmp_path / "key").write_text(KEY)
    file.write_text(
        f'[upstreams.mm]\npreset = "{preset}"\nbase_url = "{url}"\n'
        f'key = "file:{tmp_path / "key"}"\n{more}'
    )
    return str(file)


def measured(file: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = run("--upstream", "mm", "--yes", "--json", "--config", file, *arguments)
    return result.exit_code, json.loads(result.stdout)


def test_a_good_upstream_ends_in_zero_and_a_bad_one_in_one(tmp_path: Path) -> None:
    with Lab(MINIMAX).running() as lab:
        file = written(tmp_path, lab.url)
        code, told = measured(file)
        assert (code, told["ok"], told["headgate_toml"]) == (0, True, [])
        assert (told["upstream"], told["model"]) == ("mm", "MiniMax-M3")
        assert told["requests"] == lab.requests and len(told["comparison"]) == 5
        lab.fails = {"*": (401, "login fail (1004)")}
        code, told = measured(file)
        assert (code, told["ok"]) == (1, False)


def test_it_says_what_it_sends_and_asks_before(tmp_path: Path) -> None:
    with Lab(MINIMAX).running() as lab:
        file = written(tmp_path, lab.url)
        result = run("--upstream", "mm", "--config", file)
        assert result.exit_code == 2 and "--yes" in result.stderr and lab.requests == 0
        found = re.search(r"at most (\d+) requests .* about ([\d,]+) tokens", result.stderr)
        assert found is not None
        result = run("--upstream", "mm", "--config", file, "--yes")
        assert 0 < lab.requests <= int(found[1])
    assert "bridge or native:" in result.stdout and result.stdout.startswith("ok ")
    assert f"{lab.requests} requests, " in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--upstream", "nope", "--yes"),
        ("--upstream", "custom", "--model", "nope", "--yes"),
        ("--model", "MiniMax-M2"),
        ("--yes",),
        ("--nope",),
    ],
)
def test_a_wrong_call_is_two(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2 and "Error: " in result.stderr and result.stdout == ""


def test_the_local_model_has_nothing_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADGATE_UPSTREAM_URL")
    assert run("--upstream", "local", "--yes").exit_code == 2


def test_the_model_that_is_named_is_the_one_that_is_asked(tmp_path: Path) -> None:
    with Lab(MINIMAX).running() as lab:
        _, told = measured(written(tmp_path, lab.url), "--model", "minimax-m2.7")
        assert told["model"] == "MiniMax-M2.7"
        chats = [msgspec.json.decode(b) for b in lab.bodies]
        assert {b["model"] for b in chats} == {"MiniMax-M2.7"}
        assert {f["name"] for f in told["facts"]} == {"MiniMax-M2.7 retired"}
    assert "image input" not in {f["check"] for f in told["findings"]}


@pytest.mark.parametrize("from_file", [True, False])
def test_the_lines_it_prints_make_the_settings_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_file: bool
) -> None:
    with Lab(ALL - {"required"}, reads=("reasoning",)).running() as lab:
        if from_file:
            file = written(tmp_path, lab.url)
            result = run("--upstream", "mm", "--yes", "--json", "--config", file)
            env = {"HOME": str(tmp_path)}
        else:
            monkeypatch.setenv("HEADGATE_UPSTREAM_URL", lab.url)
            monkeypatch.setenv("HEADGATE_UPSTREAM_KEY", KEY)
            result = run("--upstream", "custom", "--yes", "--json")
            env = dict(os.environ)
        told = json.loads(result.stdout)
        lines = "\n".join(told["headgate_toml"])
        tomllib.loads(lines)
        fixed = tmp_path / "fixed.toml"
        fixed.write_text((Path(file).read_text() if from_file else "") + lines + "\n")
        settings = loading.load(str(fixed), env)
        (route,) = building.load(settings, env).routes("MiniMax-M3")
        assert route.upstream.base_url == lab.url and route.upstream.key == KEY
        assert route.capabilities.tool_choice == ("none", "named")
        assert route.capabilities.stop and route.capabilities.reasoning_form == "reasoning"
        again = run("--upstream", route.upstream.name, "--yes", "--json", "--config", str(fixed))
        assert again.exit_code == 0 and json.loads(again.stdout)["headgate_toml"] == []


@pytest.mark.parametrize(("kind", "text"), [("vllm", "vLLM 0.11.2"), ("nothing", "")])
def test_a_server_that_says_what_it_is_is_measured_as_that(
    monkeypatch: pytest.MonkeyPatch, kind: str, text: str
) -> None:
    with OwnServer(kind).running() as server:
        monkeypatch.setenv("HEADGATE_UPSTREAM_URL", server.url)
        result = run("--upstream", "custom", "--model", "MiniMax-M2", "--yes", "--json")
    told = json.loads(result.stdout)
    assert told["detected"] == text
    assert {b["model"] for b in server.bodies} == {"prod" if text else "MiniMax-M2"}
    # The preset of vLLM has a stop of the server's own; the lines name only what differs from the preset in force.
    limits = {name for b in server.bodies for name in b if name.startswith("max_")}
    assert limits == {"max_tokens" if text else "max_completion_tokens"}


@pytest.mark.parametrize("fails", [{}, {"*": (401, "x (1004)")}, {"stop": (400, "y (2013)")}])
def test_no_key_prompt_or_reply_is_printed(
    tmp_path: Path, fails: dict[str, tuple[int, str]]
) -> None:
    with Lab(ALL, fails=fails).running() as lab:
        file = written(tmp_path, lab.url)
        results = [
            run("--upstream", "mm", "--yes", "--config", file, *j) for j in ((), ("--json",))
        ]
        results.append(run("--config", file))
    for result in results:
        for canary in (KEY, KEY[:12], REPLY, THOUGHT, "Paris", "Count from", "log is empty"):
            assert canary not in result.output


@pytest.mark.parametrize(("url", "state"), [("http://127.0.0.1:9/v1", "degraded"), ("", "up")])
def test_doctor_and_console_agree_on_a_dead_and_on_a_live_upstream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upstream: PlayedUpstream, url: str, state: str
) -> None:
    data = tmp_path / "served"
    url = url or upstream.url("openai")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = str(sock.getsockname()[1])
    gateway = start(
        data, "--port", port, HEADGATE_UPSTREAM_URL=url, HEADGATE_UPSTREAM_CHECK_S="300"
    )
    try:
        monkeypatch.setenv("HEADGATE_UPSTREAM_URL", url)
        monkeypatch.setenv("HEADGATE_PORT", port)
        monkeypatch.setenv("HEADGATE_DATA", str(data))
        store = Store(data)
        proof = {"x-headgate-internal": store.derived("internal").hex()}
        store.close()

        def shown() -> Any:
            return gateway.get("/internal/upstreams", **proof).json()[0]

        wait_for(lambda: shown()["state"] != "not_checked")
        assert shown()["state"] == state
        code, found = examined()
        assert (code, found["upstream custom"]["state"]) == (
            (0, "ok") if state == "up" else (1, "fail")
        )
        assert "RED" not in run().stdout
    finally:
        stop(gateway)
