"""What a checkup finds in an upstream that can everything, and in one that cannot do one thing."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from fake_upstream import FakeUpstream
from headgate.catalog import building
from headgate.catalog.presets import presets
from headgate.catalog.routes import Route
from headgate.chat import Finish, Reply, Text, Usage
from headgate.config import Settings, Upstream
from headgate.diagnostics import checks as checkups
from headgate.diagnostics.checks import run_checks
from headgate.diagnostics.findings import Finding, Report
from headgate.diagnostics.judgements import judge_stream
from headgate.diagnostics.probe_plan import Plan, native_of, other_region_url, plan
from headgate.diagnostics.probes import ProbeResult
from headgate.diagnostics.raw_reader import habit_of
from headgate.net.client import Client
from headgate.net.client_errors import Timeouts
from lab import ALL, KEY, MINIMAX, REPLY, THOUGHT, Lab

TIMEOUTS = Timeouts(2, 5, 5, 10)


def route_of(
    url: str, preset: str = "minimax", key: str = KEY, capabilities: Mapping[str, Any] | None = None
) -> Route:
    own = Upstream(preset=preset, base_url=url, key=key, capabilities=dict(capabilities or {}))
    catalog = building.load(Settings(upstreams={"up": own}), {})
    return catalog.routes("MiniMax-M3")[0]


def measure(route: Route, *, both: bool = False, other_region: str = "", home: str = "") -> Report:
    async def run() -> Report:
        client = Client(proxies={})
        native = native_of(route, "minimax", presets()) if both else None
        try:
            return await run_checks(
                client, route, TIMEOUTS, home=home, other_region=other_region, native=native
            )
        finally:
            await client.close()

    return asyncio.run(run())


def states(report: Report) -> dict[str, str]:
    return {f.check: f.state for f in report.findings}


def red(report: Report) -> dict[str, Finding]:
    found = {f.check: f for f in report.findings if f.state == "fail"}
    assert all(f.do for f in found.values()), "each red line says what to do"
    return found


def test_an_upstream_as_its_preset_says_has_nothing_red_and_nothing_to_set() -> None:
    with Lab(MINIMAX).running() as lab:
        report = measure(route_of(lab.url), both=True)
    assert red(report) == {}
    assert report.capabilities == {}
    found = states(report)
    for check in ("access", "streaming", "tool calls", "thinking", "thinking, turn two", "cache"):
        assert found[check] == "ok", report.findings
    assert found["image input"] == found["tool_choice none"] == "ok"


def test_what_it_can_beyond_its_preset_is_a_note_and_a_line() -> None:
    with Lab(ALL).running() as lab:
        report = measure(route_of(lab.url))
    assert red(report) == {}
    assert report.capabilities == {
        "stop": True,
        "response_format": True,
        "tool_choice": ("none", "required", "named"),
        "counts": "tokenize",
    }
    assert states(report)["stop sequences"] == "warn"


@pytest.mark.parametrize(
    ("lost", "check", "set_to"),
    [
        ("stop", "stop sequences", {"stop": False}),
        ("schema", "structured output", {"response_format": False}),
        ("none", "tool_choice none", {"tool_choice": ("required", "named")}),
        ("required", "tool_choice required", {"tool_choice": ("none", "named")}),
        ("named", "tool_choice named", {"tool_choice": ("none", "required")}),
        ("image", "image input", {"input": ("text",)}),
        ("count", "count endpoint", {"counts": ""}),
        ("off", "thinking off", {"thinking_off": False}),
        ("tools", "tool calls", None),
    ],
)
def test_what_its_preset_promises_and_it_does_not_is_red(
    lost: str, check: str, set_to: dict[str, object] | None
) -> None:
    with Lab(ALL - {lost}, reads=("reasoning",)).running() as lab:
        report = measure(route_of(lab.url, "vllm"))
    assert check in red(report), report.findings
    if set_to is not None:
        assert set(red(report)) == {check}
        assert report.capabilities == set_to
        assert set(set_to) <= set(red(report)[check].do.split()), "it names the field"


@pytest.mark.parametrize("lost", ["think", "cache", "usage"])
def test_what_no_setting_changes_is_a_note(lost: str) -> None:
    with Lab(MINIMAX - {lost}).running() as lab:
        report = measure(route_of(lab.url))
    assert red(report) == {} and report.capabilities == {}
    assert any(f.state == "warn" and f.do for f in report.findings)


@pytest.mark.parametrize(
    ("reads", "refuses", "form"),
    [
        (("reasoning_content",), (), "reasoning_content"),
        (("reasoning",), ("details",), "reasoning"),
        (("tags",), (), "tags"),
        ((), ("details",), "reasoning_content"),
        ((), ("details", "reasoning_content", "reasoning", "tags"), "none"),
    ],
)
def test_the_form_that_it_reads_on_turn_two_is_the_one_to_set(
    reads: tuple[str, ...], refuses: tuple[str, ...], form: str
) -> None:
    with Lab(MINIMAX, reads=reads, refuses=refuses).running() as lab:
        report = measure(route_of(lab.url))
    assert set(red(report)) == {"thinking, turn two"}
    assert report.capabilities == {"reasoning_form": form}


def test_reasoning_that_is_accepted_and_not_read_is_no_reason_to_change() -> None:
    with Lab(MINIMAX, reads=()).running() as lab:
        report = measure(route_of(lab.url))
    assert states(report)["thinking, turn two"] == "warn" and report.capabilities == {}


def test_a_key_of_the_other_region_is_named_with_what_to_set() -> None:
    with Lab(MINIMAX).running() as here, Lab(MINIMAX).running() as there:
        here.fails, there.fails = {"*": (401, "login fail (1004)")}, {}
        report = measure(route_of(here.url), other_region=there.url)
    (access,) = red(report).values()
    assert f'base_url = "{there.url}"' in access.do and "1004" in access.result
    assert report.requests == here.requests + there.requests == 2


def test_a_key_that_both_regions_refuse_is_not_blamed_on_the_region() -> None:
    with Lab(MINIMAX).running() as here, Lab(MINIMAX).running() as there:
        report = measure(route_of(here.url, key="sk-api-other"), other_region=there.url)
    (access,) = red(report).values()
    assert "refuses it too" in access.do
    assert report.requests == 2


@pytest.mark.parametrize(
    ("status", "message", "words"),
    [
        (401, "login fail (1004)", "minimax-cn"),
        (401, "invalid api key (2049)", "minimax-cn"),
        (403, "no", "typing mistake"),
        (402, "insufficient balance (1008)", "top it up"),
        (429, "usage limit exceeded (2056)", "window"),
        (400, "your plan does not include this (2061)", "--model"),
        (400, "unknown model 'x' (2013)", "--model"),
        (429, "rate limit (1002)", "wait"),
        (529, "High traffic detected", "wait"),
        (400, "invalid params (2013)", "dialect"),
        (500, "system error (1033)", "Run it again"),
    ],
)
def test_an_upstream_that_refuses_us_is_asked_once_and_the_cure_is_told(
    status: int, message: str, words: str
) -> None:
    with Lab(MINIMAX, fails={"*": (status, message)}).running() as lab:
        report = measure(route_of(lab.url))
        assert lab.requests == report.requests == 1
    (access,) = red(report).values()
    assert words in access.do, access


def test_a_wrong_path_is_told_with_the_right_one() -> None:
    with Lab(MINIMAX).running() as lab:
        url = lab.url.removesuffix("/v1")
        report = measure(route_of(url), home="https://api.minimax.io/v1")
    (access,) = red(report).values()
    assert "`/v1`" in access.do and "no path" in access.do


def test_nobody_there_is_told_so() -> None:
    report = measure(route_of("http://127.0.0.1:1/v1"))
    (access,) = red(report).values()
    assert "could not be reached (ConnectionRefusedError)" in access.result and "DNS" in access.do


def test_one_probe_that_fails_does_not_end_the_others() -> None:
    fails = {"json_schema": (500, "unknown error (1000)")}
    with Lab(MINIMAX, fails=fails).running() as lab:
        report = measure(route_of(lab.url))
    assert set(red(report)) == {"structured output"}
    assert "1000" in red(report)["structured output"].result
    assert states(report)["cache"] == "ok"


def test_no_time_left_asks_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkups, "MAX_S", -1.0)
    with Lab(MINIMAX).running() as lab:
        report = measure(route_of(lab.url))
        assert lab.requests == 0
    assert set(red(report)) == {"access"}


@pytest.mark.parametrize("preset", ["minimax", "vllm", "openrouter"])
def test_no_more_is_sent_than_was_planned(preset: str) -> None:
    with Lab(ALL).running() as lab:
        route = route_of(lab.url, preset)
        native = native_of(route, preset, presets())
        planned = plan(route, native, False)
        report = measure(route, both=native is not None)
        assert report.requests == lab.requests <= planned.requests
        bodies = [msgspec.json.decode(b) for b in lab.bodies]
    sent = sum(len(b) for b in lab.bodies) // 4  # about four bytes to a token
    assert sent <= planned.input_tokens * 1.2
    for body in bodies:
        most = body.get("max_tokens") or body.get("max_completion_tokens") or 0
        assert most <= 512
    assert planned.requests < 32 and isinstance(planned, Plan)


def test_both_paths_are_compared_and_the_fuller_one_is_named() -> None:
    with Lab(MINIMAX).running() as lab:
        report = measure(route_of(lab.url), both=True)
    rows = {c.check: (c.bridge, c.native) for c in report.comparison}
    assert rows["thinking, turn two"] == ("read", "read")
    assert rows["tool calls"] == ("1", "1") and rows["thinking"] == ("came", "came")
    with Lab(MINIMAX, reads=("blocks",)).running() as lab:
        report = measure(route_of(lab.url), both=True)
    (found,) = [f for f in report.findings if f.check == "bridge or native"]
    assert "minimax-anthropic" in found.do


def test_a_native_path_that_is_not_there_leaves_the_bridge() -> None:
    with Lab(MINIMAX, native=False).running() as lab:
        report = measure(route_of(lab.url), both=True)
    (found,) = [f for f in report.findings if f.check == "bridge or native"]
    assert found.state == "warn" and report.comparison == () and red(report) == {}


@pytest.mark.parametrize("broken", ["", "*", "stop", "json_schema"])
def test_no_key_prompt_or_reply_is_in_a_report(broken: str) -> None:
    fails = {broken: (400, "unknown error (2013)")} if broken else {}
    with Lab(ALL, fails=fails).running() as lab:
        text = msgspec.json.encode(measure(route_of(lab.url), both=True)).decode()
    for canary in (KEY, REPLY, THOUGHT, "canary", "Count from", "Paris", "log is empty"):
        assert canary not in text


def test_minimax_as_it_was_recorded_is_reached_streams_and_caches() -> None:
    for cumulative in (False, True):
        with FakeUpstream(cumulative=cumulative) as fake:
            report = measure(route_of(fake.openai_url), both=True)
            assert report.requests == len(fake.seen)
        found = states(report)
        assert (found["access"], found["streaming"], found["cache"]) == ("ok", "ok", "ok")
        assert len(report.comparison) == 5


def test_an_anthropic_upstream_is_measured_in_its_own_words() -> None:
    with Lab(MINIMAX).running() as lab:
        url = lab.url.replace("/v1", "/anthropic")
        report = measure(route_of(url, "minimax-anthropic"))
    assert red(report) == {} and report.capabilities == {}
    assert states(report)["thinking, turn two"] == "ok"


# --- the judgements alone


@pytest.mark.parametrize(
    ("pieces", "habit"),
    [
        (["I", " think", " so"], "incremental"),
        (["I", "I think", "I think so"], "cumulative"),
        (["I ", "think ", "so", "I think so"], "incremental, then all of it again"),
        (["I", "I am"], ""),
        ([], ""),
    ],
)
def test_how_thinking_is_told_is_seen_in_its_pieces(pieces: list[str], habit: str) -> None:
    assert habit_of(pieces) == habit


def _streamed(first_s: float, total_s: float, pieces: int, usage: Usage | None) -> ProbeResult:
    reply = Reply((Text("x" * 100),), Finish("stop", usage))
    return ProbeResult(reply, first_s=first_s, total_s=total_s, pieces=pieces)


@pytest.mark.parametrize(
    ("shot", "state"),
    [
        (_streamed(0.5, 3.0, 40, Usage(1, 1)), "ok"),
        (_streamed(0.5, 3.0, 40, None), "warn"),
        (_streamed(0.5, 3.0, 1, Usage(1, 1)), "fail"),
        (_streamed(2.95, 3.0, 40, Usage(1, 1)), "fail"),
        (_streamed(0.01, 0.01, 40, Usage(1, 1)), "ok"),
    ],
)
def test_a_reply_that_came_at_once_was_held_back(shot: ProbeResult, state: str) -> None:
    assert judge_stream(shot).state == state


def test_a_key_is_only_tried_in_the_other_region_of_the_vendors_own_host() -> None:
    own = route_of("", "minimax").upstream
    assert other_region_url(own, "minimax", presets()) == "https://api.minimaxi.com/v1"
    elsewhere = route_of("https://gate.example/v1", "minimax").upstream
    assert other_region_url(elsewhere, "minimax", presets()) == ""
    assert other_region_url(route_of("", "runapi").upstream, "runapi", presets()) == ""


def test_the_native_path_is_on_the_same_host_and_only_where_the_vendor_has_one() -> None:
    for preset, url in (
        ("minimax", "https://api.minimax.io/anthropic"),
        ("minimax-cn", "https://api.minimaxi.com/anthropic"),
    ):
        native = native_of(route_of("", preset), preset, presets())
        assert native is not None and native.upstream.base_url == url
        assert native.capabilities.reasoning_form == "blocks"
    assert native_of(route_of("", "runapi"), "runapi", presets()) is None
    assert native_of(route_of("http://127.0.0.1:9/v1", "vllm"), "vllm", presets()) is None
