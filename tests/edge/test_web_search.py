"""Web search served by the gateway: rounds, results and citations in each client's own words."""

import time
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import (
    CitationsWebSearchResultLocation,
    ServerToolUseBlock,
    WebSearchResultBlock,
    WebSearchToolResultBlock,
    WebSearchToolResultError,
)
from google import genai
from google.genai import types as google
from openai.types.responses import ResponseFunctionWebSearch, ResponseOutputMessage
from openai.types.responses.response_output_text import AnnotationURLCitation

from gateway import Gateway, start, stop
from headgate.chat import ToolCall, ToolResult
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.reports import UsageReader
from played import FINDINGS, PlayedUpstream
from search_engine import SearchEngine
from waiting import wait_for

M = "MiniMax-M2"
SEARCH: dict[str, Any] = {"type": "web_search_20250305", "name": "web_search"}
WEATHER: dict[str, Any] = {"name": "get_weather", "input_schema": {"type": "object"}}


@pytest.fixture(scope="module")
def engine() -> Iterator[SearchEngine]:
    with SearchEngine().running() as running:
        yield running


@pytest.fixture(scope="module")
def gate(engine: SearchEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with PlayedUpstream().running() as upstream:
        running = start(
            tmp_path_factory.mktemp("search") / "data",
            HEADGATE_UPSTREAM_URL=upstream.url("openai"),
            HEADGATE_UPSTREAM_KEY="x",
            HEADGATE_SEARCH_PROVIDER="searxng",
            HEADGATE_SEARCH_URL=engine.url,
            HEADGATE_SEARCH_SEARCHES="3",
            HEADGATE_SEARCH_TIMEOUT_S="2",
        )
        running.upstream = upstream
        yield running
        assert stop(running) == 0


def row_of(gate: Gateway) -> LedgerRow:
    """The newest row."""
    books = UsageReader(gate.data)
    try:
        wait_for(lambda: books.intents() == 0)
        (id,) = books._all("select request_id from ledger order by rowid desc limit 1")[0]
        row = books.generation(id)
        assert row is not None
        return row
    finally:
        books.close()


def claude(gate: Gateway) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=gate.url, api_key=gate.key, max_retries=0)


def ask(gate: Gateway, text: str, tool: dict[str, Any] = SEARCH, **more: Any) -> Any:
    return claude(gate).messages.create(
        model=M,
        max_tokens=1000,
        messages=[{"role": "user", "content": text}],
        tools=[tool],  # type: ignore[list-item]
        **more,
    )


# --- each client's own words ----------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_messages_have_searches_results_and_citations(
    gate: Gateway, engine: SearchEngine, stream: bool
) -> None:
    upstream = gate.upstream
    assert upstream is not None
    before = len(upstream.seen)
    asked: dict[str, Any] = {
        "model": M,
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": "search weather Zürich"}],
        "tools": [SEARCH],
    }
    if stream:
        with claude(gate).messages.stream(**asked) as events:
            message = events.get_final_message()
    else:
        message = claude(gate).messages.create(**asked)
    text, call, result, answer = message.content
    assert text.type == "text" and text.text == "Let me look."
    assert isinstance(call, ServerToolUseBlock) and call.input == {"query": "weather Zürich"}
    assert isinstance(result, WebSearchToolResultBlock) and result.tool_use_id == call.id
    assert isinstance(result.content, list)
    assert [found.url for found in result.content] == [
        "https://weather.example/zurich",
        "https://news.example/today",
        "https://blocked.example/x",
    ]
    assert isinstance(result.content[0], WebSearchResultBlock)
    assert result.content[0].title == "Weather in Zürich"
    assert answer.type == "text" and answer.text == FINDINGS
    cited = answer.citations
    assert cited and [c.title for c in cited] == ["Weather in Zürich", "News of today"]  # type: ignore[union-attr]
    assert isinstance(cited[0], CitationsWebSearchResultLocation)
    assert cited[0].cited_text == "21 degrees, sunny."
    assert message.stop_reason == "end_turn"
    assert message.usage.server_tool_use
    assert message.usage.server_tool_use.web_search_requests == 1
    assert engine.queries[-1] == "weather Zürich"
    # Two rounds at the upstream, whose usage is one row's.
    first, second = (seen.request for seen in upstream.seen[before:])
    assert [tool.name for tool in first.tools] == ["web_search"]
    called, returned = second.messages[-2:]
    assert any(isinstance(p, ToolCall) and p.name == "web_search" for p in called.parts)
    assert isinstance(returned.parts[0], ToolResult)
    told = returned.parts[0].parts[0].text  # type: ignore[union-attr]
    assert "[1] Weather in Zürich\nhttps://weather.example/zurich\n21 degrees, sunny." in told
    row = row_of(gate)
    assert (row.outcome, row.input_tokens, row.output_tokens) == ("stop", 240, 70)
    assert row.cost_nano_usd and row.cost_nano_usd > 0
    assert [attempt.outcome for attempt in row.attempts] == ["searched", "stop"]
    assert "web_search (1 made)" in row.warnings


@pytest.mark.parametrize("stream", [False, True])
def test_responses_have_calls_and_annotations(gate: Gateway, stream: bool) -> None:
    client = openai.OpenAI(base_url=f"{gate.url}/v1", api_key=gate.key, max_retries=0)
    asked: dict[str, Any] = {
        "model": M,
        "input": "search weather",
        "tools": [{"type": "web_search"}],
    }
    if stream:
        with client.responses.stream(**asked) as events:
            kinds = [event.type for event in events]
            response = events.get_final_response()
        for kind in (
            "response.web_search_call.searching",
            "response.web_search_call.completed",
            "response.output_text.annotation.added",
        ):
            assert kind in kinds
        assert kinds.count("response.created") == 1
    else:
        response = client.responses.create(**asked)
    call = next(item for item in response.output if item.type == "web_search_call")
    assert isinstance(call, ResponseFunctionWebSearch)
    assert call.action.type == "search" and call.action.query == "weather"
    assert call.action.sources and call.action.sources[0].url == "https://weather.example/zurich"
    message = response.output[-1]
    assert isinstance(message, ResponseOutputMessage)
    (text,) = message.content
    assert text.type == "output_text" and text.text == FINDINGS
    cited = text.annotations
    assert all(isinstance(each, AnnotationURLCitation) for each in cited)
    assert [FINDINGS[c.start_index : c.end_index] for c in cited] == ["[1]", "[2]"]  # type: ignore[union-attr]
    assert cited[1].url == "https://news.example/today"  # type: ignore[union-attr]
    assert "function_call" not in [item.type for item in response.output]


@pytest.mark.parametrize("stream", [False, True])
def test_chat_has_annotations(gate: Gateway, stream: bool) -> None:
    client = openai.OpenAI(base_url=f"{gate.url}/v1", api_key=gate.key, max_retries=0)
    asked: dict[str, Any] = {
        "model": M,
        "messages": [{"role": "user", "content": "search weather"}],
        "web_search_options": {},
    }
    if stream:
        content, cited = "", []
        for chunk in client.chat.completions.create(**asked, stream=True):
            for choice in chunk.choices:
                content += choice.delta.content or ""
                cited += (choice.delta.model_extra or {}).get("annotations") or []
                assert not choice.delta.tool_calls
        spans = [(c["url_citation"]["start_index"], c["url_citation"]["end_index"]) for c in cited]
    else:
        message = client.chat.completions.create(**asked).choices[0].message
        content = message.content or ""
        assert message.annotations and not message.tool_calls
        found = [a.url_citation for a in message.annotations]
        assert found[0].url == "https://weather.example/zurich"
        spans = [(c.start_index, c.end_index) for c in found]
    assert content.endswith(FINDINGS)
    assert [content[a:b] for a, b in spans] == ["[1]", "[2]"]


@pytest.mark.parametrize("stream", [False, True])
def test_gemini_has_grounding(gate: Gateway, stream: bool) -> None:
    client = genai.Client(api_key=gate.key, http_options=google.HttpOptions(base_url=gate.url))
    asked: dict[str, Any] = {
        "model": M,
        "contents": "search weather",
        "config": google.GenerateContentConfig(
            tools=[google.Tool(google_search=google.GoogleSearch())]
        ),
    }
    if stream:
        chunks = list(client.models.generate_content_stream(**asked))
        text = "".join(chunk.text or "" for chunk in chunks)
        candidate = (chunks[-1].candidates or [])[0]
    else:
        response = client.models.generate_content(**asked)
        text, candidate = response.text or "", (response.candidates or [])[0]
    grounding = candidate.grounding_metadata
    assert grounding is not None
    assert grounding.web_search_queries == ["weather"]
    assert grounding.grounding_chunks and grounding.grounding_chunks[1].web
    assert grounding.grounding_chunks[1].web.uri == "https://news.example/today"
    assert grounding.grounding_supports
    for support in grounding.grounding_supports:
        segment = support.segment
        assert segment is not None
        said = text.encode()[segment.start_index or 0 : segment.end_index]
        assert said.decode() == segment.text
    assert grounding.grounding_supports[0].segment.text == "It is 21 degrees"  # type: ignore[union-attr]


# --- rounds ---------------------------------------------------------------------------------------


def test_searches_of_one_reply_are_numbered_on(gate: Gateway, engine: SearchEngine) -> None:
    before = len(engine.queries)
    message = ask(gate, "search twice one")
    kinds = [block.type for block in message.content]
    assert kinds.count("server_tool_use") == 2
    assert len(engine.queries) == before + 2
    assert gate.upstream is not None
    last = gate.upstream.last.request.messages[-1].parts[0]
    assert isinstance(last, ToolResult)
    assert "[4] Weather in" in last.parts[0].text  # type: ignore[union-attr]
    assert row_of(gate).input_tokens == 360


@pytest.mark.parametrize(("most", "made"), [(None, 3), (1, 1)])
def test_a_reply_makes_no_more_searches_than_it_may(
    gate: Gateway, engine: SearchEngine, most: int | None, made: int
) -> None:
    before = len(engine.queries)
    tool = SEARCH if most is None else {**SEARCH, "max_uses": most}
    message = ask(gate, "search ever more", tool)
    assert len(engine.queries) == before + made
    assert message.stop_reason == "end_turn"
    errors = [
        block.content.error_code
        for block in message.content
        if block.type == "web_search_tool_result" and not isinstance(block.content, list)
    ]
    assert set(errors) == {"max_uses_exceeded"}
    assert row_of(gate).outcome == "stop"


def test_a_call_of_the_clients_own_tool_is_handed_over_with_the_results(gate: Gateway) -> None:
    message = claude(gate).messages.create(
        model=M,
        max_tokens=1000,
        messages=[{"role": "user", "content": "search mixed weather"}],
        tools=[SEARCH, WEATHER],  # type: ignore[list-item]
    )
    assert message.stop_reason == "tool_use"
    kinds = [block.type for block in message.content]
    assert kinds == ["text", "tool_use", "server_tool_use", "web_search_tool_result"]
    call = next(block for block in message.content if block.type == "tool_use")
    # The next turn brings all of it back, and the model reads what it found.
    again = claude(gate).messages.create(
        model=M,
        max_tokens=1000,
        messages=[
            {"role": "user", "content": "search mixed weather"},
            {"role": "assistant", "content": [b.to_dict() for b in message.content]},  # type: ignore[misc,typeddict-item]
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}],
            },
        ],
        tools=[SEARCH, WEATHER],  # type: ignore[list-item]
    )
    assert again.stop_reason == "end_turn"
    assert gate.upstream is not None
    sent = gate.upstream.last.request.messages
    assert [m.role for m in sent] == ["user", "assistant", "tool", "tool"]
    results = [p for m in sent[2:] for p in m.parts if isinstance(p, ToolResult)]
    texts = [r.parts[0].text for r in results]  # type: ignore[union-attr]
    assert texts[0] == "sunny"
    assert "21 degrees, sunny." in texts[1]


def test_earlier_searches_are_calls_with_results_in_the_next_turn(gate: Gateway) -> None:
    message = ask(gate, "search weather")
    claude(gate).messages.create(
        model=M,
        max_tokens=1000,
        messages=[
            {"role": "user", "content": "search weather"},
            {"role": "assistant", "content": [b.to_dict() for b in message.content]},  # type: ignore[misc,typeddict-item]
            {"role": "user", "content": "search news"},
        ],
        tools=[SEARCH],  # type: ignore[list-item]
    )
    assert gate.upstream is not None
    sent = gate.upstream.last.request.messages
    roles = [m.role for m in sent]
    assert roles[:5] == ["user", "assistant", "tool", "assistant", "user"]
    client = openai.OpenAI(base_url=f"{gate.url}/v1", api_key=gate.key, max_retries=0)
    tools: Any = [{"type": "web_search"}]
    response = client.responses.create(model=M, input="search weather", tools=tools)
    history: Any = [
        {"role": "user", "content": "search weather"},
        *[item.to_dict() for item in response.output],
        {"role": "user", "content": "search news"},
    ]
    assert client.responses.create(model=M, input=history, tools=tools).status == "completed"
    sent = gate.upstream.last.request.messages
    assert [m.role for m in sent][:5] == ["user", "assistant", "tool", "assistant", "user"]


def test_a_forced_search_is_made_once(gate: Gateway, engine: SearchEngine) -> None:
    before = len(engine.queries)
    message = ask(gate, "search hello", tool_choice={"type": "tool", "name": "web_search"})
    assert len(engine.queries) == before + 1
    assert message.stop_reason == "end_turn"
    assert gate.upstream is not None
    first, second = (seen.body for seen in gate.upstream.seen[-2:])
    assert b"must call the tool `web_search`" in first
    assert b"must call the tool" not in second


# --- the engine -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("redirect now", "unavailable"),
        ("busy now", "too_many_requests"),
        ("broken now", "unavailable"),
        ("huge now", "unavailable"),
        ("odd now", "unavailable"),
        ("deep now", "unavailable"),
        ("slow now", "unavailable"),
        ("nothing at all", "invalid_tool_input"),
        ("x" * 500, "query_too_long"),
    ],
)
def test_a_search_that_fails_is_told_and_answered(
    gate: Gateway, engine: SearchEngine, query: str, code: str
) -> None:
    before = len(engine.queries)
    message = ask(gate, f"search {query}")
    results = [b for b in message.content if b.type == "web_search_tool_result"]
    assert isinstance(results[0].content, WebSearchToolResultError)
    assert results[0].content.error_code == code
    assert message.content[-1].type == "text"
    assert "followed" not in engine.queries[before:]
    assert gate.metric(f'headgate_searches_total{{outcome="{code}",provider="searxng"}}') >= 1


def test_a_masked_query_leaves_masked_and_its_client_sees_what_was_asked(
    gate: Gateway, engine: SearchEngine
) -> None:
    store = Store(gate.data)
    _, text = store.create_key("masked", now_s=time.time(), mask="email")
    store.close()
    before = len(engine.queries)
    message = anthropic.Anthropic(base_url=gate.url, api_key=text, max_retries=0).messages.create(
        model=M,
        max_tokens=1000,
        messages=[{"role": "user", "content": "search who is ada@example.com"}],
        tools=[SEARCH],  # type: ignore[list-item]
    )
    (query,) = engine.queries[before:]
    assert query.startswith("who is EMAIL_") and "ada" not in query
    uses = [b for b in message.content if isinstance(b, ServerToolUseBlock)]
    assert [b.input for b in uses] == [{"query": "who is ada@example.com"}]
    assert "EMAIL_" not in message.model_dump_json()


def test_results_are_those_of_the_clients_domains(gate: Gateway, engine: SearchEngine) -> None:
    only = ask(gate, "search weather", {**SEARCH, "allowed_domains": ["weather.example"]})
    results = [b for b in only.content if b.type == "web_search_tool_result"]
    assert [found.url for found in results[0].content] == ["https://weather.example/zurich"]
    assert engine.queries[-1] == "weather (site:weather.example)"
    rest = ask(gate, "search weather", {**SEARCH, "blocked_domains": ["blocked.example"]})
    results = [b for b in rest.content if b.type == "web_search_tool_result"]
    assert "https://blocked.example/x" not in [found.url for found in results[0].content]


@pytest.mark.parametrize("provider", ["minimax", "brave", "tavily"])
def test_every_provider_is_asked_in_its_own_words(
    provider: str, engine: SearchEngine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with PlayedUpstream().running() as upstream:
        gate = start(
            tmp_path_factory.mktemp(provider) / "data",
            HEADGATE_UPSTREAM_URL=upstream.url("anthropic"),
            HEADGATE_UPSTREAM_DIALECT="anthropic",
            HEADGATE_UPSTREAM_KEY="x",
            HEADGATE_SEARCH_PROVIDER=provider,
            HEADGATE_SEARCH_URL=engine.url,
            HEADGATE_SEARCH_KEY="search-secret",
            HEADGATE_SEARCH_RESULTS="2",
        )
        try:
            message = ask(gate, "search weather & <news>")
        finally:
            assert stop(gate) == 0
    results = [b for b in message.content if b.type == "web_search_tool_result"]
    assert len(results[0].content) == 2
    assert engine.queries[-1] == "weather & <news>"
    secret = engine.headers.get("x-subscription-token") or engine.headers["authorization"]
    assert secret.removeprefix("Bearer ") == "search-secret"


# --- without a provider, and without money --------------------------------------------------------


def test_without_a_provider_the_wish_is_a_warning_and_forced_it_is_refused(
    upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    gate = start(
        tmp_path_factory.mktemp("none") / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="x",
    )
    try:
        body: dict[str, Any] = {
            "model": M,
            "max_tokens": 100,
            "tools": [SEARCH],
            "messages": [{"role": "user", "content": "hello"}],
        }
        answer = gate.post("/v1/messages", body)
        assert answer.status_code == 200
        assert "tools.web_search" in answer.headers["x-headgate-warnings"]
        forced = body | {"tool_choice": {"type": "tool", "name": "web_search"}}
        refused = gate.post("/v1/messages", forced)
        assert refused.status_code == 400
        assert "[search]" in refused.text
    finally:
        assert stop(gate) == 0


def test_a_budget_without_room_for_another_round_ends_the_reply(gate: Gateway) -> None:
    body = {
        "model": M,
        "max_tokens": 100,
        "tools": [SEARCH],
        "stream": True,
        "messages": [{"role": "user", "content": "search weather"}],
    }
    assert gate.post("/v1/messages", body).status_code == 200
    cost = row_of(gate).cost_nano_usd
    assert cost
    store = Store(gate.data)
    # Of budgets that fall, one pays for the first round and not for the bounds of the second.
    keys = [
        store.create_key(f"k{n}", now_s=time.time(), budget_nano=int(cost * 20 * 0.85**n))[1]
        for n in range(24)
    ]
    store.close()
    wait_for(lambda: gate.get("/v1/key", **{"x-api-key": keys[-1]}).status_code == 200)
    ends = []
    for key in keys:
        answer = gate.post("/v1/messages", body, authorization=f"Bearer {key}")
        ends.append("whole" if "message_stop" in answer.text else f"{answer.status_code}")
        if ends[-1] == "200":  # it began, and ended in an error
            assert "billing_error" in answer.text
            row = row_of(gate)
            assert (row.outcome, row.output_tokens) == (
                "no_credit",
                35,
            )  # the first round is billed
            assert row.cost_nano_usd
    assert ends[0] == "whole"
    assert "200" in ends, ends
