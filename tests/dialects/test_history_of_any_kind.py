"""A history is never refused, whatever it holds, and nothing of it is lost without a warning."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.chat import Media, Message, Request, Text, Thinking, ToolCall, ToolResult
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import DIALECTS
from headgate.errors import Refused
from headgate.policy.fit import fit
from headgate.policy.history import repair

MARK = "mark-"
MARKED = st.integers(0, 9).map(lambda n: f"{MARK}{n}")
# Values of any kind, as a field of another type than its protocol's.
LOOSE: st.SearchStrategy[Any] = st.recursive(
    st.one_of(MARKED, st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.just("")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["type", "text", "url", "data", "zz"]), inner, max_size=2),
    ),
    max_leaves=4,
)
PDF = "JVBERi0xLjQK"
PNG = "iVBORw0KGgo="
NAMES = (
    "id",
    "call_id",
    "tool_call_id",
    "tool_use_id",
    "name",
    "input",
    "arguments",
    "args",
    "content",
    "output",
    "text",
    "thinking",
    "signature",
    "summary",
    "encrypted_content",
    "source",
    "image_url",
    "file",
    "function",
    "custom",
    "tools",
    "response",
    "is_error",
    "cache_control",
    "namespace",
    "status",
    "refusal",
    "title",
    "mimeType",
    "data",
    "fileUri",
)
FIELDS = st.dictionaries(st.sampled_from(NAMES), LOOSE, max_size=4)


def parts(kinds: tuple[str, ...]) -> st.SearchStrategy[Any]:
    """Parts of these kinds and of none, with fields of any type."""
    made = st.builds(lambda kind, rest: {**rest, "type": kind}, st.sampled_from(kinds), FIELDS)
    return st.one_of(made, made, FIELDS, LOOSE)


BLOCKS = parts(
    (
        "text",
        "image",
        "video",
        "document",
        "thinking",
        "redacted_thinking",
        "tool_use",
        "tool_result",
        "server_tool_use",
        "web_search_tool_result",
        "mcp_tool_use",
        "audio",
        "container_upload",
        "search_result",
        "advisor_tool_result",
        "kind_of_next_month",
    )
)
PARTS = parts(
    (
        "text",
        "image_url",
        "video_url",
        "input_audio",
        "file",
        "refusal",
        "thinking",
        "reasoning",
        "tool_use",
        "tool_result",
        "input_text",
        "output_text",
        "input_image",
        "input_file",
        "kind_of_next_month",
    )
)
GOOGLES = st.dictionaries(
    st.sampled_from(
        [
            "text",
            "thought",
            "thoughtSignature",
            "inlineData",
            "fileData",
            "functionCall",
            "functionResponse",
            "executableCode",
            "codeExecutionResult",
            "toolCall",
            "toolResponse",
            "videoMetadata",
            "kindOfNextMonth",
        ]
    ),
    st.one_of(LOOSE, FIELDS),
    max_size=3,
)
ROLES = st.sampled_from(["user", "assistant", "system", "tool", "function", "model", "critic", 7])


def contents(part: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(MARKED, LOOSE, part, st.lists(part, max_size=3))


CALLS = st.one_of(
    LOOSE,
    st.lists(
        st.one_of(
            LOOSE,
            FIELDS,
            st.fixed_dictionaries({"id": MARKED, "function": st.one_of(LOOSE, FIELDS)}),
        ),
        max_size=2,
    ),
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "role": st.one_of(ROLES, LOOSE),
        "content": contents(PARTS),
        "tool_calls": CALLS,
        "tool_call_id": LOOSE,
        "name": LOOSE,
        "reasoning_content": LOOSE,
        "reasoning": LOOSE,
        "reasoning_details": LOOSE,
        "function_call": st.one_of(LOOSE, FIELDS),
    },
)
TURNS = st.fixed_dictionaries({}, optional={"role": ROLES, "content": contents(BLOCKS)})
CONTENTS = st.fixed_dictionaries(
    {}, optional={"role": ROLES, "parts": st.one_of(LOOSE, GOOGLES, st.lists(GOOGLES, max_size=3))}
)
KINDS = (
    "message",
    "reasoning",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "tool_search_call",
    "tool_search_output",
    "web_search_call",
    "computer_call",
    "computer_call_output",
    "mcp_call",
    "local_shell_call",
    "compaction",
    "item_reference",
    "image_generation_call",
    "kind_of_next_month",
)
ITEMS = st.one_of(
    LOOSE,
    st.builds(
        lambda kind, rest, more: {**rest, **more, "type": kind},
        st.sampled_from(KINDS),
        FIELDS,
        st.fixed_dictionaries({}, optional={"role": ROLES, "content": contents(PARTS)}),
    ),
    st.fixed_dictionaries({"role": ROLES}, optional={"content": contents(PARTS)}),
)
HISTORIES = {
    "openai": st.lists(st.one_of(MESSAGES, LOOSE), max_size=4),
    "anthropic": st.lists(st.one_of(TURNS, LOOSE), max_size=4),
    "gemini": st.lists(st.one_of(CONTENTS, LOOSE), max_size=4),
    "responses": st.lists(ITEMS, max_size=4),
}
ASKED: dict[str, Any] = {
    "openai": {"role": "user", "content": "go on"},
    "anthropic": {"role": "user", "content": "go on"},
    "gemini": {"role": "user", "parts": [{"text": "go on"}]},
    "responses": {"role": "user", "content": "go on"},
}
PLACE = {
    "openai": "messages",
    "anthropic": "messages",
    "gemini": "contents",
    "responses": "input",
}
ROUTES = (
    ("openai", Capabilities()),
    ("anthropic", Capabilities(reasoning_form="blocks", input=("text", "image"))),
    ("gemini", Capabilities(tools=False)),
    ("responses", Capabilities(multi_system=True)),
)


def decoded(dialect: str, history: list[Any]) -> Request:
    body = {"model": "m", "max_tokens": 100, PLACE[dialect]: [*history, ASKED[dialect]]}
    if dialect in ("gemini", "responses"):
        del body["max_tokens"]
    return DIALECTS[dialect].decode_request(json.dumps(body).encode(), RequestTarget("m"))


def told(messages: tuple[Message, ...]) -> str:
    """All texts that the model is shown."""
    out: list[str] = []
    for message in messages:
        for part in message.parts:
            match part:
                case Text(text) | Thinking(text):
                    out.append(text)
                case ToolCall():
                    out += (part.id, part.name, part.arguments)
                case ToolResult():
                    out += [p.text if isinstance(p, Text) else p.address for p in part.parts]
                case Media():
                    out.append(part.address)
    return "\n".join(out)


@given(st.data())
def test_a_history_of_any_kind_is_never_refused_and_nothing_is_lost_in_silence(
    data: st.DataObject,
) -> None:
    dialect = data.draw(st.sampled_from(sorted(HISTORIES)))
    history = data.draw(HISTORIES[dialect])
    name, capabilities = data.draw(st.sampled_from(ROUTES))
    request = decoded(dialect, history)
    sent = fit(
        repair(request, capabilities, dialect),
        capabilities,
        max_output=1000,
        default_max_output=500,
    ).request
    body = DIALECTS[name].encode_request(sent, capabilities, "m", True)
    assert isinstance(msgspec.json.decode(body), dict)
    assert sent.messages[-1].text.endswith("go on")
    said = json.dumps([m for m in history if m])
    shown = told(sent.messages)
    lost = [mark for n in range(10) if (mark := f"{MARK}{n}") in said and mark not in shown]
    # A field that no reader of the protocol knows is no content.
    spoken = [turn for turn in history if not _called(turn)]
    if any(_holds(turn, mark) for mark in lost for turn in spoken):
        assert sent.warnings, (history, shown)


def _called(turn: Any) -> bool:
    """Whether it is an item of a kind that has arguments or an output, and no content."""
    kind = turn.get("type") if isinstance(turn, dict) else None
    return isinstance(kind, str) and kind.endswith(("_call", "_output")) and "output" not in turn


def _holds(value: Any, mark: str) -> bool:
    """Whether the text stands where every protocol has content."""
    if isinstance(value, str):
        return mark in value
    if isinstance(value, list):
        return any(_holds(each, mark) for each in value)
    if isinstance(value, dict):
        names = ("text", "content", "thinking", "output", "parts")
        return any(_holds(value[name], mark) for name in names if name in value)
    return False


# --- examples -------------------------------------------------------------------------------------

_URL = f"data:image/png;base64,{PNG}"
PICTURES: dict[str, Any] = {
    "openai": {"role": "user", "content": [{"type": "image_url", "image_url": {"url": _URL}}]},
    "responses": {"role": "user", "content": [{"type": "input_image", "image_url": _URL}]},
    "anthropic": {
        "role": "user",
        "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
        ],
    },
    "gemini": {
        "role": "user",
        "parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}],
    },
}
PDFS: dict[str, Any] = {
    "openai": {
        "role": "user",
        "content": [{"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}"}}],
    },
    "responses": {
        "role": "user",
        "content": [{"type": "input_file", "file_data": f"data:application/pdf;base64,{PDF}"}],
    },
    "anthropic": {
        "role": "user",
        "content": [
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
            }
        ],
    },
    "gemini": {
        "role": "user",
        "parts": [{"inlineData": {"mimeType": "application/pdf", "data": PDF}}],
    },
}
ANSWERS: dict[str, Any] = {
    "openai": {"role": "assistant", "content": "I see."},
    "responses": {"role": "assistant", "content": "I see."},
    "anthropic": {"role": "assistant", "content": "I see."},
    "gemini": {"role": "model", "parts": [{"text": "I see."}]},
}


def sent(dialect: str, *turns: Any) -> Request:
    body = {"model": "m", PLACE[dialect]: turns}
    request = DIALECTS[dialect].decode_request(json.dumps(body).encode(), RequestTarget("m"))
    blind = Capabilities()
    repaired = repair(request, blind, dialect)
    return fit(repaired, blind, max_output=1000, default_max_output=500).request


@pytest.mark.parametrize("attached", [PICTURES, PDFS], ids=["picture", "PDF"])
@pytest.mark.parametrize("dialect", sorted(PLACE))
def test_what_was_attached_in_an_earlier_turn_becomes_a_note(dialect: str, attached: Any) -> None:
    for between in ([ANSWERS[dialect]], []):  # a refused turn has no answer
        request = sent(dialect, attached[dialect], *between, ASKED[dialect])
        assert "this model cannot read it]" in request.messages[0].text
        assert request.messages[-1].text == "go on"
        assert request.warnings


@pytest.mark.parametrize("attached", [PICTURES, PDFS], ids=["picture", "PDF"])
@pytest.mark.parametrize("dialect", sorted(PLACE))
def test_what_is_attached_to_the_last_message_is_refused(dialect: str, attached: Any) -> None:
    with pytest.raises(Refused) as refused:
        sent(dialect, ASKED[dialect], ANSWERS[dialect], attached[dialect])
    assert refused.value.failure.kind == "invalid"


def test_a_call_in_a_users_turn_is_text_and_so_is_its_result() -> None:
    call = {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}
    answer = {"type": "tool_result", "tool_use_id": "a", "content": "42"}
    request = sent(
        "anthropic",
        {"role": "user", "content": [call]},
        ANSWERS["anthropic"],
        {"role": "user", "content": [answer]},
    )
    shown = told(request.messages)
    assert '[called f: {"x": 1}]' in shown
    assert "42" in shown
    assert "history: tool_use block kept as text" in request.warnings
    assert "history: tool result without its call kept as text" in request.warnings


@pytest.mark.parametrize("dialect", sorted(PLACE))
def test_an_output_without_its_call_is_shown_as_text(dialect: str) -> None:
    output: dict[str, Any] = {
        "openai": {"role": "tool", "tool_call_id": "lost", "content": "42"},
        "responses": {"type": "function_call_output", "call_id": "lost", "output": "42"},
        "anthropic": {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "lost", "content": "42"}],
        },
        "gemini": {
            "role": "user",
            "parts": [{"functionResponse": {"name": "f", "response": {"output": "42"}}}],
        },
    }[dialect]
    request = sent(dialect, ASKED[dialect], ANSWERS[dialect], output)
    assert request.messages[-1].role == "user"
    assert "42" in request.messages[-1].text
    assert request.warnings


def test_of_a_namespace_that_a_search_found_a_malformed_tool_loses_only_itself() -> None:
    found = {
        "type": "namespace",
        "name": "ns",
        "tools": [
            {"type": "function", "name": "good", "parameters": {"type": "object"}},
            {"type": "function", "parameters": {"type": "object"}},
            {"type": "function", "name": "bad", "parameters": [1]},
            {"type": "function", "name": 7},
        ],
    }
    request = sent(
        "responses",
        {"type": "tool_search_call", "call_id": "s", "arguments": {"query": "q"}},
        {"type": "tool_search_output", "call_id": "s", "tools": [found]},
        ASKED["responses"],
    )
    assert [tool.name for tool in request.tools] == ["ns__good"]
    assert "input.tool_search_output" in request.warnings


@pytest.mark.parametrize("text", ["hm", {"text": "hm"}])
@pytest.mark.parametrize("rest", [{}, {"summary": []}, {"content": None, "status": 7}])
def test_reasoning_that_stands_in_a_text_of_its_own_is_kept(text: Any, rest: Any) -> None:
    items = [{"type": "reasoning", "text": text, **rest}, {"role": "user", "content": "Hi"}]
    body = msgspec.json.encode({"model": "m", "input": items})
    request = DIALECTS["responses"].decode_request(body, RequestTarget())
    assert request.messages[0].parts == (Thinking("hm"),)
