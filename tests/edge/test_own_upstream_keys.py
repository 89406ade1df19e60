"""Requests that are sent with an upstream key of their owner: over two edges, and the key is nowhere in clear."""

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import httpx2
import pytest

from gateway import COMMAND, Gateway, environment, start, stop
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.reports import UsageReader
from played import PlayedUpstream, Seen
from waiting import PATIENCE_S, wait_for

CANARY = "sk-cp-canary-0123456789-tail"
CONFIG = """
edges = 2
log = "debug"
[upstreams.shared]
preset = "custom"
base_url = "{url}"
key = "gateway-key-0123456789"
[upstreams.own]
preset = "custom"
base_url = "{url}"
own_keys = "only"
only_named = true
[upstreams.closed]
preset = "custom"
base_url = "{url}"
key = "closed-key-0123456789"
own_keys = "no"
only_named = true
[models."own-model"]
routes = [{{ upstream = "own" }}]
free = true
[models."closed-model"]
routes = [{{ upstream = "closed" }}]
free = true
"""


def run(gateway: Gateway, *words: str, stdin: str = "") -> str:
    done = subprocess.run(
        [*COMMAND, *words, "--data", str(gateway.data), "--config", str(gateway.data.parent / "headgate.toml")],
        capture_output=True, text=True, env=environment(), input=stdin, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert CANARY not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("own_keys")
    with PlayedUpstream().running() as upstream:
        file = folder / "headgate.toml"
        file.write_text(CONFIG.format(url=upstream.url("openai")))
        made = start(folder / "data", "--config", str(file))
        made.upstream = upstream
        run(made, "accounts", "create", "acme")
        yield made
        stop(made)


@pytest.fixture
def key(gateway: Gateway) -> dict[str, str]:
    """A gateway key of the account, and its text."""
    made: dict[str, str] = json.loads(
        run(gateway, "keys", "create", "k", "--account", "acme", "--json")
    )
    return made


def ask(
    gateway: Gateway, key: str, text: str = "hello", model: str = "MiniMax-M2"
) -> httpx2.Response:
    """One request on a connection of its own, so that either edge may get it."""
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return httpx2.post(
        f"{gateway.url}/v1/chat/completions",
        json=body,
        headers={"authorization": f"Bearer {key}"},
        timeout=PATIENCE_S,
    )


def sent(gateway: Gateway) -> str:
    assert gateway.upstream is not None
    return gateway.upstream.last.headers["authorization"].removeprefix("Bearer ")


def uses(gateway: Gateway, key: str, secret: str, model: str = "MiniMax-M2") -> bool:
    """Whether each of a row of requests is sent with this key, whichever edge relays it."""
    for _ in range(6):
        if ask(gateway, key, model=model).status_code != 200 or sent(gateway) != secret:
            return False
    return True


def row_of(gateway: Gateway, answer: httpx2.Response) -> LedgerRow:
    reader, id = UsageReader(gateway.data), answer.headers["x-request-id"]
    try:
        wait_for(lambda: reader.generation(id) is not None)
        row = reader.generation(id)
        assert row is not None
        return row
    finally:
        reader.close()


def put(gateway: Gateway, upstream: str, key: dict[str, str], secret: str, *more: str) -> None:
    run(gateway, "upstream-keys", "set", upstream, "--key", key["id"], *more, stdin=secret + "\n")


def test_a_keys_own_is_used_within_a_second_by_every_edge_and_its_row_says_so(
    gateway: Gateway, key: dict[str, str]
) -> None:
    assert uses(gateway, key["key"], "gateway-key-0123456789")
    run(gateway, "upstream-keys", "set", "shared", "--account", "acme", stdin="sk-of-the-account-1")
    wait_for(lambda: uses(gateway, key["key"], "sk-of-the-account-1"))
    put(gateway, "shared", key, CANARY)
    wait_for(lambda: uses(gateway, key["key"], CANARY))
    answer = ask(gateway, key["key"])
    assert answer.headers["x-headgate-upstream"].endswith(";key=own")
    row = row_of(gateway, answer)
    assert "upstream key (of the key)" in row.warnings
    assert [(a.key_of, a.key) for a in row.attempts] == [("key", 0)]
    assert row.cost_nano_usd  # priced as ever
    put(gateway, "shared", key, CANARY + "-new")
    wait_for(lambda: uses(gateway, key["key"], CANARY + "-new"))
    run(gateway, "upstream-keys", "remove", "shared", "--key", key["id"])
    wait_for(lambda: uses(gateway, key["key"], "sk-of-the-account-1"))
    run(gateway, "upstream-keys", "remove", "shared", "--account", "acme")
    wait_for(lambda: uses(gateway, key["key"], "gateway-key-0123456789"))
    plain = row_of(gateway, ask(gateway, key["key"]))
    assert not plain.warnings and plain.attempts[0].key_of == ""


def test_an_own_key_that_is_refused_pauses_nobody_else_and_only_with_leave_the_gateways_follows(
    gateway: Gateway, key: dict[str, str]
) -> None:
    put(gateway, "shared", key, CANARY)
    wait_for(lambda: uses(gateway, key["key"], CANARY))
    refused = ask(gateway, key["key"], f"fail 401 {CANARY} is no key, Bearer {CANARY}")
    assert refused.status_code == 424
    assert CANARY not in refused.text and "headgate upstream-keys" in refused.text
    paused = ask(gateway, key["key"])
    assert paused.status_code == 424 and "this gateway key" in paused.text
    assert ask(gateway, gateway.key).status_code == 200  # others' requests go on
    assert sent(gateway) == "gateway-key-0123456789"
    put(gateway, "shared", key, CANARY, "--fallback")
    wait_for(lambda: ask(gateway, key["key"]).status_code == 200)
    assert sent(gateway) == "gateway-key-0123456789"


def test_an_upstream_for_own_keys_only_refuses_whoever_has_none_and_no_means_no(
    gateway: Gateway, key: dict[str, str]
) -> None:
    answer = ask(gateway, key["key"], model="own-model")
    assert answer.status_code == 403
    assert f"upstream-keys set own --key {key['id']}" in answer.text
    put(gateway, "own", key, CANARY)
    wait_for(lambda: uses(gateway, key["key"], CANARY, "own-model"))
    assert ask(gateway, gateway.key, model="own-model").status_code == 403
    assert ask(gateway, key["key"], model="closed-model").status_code == 200
    assert sent(gateway) == "closed-key-0123456789"
    run(gateway, "keys", "revoke", key["id"])
    assert "own" not in [k["upstream"] for k in listed(gateway) if k["owner"] == key["id"]]


def listed(gateway: Gateway) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(run(gateway, "upstream-keys", "list", "--json"))
    return found


def test_a_reload_keeps_own_keys_and_a_restored_backup_has_them(
    gateway: Gateway, key: dict[str, str], tmp_path: Path
) -> None:
    put(gateway, "shared", key, CANARY)
    run(gateway, "reload")
    wait_for(lambda: uses(gateway, key["key"], CANARY))
    copy = tmp_path / "copy.db"
    run(gateway, "backup", str(copy))
    assert CANARY.encode() not in copy.read_bytes()
    restored = tmp_path / "restored"
    done = subprocess.run(
        [*COMMAND, "restore", str(copy), "--pepper", str(gateway.data / "pepper"), "--data", str(restored)],
        env=environment(), check=True, capture_output=True,
    )  # fmt: skip
    assert CANARY.encode() not in done.stdout + done.stderr
    store = Store(restored)
    owner = next(k for k in store.keys() if k.id == key["id"])  # noqa: SIM118
    owned = store.owned_keys()
    found = owned.find(owner, "shared")
    assert found is not None and owned.secret(found) == CANARY
    store.close()


def test_a_change_and_a_reload_amid_requests_refuse_none_and_mix_no_keys(
    gateway: Gateway, key: dict[str, str]
) -> None:
    """Others' requests never get the owner's key, and the owner's never the gateway's."""
    put(gateway, "shared", key, CANARY)
    wait_for(lambda: uses(gateway, key["key"], CANARY))
    assert gateway.upstream is not None
    seen, ended = gateway.upstream.seen, threading.Event()
    begun = len(seen)
    failed: list[str] = []

    def requests(text: str, secret: str) -> None:
        while not ended.is_set():
            answer = ask(gateway, secret, text)
            if answer.status_code != 200:
                failed.append(answer.text)

    threads = [
        threading.Thread(target=requests, args=each)
        for each in (("of the owner", key["key"]), ("of others", gateway.key)) * 2
    ]
    for each in threads:
        each.start()
    put(gateway, "shared", key, f"{CANARY}-new")
    run(gateway, "reload")
    wait_for(lambda: uses_in(seen, f"{CANARY}-new"))
    ended.set()
    for each in threads:
        each.join(PATIENCE_S)
    assert not failed
    used = {(s.request.messages[0].text, s.headers["authorization"]) for s in seen[begun:]}
    others = {secret for text, secret in used if text == "of others"}
    owners = {secret for text, secret in used if text == "of the owner"}
    assert others == {"Bearer gateway-key-0123456789"}
    assert owners <= {f"Bearer {CANARY}", f"Bearer {CANARY}-new"}


def uses_in(seen: list[Seen], secret: str) -> bool:
    """Whether this key was sent in the last of the owner's requests."""
    last = [s for s in seen[-64:] if s.request.messages[0].text == "of the owner"][-8:]
    return len(last) == 8 and all(s.headers["authorization"] == f"Bearer {secret}" for s in last)


def test_a_key_that_cannot_be_decrypted_is_named_and_the_gateways_is_not_used_for_it(
    gateway: Gateway, key: dict[str, str]
) -> None:
    put(gateway, "shared", key, CANARY)
    wait_for(lambda: uses(gateway, key["key"], CANARY))
    db = apsw.Connection(str(gateway.data / "headgate.db"))
    db.set_busy_timeout(5000)
    db.execute(
        "update upstream_keys set sealed = cast('damaged' as blob) where owner = ?", (key["id"],)
    )
    db.close()
    answers: list[httpx2.Response] = []

    def refused() -> bool:
        """Whether every edge has read the change: several requests in a row are refused."""
        answers[:] = [ask(gateway, key["key"]) for _ in range(6)]
        return {a.status_code for a in answers} == {424}

    wait_for(refused)
    for each in answers:
        assert "another pepper" in each.text and "headgate upstream-keys set" in each.text
    assert ask(gateway, gateway.key).status_code == 200
    put(gateway, "shared", key, CANARY)
    wait_for(lambda: uses(gateway, key["key"], CANARY))


def test_the_key_is_in_no_answer_log_metric_export_page_or_file(
    gateway: Gateway, key: dict[str, str]
) -> None:
    put(gateway, "shared", key, CANARY)
    wait_for(lambda: uses(gateway, key["key"], CANARY))
    texts = [
        ask(gateway, key["key"], f"fail {status} {words}").text
        for status, words in ((400, CANARY), (500, f"x {CANARY}"), (403, f"{'y ' * 110}{CANARY}"))
    ]
    admin = run(gateway, "admin", "keys", "create", "a", "--role", "admin", "--json")
    headers = {"authorization": f"Bearer {json.loads(admin)['key']}"}
    for path in ("upstream_keys", "requests", "changes", "keys", "upstreams"):
        answer = httpx2.get(f"{gateway.url}/admin/v1/{path}", headers=headers, timeout=PATIENCE_S)
        assert answer.status_code == 200, answer.text
        texts.append(answer.text)
    assert "tail" in texts[3]
    texts += [gateway.get("/metrics").text, run(gateway, "requests", "--all", "--csv")]
    texts += [run(gateway, "requests", "--all", "--json"), run(gateway, "config", "show")]
    texts.append((gateway.data.parent / "data.log").read_text())
    assert not [t for t in texts if CANARY in t or CANARY[:20] in t]
    for file in gateway.data.iterdir():
        if file.is_file():
            assert b"canary" not in file.read_bytes(), file
