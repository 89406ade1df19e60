"""Every block, part, tool and enum of the SDKs' own types is kept, skipped with a warning, or refused by policy.

The cases are made from the types of the installed SDKs, so that a new release brings its own.
"""

import json
import typing
from collections.abc import Iterator
from typing import Any

import anthropic.types as messages_types
import anthropic.types.beta as beta_types
import pytest
import typing_extensions
from google.genai import types as gemini_types
from hypothesis import given
from hypothesis import strategies as st

from headgate.chat import Message, Request, Text, ToolResult
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import DIALECTS
from headgate.errors import Refused
from headgate.policy.history import repair

ANTHROPIC, GEMINI = DIALECTS["anthropic"], DIALECTS["gemini"]
PLAIN = Capabilities()


def members(union: Any) -> Iterator[type]:
    """The alternatives of a union, with those of unions inside."""
    for each in typing.get_args(union) if typing.get_args(union) else (union,):
        if typing.get_args(each) and not typing_extensions.is_typeddict(each):
            yield from members(each)
        elif typing_extensions.is_typeddict(each):  # not the models of replies, which share unions
            yield each


def _is_required(hint: Any, total: bool) -> bool:
    origin = typing.get_origin(hint)
    return origin is typing_extensions.Required or (
        total and origin is not typing_extensions.NotRequired
    )


def sample(hint: Any, depth: int = 0) -> Any:
    """A value of the type, with its required fields only."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing_extensions.Required, typing_extensions.NotRequired, typing.Annotated):
        return sample(args[0], depth)
    if origin is typing.Literal:
        return args[0]
    if typing_extensions.is_typeddict(hint):
        hints = typing_extensions.get_type_hints(hint, include_extras=True)
        # With postponed annotations, `__required_keys__` knows nothing of Required.
        required = [k for k, h in hints.items() if _is_required(h, hint.__total__)]
        return {k: sample(hints[k], depth + 1) for k in required}
    if origin is typing.Union or (origin and "UnionType" in str(origin)):
        return sample(next(a for a in args if a is not type(None)), depth)
    if hint in (int, float):
        return 1
    if hint is bool:
        return True
    if hint is str:
        return "text"
    if origin is dict or hint is object:
        return {}
    return [sample(args[0], depth + 1)] if args and depth < 4 else []


def anthropic_request(**fields: Any) -> Request:
    body = {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
        **fields,
    }
    return ANTHROPIC.decode_request(json.dumps(body).encode(), RequestTarget())


BLOCKS = {
    f"{t.__module__.rpartition('.')[2]}": sample(t)
    for union in (messages_types.ContentBlockParam, beta_types.BetaContentBlockParam)
    for t in members(union)
}
# What a user attached may be refused; nothing else.
ATTACHED = frozenset(("image", "document", "container_upload"))
READ = frozenset(("text", "thinking", "tool_use", "tool_result", "image", "document"))


def test_the_types_of_the_sdks_were_found() -> None:
    assert {"text", "tool_use", "document", "container_upload"} <= {
        b["type"] for b in BLOCKS.values()
    }
    assert len(BLOCKS) > 25 and len(TOOLS) > 15 and len(PARTS) > 10


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_each_block_of_a_turn_is_kept_skipped_with_a_warning_or_an_attachment(
    name: str, role: str
) -> None:
    block = BLOCKS[name]
    said = {"type": "text", "text": "said"}
    try:
        request = anthropic_request(messages=[{"role": role, "content": [said, block]}])
    except Refused as refused:
        assert role == "user" and block["type"] in ATTACHED, refused.failure
        assert refused.failure.code == "unsupported_parameter" or "source" in refused.failure.param
        return
    parts = [p for m in request.messages for p in m.parts]
    kept = len(parts) > 1
    assert Text("said") in parts
    assert kept or request.warnings, "silently dropped"
    assert block["type"] in READ or request.warnings


@pytest.mark.parametrize("name", BLOCKS)
def test_each_block_of_a_result_is_kept_or_noted(name: str) -> None:
    result = {"type": "tool_result", "tool_use_id": "1", "content": [BLOCKS[name]]}
    request = anthropic_request(messages=[{"role": "user", "content": [result]}])
    (message,) = request.messages
    (part,) = message.parts
    assert isinstance(part, ToolResult) and part.parts
    assert request.warnings or BLOCKS[name]["type"] in READ


TOOLS = {
    f"{t.__module__.rpartition('.')[2]}": sample(t)
    for union in (messages_types.ToolUnionParam, beta_types.BetaToolUnionParam)
    for t in members(union)
}


@pytest.mark.parametrize("name", TOOLS)
def test_each_tool_is_declared_or_left_out_with_a_warning(name: str) -> None:
    tool = TOOLS[name]
    kind = tool.get("type", "custom")
    request = anthropic_request(tools=[tool])
    if kind.startswith("web_search_"):
        assert request.search is not None
    elif kind.startswith(("custom", "bash_", "text_editor_", "memory_")):
        assert request.tools[0].name == tool["name"]
        assert bool(request.tools[0].description) == (kind != "custom")
        assert request.warnings == ()
    else:
        assert (request.tools, request.warnings) == ((), (f"tools.{kind}",))
        with pytest.raises(Refused) as caught:
            choice = {"type": "tool", "name": tool.get("name")}
            anthropic_request(tools=[tool], tool_choice=choice)
        assert caught.value.failure.param in ("$.tools[0].type", "$.tool_choice.name")


HINTS = {
    f"{field} {t.__name__}": (field, sample(t))
    for field, union in (
        ("tool_choice", messages_types.ToolChoiceParam),
        ("thinking", messages_types.ThinkingConfigParam),
    )
    for t in members(union)
}


@pytest.mark.parametrize("name", HINTS)
def test_each_hint_is_honoured(name: str) -> None:
    field, value = HINTS[name]
    tools = [{"name": "text", "input_schema": {"type": "object"}}]
    assert anthropic_request(**{field: value}, tools=tools).warnings == ()


# --- Gemini ---


def gemini_request(**fields: Any) -> Request:
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], **fields}
    return GEMINI.decode_request(json.dumps(body).encode(), RequestTarget("m"))


_MEDIA = {"inline_data", "file_data"}
_RICH: dict[str, Any] = {
    "text": "text",
    "thought": True,
    "thought_signature": "aGk=",
    "inline_data": {"mimeType": "application/pdf", "data": "aGk="},
    "file_data": {"mimeType": "application/pdf", "fileUri": "https://x/a.pdf"},
    "function_call": {"name": "f", "args": {}},
    "function_response": {"name": "f", "response": {}},
    "executable_code": {"code": "x"},
    "code_execution_result": {"output": "x"},
}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


PARTS = {name: {_camel(name): _RICH.get(name, {"x": 1})} for name in gemini_types.Part.model_fields}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("role", ["user", "model"])
def test_each_part_is_kept_skipped_with_a_warning_or_an_attachment(name: str, role: str) -> None:
    parts = [{"text": "said"}, PARTS[name]]
    turns = [{"role": role, "parts": parts}]
    if name == "function_response":
        turns.insert(0, {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]})
        turns[1]["role"] = "user"
    try:
        request = gemini_request(contents=turns)
    except Refused as refused:
        assert role == "user" and name in _MEDIA, refused.failure
        assert refused.failure.code == "unsupported_parameter"
        return
    found = [p for m in request.messages for p in m.parts]
    assert any(isinstance(p, Text) and p.text.startswith("said") for p in found)
    silent = not request.warnings and len(found) == 1 and found[0] == Text("said")
    assert not silent or name in ("thought", "thought_signature"), "silently dropped"


ENUMS: dict[str, dict[str, Any]] = {
    **{
        f"mode {m.value}": {"toolConfig": {"functionCallingConfig": {"mode": m.value}}}
        for m in gemini_types.FunctionCallingConfigMode
        if m.value != "ANY"
    },
    **{
        f"level {v.value}": {"generationConfig": {"thinkingConfig": {"thinkingLevel": v.value}}}
        for v in gemini_types.ThinkingLevel
    },
    **{
        f"resolution {v.value}": {"generationConfig": {"mediaResolution": v.value}}
        for v in gemini_types.MediaResolution
    },
    **{
        f"modality {v.value}": {"generationConfig": {"responseModalities": [v.value]}}
        for v in gemini_types.Modality
    },
}


@pytest.mark.parametrize("name", ENUMS)
def test_each_value_of_an_enum_is_read_or_an_effect_refused(name: str) -> None:
    try:
        request = gemini_request(**ENUMS[name])
    except Refused as refused:
        assert name in ("modality IMAGE", "modality AUDIO", "modality VIDEO")
        assert refused.failure.code == "unsupported_parameter"
    else:
        assert bool(request.warnings) == name.startswith("resolution")


@pytest.mark.parametrize("name", [*sorted(gemini_types.Tool.model_fields), "kind_of_next_year"])
def test_each_tool_of_googles_is_declared_or_left_out_with_a_warning(name: str) -> None:
    key = _camel(name)
    if name == "function_declarations":
        return
    functions = {"functionDeclarations": [{"name": "f"}]}
    for place in (key, name):  # both spellings
        request = gemini_request(tools=[{place: {}}, functions])
        assert [tool.name for tool in request.tools] == ["f"]
        if key in ("googleSearch", "googleSearchRetrieval", "enterpriseWebSearch"):
            assert request.search is not None
        else:
            assert request.warnings == (f"tools.{key}",)


# --- any history ---

KINDS = st.text("abcdefghij_", min_size=1, max_size=12).map("new_".__add__)
UNKNOWN = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    KINDS,
    st.dictionaries(
        st.sampled_from(["text", "content", "data", "source", "id", "title", "input"]),
        st.none() | st.integers() | st.text(max_size=8) | st.just([{"type": "text", "text": "t"}]),
        max_size=3,
    ),
)
TURNS = st.lists(
    st.tuples(st.sampled_from(["user", "assistant", "critic"]), st.lists(UNKNOWN, max_size=3)),
    max_size=4,
)


@given(TURNS)
def test_a_history_of_unknown_kinds_is_no_400_and_not_silent(turns: list[Any]) -> None:
    history = [{"role": role, "content": blocks} for role, blocks in turns]
    request = anthropic_request(messages=[*history, {"role": "user", "content": "go"}])
    repaired = repair(request, PLAIN, "anthropic")
    assert repaired.messages[-1] == Message("user", (Text("go"),))
    assert request.warnings or not any(blocks or role == "critic" for role, blocks in turns)


@given(TURNS)
def test_a_gemini_history_of_unknown_kinds_is_no_400_and_not_silent(turns: list[Any]) -> None:
    history = [
        {
            "role": "model" if role == "assistant" else role,
            "parts": [{block["type"]: block} for block in blocks],
        }
        for role, blocks in turns
    ]
    request = gemini_request(contents=[*history, {"role": "user", "parts": [{"text": "go"}]}])
    repaired = repair(request, PLAIN, "gemini")
    assert repaired.messages[-1] == Message("user", (Text("go"),))
    assert request.warnings or not any(blocks or role == "critic" for role, blocks in turns)
