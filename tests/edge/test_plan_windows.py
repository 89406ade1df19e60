"""Plans over a played MiniMax: a used-up window spills to the key that is paid by the token, and back."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import httpx2
import msgspec
import pytest

from gateway import COMMAND, Gateway, environment, start, stop
from waiting import PATIENCE_S, wait_for

PLAN, PAID = "sk-cp-plan-0123456789", "sk-api-paid-0123456789"
CHUNKS = (
    'data: {"id":"1","model":"MiniMax-M3","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"}}]}\n\n'
    'data: {"id":"1","model":"MiniMax-M3","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}\n\ndata: [DONE]\n\n'
)


class MiniMax(BaseHTTPRequestHandler):
    """A vendor whose plan a test uses up; it imports nothing of ours."""

    resets_at_s = 0.0  # until then the plan's short window is used up
    week_left = 80
    quota_fails = False
    asked: ClassVar[list[tuple[str, str, float]]] = []  # path, key, Unix time

    def do_GET(self) -> None:
        key = self.headers["authorization"].removeprefix("Bearer ")
        self.asked.append((self.path, key, time.time()))
        if self.path != "/v1/token_plan/remains" or self.quota_fails:
            self._answer(404, "text/html", "<html>not here</html>")
            return
        now_s = time.time()
        left = 0 if now_s < MiniMax.resets_at_s else 55
        end_s = MiniMax.resets_at_s if left == 0 else now_s + 9000
        entry = {
            "model_name": "general",
            "end_time": int(end_s * 1000),
            "current_interval_status": 1,
            "current_interval_remaining_percent": left,
            "weekly_end_time": int((now_s + 400_000) * 1000),
            "current_weekly_status": 1,
            "current_weekly_remaining_percent": self.week_left,
        }
        page = {"model_remains": [entry], "base_resp": {"status_code": 0}}
        self._answer(200, "application/json", json.dumps(page))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        key = self.headers["authorization"].removeprefix("Bearer ")
        self.asked.append((self.path, key, time.time()))
        if key == PLAN and time.time() < MiniMax.resets_at_s:
            at = datetime.fromtimestamp(MiniMax.resets_at_s + 0.5, UTC).strftime(
                "%Y-%m-%dT%H:%M:%SZ"
            )
            message = f"usage limit exceeded, 5-hour usage limit reached for Go (9/9 used), resets at {at} (2056)"
            page = {"type": "error", "error": {"type": "rate_limit_error", "message": message}}
            self._answer(429, "application/json", json.dumps(page))
        else:
            self._answer(200, "text/event-stream", CHUNKS)

    def _answer(self, status: int, kind: str, text: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("plans")
    vendor = ThreadingHTTPServer(("127.0.0.1", 0), MiniMax)
    threading.Thread(target=vendor.serve_forever, args=(0.02,), daemon=True).start()
    file = folder / "headgate.toml"
    file.write_text(
        f'edges = 2\n[upstreams.minimax]\npreset = "minimax"\nkey = "{PLAN}"\nkeys = ["{PAID}"]\n'
        f'key_order = "in_order"\nbase_url = "http://127.0.0.1:{vendor.server_port}/v1"\n'
    )
    made = start(folder / "data", "--config", str(file), HEADGATE_UPSTREAM_CHECK_S="1")
    yield made
    stop(made)
    vendor.shutdown()
    vendor.server_close()


def ask(gateway: Gateway) -> tuple[int, str]:
    """The status and which key answered; on a connection of its own, so that either edge may get it."""
    body = {"model": "MiniMax-M3", "messages": [{"role": "user", "content": "hello"}]}
    answer = httpx2.post(
        f"{gateway.url}/v1/chat/completions",
        json=body,
        headers={"authorization": f"Bearer {gateway.key}"},
        timeout=PATIENCE_S,
    )
    return answer.status_code, answer.headers.get("x-headgate-upstream", "").rpartition("=")[2]


def status(gateway: Gateway) -> dict[str, object]:
    file = str(gateway.data.parent / "headgate.toml")
    url = httpx2.URL(gateway.url)
    done = subprocess.run(
        [*COMMAND, "status", "--json", "--data", str(gateway.data), "--config", file],
        env={**environment(), "HEADGATE_PORT": str(url.port)},
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, object] = json.loads(done.stdout)["upstreams"][0]
    return found


class _Key(msgspec.Struct):
    account: str
    plan: list[dict[str, object]]
    paused_s: float
    code: str


def keys(gateway: Gateway) -> list[_Key]:
    return msgspec.convert(status(gateway)["keys"], list[_Key])


def test_a_used_up_window_spills_to_the_paid_key_and_the_plan_is_back_when_it_is_reset(
    gateway: Gateway,
) -> None:
    assert [ask(gateway) for _ in range(4)] == [(200, "1")] * 4
    wait_for(lambda: [w["window"] for w in keys(gateway)[0].plan] == ["5h", "7d"])
    plan, paid = keys(gateway)
    assert [w["left"] for w in plan.plan] == [0.55, 0.8] and not paid.plan
    metric = 'headgate_plan_left_ratio{account="minimax#1",window="7d"}'
    wait_for(lambda: gateway.metric(metric) == 0.8)
    codes: set[int] = set()

    def used_up() -> bool:
        """Whether the plan is seen to be used up; a slow machine uses it up once more."""
        if time.time() + 2 > MiniMax.resets_at_s:
            MiniMax.resets_at_s = time.time() + 5
        codes.update(ask(gateway)[0] for _ in range(3))
        plan = keys(gateway)[0]
        return plan.code == "2056" and plan.plan[0]["left"] == 0

    wait_for(used_up)
    wait_for(lambda: ask(gateway) == (200, "1"))  # back by itself
    assert time.time() >= MiniMax.resets_at_s and codes == {200}  # no client has seen it
    wait_for(lambda: [ask(gateway) for _ in range(4)] == [(200, "1")] * 4)
    posts = [(key, at) for path, key, at in MiniMax.asked if path.endswith("completions")]
    spilled = [at for key, at in posts if key == PAID]
    assert spilled and min(spilled) > min(at for key, at in posts if key == PLAN)
    assert {key for path, key, _ in MiniMax.asked if path.endswith("remains")} == {PLAN}


def test_a_vendor_that_says_nothing_of_quotas_harms_nothing(gateway: Gateway) -> None:
    MiniMax.quota_fails = True
    wait_for(lambda: status(gateway)["keys"][0]["plan_check"] == "status 404")  # type: ignore[index]
    assert ask(gateway) == (200, "1")
    MiniMax.quota_fails = False
    wait_for(lambda: not status(gateway)["keys"][0]["plan_check"])  # type: ignore[index]
