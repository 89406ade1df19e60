"""Strings that stay JSON: they reach the upstream as they came, and every rule about them still holds."""

import json
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from headgate.chat import Request, Text, ToolCall, ToolResult
from headgate.dialects import jsonstrings
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import Dialect, RequestTarget
from headgate.dialects.registry import ANTHROPIC, DIALECTS, GEMINI, OPENAI, RESPONSES
from headgate.errors import Refused
from headgate.policy import history

CAN = Capabilities(reasoning_form="blocks")
# How a client may write one text; all of it must reach the upstream with the same meaning.
TEXT = 'a "quoted" line\nand 中 😀 \u2028 <b>'
FORMS = [json.dumps(TEXT), json.dumps(TEXT, ensure_ascii=False)]


def body_of(dialect: Dialect, text: str) -> bytes:
    """A history whose user, call and tool each say the JSON string `text`."""
    call = json.dumps(f'{{"path":{text}}}')
    bodies = {
        OPENAI.name: f'{{"model":"m","messages":[{{"role":"user","content":{text}}},{{"role":"assistant","content":{text},"tool_calls":[{{"id":"call_1","type":"function","function":{{"name":"f","arguments":{call}}}}}]}},{{"role":"tool","tool_call_id":"call_1","content":{text}}}]}}',
        ANTHROPIC.name: f'{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":[{{"type":"text","text":{text}}}]}},{{"role":"assistant","content":[{{"type":"text","text":{text}}},{{"type":"tool_use","id":"call_1","name":"f","input":{{"path":{text}}}}}]}},{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"call_1","content":{text}}}]}}]}}',
        RESPONSES.name: f'{{"model":"m","input":[{{"role":"user","content":{text}}},{{"role":"assistant","content":[{{"type":"output_text","text":{text}}}]}},{{"type":"function_call","call_id":"call_1","name":"f","arguments":{call}}},{{"type":"function_call_output","call_id":"call_1","output":{text}}}]}}',
        GEMINI.name: f'{{"contents":[{{"role":"user","parts":[{{"text":{text}}}]}},{{"role":"model","parts":[{{"text":{text}}},{{"functionCall":{{"id":"call_1","name":"f","args":{{"path":{text}}}}}}}]}},{{"role":"user","parts":[{{"functionResponse":{{"id":"call_1","name":"f","response":{{"output":{text}}}}}}}]}}]}}',
    }
    return bodies[dialect.name].encode()


def texts_of(request: Request) -> list[str]:
    said: list[str] = []
    for message in request.messages:
        for part in message.parts:
            match part:
                case Text(text):
                    said.append(text)
                case ToolCall():
                    said.append(json.loads(part.arguments)["path"])
                case ToolResult():
                    said += [p.text for p in part.parts if isinstance(p, Text)]
    return said


EACH = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda d: d.name)


@EACH
@pytest.mark.parametrize("upstream", DIALECTS.values(), ids=lambda d: d.name)
@pytest.mark.parametrize("form", FORMS, ids=["escaped", "plain"])
def test_a_text_has_the_same_meaning_on_both_sides(
    dialect: Dialect, upstream: Dialect, form: str
) -> None:
    request = dialect.decode_request(body_of(dialect, form), RequestTarget("m", False))
    sent = upstream.encode_request(history.repair(request, CAN, dialect.name), CAN, "m", False)
    again = upstream.decode_request(sent, RequestTarget("m", False))
    assert texts_of(again) == texts_of(request) == [TEXT] * 4


@EACH
def test_a_text_that_nobody_looks_at_is_not_decoded(dialect: Dialect) -> None:
    text = json.dumps("words " * 1000)
    request = dialect.decode_request(body_of(dialect, text), RequestTarget("m", False))
    sent = dialect.encode_request(history.repair(request, CAN, dialect.name), CAN, "m", False)
    assert sent.count(text.encode()) >= 3
    user, _, result = request.messages
    (said,), (returned,) = user.parts, result.parts
    assert isinstance(said, Text) and isinstance(returned, ToolResult)
    for part in (said, *returned.parts):
        assert isinstance(part, Text) and isinstance(part.source, Raw) and part._decoded is None


@EACH
def test_a_request_does_not_keep_its_body_in_memory(dialect: Dialect) -> None:
    body = body_of(dialect, json.dumps("words " * 1000))
    before = sys.getrefcount(body)
    request = dialect.decode_request(body, RequestTarget("m", False))
    assert sys.getrefcount(body) == before
    assert len(texts_of(request)) == 4


@EACH
@pytest.mark.parametrize(
    "text",
    [b'"a\nb"', b'"a\x00b"', b'"a\x1fb"', b'"\\q"', b'"\\u12"', b'"\xff"', b'"\xc3("'],
)
def test_a_string_that_is_no_json_is_refused_also_when_nobody_looks_at_it(
    dialect: Dialect, text: bytes
) -> None:
    body = body_of(dialect, '"MARK"').replace(b'"MARK"', text, 1)
    with pytest.raises(Refused) as refused:
        dialect.decode_request(body, RequestTarget("m", False))
    assert refused.value.failure.code == "invalid_json"


@EACH
@pytest.mark.parametrize("half", [b'"cut \\ud83d"', b'"cut \\ude00 x"', b'"cut \xed\xa0\xbd"'])
def test_half_a_surrogate_pair_is_replaced_also_when_nobody_looks_at_it(
    dialect: Dialect, half: bytes
) -> None:
    body = body_of(dialect, '"MARK"').replace(b'"MARK"', half, 1)
    request = dialect.decode_request(body, RequestTarget("m", False))
    assert "\ufffd" in texts_of(request)[0]
    assert any("surrogates" in warning for warning in request.warnings)


@EACH
@pytest.mark.parametrize("blank", ['""', '" "', '"\\n\\t"', '"\\u0020\\u00a0"'])
def test_a_blank_text_is_seen_in_every_form(dialect: Dialect, blank: str) -> None:
    request = dialect.decode_request(body_of(dialect, blank), RequestTarget("m", False))
    sent = ANTHROPIC.encode_request(request, CAN, "m", False)
    assert b'"type":"text"' not in sent


@pytest.mark.parametrize(
    ("source", "blank"), [('"a"', False), ('" a"', False), ('"\\u0061"', False), ('"\\n"', True)]
)
def test_a_text_is_blank_by_its_meaning(source: str, blank: bool) -> None:
    assert Text(Raw(source.encode())).is_blank is blank


def test_a_text_equals_the_same_text_in_another_form() -> None:
    escaped, plain = Text(Raw(b'"\\u00e9"')), Text("é")
    assert escaped == plain and hash(escaped) == hash(plain)
    assert escaped != Text("é", "5m") and escaped != Text("e")
    call = ToolCall("1", "f", Raw(b'"{\\"a\\":1}"'))
    assert call == ToolCall("1", "f", '{"a":1}') == ToolCall("1", "f", Raw(b'{"a":1}'))
    assert hash(call) == hash(ToolCall("1", "f", '{"a":1}'))


@pytest.mark.parametrize("value", [b"5", b"true", b"{}"])
def test_a_wrong_type_is_refused_in_the_words_of_typed_fields(value: bytes) -> None:
    with pytest.raises(Refused) as refused:
        jsonstrings.string(Raw(value), "$.messages[3].content[1]", "text")
    failure = refused.value.failure
    assert failure.param == "$.messages[3].content[1].text"
    assert failure.message.startswith("Expected `str | null`, got ")
    decoder = msgspec.json.Decoder(str | list[int] | None)
    with pytest.raises(Refused) as refused:
        jsonstrings.string_or_list(Raw(b'[1,"2"]'), decoder, "$", "content")
    assert refused.value.failure.param == "$.content[1]"


@settings(deadline=None)
@given(st.text(max_size=60), st.integers(1, 40), st.booleans())
def test_the_head_of_a_text_is_the_same_in_every_form(text: str, size: int, escaped: bool) -> None:
    json_text = json.dumps(text, ensure_ascii=escaped).encode()
    assert Text(Raw(json_text)).head(size) == Text(text).head(size) == text[:size]


def test_the_head_of_a_long_text_is_read_without_the_rest() -> None:
    text = Text(Raw(b'"' + b"words that are cut behind a few of them\\n" * 10_000 + b'"'))
    said = "words that are cut behind a few of them\n" * 9
    assert text.head(300) == said[:300] and text._decoded is None
