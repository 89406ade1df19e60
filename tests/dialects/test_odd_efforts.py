"""An effort that is no known word is a hint: the nearest, or ignored with a warning, and never a refusal."""

import json

import pytest

from headgate.chat import Request
from headgate.dialects.contract import Dialect, RequestTarget
from headgate.dialects.registry import ANTHROPIC, GEMINI, OPENAI, RESPONSES

ASK: dict[str, object] = {"messages": [{"role": "user", "content": "x"}]}


def decoded(dialect: Dialect, value: object) -> Request:
    bodies: dict[str, dict[str, object]] = {
        "openai": {**ASK, "model": "m", "reasoning_effort": value},
        "responses": {"input": "x", "model": "m", "reasoning": {"effort": value}},
        "anthropic": {**ASK, "model": "m", "max_tokens": 9, "output_config": {"effort": value}},
        "gemini": {
            "contents": [{"parts": [{"text": "x"}]}],
            "generationConfig": {"thinkingConfig": {"thinkingLevel": value}},
        },
    }
    body = json.dumps(bodies[dialect.name]).encode()
    return dialect.decode_request(body, RequestTarget(model="m"))


@pytest.mark.parametrize("dialect", [OPENAI, RESPONSES, ANTHROPIC, GEMINI], ids=lambda d: d.name)
@pytest.mark.parametrize(
    ("value", "effort"),
    [
        ("ultra", "max"),
        ("highest", "max"),
        ("  High ", "high"),
        ("default", ""),
        ("auto", ""),
        ("off", "none"),
        (5, ""),
        (2.5, ""),
        (True, ""),
        (["high"], ""),
        ({"a": {"b": 1}}, ""),
        ("\x00", ""),
        (None, ""),
    ],
)
def test_it_is_the_nearest_or_ignored_with_a_warning(
    dialect: Dialect, value: object, effort: str
) -> None:
    request = decoded(dialect, value)
    if effort == "none":
        assert request.reasoning.mode == "off"
    else:
        assert request.reasoning.effort == effort
    unsaid = value is None or (dialect is GEMINI and value == "  High ")
    assert bool(request.warnings) is not unsaid, request.warnings
