"""Facts that only a real key settles, tried on a played vendor that confirms them and on one that contradicts."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headgate.cli import doctor
from headgate.diagnostics import facts
from headgate.diagnostics.fact import Answer
from headgate.errors import Failure

KEY = "sk-cp-canary-key-0123456789"
FLASH = facts.FLASH
CHUNKS = (
    'data: {"id":"1","model":"%s","choices":[{"index":0,"delta":{"role":"assistant","content":"one, two"}}]}\n\n'
    'data: {"id":"1","model":"%s","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}\n\ndata: [DONE]\n\n'
)
# What is not tried, whoever answers.
UNTRIED = {f"{FLASH} effort max", "cache writes"}


class Vendor(BaseHTTPRequestHandler):
    """MiniMax as it is believed to be, or in all the other ways; it imports nothing of ours."""

    contradicts = False

    def do_GET(self) -> None:
        if self.path != "/v1/token_plan/remains" or self.contradicts:
            self._refuse(404, "page not found")
            return
        entry = {
            "model_name": "general",
            "current_interval_status": 1,
            "current_interval_remaining_percent": 50,
            "current_weekly_status": 1,
            "current_weekly_remaining_percent": 60,
        }
        self._json({"model_remains": [entry], "base_resp": {"status_code": 0}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        model, odd = body.get("model", ""), self.contradicts
        if self.path == "/v1/coding_plan/search":
            if odd:
                self._refuse(404, "page not found")
            else:
                self._json(
                    {"base_resp": {"status_code": 0}, "organic": [{"title": "canary reply"}]}
                )
        elif self.path == "/v1/responses":
            items = [{"type": "reasoning"}] if odd else []
            self._json({"model": model, "output": [*items, {"type": "message"}]})
        elif body.get("stream"):
            self._send(200, "text/event-stream", CHUNKS % (model, model))
        elif (model.endswith("-Preview") or model.startswith("MiniMax-M2.1-h")) and odd:
            self._refuse(404, "unknown model (2013)")
        elif not odd and (
            "tools" in body
            or body.get("reasoning_effort") == "none"
            or body.get("thinking") == {"type": "disabled"}
            or body.get("max_completion_tokens", 0) > 204800
        ):
            self._refuse(400, f"invalid params {KEY} (2013)")
        elif body.get("reasoning_effort") == "minimal" and odd:
            self._refuse(400, "invalid params (2013)")
        elif (
            model == FLASH
            and odd
            and "reasoning_effort" in body
            and body["reasoning_effort"] == "low"
        ):
            self._refuse(403, "no access to this model")
        else:
            retired = "M2.5" in model or "M2.7" in model
            self._json({"model": FLASH if retired and not odd else model, "choices": []})

    def _refuse(self, status: int, message: str) -> None:
        self._send(status, "application/json", json.dumps({"error": {"message": message}}))

    def _json(self, page: object) -> None:
        self._send(200, "application/json", json.dumps(page))

    def _send(self, status: int, kind: str, text: str) -> None:
        if self.headers["authorization"] != f"Bearer {KEY}":
            status, kind, text = 401, "application/json", "{}"
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def vendor(contradicts: bool) -> Iterator[str]:
    class Played(Vendor):
        pass

    Played.contradicts = contradicts
    server = ThreadingHTTPServer(("127.0.0.1", 0), Played)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def doctor_says(tmp_path: Path, url: str, key: str = KEY) -> dict[str, dict[str, Any]]:
    file = tmp_path / "headgate.toml"
    file.write_text(f'[upstreams.mm]\npreset = "minimax"\nbase_url = "{url}"\nkey = "{key}"\n')
    result = CliRunner().invoke(
        doctor.command, ["--upstream", "mm", "--yes", "--json", "--config", str(file)]
    )
    assert KEY not in result.output and "canary reply" not in result.output
    return {f["name"]: f for f in json.loads(result.stdout)["facts"]}


def test_a_vendor_that_is_as_believed_confirms_each_fact_that_is_tried(tmp_path: Path) -> None:
    with vendor(contradicts=False) as url:
        found = doctor_says(tmp_path, url)
    assert {f["result"] for n, f in found.items() if n not in UNTRIED} == {"confirmed"}, found
    assert {found[n]["result"] for n in UNTRIED} == {"unknown"}
    assert found["quota address"]["seen"] == "windows: 5h, 7d"
    assert found["MiniMax-M2.7 retired"]["seen"] == f"answered by {FLASH}"
    assert not [f for f in found.values() if f["do"]]
    assert len(found) == len(facts.about("minimax"))


def test_a_vendor_that_is_otherwise_contradicts_each_and_the_report_says_what_to_do(
    tmp_path: Path,
) -> None:
    with vendor(contradicts=True) as url:
        found = doctor_says(tmp_path, url)
    assert {f["result"] for n, f in found.items() if n not in UNTRIED} == {"different"}, found
    assert all(f["do"] for n, f in found.items() if n not in UNTRIED)


def test_without_access_every_fact_stays_unknown(tmp_path: Path) -> None:
    with vendor(contradicts=False) as url:
        found = doctor_says(tmp_path, url, "sk-api-another-0123456789")
    assert {(f["result"], f["seen"]) for f in found.values()} == {
        ("unknown", "not tried: there is no access")
    }


@pytest.mark.parametrize(
    "kind", ["rate_limit", "timeout", "upstream", "overloaded", "upstream_quota"]
)
def test_an_answer_that_says_nothing_settles_nothing(kind: Any) -> None:
    answer = Answer(Failure(kind, "secret words", upstream_code="1002"))
    for fact in facts.FACTS:
        verdict = fact.judge(answer)
        assert verdict.result == "unknown" and "secret words" not in verdict.seen, fact.name


@pytest.mark.parametrize(
    "page", [b"", b"null", b"[]", b"{}", b"\xff", b'{"model": 3}', b'{"data": [{}]}']
)
def test_a_page_that_is_none_of_the_vendors_breaks_nothing(page: bytes) -> None:
    for fact in facts.FACTS:
        assert fact.judge(Answer(None, page)).result in ("confirmed", "different", "unknown")
    retired = next(f for f in facts.FACTS if f.name == "MiniMax-M2.7 retired")
    assert retired.judge(Answer(None, page)).result == "unknown"


def test_runapis_spelling_is_read_from_its_list() -> None:
    (fact,) = facts.about("runapi")
    for id, result in (("MiniMax-M3", "confirmed"), ("minimax-m3", "different"), ("x", "unknown")):
        page = json.dumps({"data": [{"id": id}]}).encode()
        assert fact.judge(Answer(None, page)).result == result


def test_an_upstream_for_own_keys_only_says_that_it_has_none_to_measure_with(
    tmp_path: Path,
) -> None:
    file = tmp_path / "headgate.toml"
    file.write_text(
        '[upstreams.mm]\npreset = "minimax"\nbase_url = "http://127.0.0.1:9"\nown_keys = "only"\n'
    )
    result = CliRunner().invoke(
        doctor.command, ["--upstream", "mm", "--yes", "--config", str(file)]
    )
    assert result.exit_code == 2 and "upstreams.mm.key" in result.stderr
