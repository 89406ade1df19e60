"""Fitting: every wish is honoured, emulated, dropped with a word, or refused; none in silence."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from headgate.chat import (
    Choice,
    Format,
    Media,
    Message,
    Reasoning,
    Request,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.registry import DIALECTS
from headgate.errors import Failure, Refused
from headgate.policy.fit import Fitted, fit

NOTHING = Capabilities()
ALL = Capabilities(
    input=("text", "image", "video"),
    stop=True,
    tool_choice=("none", "required", "named"),
    parallel_switch=True,
    response_format=True,
    seed=True,
    penalties=True,
    top_k=True,
    thinking_switch="adaptive",
    thinking_off=True,
    service_tier=True,
)
HI = Message("user", (Text("hi"),))
TOOLS = (Tool("f"), Tool("g"))
CALLED = (
    HI,
    Message("assistant", (ToolCall("a", "g", "{}"),)),
    Message("tool", (ToolResult("a"),)),
)
PLAIN = Request("MiniMax-M2.7", (HI,))
SCHEMA = Format("schema", "answer", Raw(b'{"type": "object","b":1, "a":2}'))


def request(
    messages: tuple[Message, ...] = (HI,),
    *,
    model: str = PLAIN.model,
    tools: tuple[Tool, ...] = (),
    choice: Choice = PLAIN.choice,
    sampling: Sampling = PLAIN.sampling,
    reasoning: Reasoning = PLAIN.reasoning,
    format: Format | None = None,
    service_tier: str = "",
) -> Request:
    return Request(
        model,
        messages,
        tools=tools,
        choice=choice,
        sampling=sampling,
        reasoning=reasoning,
        format=format,
        service_tier=service_tier,
    )


def fitted(asked: Request, capabilities: Capabilities = NOTHING) -> Fitted:
    return fit(asked, capabilities, max_output=1000, default_max_output=500)


def refused(asked: Request, capabilities: Capabilities = NOTHING, **more: Any) -> Failure:
    with pytest.raises(Refused) as caught:
        fit(asked, capabilities, max_output=1000, default_max_output=500, **more)
    return caught.value.failure


EVERYTHING = request(
    (Message("user", (Text("hi"), Media("image", "https://example.com/cat.png"))),),
    tools=TOOLS,
    choice=Choice("named", "f", parallel=False),
    sampling=Sampling(1000, 2.0, 0.9, 40, 7, 0.5, 0.5, ("END",)),
    reasoning=Reasoning("off", "no"),
    format=SCHEMA,
    service_tier="priority",
)


def test_a_route_that_can_do_everything_gets_everything() -> None:
    assert fitted(EVERYTHING, ALL) == Fitted(EVERYTHING)


def test_a_plain_request_is_left_as_it_is() -> None:
    assert fitted(request()) == Fitted(request())


def test_fitting_twice_changes_nothing_more() -> None:
    once = fitted(EVERYTHING, Capabilities(input=("text", "image"))).request
    again = fitted(once, Capabilities(input=("text", "image")))
    assert again == Fitted(once)


# --- media ---


@pytest.mark.parametrize("kind", ["image", "video"])
def test_media_the_model_cannot_see_are_refused_by_name(kind: str) -> None:
    media = Media("image" if kind == "image" else "video", "https://example.com/x")
    asked = request((Message("user", (media,)),))
    failure = refused(asked)
    assert failure.kind == "invalid"
    assert f"`MiniMax-M2.7` does not take {kind}s" in failure.message
    assert "send text only" in failure.message
    takers = {kind: ("minimax-m2.7", "acme-sees", "MiniMax-M3")}
    assert "use acme-sees or MiniMax-M3" in refused(asked, takers=takers).message


def test_a_picture_that_a_tool_returned_becomes_a_note() -> None:
    """A refusal would end the session: the picture stays in its client's history."""
    shown = (Text("a.png"), Media("image", data="AA==", cache="5m"), Media("video", data="AA=="))
    tool = Message("tool", (ToolResult("a", shown),))
    sent = fitted(request((*CALLED[:2], tool))).request
    (result,) = sent.messages[2].parts
    assert isinstance(result, ToolResult)
    assert result.parts == (
        Text("a.png"),
        Text("[a picture was returned here; this model cannot read it]", "5m"),
        Text("[a video was returned here; this model cannot read it]"),
    )
    assert {
        "tool result: a picture replaced by a note",
        "tool result: a video replaced by a note",
    } <= set(sent.warnings)


def test_a_picture_that_a_tool_returned_stays_where_the_model_takes_it() -> None:
    tool = Message("tool", (ToolResult("a", (Media("image", data="AA=="),)),))
    asked = request((*CALLED[:2], tool))
    able = msgspec.structs.replace(NOTHING, input=("text", "image"))
    assert fitted(asked, able).request.messages[2] == tool


def test_m3_without_pictures_is_not_told_to_use_m3() -> None:
    asked = request((Message("user", (Media("image", data="AA=="),)),), model="MiniMax-M3")
    assert "use MiniMax-M3" not in refused(asked).message


# --- the context window ---


def windowed(
    max_tokens: int | None, input_estimate: int, capabilities: Capabilities = NOTHING
) -> Fitted:
    asked = request((Message("user", (Text("hi"),)),), sampling=Sampling(max_tokens=max_tokens))
    return fit(
        asked,
        capabilities,
        max_output=150_000,
        default_max_output=100_000,
        context_window=200_000,
        input_estimate=input_estimate,
    )


def test_more_output_than_the_window_has_left_is_lowered_to_it() -> None:
    sent = windowed(131_072, 90_000)
    assert sent.request.sampling.max_tokens == 200_000 - 90_000 - 2_700
    assert sent.request.warnings == ("max_tokens (lowered to the context window)",)


def test_output_that_fits_is_not_lowered() -> None:
    sent = windowed(100_000, 90_000)
    assert (sent.request.sampling.max_tokens, sent.request.warnings) == (100_000, ())
    assert windowed(None, 190_000).request.sampling.max_tokens is None


def test_a_default_that_does_not_fit_is_lowered_without_a_warning() -> None:
    blocks = msgspec.structs.replace(NOTHING, reasoning_form="blocks")
    sent = windowed(None, 150_000, blocks)
    assert (sent.request.sampling.max_tokens, sent.request.warnings) == (45_500, ())


def test_a_prompt_that_surely_does_not_fit_is_refused_as_too_long() -> None:
    """Claude Code, Codex and others compact their history on this error."""
    with pytest.raises(Refused) as caught:
        windowed(32_000, 230_000)
    failure = caught.value.failure
    assert (failure.kind, failure.code) == ("context_length", "context_length_exceeded")
    assert "230000" in failure.message and "200000" in failure.message


def test_a_prompt_that_may_fit_is_sent_with_little_output() -> None:
    assert windowed(32_000, 199_000).request.sampling.max_tokens == 256
    assert windowed(16, 199_000).request.sampling.max_tokens == 16


@pytest.mark.parametrize("name", ["openai", "responses", "anthropic", "gemini"])
def test_each_client_knows_the_error_of_a_prompt_that_is_too_long(name: str) -> None:
    with pytest.raises(Refused) as caught:
        windowed(32_000, 230_000)
    status, body = DIALECTS[name].encode_failure(caught.value.failure, "r")
    words = {
        "openai": b"context_length_exceeded",
        "responses": b"context_length_exceeded",
        "anthropic": b"prompt is too long",
        "gemini": b"CONTEXT_LENGTH_EXCEEDED",
    }
    assert status == 400 and words[name] in body


# --- sampling ---


@pytest.mark.parametrize(
    ("sampling", "word"),
    [
        (Sampling(seed=0), "seed"),
        (Sampling(top_k=40), "top_k"),
        (Sampling(presence_penalty=0.5), "presence_penalty"),
        (Sampling(frequency_penalty=-1.0), "frequency_penalty"),
    ],
)
def test_what_only_tunes_is_dropped_with_a_word(sampling: Sampling, word: str) -> None:
    out = fitted(request(sampling=sampling)).request
    assert out.sampling == Sampling()
    assert out.warnings == (word,)


def test_a_penalty_of_zero_is_no_wish() -> None:
    out = fitted(request(sampling=Sampling(presence_penalty=0.0))).request
    assert out.warnings == ()


def test_max_tokens_above_the_model_are_clamped() -> None:
    out = fitted(request(sampling=Sampling(max_tokens=128_000))).request
    assert (out.sampling.max_tokens, out.warnings) == (1000, ("max_tokens",))


def test_missing_max_tokens_stay_missing_where_the_protocol_allows() -> None:
    assert fitted(request()).request.sampling.max_tokens is None


def test_missing_max_tokens_are_the_models_own_where_a_number_must_be_sent() -> None:
    out = fitted(request(), Capabilities(reasoning_form="blocks")).request
    assert (out.sampling.max_tokens, out.warnings) == (500, ())


def test_a_temperature_above_the_upstreams_range_is_clamped() -> None:
    out = fitted(
        request(sampling=Sampling(temperature=1.5)), Capabilities(temperature_max=1.0)
    ).request
    assert (out.sampling.temperature, out.warnings) == (1.0, ("temperature",))


def test_stop_sequences_the_upstream_ignores_are_ours_to_find() -> None:
    out = fitted(request(sampling=Sampling(stop=("END", ""))))
    assert out.stop == ("END",)
    assert out.request.sampling.stop == ()
    assert out.request.warnings == ("stop (emulated)",)


@pytest.mark.parametrize(("tier", "words"), [("priority", ("service_tier",)), ("auto", ())])
def test_a_service_tier_is_dropped_and_told_if_it_meant_something(
    tier: str, words: tuple[str, ...]
) -> None:
    out = fitted(request(service_tier=tier)).request
    assert (out.service_tier, out.warnings) == ("", words)


# --- tools ---


def test_a_model_that_calls_nothing_is_not_shown_tools_and_cannot_be_forced() -> None:
    capabilities = Capabilities(tools=False)
    out = fitted(request(tools=TOOLS), capabilities).request
    assert (out.tools, out.choice, out.warnings) == ((), Choice(), ("tools",))
    forced = request(tools=TOOLS, choice=Choice("required"))
    for asked in (forced, request(tools=TOOLS, choice=Choice("named", TOOLS[0].name))):
        failure = refused(asked, capabilities)
        assert (failure.kind, failure.param) == ("invalid", "$.tools")


def test_none_takes_the_tools_away() -> None:
    out = fitted(request(tools=TOOLS, choice=Choice("none"))).request
    assert (out.tools, out.choice, out.warnings) == ((), Choice(), ())
    assert out.messages == (HI,)


def test_none_keeps_the_tools_of_a_history_with_calls_and_says_so_in_words() -> None:
    out = fitted(request(CALLED, tools=TOOLS, choice=Choice("none"))).request
    assert out.tools == TOOLS
    assert out.choice == Choice("auto")
    assert "Do not call any tool" in out.messages[0].text
    assert out.warnings == ("tool_choice (emulated)",)


def test_a_required_call_is_asked_for_at_the_end_of_the_system_text() -> None:
    system = Message("system", (Text("be kind", "5m"),))
    out = fitted(request((system, HI), tools=TOOLS, choice=Choice("required"))).request
    assert out.messages[0].text.startswith("be kind\n\nYour next reply must call at least one")
    assert out.messages[1:] == (HI,)
    assert (out.choice, out.tools) == (Choice("auto"), TOOLS)


def test_a_named_tool_is_the_only_one_offered() -> None:
    out = fitted(request(tools=TOOLS, choice=Choice("named", "f"))).request
    assert out.tools == (TOOLS[0],)
    assert "`f`" in out.messages[0].text
    assert out.warnings == ("tool_choice (emulated)",)


def test_a_named_tool_does_not_hide_those_that_were_called() -> None:
    assert fitted(request(CALLED, tools=TOOLS, choice=Choice("named", "f"))).request.tools == TOOLS


@pytest.mark.parametrize("mode", ["required", "named"])
def test_a_call_cannot_be_forced_without_a_tool(mode: str) -> None:
    choice = Choice("required") if mode == "required" else Choice("named", "f")
    assert refused(request(choice=choice)).param == "$.tool_choice"


def test_a_named_tool_must_be_among_the_tools() -> None:
    assert "`h`" in refused(request(tools=TOOLS, choice=Choice("named", "h")), ALL).message


@pytest.mark.parametrize(("parallel", "words"), [(False, ("parallel_tool_calls",)), (True, ())])
def test_a_switch_for_parallel_calls_that_nobody_heeds_is_dropped(
    parallel: bool, words: tuple[str, ...]
) -> None:
    out = fitted(request(tools=TOOLS, choice=Choice(parallel=parallel))).request
    assert (out.choice.parallel, out.warnings) == (None, words)


# --- structured output ---


def test_a_schema_is_asked_for_in_the_callers_own_bytes() -> None:
    out = fitted(request(format=SCHEMA))
    assert out.format == SCHEMA
    assert out.request.format is None
    assert out.request.messages[0].text.endswith('\n{"type": "object","b":1, "a":2}')
    assert out.request.warnings == ("response_format (emulated)",)


def test_any_object_is_asked_for_without_a_schema() -> None:
    out = fitted(request(format=Format("object")))
    assert out.request.messages[0].text.endswith("no Markdown fences.")


def test_the_same_request_is_fitted_to_the_same_bytes() -> None:
    asked = request(tools=TOOLS, choice=Choice("required"), format=SCHEMA)
    assert fitted(asked) == fitted(asked)


# --- thinking ---


def test_a_model_that_must_think_is_not_shown_thinking_when_told_not_to() -> None:
    out = fitted(request(reasoning=Reasoning("off", "yes"))).request
    assert out.reasoning == Reasoning("default", "no")
    assert out.warnings == ("thinking",)


def test_thinking_is_switched_off_where_it_can_be() -> None:
    asked = request(reasoning=Reasoning("off", "no"))
    assert fitted(asked, ALL) == Fitted(asked)


def test_thinking_that_is_asked_for_stays_asked_for() -> None:
    asked = request(reasoning=Reasoning("on", "yes"))
    assert fitted(asked) == Fitted(asked)


def test_thinking_a_model_cannot_do_is_told() -> None:
    out = fitted(request(reasoning=Reasoning("on")), Capabilities(thinking_default="off")).request
    assert out.warnings == ("thinking",)
