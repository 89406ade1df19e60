"""The playground: the keys that are made for it, its scripts in Node, and all of it in a browser.

The browser talks to a real `headgate serve`, so what it sends is what any client sends.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from browsing import chromium, fits, profile
from consoles import Site, served, signed_in
from fake_upstream import HELLO, RESULT, THOUGHT, FakeUpstream
from gateway import Gateway, start, stop
from headgate.catalog import models as shipped
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.people import People
from headgate.storage.sqlite.reports import UsageReader
from headgate.web import app
from headgate.web.console import playground_page
from programs import needs
from waiting import PATIENCE_S, wait_for

STATIC = Path(str(files("headgate.web").joinpath("static")))
HOSTILE = (
    "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">",
    "</div><b>bold</b>",
)
HOSTILE_MODEL = "MiniMax-M2"
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}


# --- keys --------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with served(tmp_path / "data", playground_page.RULES) as site:
        yield site


def make(client: httpx2.Client, **headers: str) -> httpx2.Response:
    given = {"x-csrf-token": client.csrf, **headers}  # type: ignore[attr-defined]
    return client.post("/playground/key", headers=given)


def test_who_may_use_models_gets_the_page_and_a_key_and_viewers_get_neither(site: Site) -> None:
    site.console_context.store.create_account("red", "Red", now_s=time.time())
    assert site.open().get("/playground").headers["location"] == "/sign-in?next=/playground"
    assert site.open().post("/playground/key").status_code == 401
    for role, status in (("admin", 200), ("member", 200), ("viewer", 403)):
        client = signed_in(site, role, "red")  # type: ignore[arg-type]
        assert client.get("/playground").status_code == status, role
        assert make(client).status_code == status, role


def test_a_made_key_is_the_visitors_accounts_for_an_hour_and_a_dollar(site: Site) -> None:
    store, before = site.console_context.store, time.time()
    store.create_account("red", "Red", now_s=before)
    answer = make(signed_in(site, "member", "red"))
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    key = store.ring().authenticate(told["key"], time.time())
    assert key is not None and key.id == told["id"] and told["lives_s"] == 3600
    assert key.name.startswith("playground: member-") and key.account == "red"
    assert key.budget_nano == 10**9 and key.budget_period == "total"
    assert key.expires_s is not None and 3599 < key.expires_s - before < 3700
    (change,) = (c for c in site.console_context.people.changes() if c.action == "key.create")
    assert (change.subject, change.account) == (key.id, "red")
    assert told["key"] not in msgspec.json.encode(site.console_context.people.changes()).decode()


def test_a_key_is_made_only_for_our_own_page_and_with_no_terms_of_the_senders(site: Site) -> None:
    client = signed_in(site)
    assert client.post("/playground/key").status_code == 403
    assert make(client, origin="http://elsewhere.example").status_code == 403
    sent = client.post(
        "/playground/key",
        data={"account": "red", "budget_usd": "1000"},
        headers={"x-csrf-token": client.csrf},  # type: ignore[attr-defined]
    )
    assert sent.status_code == 400
    assert client.get("/playground/key").status_code == 405
    assert site.console_context.store.keys() == []


def test_a_sixth_key_ends_the_first_and_nobody_elses(site: Site) -> None:
    store = site.console_context.store
    mine, other = signed_in(site), signed_in(site)
    others = make(other).json()["id"]
    ids = [make(mine).json()["id"] for _ in range(5)]
    keys = store.keys()
    name = next(k.name for k in keys if k.id == ids[0])
    by_hand, _ = store.create_key(name, expires_s=time.time() + 600, now_s=time.time())
    sixth = make(mine).json()["id"]
    keys = store.keys()
    good = {k.id for k in keys if k.good(time.time())}
    assert good == {others, by_hand.id, *ids[1:], sixth}
    assert [
        c.subject for c in site.console_context.people.changes() if c.action == "key.revoke"
    ] == [ids[0]]


def test_a_closed_accounts_member_is_told_why_there_is_no_key(site: Site) -> None:
    site.console_context.store.create_account("red", "Red", now_s=time.time())
    client = signed_in(site, "member", "red")
    site.console_context.store.close_account("red", now_s=time.time())
    answer = make(client, accept="application/json")
    assert answer.status_code == 422 and "The account `red` is closed" in answer.text


def test_the_page_has_no_inline_code_and_says_that_it_needs_scripts(site: Site) -> None:
    text = signed_in(site).get("/playground").text
    assert re.search(r"<noscript>.*needs JavaScript.*</noscript>", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text)
    assert all(f'value="{m.id}"' in text for m in site.console_context.catalog.models)


def test_the_page_is_chinese_for_who_reads_it(site: Site) -> None:
    client = signed_in(site)
    text = client.get("/playground", headers={"accept-language": "zh-CN,zh;q=0.9"}).text
    assert 'lang="zh"' in text and "{minutes}" not in text


# --- the scripts, in Node ----------------------------------------------------------------------------


def node(script: str, given: object) -> Any:
    """What the script prints as JSON; our modules are `reply` and `code`, the argument is `given`."""
    imports = "".join(
        f'import * as {name} from "{(STATIC / f"playground_{name}.js").as_uri()}";\n'
        for name in ("reply", "code")
    )
    whole = f"{imports}const given = {json.dumps(given)};\nconsole.log(JSON.stringify({script}));"
    needs("node")
    done = subprocess.run(
        ["node", "--input-type=module", "-"],
        input=whole,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_events_are_read_the_same_however_the_stream_is_cut() -> None:
    stream = ': keepalive\n\ndata: {"a":1}\r\n\r\nevent: x\ndata:two\ndata: lines\n\ndata: [DONE]\n\ndata: half'
    found = node(
        """given.sizes.map((size) => {
          const events = new reply.Events();
          const out = [];
          for (let i = 0; i < given.stream.length; i += size)
            out.push(...events.feed(given.stream.slice(i, i + size)));
          return out;
        })""",
        {"stream": stream, "sizes": [1, 2, 3, 7, 1000]},
    )
    assert found == [['{"a":1}', "two\nlines", "[DONE]"]] * 5


def chunk(**delta: object) -> str:
    return json.dumps({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": delta}]})


def finish(reason: str) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})


def message(*pieces: str) -> Any:
    script = "(() => { const r = new reply.Reply(); given.forEach((d) => r.feed(d)); return r.message(); })()"
    return node(script, pieces)


def detail(text: str, **more: object) -> str:
    one = {"type": "reasoning.text", "id": "reasoning-text-1", "index": 0, "text": text, **more}
    return chunk(reasoning_content=text, reasoning_details=[one])


CALL = [
    chunk(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"a'}}]),
    chunk(tool_calls=[{"index": 0, "function": {"arguments": '":1}'}}]),
]


def test_a_turn_goes_back_with_its_thinking_its_signature_and_its_calls() -> None:
    said = message(detail("I th"), detail("ink.", signature="s"), *CALL, finish("tool_calls"))
    assert said == {
        "role": "assistant",
        "content": None,
        "reasoning_details": [
            {
                "type": "reasoning.text",
                "id": "reasoning-text-1",
                "index": 0,
                "text": "I think.",
                "signature": "s",
            }
        ],
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
        ],
    }


def test_a_turn_that_was_cut_goes_back_without_its_calls() -> None:
    assert message(chunk(content="Let me"), *CALL[:2]) == {"role": "assistant", "content": "Let me"}


def test_a_failure_in_the_stream_is_kept_for_the_reader() -> None:
    script = "(() => { const r = new reply.Reply(); given.forEach((d) => r.feed(d)); return r.error; })()"
    pieces = [chunk(content="He"), json.dumps({"error": {"message": "It broke.", "code": "x"}})]
    assert node(script, pieces) == {"message": "It broke.", "code": "x"}


TALK: dict[str, Any] = {
    "model": "MiniMax-M3",
    "messages": [
        {"role": "system", "content": "Say 'it' $HOME `id` \\ \"so\"."},
        {"role": "user", "content": "call one tool"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "Hm. \u2028 é"}],
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city": "Zürich"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sun\nand 'wind'"},
    ],
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "max_completion_tokens": 64,
    "tools": [TOOL],
    "prompt_cache_key": "playground-test",
}


def code(form: str, base: str, body: object) -> str:
    text: str = node(
        "code.FORMS[given.form](given.base, given.body)", {"form": form, "base": base, "body": body}
    )
    return text


# --- a gateway ---------------------------------------------------------------------------------------


class _Hostile(BaseHTTPRequestHandler):
    """An upstream whose replies are what no page should ever run; told to hold on, it says nothing."""

    asked, over = threading.Event(), threading.Event()

    def do_POST(self) -> None:
        if b"hold on" in self.rfile.read(int(self.headers["content-length"])):
            self.asked.set()
            self.over.wait(10 * PATIENCE_S)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for piece in (
            chunk(role="assistant", reasoning_content=HOSTILE[0]),
            chunk(content=HOSTILE[0]),
            chunk(content=HOSTILE[1]),
            finish("stop"),
            "[DONE]",
        ):
            self.wfile.write(f"data: {piece}\n\n".encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def hostile() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    _Hostile.over.set()
    server.shutdown()
    server.server_close()
    thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream(step=3) as played:
        yield played


@pytest.fixture(scope="module")
def gate(
    upstream: FakeUpstream, hostile: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """One model is hostile, all others are played."""
    directory = tmp_path_factory.mktemp("playground")
    config = directory / "headgate.toml"
    config.write_text(
        f'[upstreams.played]\npreset = "custom"\nbase_url = "{upstream.openai_url}"\n'
        f'[upstreams.hostile]\npreset = "custom"\nbase_url = "{hostile}"\n'
        + "".join(
            f'[models."{id}"]\nroutes = [{{ upstream = "{"hostile" if id == HOSTILE_MODEL else "played"}" }}]\n'
            for id in shipped.models()
        )
    )
    running = start(directory / "data", "--config", str(config))
    yield running
    assert stop(running) == 0


def run(text: str, *command: str, key: str) -> str:
    needs("curl", "node")
    env = {"PATH": os.environ["PATH"], "OPENAI_API_KEY": key}
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=2 * PATIENCE_S, env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("form", ["curl", "anthropic", "gemini"])
def test_the_shown_commands_send_this_conversation(
    gate: Gateway, upstream: FakeUpstream, form: str
) -> None:
    said = run(code(form, gate.url, TALK), "bash", "-s", key=gate.key)
    told = "".join(re.findall(r'"(?:content|text)": ?"((?:[^"\\]|\\.)+)"', said))
    assert RESULT in told
    messages = (upstream.last.body or {})["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "tool"]
    assert messages[0]["content"] == TALK["messages"][0]["content"]
    assert messages[2]["reasoning_details"][0]["text"] == "Hm. \u2028 é"
    assert json.loads(messages[2]["tool_calls"][0]["function"]["arguments"]) == {"city": "Zürich"}
    assert messages[3]["content"] == "sun\nand 'wind'"
    assert (upstream.last.body or {})["temperature"] == 0.5


def test_the_shown_python_runs_with_openais_sdk(gate: Gateway, upstream: FakeUpstream) -> None:
    said = run(code("python", gate.url, TALK), sys.executable, "-", key=gate.key)
    assert said.strip() == RESULT
    messages = (upstream.last.body or {})["messages"]
    assert messages[2]["reasoning_details"][0]["text"] == "Hm. \u2028 é"


def test_the_shown_typescript_is_javascript_but_for_one_cast(gate: Gateway) -> None:
    text = code("typescript", gate.url, TALK)
    assert text.count(" as OpenAI.ChatCompletionMessageParam[]") == 1
    plain = text.replace(" as OpenAI.ChatCompletionMessageParam[]", "")
    run(plain, "node", "--check", "--input-type=module", key="")
    without = {**TALK, "messages": TALK["messages"][:2]}
    assert " as " not in code("typescript", gate.url, without)


# --- a browser ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def context(browser: Browser, gate: Gateway) -> Iterator[BrowserContext]:
    """One admin and one profile for the file: what a page leaves behind is in the page."""
    store = Store(gate.data)
    people, now_s = People(store, gate.data), time.time()
    user = people.create_user("player", "", "admin", "", now_s=now_s)
    token = people.open_session(user.id, now_s=now_s)
    store.close()
    made = profile(browser, viewport={"width": 1280, "height": 900})
    secure = gate.url.replace("http:", "https:")  # a loopback address counts as one
    made.add_cookies([{"name": app.COOKIE, "value": token, "url": secure, "secure": True}])
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, gate: Gateway) -> Iterator[Page]:
    """The playground, with a key of its own."""
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{gate.url}/playground")
    yield page
    assert faults == []
    page.close()


def say(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Control+Enter")


def column(page: Page, which: str = "a") -> Locator:
    return page.locator(f"[data-column={which}]")


def settled(where: Locator, count: int = 1) -> Locator:
    """The last reply, once its cost is there."""
    expect(where.locator(".figures a")).to_have_count(count)
    return where.locator(".reply").last


def test_a_reply_is_shown_with_its_thinking_tokens_cost_and_times(
    page: Page, gate: Gateway
) -> None:
    say(page, "think")
    reply = settled(column(page))
    expect(reply.locator(".thought")).to_have_text(THOUGHT)
    expect(reply.locator(".said")).to_have_text(HELLO)
    figures = reply.locator(".figures")
    for told in ("in 120", "cached 100", "out 35", "thinking 7", "cost $0.000054", "first token "):
        expect(figures).to_contain_text(told)
    id = (figures.locator("a").get_attribute("href") or "").removeprefix("/requests/")
    row = UsageReader(gate.data).generation(id)
    assert row is not None and row.outcome == "stop" and row.session.startswith("playground-")
    expect(page.locator("#key_state")).to_contain_text(row.key_id)


def test_two_models_answer_the_same_side_by_side_and_the_conversation_goes_on(
    page: Page, upstream: FakeUpstream
) -> None:
    page.fill("#system", "Be kind.")
    say(page, "think")
    settled(column(page))
    page.select_option("[data-column=b] .model", "MiniMax-M2.7")
    page.fill("#temperature", "0.25")
    page.select_option("#effort", "none")
    say(page, "say hello")
    settled(column(page), 2)
    settled(column(page, "b"), 2)
    one, two = (seen.body or {} for seen in upstream.seen[-2:])
    assert {one["model"], two["model"]} == {"MiniMax-M3", "MiniMax-M2.7"}
    for body in (one, two):
        assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
        assert body["messages"][2]["reasoning_details"][0]["text"] == THOUGHT
        assert body["temperature"] == 0.25
    assert next(b for b in (one, two) if b["model"] == "MiniMax-M3")["thinking"] == {
        "type": "disabled"
    }
    always = column(page, "b").locator(".reply").last.locator(".note.warn")
    expect(always).to_contain_text("The gateway notes:")
    boxes = [column(page, which).bounding_box() for which in "ab"]
    assert boxes[0] and boxes[1] and boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    fits(page, 390)
    boxes = [column(page, which).bounding_box() for which in "ab"]
    assert boxes[0] and boxes[1] and boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]


def test_a_tool_call_is_shown_and_its_typed_result_goes_on(
    page: Page, upstream: FakeUpstream
) -> None:
    page.click("#sample")
    say(page, "call one tool")
    reply = settled(column(page))
    expect(reply.locator(".call strong")).to_have_text("get_weather")
    expect(reply.locator(".call pre")).to_contain_text('"city": "Zürich"')
    say(page, "something else")
    expect(page.locator("#problem")).to_have_text("Answer the tool call first.")
    reply.locator("textarea").fill("sunny")
    reply.locator("textarea").press("Control+Enter")
    expect(settled(column(page), 2).locator(".said")).to_have_text(RESULT)
    sent = (upstream.last.body or {})["messages"]
    assert sent[-1]["content"] == "sunny"
    assert sent[-1]["tool_call_id"] == sent[-2]["tool_calls"][0]["id"]
    assert sent[-2]["reasoning_details"][0]["text"] == THOUGHT


def test_a_stopped_reply_says_so_and_what_it_cost(
    page: Page, gate: Gateway, upstream: FakeUpstream
) -> None:
    say(page, "go on")
    expect(column(page).locator(".running .said")).to_contain_text("and on and on")
    page.click("#stop")
    reply = settled(column(page))
    expect(reply.locator(".note.warn")).to_have_text("Stopped.")
    assert upstream.last.wait() and upstream.last.hung_up
    id = (reply.locator(".figures a").get_attribute("href") or "").removeprefix("/requests/")
    row = UsageReader(gate.data).generation(id)
    assert row is not None and row.outcome == "client_gone" and row.output_tokens > 0
    expect(reply.locator(".figures")).to_contain_text(f"out {row.output_tokens}")
    expect(page.locator("#stop")).to_be_hidden()


def test_a_new_conversation_has_nothing_of_one_that_was_still_running(
    page: Page, upstream: FakeUpstream
) -> None:
    say(page, "go on")
    expect(column(page).locator(".running .said")).to_contain_text("and on and on")
    page.click("#anew")
    say(page, "say hello")
    settled(column(page))
    assert [m["content"] for m in (upstream.last.body or {})["messages"]] == ["say hello"]
    say(page, "think")
    settled(column(page), 2)
    roles = [m["role"] for m in (upstream.last.body or {})["messages"]]
    assert roles == ["user", "assistant", "user"]


def test_a_reply_that_is_stopped_before_it_begins_is_found_in_the_books(
    page: Page, gate: Gateway
) -> None:
    page.select_option("[data-column=a] .model", HOSTILE_MODEL)
    say(page, "hold on")
    assert _Hostile.asked.wait(PATIENCE_S)
    page.click("#stop")
    reply = settled(column(page))
    expect(reply.locator(".note.warn")).to_have_text("Stopped.")
    expect(reply.locator(".figures")).to_contain_text("cost $0.00")
    id = (reply.locator(".figures a").get_attribute("href") or "").removeprefix("/requests/")
    row = UsageReader(gate.data).generation(id)
    assert row is not None and row.outcome == "client_gone"


def test_a_refusal_is_told_in_the_gateways_words_and_can_be_tried_again(
    page: Page, gate: Gateway
) -> None:
    say(page, "fail 429")
    reply = column(page).locator(".reply").last
    expect(reply.locator(".note.bad")).to_contain_text("rate limit is reached")
    reply.locator(".again").click()
    expect(column(page).locator(".note.bad:visible")).to_have_count(1)
    expect(column(page).locator(".reply")).to_have_count(1)
    body = {"model": "MiniMax-M3", "messages": [{"role": "user", "content": "hello"}]}
    # The refusal paused the model for a few seconds.
    wait_for(lambda: gate.post("/v1/chat/completions", body).status_code == 200)
    say(page, "break mid stream")
    broken = column(page).locator(".reply").last
    expect(broken.locator(".note.bad")).to_contain_text("broke before the reply was finished")
    page.fill("#key", "hg_live_wrong")
    say(page, "say hello")
    expect(column(page).locator(".reply").last.locator(".note.bad")).to_contain_text(
        "No valid API key"
    )


def test_what_cannot_be_sent_is_told_before_it_is(page: Page, upstream: FakeUpstream) -> None:
    seen = len(upstream.seen)
    page.fill("#tools", "{")
    say(page, "say hello")
    expect(page.locator("#problem")).to_contain_text("The tools are no JSON list")
    page.fill("#tools", "")
    page.fill("#temperature", "warm")
    say(page, "say hello")
    expect(page.locator("#problem")).to_contain_text("warm")
    assert len(upstream.seen) == seen


def test_nothing_that_a_model_or_a_person_says_becomes_part_of_the_page(page: Page) -> None:
    page.select_option("[data-column=a] .model", HOSTILE_MODEL)
    title = page.title()
    say(page, HOSTILE[0])
    reply = settled(column(page))
    expect(reply.locator(".said")).to_have_text("".join(HOSTILE))
    expect(reply.locator(".thought")).to_have_text(HOSTILE[0])
    expect(column(page).locator(".user .said")).to_have_text(HOSTILE[0])
    expect(column(page).locator(".turns :is(script, img, b:not(.figures b))")).to_have_count(0)
    page.click("[data-column=a] .view")
    expect(page.locator("#code_text")).to_contain_text("<img src=x")
    assert page.locator("#code img").count() == 0 and page.title() == title


def test_the_code_view_has_the_request_that_was_sent(
    page: Page, gate: Gateway, upstream: FakeUpstream
) -> None:
    page.fill("#text", "say 'hello'")
    page.click("[data-column=a] .view")
    expect(page.locator("#code_what")).to_have_text("The request that Send makes now.")
    expect(page.locator("#code_text")).to_contain_text("say 'hello'")
    page.click("#code_close")
    page.press("#text", "Control+Enter")
    settled(column(page))
    page.click("[data-column=a] .view")
    expect(page.locator("#code_what")).to_have_text("The last request of this model.")
    for form, mark in (
        ("python", "from openai import OpenAI"),
        ("typescript", 'import OpenAI from "openai"'),
        ("gemini", ":streamGenerateContent?alt=sse"),
        ("anthropic", "/v1/messages"),
        ("curl", "/v1/chat/completions"),
    ):
        page.click(f"[data-form={form}]")
        expect(page.locator("#code_text")).to_contain_text(mark)
    text = page.locator("#code_text").text_content() or ""
    assert f"{gate.url}/v1/chat/completions" in text and "$OPENAI_API_KEY" in text
    assert "hg_live_" not in text
    run(text, "bash", "-s", key=gate.key)
    assert upstream.seen[-1].body == upstream.seen[-2].body
