"""Cases that users of gateways reported, by number, each with the tests that hold it.

The numbers are those of the collection that the cases come from; what each was is told beside it.  Requests are
read in the dialect of the report and of its siblings, and sent on in every dialect of an upstream; where a case is
about an upstream's reply, the table names the tests that play it.
"""

import ast
import json
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headgate.chat import Request
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import DIALECTS
from headgate.policy.fit import fit
from headgate.policy.history import repair

TESTS = Path(__file__).parent
HERE = "test_field_cases.py::"
UPSTREAMS = ("openai", "anthropic", "responses", "gemini")
PLACE = {"openai": "messages", "anthropic": "messages", "responses": "input", "gemini": "contents"}

# case: (what was sent, the tests)
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "H01": (
        "additional_tools in the input, and no tools (Codex with an aliased model)",
        (
            HERE + "test_tools_that_come_in_the_input_are_offered",
            "dialects/test_unknown.py::test_additional_tools_are_the_tools_of_the_request",
        ),
    ),
    "H03": (
        "tool_search_call and tool_search_output in the history, and a call of what was found",
        (
            HERE + "test_a_tool_that_a_search_found_is_offered_with_its_history",
            "dialects/test_unknown.py::test_tools_that_a_search_found_are_declared_and_its_history_is_kept",
        ),
    ),
    "H05": (
        "POST /v1/responses/compact",
        (
            "edge/test_gateway.py::test_a_conversation_is_compacted_and_goes_on_from_its_summary",
            "dialects/test_unknown.py::test_a_trigger_at_the_end_is_answered_with_one_compaction_item",
        ),
    ),
    "H08": (
        "bodies in gzip, deflate and zstd; br is refused with the codings that are read",
        (
            "net/test_server.py::test_a_compressed_body_is_decoded_and_its_bytes_are_reserved",
            "net/test_server.py::test_a_compressed_body_is_refused_when_it_is_broken_or_grows_too_large",
            "edge/test_gateway.py::test_a_coding_that_is_not_read_is_refused_with_those_that_are",
        ),
    ),
    "H10": (
        "GET /v1/responses with an upgrade to WebSocket",
        ("edge/test_gateway.py::test_a_client_that_wants_a_websocket_is_sent_on_to_post",),
    ),
    "H15": (
        "a PDF and a picture in a tool's result",
        (
            HERE + "test_what_a_tool_returned_and_nobody_reads_is_a_note",
            HERE + "test_what_stands_beside_a_result_is_what_the_tool_returned",
            "dialects/test_anthropic_unreadable.py::test_what_a_tool_returned_and_no_model_reads_becomes_a_note",
            "dialects/test_gemini_unreadable.py::test_what_a_function_returned_and_no_model_reads_becomes_a_note",
        ),
    ),
    "H16": (
        "empty and white-space texts beside a result, marked for the cache, beside other text",
        (HERE + "test_texts_without_a_visible_sign_are_dropped",),
    ),
    "H26": (
        "Cursor: flat tools, a flat freeform tool, `input` in place of `messages`",
        (
            HERE + "test_tools_in_the_form_of_another_protocol_are_tools",
            HERE + "test_a_conversation_under_the_name_of_another_protocol_is_read",
            "dialects/test_unknown.py::test_flat_tools_of_cursor_are_tools",
        ),
    ),
    "H31": (
        "an upstream's call whose arguments come under another index, without id and name",
        (
            "dialects/test_upstream_recovery.py::test_pieces_without_a_name_belong_to_the_call_before",
            "dialects/test_upstream_recovery.py::test_pieces_without_a_name_belong_to_the_call_before_in_every_dialect",
        ),
    ),
    "H39": (
        "<thinking> in the text of a reply, cut anywhere",
        (
            "dialects/test_upstream_recovery.py::test_thinking_tags_in_a_text_are_thinking_wherever_they_are_cut",
            "dialects/test_upstream_recovery.py::test_a_closing_tag_that_leaked_into_a_field_is_taken_off_wherever_it_is_cut",
            "dialects/test_upstream_recovery.py::test_contents_that_are_lists_are_read",
        ),
    ),
    "H57": (
        "max_tokens and prompt together above the window",
        (
            HERE + "test_output_above_what_the_window_has_left_is_lowered",
            "policy/test_fit.py::test_more_output_than_the_window_has_left_is_lowered_to_it",
        ),
    ),
    "H59": (
        "/v1/chat/completions/ and paths with /v1 at the wrong place",
        ("edge/test_gateway.py::test_users_who_put_v1_into_the_wrong_place_are_served_or_told",),
    ),
    "H62": (
        "efforts that are not known",
        (
            HERE + "test_an_effort_of_any_name_is_mapped_or_ignored",
            "dialects/test_unknown.py::test_an_effort_becomes_the_nearest_or_none",
            "dialects/test_hints.py::test_what_stands_in_a_hint_is_left_out_alone",
        ),
    ),
    "H63": (
        "chat history with parts of other vendors",
        (
            HERE + "test_parts_of_other_vendors_are_read",
            "dialects/test_unknown.py::test_what_chat_clients_replay_of_other_vendors_is_read",
        ),
    ),
    "U22": (
        "usage that is no number, negative, huge, or of another type",
        (
            "dialects/test_usage.py::test_an_odd_count_leaves_the_answer_whole",
            "dialects/test_usage.py::test_odd_details_leave_the_main_counts_as_they_are",
            "dialects/test_usage.py::test_a_usage_that_is_no_object_is_none",
            "edge/test_usage_shapes.py::test_what_the_client_is_told_is_what_the_row_says",
        ),
    ),
    "T11": (
        "a pretty-printed tool in a stream of Responses",
        (
            HERE + "test_a_request_that_was_indented_is_repeated_on_one_line",
            "dialects/test_responses.py::test_text_cannot_leave_its_event",
        ),
    ),
}


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text())
    return frozenset(
        n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    )


@pytest.mark.parametrize("case", CASES)
def test_each_case_has_tests_that_exist(case: str) -> None:
    told, tests = CASES[case]
    assert told and tests
    for test in tests:
        file, _, name = test.partition("::")
        assert name in names_in(file), test


# --- requests ------------------------------------------------------------------------------------


def read(dialect: str, body: dict[str, Any]) -> Request:
    return DIALECTS[dialect].decode_request(json.dumps(body).encode(), RequestTarget("m"))


def sent(
    dialect: str, body: dict[str, Any], upstream: str, capabilities: Capabilities
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body that the upstream gets, and the warnings that the client does."""
    request = repair(read(dialect, body), capabilities, dialect)
    fitted = fit(
        request,
        capabilities,
        max_output=1000,
        default_max_output=500,
        client=dialect,
        wire=upstream,
    )
    out = DIALECTS[upstream].encode_request(fitted.request, capabilities, "m", True)
    found: dict[str, Any] = msgspec.json.decode(out)
    return found, fitted.request.warnings


def asked(dialect: str, *turns: Any, **fields: Any) -> dict[str, Any]:
    body = {"model": "m", PLACE[dialect]: list(turns), **fields}
    if dialect == "anthropic":
        body.setdefault("max_tokens", 100)
    if dialect == "gemini":
        del body["model"]
    return body


def user(dialect: str, text: str = "go on") -> dict[str, Any]:
    if dialect == "gemini":
        return {"role": "user", "parts": [{"text": text}]}
    return {"role": "user", "content": text}


def offered(body: dict[str, Any]) -> list[str]:
    """The names of the tools in a body of any dialect."""
    found = []
    for tool in body.get("tools", ()):
        for each in tool.get("functionDeclarations", (tool,)):
            found.append(each.get("function", each)["name"])
    return found


def shown(upstream: str, body: dict[str, Any]) -> str:
    return json.dumps(body[PLACE[upstream]], ensure_ascii=False)


PLAIN, SEEING = Capabilities(), Capabilities(input=("text", "image"))
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}
FUNCTION = {"type": "function", "name": "find", "parameters": SCHEMA}
FREEFORM = {"type": "custom", "name": "patch", "description": "Patches."}
SPACE = {"type": "namespace", "name": "ns", "tools": [FUNCTION, FREEFORM]}
ADDED: dict[str, tuple[Any, list[str], tuple[str, ...]]] = {
    "a namespace": ([SPACE], ["ns__find", "ns__patch"], ()),
    "a function": ([FUNCTION], ["find"], ()),
    "a freeform tool": ([FREEFORM], ["patch"], ()),
    "one that is not known": (
        [{"type": "of_next_year"}, FUNCTION],
        ["find"],
        ("tools.of_next_year",),
    ),
    "a hosted one": ([FUNCTION, {"type": "mcp", "server_label": "s"}], ["find"], ("tools.mcp",)),
    "none": ([], [], ()),
}


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("name", ADDED)
def test_tools_that_come_in_the_input_are_offered(name: str, upstream: str) -> None:
    tools, names, warnings = ADDED[name]
    item = {"type": "additional_tools", "role": "developer", "tools": tools}
    body = asked("responses", item, user("responses"))
    out, warned = sent("responses", body, upstream, PLAIN)
    assert (offered(out), warned) == (names, warnings)
    assert "additional_tools" not in shown(upstream, out)


FOUND: dict[str, list[dict[str, Any]]] = {
    "by the client": [
        {
            "type": "tool_search_call",
            "call_id": "s",
            "execution": "client",
            "arguments": {"query": "q"},
        },
        {"type": "tool_search_output", "call_id": "s", "execution": "client", "tools": [SPACE]},
    ],
    "arguments as text": [
        {"type": "tool_search_call", "call_id": "s", "arguments": '{"query":"q"}'},
        {"type": "tool_search_output", "call_id": "s", "tools": [SPACE]},
    ],
    "without ids": [
        {"type": "tool_search_call", "arguments": {"query": "q"}},
        {"type": "tool_search_output", "tools": [SPACE]},
    ],
    "the output alone": [{"type": "tool_search_output", "call_id": "s", "tools": [SPACE]}],
}


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("name", FOUND)
def test_a_tool_that_a_search_found_is_offered_with_its_history(name: str, upstream: str) -> None:
    called = [
        {
            "type": "function_call",
            "call_id": "c",
            "namespace": "ns",
            "name": "find",
            "arguments": "{}",
        },
        {"type": "function_call_output", "call_id": "c", "output": "forty-two"},
    ]
    body = asked("responses", user("responses", "hi"), *FOUND[name], *called, user("responses"))
    out, _ = sent("responses", body, upstream, PLAIN)
    assert {"ns__find", "ns__patch"} <= set(offered(out))
    assert "forty-two" in shown(upstream, out) and "ns__find" in shown(upstream, out)


PDF, PNG = "JVBERi0xLjQK", "iVBORw0KGgo="


def returned(dialect: str, *kinds: str) -> dict[str, Any]:
    """A conversation that ends with a tool's result of these media."""
    types = {
        "pdf": "application/pdf",
        "png": "image/png",
        "mp3": "audio/mpeg",
        "zip": "application/zip",
    }
    data = {"pdf": PDF, "png": PNG, "mp3": "SUQz", "zip": "UEsDBA=="}
    match dialect:
        case "anthropic":
            blocks = [
                {
                    "type": "image" if kind == "png" else "document",
                    "source": {"type": "base64", "media_type": types[kind], "data": data[kind]},
                }
                for kind in kinds
            ]
            result = {"type": "tool_result", "tool_use_id": "t", "content": blocks}
            call = {"type": "tool_use", "id": "t", "name": "Read", "input": {}}
            return asked(
                dialect,
                user(dialect),
                {"role": "assistant", "content": [call]},
                {"role": "user", "content": [result]},
            )
        case "openai":
            parts = [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
                if kind == "png"
                else {
                    "type": "file",
                    "file": {"file_data": f"data:{types[kind]};base64,{data[kind]}"},
                }
                for kind in kinds
            ]
            chat_call = {
                "id": "t",
                "type": "function",
                "function": {"name": "Read", "arguments": "{}"},
            }
            return asked(
                dialect,
                user(dialect),
                {"role": "assistant", "tool_calls": [chat_call]},
                {"role": "tool", "tool_call_id": "t", "content": parts},
            )
        case "responses":
            parts = [
                {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}
                if kind == "png"
                else {"type": "input_file", "file_data": data[kind], "filename": f"a.{kind}"}
                for kind in kinds
            ]
            return asked(
                dialect,
                user(dialect),
                {"type": "function_call", "call_id": "t", "name": "Read", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "t", "output": parts},
            )
    inline = [{"inlineData": {"mimeType": types[kind], "data": data[kind]}} for kind in kinds]
    answer = {"name": "Read", "response": {"output": ""}, "parts": inline}
    return asked(
        dialect,
        user(dialect),
        {"role": "model", "parts": [{"functionCall": {"name": "Read", "args": {}}}]},
        {"role": "user", "parts": [{"functionResponse": answer}]},
    )


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("kinds", [("pdf",), ("pdf", "png"), ("mp3",), ("zip", "pdf", "png")])
@pytest.mark.parametrize("dialect", sorted(PLACE))
def test_what_a_tool_returned_and_nobody_reads_is_a_note(
    dialect: str, kinds: tuple[str, ...], upstream: str
) -> None:
    blind, warned = sent(dialect, returned(dialect, *kinds), upstream, PLAIN)
    assert shown(upstream, blind).count("this model cannot read it]") == len(kinds)
    assert warned
    seeing, warned = sent(dialect, returned(dialect, *kinds), upstream, SEEING)
    assert shown(upstream, seeing).count("cannot read it]") == len([k for k in kinds if k != "png"])
    assert (PNG in shown(upstream, seeing)) == ("png" in kinds)
    assert warned


def beside(dialect: str, kind: str, apart: bool) -> dict[str, Any]:
    """A conversation that ends with what a tool returned beside or behind its result, as agents send it."""
    body = returned(dialect)
    turns = body[PLACE[dialect]]
    types = {"pdf": ("application/pdf", PDF), "png": ("image/png", PNG)}
    media_type, data = types[kind]
    part: dict[str, Any] = {
        "openai": {"type": "file", "file": {"file_data": f"data:{media_type};base64,{data}"}}
        if kind == "pdf"
        else {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{data}"}},
        "responses": {"type": "input_file", "file_data": data, "filename": "a.pdf"}
        if kind == "pdf"
        else {"type": "input_image", "image_url": f"data:{media_type};base64,{data}"},
        "anthropic": {
            "type": "document" if kind == "pdf" else "image",
            "source": {"type": "base64", "media_type": media_type, "data": data},
        },
        "gemini": {"inlineData": {"mimeType": media_type, "data": data}},
    }[dialect]
    name = "parts" if dialect == "gemini" else "content"
    if apart or dialect in ("openai", "responses"):
        turns.append({"role": "user", name: [part]})
    else:
        turns[-1][name].append(part)
    return body


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("kind", ["pdf", "png"])
@pytest.mark.parametrize("dialect", sorted(PLACE))
def test_what_stands_beside_a_result_is_what_the_tool_returned(
    dialect: str, kind: str, apart: bool, upstream: str
) -> None:
    out, warned = sent(dialect, beside(dialect, kind, apart), upstream, PLAIN)
    assert shown(upstream, out).count("this model cannot read it]") == 1
    assert data_of(kind) not in shown(upstream, out) and warned
    seeing, _ = sent(dialect, beside(dialect, kind, apart), upstream, SEEING)
    assert (data_of(kind) in shown(upstream, seeing)) == (kind == "png")


def data_of(kind: str) -> str:
    return PDF if kind == "pdf" else PNG


BLANKS = ("", " ", "\n\t ", "\u2003")


def blank(dialect: str, text: str) -> dict[str, Any]:
    """A turn with that text beside another one, and a turn of the model with nothing else."""
    if dialect == "gemini":
        mixed = {"role": "user", "parts": [{"text": "said"}, {"text": text}]}
        return asked(
            dialect, mixed, {"role": "model", "parts": [{"text": text}]}, user(dialect, "go")
        )
    kind = "input_text" if dialect == "responses" else "text"
    marked = {"cache_control": {"type": "ephemeral"}} if dialect == "anthropic" else {}
    mixed = {
        "role": "user",
        "content": [{"type": kind, "text": "said"}, {"type": kind, "text": text, **marked}],
    }
    said = {"role": "assistant", "content": text}
    return asked(dialect, mixed, said, user(dialect, "go"))


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("text", BLANKS)
@pytest.mark.parametrize("dialect", sorted(PLACE))
def test_texts_without_a_visible_sign_are_dropped(dialect: str, text: str, upstream: str) -> None:
    out, _ = sent(dialect, blank(dialect, text), upstream, PLAIN)
    turns = out[PLACE[upstream]]
    assert [turn.get("role") for turn in turns] in (["user"], ["user", "user"])
    for value in strings(turns):
        assert value.strip(), turns


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in strings(each)]


NESTED = {"type": "function", "function": {"name": "find", "parameters": SCHEMA}}
OWN = {"name": "find", "input_schema": SCHEMA}
FORMS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "flat in chat": ("openai", FUNCTION, {"type": "function", "name": "find"}),
    "freeform and flat in chat": (
        "openai",
        {"type": "custom", "name": "find", "format": {"type": "text"}},
        {"type": "custom", "name": "find"},
    ),
    "Anthropic's in chat": ("openai", OWN, {"type": "function", "function": {"name": "find"}}),
    "nested in Responses": (
        "responses",
        NESTED,
        {"type": "function", "function": {"name": "find"}},
    ),
    "nested in Messages": ("anthropic", NESTED, {"type": "tool", "name": "find"}),
    "another schema's name in chat": (
        "openai",
        {"type": "function", "function": OWN},
        {"type": "function", "function": {"name": "find"}},
    ),
    "MCP's in Responses": (
        "responses",
        {"type": "function", "name": "find", "inputSchema": SCHEMA},
        {"type": "function", "name": "find"},
    ),
    "MCP's in Messages": (
        "anthropic",
        {"name": "find", "inputSchema": SCHEMA},
        {"type": "tool", "name": "find"},
    ),
    "flat in Messages": ("anthropic", FUNCTION, {"type": "tool", "name": "find"}),
}


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("form", FORMS)
def test_tools_in_the_form_of_another_protocol_are_tools(form: str, upstream: str) -> None:
    dialect, tool, choice = FORMS[form]
    native = Capabilities(tool_choice=("none", "required", "named"))
    body = asked(dialect, user(dialect), tools=[tool], tool_choice=choice)
    out, _ = sent(dialect, body, upstream, native)
    assert offered(out) == ["find"]
    request = read(dialect, body)
    assert (request.choice.mode, request.choice.name) == ("named", "find")
    if "freeform" not in form:
        assert msgspec.json.decode(request.tools[0].parameters) == SCHEMA


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("openai", {"input": "go on"}),
        ("openai", {"input": [{"role": "user", "content": "go on"}]}),
        ("openai", {"input": [{"role": "user", "content": "go on"}], "tools": [FUNCTION]}),
        ("responses", {"messages": [{"role": "user", "content": "go on"}]}),
        (
            "responses",
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "assistant", "tool_calls": [{"id": "t", **NESTED}]},
                    {"role": "tool", "tool_call_id": "t", "content": "42"},
                    {"role": "user", "content": [{"type": "text", "text": "go on"}]},
                ]
            },
        ),
    ],
)
def test_a_conversation_under_the_name_of_another_protocol_is_read(
    dialect: str, body: dict[str, Any], upstream: str
) -> None:
    out, _ = sent(dialect, {"model": "m", **body}, upstream, PLAIN)
    assert "go on" in shown(upstream, out)


@pytest.mark.parametrize("effort", ["ultra", "default", "MAX", "turbo", "", None, 5, [1]])
@pytest.mark.parametrize("dialect", ["openai", "openrouter", "responses", "anthropic", "gemini"])
def test_an_effort_of_any_name_is_mapped_or_ignored(dialect: str, effort: Any) -> None:
    fields: dict[str, Any] = {
        "openai": {"reasoning_effort": effort},
        "openrouter": {"reasoning": {"effort": effort}},
        "responses": {"reasoning": {"effort": effort}},
        "anthropic": {"output_config": {"effort": effort}},
        "gemini": {"generationConfig": {"thinkingConfig": {"thinkingLevel": effort}}},
    }[dialect]
    dialect = "openai" if dialect == "openrouter" else dialect
    request = read(dialect, asked(dialect, user(dialect), **fields))
    assert request.reasoning.effort in ("", "max")
    assert (request.reasoning.effort == "max") <= (effort in ("ultra", "MAX"))
    if effort not in ("", None, "MAX"):
        assert request.warnings


OTHERS: dict[str, list[Any]] = {
    "LangChain's": [
        {"type": "reasoning", "reasoning": "I think"},
        {"type": "tool_call", "id": "t", "name": "find", "args": {"x": 1}},
        {"type": "text", "text": "said"},
    ],
    "Anthropic's": [
        {"type": "thinking", "thinking": "I think", "signature": "s"},
        {"type": "tool_use", "id": "t", "name": "find", "input": {"x": 1}},
        {"type": "text", "text": "said"},
    ],
    "the AI SDK's": [
        {"type": "reasoning", "text": "I think"},
        {"type": "tool-call", "toolCallId": "t", "toolName": "find", "input": {"x": 1}},
        {"type": "text", "text": "said"},
    ],
    "those of next year": [
        {"type": "idea", "text": "I think"},
        {"type": "tool_use", "id": "t", "name": "find", "input": {"x": 1}},
        {"type": "output_text", "text": "said"},
    ],
}
RESULTS = [
    {"type": "tool_result", "tool_use_id": "t", "content": "forty-two"},
    {"type": "tool-result", "toolCallId": "t", "output": {"type": "text", "value": "forty-two"}},
    {
        "type": "tool_result",
        "tool_call_id": "t",
        "content": [{"type": "text", "text": "forty-two"}],
    },
]


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("result", range(len(RESULTS)))
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("dialect", ["openai", "responses"])
def test_parts_of_other_vendors_are_read(
    dialect: str, name: str, result: int, upstream: str
) -> None:
    more = {"type": "input_text", "text": "go on"}
    body = asked(
        dialect,
        user(dialect, "hi"),
        {"role": "assistant", "content": OTHERS[name]},
        {"role": "user", "content": [RESULTS[result], more]},
    )
    out, _ = sent(dialect, body, upstream, PLAIN)
    for text in ("said", "find", "forty-two", "go on"):
        assert text in shown(upstream, out), (text, out)


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("asked_for", [131_072, 204_800, 2**31 - 1])
@pytest.mark.parametrize("dialect", sorted(PLACE))
def test_output_above_what_the_window_has_left_is_lowered(
    dialect: str, asked_for: int, upstream: str
) -> None:
    names = {
        "openai": {"max_completion_tokens": asked_for},
        "responses": {"max_output_tokens": asked_for},
        "anthropic": {"max_tokens": asked_for},
        "gemini": {"generationConfig": {"maxOutputTokens": asked_for}},
    }
    text = "word " * 100_000
    request = read(dialect, asked(dialect, user(dialect, text), **names[dialect]))
    fitted = fit(
        repair(request, PLAIN, dialect),
        PLAIN,
        max_output=204_800,
        default_max_output=65_536,
        context_window=204_800,
        input_estimate=90_000,
        client=dialect,
        wire=upstream,
    ).request
    assert fitted.sampling.max_tokens is not None
    assert 90_000 < fitted.sampling.max_tokens + 90_000 <= 204_800
    assert any("max" in warning for warning in fitted.warnings)


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("dialect", sorted(PLACE))
def test_a_request_that_was_indented_is_repeated_on_one_line(dialect: str, upstream: str) -> None:
    schema = {"type": "object", "properties": {"x": {"enum": ["a", "b"]}}}
    tools: dict[str, Any] = {
        "openai": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
        "responses": [{"type": "function", "name": "f", "parameters": schema}],
        "anthropic": [{"name": "f", "input_schema": schema}],
        "gemini": [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": schema}]}],
    }
    body = json.dumps(asked(dialect, user(dialect), tools=tools[dialect]), indent=2)
    request = DIALECTS[dialect].decode_request(body.encode(), RequestTarget("m"))
    out = DIALECTS[upstream].encode_request(request, PLAIN, "m", True)
    assert b"\n" not in out
