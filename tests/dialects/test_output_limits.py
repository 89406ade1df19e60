"""Limits of output tokens as clients write them: no limit, in another form, or refused by name."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.bounds import MAX_TOKENS_BOUND
from headgate.chat import Request
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import COMPACT, DIALECTS
from headgate.errors import Refused

USER = {"role": "user", "content": "hi"}
# (dialect, where the limit stands)
PLACES = [
    ("openai", "max_tokens"),
    ("openai", "max_completion_tokens"),
    ("responses", "max_output_tokens"),
    ("anthropic", "max_tokens"),
    ("gemini", "generationConfig.maxOutputTokens"),
    ("gemini", "generation_config.max_output_tokens"),
    ("gemini", "generationConfig.max_output_tokens"),
]
NUMBERS = [*PLACES, ("cursor", "max_output_tokens")]


def ask(dialect: str, place: str, limit: Any, **more: Any) -> Request:
    body: dict[str, Any] = {"model": "m", "messages": [USER], **more}
    if dialect in ("responses", "cursor"):
        body = {"model": "m", "input": "hi", **more}
    elif dialect == "gemini":
        body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], **more}
    outer, _, inner = place.partition(".")
    body[outer] = {inner: limit} if inner else limit
    codec = DIALECTS["openai" if dialect == "cursor" else dialect]
    return codec.decode_request(json.dumps(body).encode(), RequestTarget("m"))


@pytest.mark.parametrize("limit", [0, -1, 0.0, "0", "-1", MAX_TOKENS_BOUND + 1, 2**63, 10**30])
@pytest.mark.parametrize(("dialect", "place"), NUMBERS)
def test_what_limits_nothing_is_left_out_with_a_warning(
    dialect: str, place: str, limit: Any
) -> None:
    request = ask(dialect, place, limit)
    if dialect == "anthropic" and float(limit) == 0:
        assert request.sampling.max_tokens == 1
        assert request.warnings == (f"{place} (0 sent as 1)",)
    else:
        assert (request.sampling.max_tokens, request.warnings) == (None, (place,))


@pytest.mark.parametrize("form", [100, 100.0, "100", "100.0"])
@pytest.mark.parametrize(("dialect", "place"), NUMBERS)
def test_a_whole_number_is_read_in_any_form(dialect: str, place: str, form: Any) -> None:
    request = ask(dialect, place, form)
    assert (request.sampling.max_tokens, request.warnings) == (100, ())


@pytest.mark.parametrize("limit", [-2, 12.7, "many", "", True, [5], {"most": 5}, "1e3", "0x10"])
@pytest.mark.parametrize(("dialect", "place"), PLACES)
def test_what_is_no_limit_is_refused_by_its_name(dialect: str, place: str, limit: Any) -> None:
    with pytest.raises(Refused) as refused:
        ask(dialect, place, limit)
    named = place.replace("generation_config", "generationConfig")
    named = named.replace("generationConfig.max_output_tokens", "generationConfig.maxOutputTokens")
    assert refused.value.failure.param == f"$.{named}"


def test_both_limits_of_chat_may_be_none() -> None:
    request = ask("openai", "max_tokens", 0, max_completion_tokens=0)
    assert request.sampling.max_tokens is None
    assert set(request.warnings) == {"max_tokens", "max_completion_tokens"}


@pytest.mark.parametrize("dialect", ["openai", "responses", "anthropic", "gemini"])
def test_an_odd_limit_beside_a_history_of_another_shape_is_read_too(dialect: str) -> None:
    place = next(place for name, place in PLACES if name == dialect)
    history: dict[str, Any] = {
        "openai": {"messages": [{"role": "critic", "content": "x"}, USER]},
        "responses": {"input": [{"type": "kind_of_next_month", "text": "x"}, USER]},
        "anthropic": {"messages": [{"role": "user", "content": 7}, USER]},
        "gemini": {
            "contents": [{"role": 7, "parts": [{"text": "x"}]}, {"parts": [{"text": "hi"}]}]
        },
    }[dialect]
    request = ask(dialect, place, "100", **history)
    assert request.sampling.max_tokens == 100
    assert request.warnings


def test_a_summary_may_have_no_limit() -> None:
    body = b'{"model":"m","input":"hi","max_output_tokens":0}'
    request = COMPACT.decode_request(body, RequestTarget())
    assert (request.sampling.max_tokens, request.warnings) == (None, ("max_output_tokens",))


def test_a_limit_that_is_given_twice_is_refused() -> None:
    body = b'{"model":"m","max_tokens":0,"max_tokens":5,"messages":[{"role":"user","content":"x"}]}'
    for name in ("openai", "anthropic"):
        with pytest.raises(Refused):
            DIALECTS[name].decode_request(body, RequestTarget())


@given(st.sampled_from(PLACES), st.integers(-(2**80), 2**80) | st.floats() | st.text(max_size=20))
def test_a_limit_of_any_value_is_a_number_none_or_refused_by_name(
    place: tuple[str, str], limit: Any
) -> None:
    try:
        found = ask(*place, limit).sampling.max_tokens
    except Refused as refused:
        assert refused.failure.kind == "invalid"
    else:
        assert found is None or 1 <= found <= MAX_TOKENS_BOUND
