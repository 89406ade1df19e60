"""What OpenAI's clients send and the gateway does not know: kept, skipped with a warning, or refused.

The kinds are read from the types of the installed `openai` package, so that a new release of it
brings new cases.
"""

import json
import typing
from typing import Any, Literal, NotRequired, Required, get_args, get_origin

import openai.types.responses.response_input_item_param as items_in
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import (
    ChatCompletionContentPartParam,
    ChatCompletionMessageParam,
    ChatCompletionToolUnionParam,
)
from openai.types.chat.chat_completion_assistant_message_param import ContentArrayOfContentPart
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses import (
    ResponseCompactionItem,
    ResponseFunctionCallOutputItemParam,
    ResponseInputContentParam,
    ToolParam,
)
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from openai.types.shared_params import Reasoning as ReasoningParam
from typing_extensions import is_typeddict

from headgate.chat import (
    Choice,
    Delta,
    Finish,
    Media,
    Message,
    PartStart,
    PartStop,
    Reply,
    Request,
    Start,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    replay,
)
from headgate.dialects.compaction import compacted
from headgate.dialects.contract import ReplyFacts, RequestTarget
from headgate.dialects.registry import OPENAI, RESPONSES
from headgate.dialects.unknown import MOST_WARNINGS
from headgate.errors import Failure, Refused

FACTS = ReplyFacts("1", "MiniMax-M2", 1700000000)
USER = {"role": "user", "content": "hi"}
AFTER = {"role": "user", "content": "go on"}


def chat(*messages: Any, **fields: Any) -> Request:
    body = {"model": "m", "messages": list(messages) or [USER], **fields}
    return OPENAI.decode_request(json.dumps(body).encode(), RequestTarget())


def responses(*items: Any, **fields: Any) -> Request:
    body = {"model": "m", "input": list(items) or "hi", **fields}
    return RESPONSES.decode_request(json.dumps(body).encode(), RequestTarget())


# --- examples of the vendors' types --------------------------------------------------------------


def example(kind: Any, depth: int = 0) -> Any:
    """A value of a type with everything that it requires, and most of what it does not."""
    origin = get_origin(kind)
    if origin in (Required, NotRequired, typing.Annotated):
        return example(get_args(kind)[0], depth)
    if origin is Literal:
        return get_args(kind)[0]
    if origin is typing.Union or str(origin) == "<class 'types.UnionType'>":
        return example(next(a for a in get_args(kind) if a is not type(None)), depth)
    if is_typeddict(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return {
            name: example(hint, depth + 1)
            for name, hint in hints.items()
            if depth < 3 or get_origin(hint) is Required
        }
    if kind is object:
        return {}
    if kind in (str, typing.Any) or isinstance(kind, typing.TypeVar):
        return "some text"
    if kind is bool:
        return False
    if kind in (int, float):
        return 1
    if origin is dict or str(origin).endswith("Mapping'>"):
        return {}
    return [example(get_args(kind)[0], depth + 1)] if get_args(kind) else []


def members(union: Any) -> list[Any]:
    """The types of a union, of unions in it too."""
    found: list[Any] = []
    for each in get_args(union):
        found += [each] if is_typeddict(each) else members(each)
    return found


def kinds(union: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for each in members(union):
        made = example(each)
        out[f"{made.get('type') or made.get('role')} ({each.__name__})"] = made
    return out


ITEMS = kinds(items_in.ResponseInputItemParam)
RESPONSE_TOOLS = kinds(ToolParam)
RESPONSE_PARTS = kinds(ResponseInputContentParam) | kinds(ResponseFunctionCallOutputItemParam)
MESSAGES = kinds(ChatCompletionMessageParam)
CHAT_PARTS = kinds(ChatCompletionContentPartParam) | kinds(ContentArrayOfContentPart)
CHAT_TOOLS = kinds(ChatCompletionToolUnionParam)


def test_the_vendors_types_were_found() -> None:
    assert len(ITEMS) > 25 and len(RESPONSE_TOOLS) > 12 and len(MESSAGES) > 5
    assert len(RESPONSE_PARTS) >= 3 and len(CHAT_PARTS) >= 5 and len(CHAT_TOOLS) == 2


@pytest.mark.parametrize("name", ITEMS)
def test_every_item_is_kept_or_skipped_with_a_warning(name: str) -> None:
    item = ITEMS[name]
    before, after = responses(USER, AFTER), responses(USER, item, AFTER)
    kept = after.messages != before.messages or after.tools != before.tools
    declares = item.get("type") in ("additional_tools", "tool_search_output", "tool_search_call")
    silent = item.get("type") == "reasoning" and "encrypted_content" not in item
    assert kept or after.warnings or declares or silent


@pytest.mark.parametrize("name", ITEMS)
def test_an_item_with_fields_of_other_types_ends_no_session(name: str) -> None:
    kind = ITEMS[name].get("type", "message")
    if kind in (
        "message",
        "function_call",
        "custom_tool_call",
        "function_call_output",
        "custom_tool_call_output",
        "additional_tools",
        "tool_search_call",
        "tool_search_output",
    ):
        return  # what is known and wrong is refused with its address
    for odd in ({"a": 1}, [1], 5, True, "text"):
        item = {
            "type": kind,
            "id": "i",
            "content": odd,
            "output": odd,
            "arguments": odd,
            "tools": odd,
            "summary": odd,
            "name": odd,
            "call_id": odd,
        }
        assert responses(USER, item, AFTER).messages


@pytest.mark.parametrize("role", ["user", "assistant", "system", "tool"])
@pytest.mark.parametrize("name", RESPONSE_PARTS)
def test_every_part_of_responses_is_kept_or_noted(name: str, role: str) -> None:
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    content = [RESPONSE_PARTS[name]]
    item = {"type": "function_call_output", "call_id": "1", "output": content}
    if role != "tool":
        item = {"role": role, "content": content}
    request = responses(USER, call, item, AFTER)
    assert sum(len(m.parts) for m in request.messages) == 4
    assert request.warnings or RESPONSE_PARTS[name]["type"] in ("input_text", "input_image")


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_of_chat_is_kept_or_skipped_with_a_warning(name: str) -> None:
    request = chat(USER, MESSAGES[name], AFTER)
    assert len(request.messages) > 2 or request.warnings


@pytest.mark.parametrize("role", ["user", "assistant", "system", "tool"])
@pytest.mark.parametrize("name", CHAT_PARTS)
def test_every_part_of_chat_is_kept_or_noted(name: str, role: str) -> None:
    message = {"role": role, "content": [CHAT_PARTS[name]], "tool_call_id": "1"}
    request = chat(USER, message, AFTER)
    assert any(p for m in request.messages[1:-1] for p in m.parts)
    if CHAT_PARTS[name]["type"] in ("input_audio", "file") or (
        CHAT_PARTS[name]["type"] == "image_url" and role in ("assistant", "system")
    ):
        assert request.warnings


CALLABLE = ("function", "custom", "namespace")


@pytest.mark.parametrize("name", RESPONSE_TOOLS)
def test_every_tool_of_responses_is_offered_or_left_out_with_a_warning(name: str) -> None:
    tool = RESPONSE_TOOLS[name]
    request = responses(tools=[tool])
    if tool["type"] in CALLABLE:
        assert request.tools
    elif tool["type"].startswith("web_search"):
        assert request.search is not None
        return
    else:
        assert request.tools or any(w.startswith("tools.") for w in request.warnings)
    if tool["type"] not in CALLABLE and not request.tools:
        with pytest.raises(Refused, match="is not supported"):
            responses(tools=[tool], tool_choice={"type": tool["type"]})


@pytest.mark.parametrize("name", CHAT_TOOLS)
def test_every_tool_of_chat_is_offered(name: str) -> None:
    assert chat(tools=[CHAT_TOOLS[name]]).tools


def words(kind: Any) -> list[Any]:
    """The values of all literals in a type."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [w for each in get_args(kind) for w in words(each)]


def enums(params: Any) -> list[tuple[str, Any]]:
    hints = typing.get_type_hints(params, include_extras=True)
    return [
        (name, word)
        for name, hint in hints.items()
        for word in words(hint)
        if name not in ("model", "stream", "tool_choice", "modalities", "function_call")
        and isinstance(word, str)
    ]


CHAT_HINTS = enums(CompletionCreateParamsNonStreaming)
RESPONSE_HINTS = enums(ResponseCreateParamsNonStreaming)
ODD = ("ultra", "default", "a_word_of_next_year", "")


@pytest.mark.parametrize(("name", "word"), CHAT_HINTS)
def test_every_word_of_chat_is_taken(name: str, word: str) -> None:
    assert chat(**{name: word}).messages


@pytest.mark.parametrize(("name", "word"), RESPONSE_HINTS)
def test_every_word_of_responses_is_taken(name: str, word: str) -> None:
    value = [word] if name == "include" else word
    if name in ("tools", "input", "text"):
        return
    assert responses(**{name: value}).messages


@pytest.mark.parametrize("word", ODD)
@pytest.mark.parametrize("name", ["service_tier", "truncation"])
def test_an_unknown_word_of_a_hint_is_named_in_the_warnings(name: str, word: str) -> None:
    if (name, word) == ("service_tier", "default"):
        return
    assert responses(**{name: word}).warnings == (name,)


@pytest.mark.parametrize("effort", words(typing.get_type_hints(ReasoningParam)["effort"]))
def test_the_vendors_efforts_are_known(effort: str) -> None:
    assert chat(reasoning_effort=effort).warnings == ()
    assert responses(reasoning={"effort": effort}).reasoning.effort == effort


@pytest.mark.parametrize(
    ("effort", "nearest"),
    [
        ("ultra", "max"),
        ("Ultra", "max"),
        ("HIGH", "high"),
        ("off", "none"),
        ("maximum", "max"),
        ("default", ""),
        ("auto", ""),
        ("a_word_of_next_year", ""),
        (7, ""),
        ({}, ""),
    ],
)
def test_an_effort_becomes_the_nearest_or_none(effort: Any, nearest: str) -> None:
    request = chat(reasoning_effort=effort)
    assert (request.reasoning.effort, request.warnings) == (nearest, ("reasoning_effort",))
    request = responses(reasoning={"effort": effort, "summary": "auto"})
    assert (request.reasoning.effort, request.warnings) == (nearest, ("reasoning.effort",))


def test_hints_of_the_wrong_type_are_left_out_with_a_warning() -> None:
    assert responses(text={"verbosity": 5}).warnings == ("text.verbosity",)
    assert responses(reasoning={"summary": True}).warnings == ("reasoning.summary",)
    assert responses(include=[5]).warnings == ("include",)
    assert responses(service_tier=5, truncation={}).warnings == ("service_tier", "truncation")
    assert chat(thinking={"type": "maybe"}, verbosity=3).warnings == ("thinking", "verbosity")


def test_an_effect_that_cannot_be_had_is_refused_beside_what_can_be_read() -> None:
    for fields in ({"n": 2}, {"logprobs": True}, {"modalities": ["audio"]}):
        with pytest.raises(Refused, match="is not supported"):
            chat({"role": "critic", "content": "x"}, USER, reasoning_effort="ultra", **fields)
    with pytest.raises(Refused, match="`background` is not supported"):
        responses({"type": "next_year"}, USER, background=True)


def test_a_key_given_twice_is_refused_also_beside_unknown_history() -> None:
    body = b'{"model":"m","model":"n","messages":[{"role":"critic","content":"x"}]}'
    with pytest.raises(Refused):
        OPENAI.decode_request(body, RequestTarget())


# --- Hypothesis: histories with unknown kinds ----------------------------------------------------

WORD = st.from_regex(r"[a-z_]{1,12}", fullmatch=True).map(lambda w: f"new_{w}")
VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["text", "content", "id", "call_id", "output", "input", "type", "name", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "text",
            "content",
            "summary",
            "id",
            "call_id",
            "name",
            "arguments",
            "input",
            "output",
            "tools",
            "role",
            "namespace",
            "encrypted_content",
            "action",
        ]
    ),
    VALUE,
    max_size=5,
)
UNKNOWN = st.builds(lambda kind, fields: {**fields, "type": kind}, WORD, FIELDS)
ROLE = st.sampled_from(["user", "assistant", "system", "developer"])


@settings(max_examples=150, deadline=None)
@given(st.lists(UNKNOWN, min_size=1, max_size=4))
def test_unknown_items_never_end_a_session_and_are_never_silent(items: list[Any]) -> None:
    request = responses(USER, *items, AFTER)
    assert request.messages[0] == Message("user", (Text("hi"),))
    assert request.warnings


@settings(max_examples=150, deadline=None)
@given(ROLE, st.lists(UNKNOWN, min_size=1, max_size=4), st.booleans())
def test_unknown_parts_never_end_a_session_and_are_never_silent(
    role: str, parts: list[Any], last: bool
) -> None:
    message = {"role": role, "content": parts}
    after = [] if last else [AFTER]
    for request in (chat(USER, message, *after), responses(USER, message, *after)):
        assert request.messages[0] == Message("user", (Text("hi"),))
        assert request.warnings


@settings(max_examples=100, deadline=None)
@given(WORD, VALUE, st.lists(UNKNOWN, max_size=3))
def test_unknown_roles_and_results_never_end_a_session(
    role: str, content: Any, parts: list[Any]
) -> None:
    assert chat({"role": role, "content": content}, AFTER).warnings
    called = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    call = {"role": "assistant", "tool_calls": [called]}
    result = {"role": "tool", "tool_call_id": "1", "content": parts}
    assert chat(USER, call, result).messages[-1].role == "tool"
    item = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    for output in (content, parts):
        found = responses(USER, item, {**item, "type": "function_call_output", "output": output})
        assert found.messages[-1].role == "tool"


def test_warnings_hold_no_words_of_the_client_that_a_header_cannot_hold_and_are_bounded() -> None:
    items = [{"type": f"kind_{n}", "text": "x"} for n in range(100)]
    assert len(responses(*items).warnings) == MOST_WARNINGS
    odd = responses({"type": "a\r\nx: y", "text": "x"}).warnings
    assert odd == ("input.unknown",)


# --- examples from the field ---------------------------------------------------------------------


def test_what_chat_clients_replay_of_other_vendors_is_read() -> None:
    request = chat(
        {"role": "user", "content": [{"type": "input_text", "text": "read a.txt"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "I read it.", "signature": "s"},
                {"type": "output_text", "text": "Reading."},
                {"type": "tool_use", "id": "t1", "name": "read", "input": {"path": "a.txt"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": [{"type": "text", "text": "A"}],
                },
                {"type": "text", "text": "go on"},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "ok"}],
        },
        AFTER,
    )
    assert request.messages == (
        Message("user", (Text("read a.txt"),)),
        Message(
            "assistant",
            (
                Thinking("I read it.", "s"),
                Text("Reading."),
                ToolCall("t1", "read", '{"path":"a.txt"}'),
            ),
        ),
        Message("tool", (ToolResult("t1", (Text("A"),)),)),
        Message("user", (Text("go on"),)),
        Message("assistant", (Thinking("hm"), Text("ok"))),
        Message("user", (Text("go on"),)),
    )
    assert request.warnings == ()


def test_calls_in_the_old_form_of_chat_are_read() -> None:
    request = chat(
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "4"},
    )
    assert request.messages[1:] == (
        Message("assistant", (ToolCall("call_function_1", "f", "{}"),)),
        Message("tool", (ToolResult("call_function_1", (Text("4"),), name="f"),)),
    )


def test_an_attachment_is_refused_in_the_last_message_and_noted_in_the_history() -> None:
    for kind, ask in (("file", chat), ("input_file", responses), ("input_audio", responses)):
        message = {"role": "user", "content": [{"type": kind, kind: {"file_id": "f"}}]}
        with pytest.raises(Refused, match=f"{kind}` is not supported"):
            ask(USER, message)
        request = ask(message, {"role": "assistant", "content": "No."}, AFTER)
        assert "was here; this model cannot read it]" in request.messages[0].text
        assert request.warnings
    broken = {"type": "image_url", "image_url": {"url": "file:///x"}}
    assert chat({"role": "user", "content": [broken]}, AFTER).warnings


def test_pictures_in_the_forms_of_others_are_pictures() -> None:
    picture = Media("image", media_type="image/png", data="aGk=")
    address = "data:image/png;base64,aGk="
    for part in (
        {"type": "input_image", "image_url": address},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {"type": "image", "image": "aGk=", "mediaType": "image/png"},
        {"type": "image_url", "image_url": {"url": address}},
    ):
        message = {"role": "user", "content": [part]}
        assert chat(message).messages[0].parts == (picture,)
        assert responses(message).messages[0].parts == (picture,)


FLAT = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}
PATCH = {
    "type": "custom",
    "name": "ApplyPatch",
    "description": "Patches files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"},
}


def test_flat_tools_of_cursor_are_tools() -> None:
    request = chat(tools=[FLAT, PATCH], tool_choice={"type": "function", "name": "f"})
    assert [(t.name, t.custom) for t in request.tools] == [("f", False), ("ApplyPatch", True)]
    assert request.choice == Choice("named", "f")
    assert "start: x" in bytes(request.tools[1].parameters).decode()
    nested = {k: v for k, v in PATCH.items() if k != "type"}
    assert chat(tools=[{"type": "custom", "custom": nested}]).tools == (request.tools[1],)


def test_chat_takes_the_input_of_responses() -> None:
    body = {
        "model": "m",
        "input": [USER, {"role": "assistant", "content": "ho"}, AFTER],
        "tools": [FLAT, PATCH],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    request = OPENAI.decode_request(json.dumps(body).encode(), RequestTarget())
    assert [m.text for m in request.messages] == ["hi", "ho", "go on"]
    assert [t.name for t in request.tools] == ["f", "ApplyPatch"]
    assert request.stream and request.want_usage
    text = json.dumps({"model": "m", "input": "hi", "stream": True}).encode()
    assert not OPENAI.decode_request(text, RequestTarget()).want_usage
    with pytest.raises(Refused, match="messages"):
        OPENAI.decode_request(b'{"model":"m"}', RequestTarget())


def test_a_freeform_call_of_chat_is_given_back_as_one() -> None:
    request = chat(tools=[PATCH])
    call = ToolCall("c", "ApplyPatch", '{"input":"a\\nb"}')
    whole = json.loads(OPENAI.encode_reply(Reply((call,), Finish("tool_calls")), request, FACTS))
    custom = {"name": "ApplyPatch", "input": "a\nb"}
    assert whole["choices"][0]["message"]["tool_calls"] == [
        {"id": "c", "custom": custom, "type": "custom"}
    ]
    encoder = OPENAI.encoder(request, FACTS, RequestTarget())
    events = [
        Start(),
        PartStart("tool_call", "c", "ApplyPatch"),
        Delta('{"input":'),
        Delta('"a\\nb"}'),
        PartStop(),
        Finish("tool_calls"),
    ]
    lines = encoder.feed(events).decode().split("\n\n")
    read = [json.loads(x[6:]) for x in lines if x.startswith("data: {")]
    deltas = [chunk["choices"][0]["delta"] for chunk in read if chunk["choices"]]
    calls = [d["tool_calls"][0] for d in deltas if "tool_calls" in d]
    assert calls[0]["type"] == "custom" and calls[0]["custom"] == {
        "name": "ApplyPatch",
        "input": "",
    }
    assert calls[1]["custom"]["input"] == "a\nb"


INNER = [
    {"type": "custom", "name": "exec", "description": "Runs code."},
    {"type": "function", "name": "wait", "parameters": {"type": "object"}},
]
NAMESPACE = {"type": "namespace", "name": "code", "description": "Code.", "tools": INNER}


def test_additional_tools_are_the_tools_of_the_request() -> None:
    added = {"type": "additional_tools", "role": "developer", "tools": [NAMESPACE, FLAT]}
    request = responses(added, USER, tool_choice={"type": "function", "name": "f"})
    assert [(t.name, t.custom) for t in request.tools] == [
        ("code__exec", True),
        ("code__wait", False),
        ("f", False),
    ]
    assert request.messages == (Message("user", (Text("hi"),)),)
    assert request.warnings == ()
    twice = responses(added, USER, {**added, "tools": [{**FLAT, "description": "new"}]}, AFTER)
    assert [t.name for t in twice.tools] == [t.name for t in request.tools]
    assert twice.tools[-1].description == "new"
    hosted = {**added, "tools": [{"type": "mcp", "server_label": "x"}, FLAT]}
    assert responses(hosted, USER).warnings == ("tools.mcp",)


SEARCH = {"type": "tool_search", "execution": "client", "description": "Finds tools."}
SEARCHED = {
    "type": "tool_search_call",
    "call_id": "s1",
    "arguments": {"query": "run code"},
    "execution": "client",
    "status": "completed",
}
FOUND = {"type": "tool_search_output", "call_id": "s1", "execution": "client", "tools": [NAMESPACE]}


def test_tools_that_a_search_found_are_declared_and_its_history_is_kept() -> None:
    call = {
        "type": "function_call",
        "call_id": "2",
        "namespace": "code",
        "name": "wait",
        "arguments": "{}",
    }
    output = {"type": "function_call_output", "call_id": "2", "output": "done"}
    request = responses(USER, SEARCHED, FOUND, call, output, tools=[SEARCH])
    assert [t.name for t in request.tools] == ["tool_search", "code__exec", "code__wait"]
    assert request.messages[1:] == (
        Message("assistant", (ToolCall("s1", "tool_search", '{"query":"run code"}'),)),
        Message("tool", (ToolResult("s1", (Text('{"tools":["code__exec","code__wait"]}'),)),)),
        Message("assistant", (ToolCall("2", "code__wait", "{}"),)),
        Message("tool", (ToolResult("2", (Text("done"),)),)),
    )
    assert request.warnings == ()


def test_a_search_that_the_vendor_executes_is_a_hint() -> None:
    assert responses(tools=[{"type": "tool_search"}]).warnings == ("tools.tool_search",)


@pytest.mark.parametrize("added", [False, True])
def test_a_search_is_given_back_as_one(added: bool) -> None:
    request = responses(tools=[SEARCH])
    if added:
        request = responses(
            {"type": "additional_tools", "role": "developer", "tools": [SEARCH]}, USER
        )
    call = ToolCall("c", "tool_search", '{\n"query": "x"}')
    reply = Reply((call,), Finish("tool_calls"))
    item = {
        "id": "tsc_1_0",
        "call_id": "c",
        "arguments": {"query": "x"},
        "status": "completed",
        "execution": "client",
        "type": "tool_search_call",
    }
    assert json.loads(RESPONSES.encode_reply(reply, request, FACTS))["output"] == [item]
    encoder = RESPONSES.encoder(request, FACTS, RequestTarget())
    events = [
        Start(),
        PartStart("tool_call", "c", "tool_search"),
        Delta(call.arguments),
        PartStop(),
        Finish("tool_calls"),
    ]
    lines = [x for x in encoder.feed(events).decode().split("\n") if x.startswith("data: ")]
    found = [json.loads(x[6:]) for x in lines]
    assert [e["item"] for e in found if e["type"] == "response.output_item.done"] == [item]
    assert found[-1]["response"]["output"] == [item]
    assert not any("function_call" in e["type"] for e in found)


def test_references_are_resolved_or_dropped_with_a_warning() -> None:
    output = {"type": "function_call_output", "call_id": "1", "output": "four"}
    call = {"type": "function_call", "id": "fc", "call_id": "1", "name": "f", "arguments": "{}"}
    request = responses(USER, {"type": "item_reference", "id": "rs_1"}, call, output)
    assert [m.role for m in request.messages] == ["user", "assistant", "tool"]
    assert request.warnings == ("input.item_reference",)
    assert responses(USER, call, {"type": "item_reference", "id": "fc"}, output).warnings == ()
    lost = responses(USER, {"id": "fc_1"}, output)
    assert [m.role for m in lost.messages] == ["user", "user"]
    assert "four" in lost.messages[1].text


def test_calls_of_the_vendors_own_tools_are_kept_with_their_outputs() -> None:
    request = responses(
        USER,
        {"type": "shell_call", "call_id": "1", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "call_id": "1", "output": [{"stdout": "a", "stderr": ""}]},
        {"type": "local_shell_call", "call_id": "2", "action": {"command": ["ls"]}},
        {"type": "local_shell_call_output", "id": "2", "output": "b"},
        {"type": "mcp_call", "id": "3", "name": "find", "arguments": '{"q":1}', "output": "c"},
    )
    calls = [p for m in request.messages for p in m.parts if isinstance(p, ToolCall)]
    assert [(c.name, c.arguments) for c in calls] == [
        ("shell", '{"action":{"commands":["ls"]}}'),
        ("local_shell", '{"action":{"command":["ls"]}}'),
        ("find", '{"q":1}'),
    ]
    results = [p.parts for m in request.messages for p in m.parts if isinstance(p, ToolResult)]
    assert results[1:] == [(Text("b"),), (Text("c"),)] and len(results) == 3
    assert "input.shell_call" in request.warnings


def test_a_compaction_of_ours_is_a_summary_and_others_are_skipped() -> None:
    ours = {"type": "compaction", "encrypted_content": compacted("We did é.")}
    assert responses(ours, USER).messages[0].text.endswith("We did é.")
    request = responses({"type": "compaction", "encrypted_content": "gAAAA"}, USER)
    assert request.warnings == ("input.compaction",)


def test_a_failure_in_a_stream_of_chat_has_a_type_that_clients_know() -> None:
    for kind in ("upstream", "upstream_auth", "timeout", "overloaded", "internal"):
        encoder = OPENAI.encoder(chat(stream=True), FACTS, RequestTarget())
        (out,) = encoder.fail(Failure(kind, "No."))  # type: ignore[arg-type]
        assert json.loads(out[6:])["error"]["type"] == "server_error"
    encoder = OPENAI.encoder(chat(stream=True), FACTS, RequestTarget())
    (out,) = encoder.fail(Failure("rate_limit", "No."))
    assert json.loads(out[6:])["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize("role", [[], {}, ["user"], {"a": 1}, 1, None])
def test_a_role_that_is_no_word_is_that_of_a_user(role: Any) -> None:
    assert chat({"role": role, "content": "x"}, AFTER).messages[0].role == "user"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "odd"}] * 60_000}] * 2}, "messages"),
        ({"messages": [{"role": "odd", "content": "x"}] * 60_000}, "messages"),
        ({"input": [{"role": "user", "content": [{"type": "odd"}] * 60_000}] * 2}, "input"),
        ({"input": [{"type": "odd", "text": "x"}] * 60_000}, "input"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "tool_result", "tool_use_id": "a", "content": [{}] * 110_000}
                        ],
                    }
                ]
            },
            "messages",
        ),
    ],
)
def test_unknown_things_are_counted_before_they_are_rewritten(
    body: dict[str, Any], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.dialects.unknown_chat.part_of", None)  # nothing is rewritten
    monkeypatch.setattr("headgate.dialects.unknown_responses.Items", None)
    raw = json.dumps({"model": "m", **body, "metadata": {"a": "x" * 3_000_000}}).encode()
    with pytest.raises(Refused, match="are taken") as found:
        (OPENAI if field == "messages" else RESPONSES).decode_request(raw, RequestTarget())
    assert found.value.failure.param.startswith(f"$.{field}")


TRIGGER = {"type": "compaction_trigger"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_trigger_at_the_end_is_answered_with_one_compaction_item(stream: bool) -> None:
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    request = responses(USER, TRIGGER, tools=tools, tool_choice="required", stream=stream)
    assert request.messages[0].text == "hi"
    assert "Summarize this conversation" in request.messages[-1].text
    assert (request.choice, request.warnings) == (Choice("none"), ())
    reply = Reply((Thinking("hm"), Text("They "), Text("said hi.")), Finish("stop"))
    if stream:
        encoder = RESPONSES.encoder(request, FACTS, RequestTarget())
        out = encoder.feed(list(replay(reply))).decode()
        events = [json.loads(line[6:]) for line in out.splitlines() if line.startswith("data: ")]
        assert [event["type"] for event in events] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.output_item.done",
            "response.completed",
        ]
        answer = events[-1]["response"]
        assert events[3]["item"] == answer["output"][0]
    else:
        answer = json.loads(RESPONSES.encode_reply(reply, request, FACTS))
    (item,) = answer["output"]
    ResponseCompactionItem.model_validate(item)
    again = responses(item, AFTER)
    assert again.messages[0].text.endswith("They said hi.")


def test_a_trigger_in_the_history_is_skipped_with_a_warning() -> None:
    request = responses(USER, TRIGGER, AFTER)
    assert [m.text for m in request.messages] == ["hi", "go on"]
    assert request.warnings == ("input.compaction_trigger",)
