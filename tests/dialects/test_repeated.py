"""Chunks that differ in one string: read as they would be whole, whatever else is in them."""

import json
from collections.abc import Callable

import pytest

from headgate.chat import Delta, Event, Finish
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.registry import DIALECTS
from headgate.dialects.repeated import MOST_BYTES, MOST_LEARNED, RepeatedChunk

TEXTS = (
    "one",
    "two",
    "",
    'a "quoted" \\ word',
    '"}}]}',
    "line\nbreak",
    "é — 你好 \U0001f600",
    "</think>",
    "<b>",
    '","finish_reason":"stop","x":"',
    "three",
)


def openai(content: object, **more: object) -> bytes:
    delta = {"role": "assistant", "content": content, **more}
    chunk = {"id": "1", "model": "m", "choices": [{"index": 0, "delta": delta}], "usage": None}
    return json.dumps(chunk).encode()


def anthropic(text: object, kind: str = "text", index: int = 0) -> bytes:
    delta = {"type": f"{kind}_delta", kind: text}
    return json.dumps({"type": "content_block_delta", "index": index, "delta": delta}).encode()


def events(dialect: str, payloads: list[bytes]) -> list[Event]:
    decoder = DIALECTS[dialect].decoder(Capabilities(), "text/event-stream", "seed")
    found: list[Event] = []
    for payload in payloads:
        found += decoder.feed(b"data: " + payload + b"\n\n")
    return found + decoder.close()


def joined(found: list[Event]) -> list[object]:
    """Texts in one piece, as how they are cut says nothing."""
    out: list[object] = []
    for event in found:
        if isinstance(event, Delta) and out and isinstance(out[-1], str):
            out[-1] += event.text
        else:
            out.append(event.text if isinstance(event, Delta) else event)
    return out


ANTHROPIC_BEGIN = [
    b'{"type":"message_start","message":{"id":"1","model":"m"}}',
    b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
]


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_a_stream_is_read_as_if_each_chunk_were_read_whole(
    dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dialect == "openai":
        payloads = [openai(t) for t in (*TEXTS, *TEXTS)]
        call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
        payloads.insert(15, openai("call", tool_calls=[call]))
        payloads.insert(17, openai("thinks", reasoning_content="a thought"))
        payloads.append(
            openai("end").replace(b'}}], "usage": null', b'}, "finish_reason": "stop"}]')
        )
    else:
        payloads = [*ANTHROPIC_BEGIN, *(anthropic(t) for t in (*TEXTS, *TEXTS))]
        payloads.insert(9, anthropic("a thought", "thinking"))
        payloads.insert(10, anthropic("another thought", "thinking"))
        payloads.insert(15, anthropic('{"a":', "partial_json"))
        payloads.append(b'{"type":"message_delta","delta":{"stop_reason":"end_turn"}}')
    learned = joined(events(dialect, payloads))
    monkeypatch.setattr(RepeatedChunk, "read", lambda self, payload: None)
    whole = joined(events(dialect, payloads))
    assert learned == whole
    assert isinstance(learned[-1], Finish)


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_only_chunks_with_a_text_are_read_again_to_learn_from_them(
    dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[bytes] = []
    monkeypatch.setattr(RepeatedChunk, "learn", lambda self, payload: learned.append(payload))
    if dialect == "openai":
        call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
        texts = [openai("a text")]
        others = [openai(None, reasoning_content="hm"), openai("", tool_calls=[call])]
    else:
        texts = [anthropic("a text"), anthropic("a thought", "thinking")]
        others = [anthropic('{"a":', "partial_json"), anthropic("c2ln", "signature")]
    events(dialect, [*ANTHROPIC_BEGIN * (dialect == "anthropic"), *others, *texts, *others])
    assert learned == texts


def _reader(of: Callable[[bytes], str | None] | None = None) -> RepeatedChunk:
    return RepeatedChunk(b"text", of or (lambda payload: json.loads(payload).get("text")))


def test_a_payload_with_another_text_is_read_and_one_with_more_is_not() -> None:
    repeated = _reader()
    repeated.learn(b'{"n":1,"text":"a","z":2}')
    assert repeated.read(b'{"n":1,"text":"b\\n\\u00e9","z":2}') == "b\né"
    assert repeated.read(b'{"n":1,"text":"","z":2}') == ""
    for other in (
        b'{"n":2,"text":"b","z":2}',
        b'{"n":1,"text":"b","z":3}',
        b'{"n":1,"text":"b","more":1,"z":2}',
        b'{"n":1,"text":"b","text":"c","z":2}',
        b'{"n":1,"text":null,"z":2}',
        b'{"n":1,"text":"\xff","z":2}',
        b'{"n":1,"text":"\\ud800","z":2}',
        b'{"n":1,"text":","z":2}',
        b"",
    ):
        assert repeated.read(other) is None, other


def test_a_name_that_stands_in_another_text_is_not_taken_for_the_field() -> None:
    repeated = _reader()
    repeated.learn(b'{"more":{"text":"x"},"text":"a"}')
    assert repeated.read(b'{"more":{"text":"y"},"text":"a"}') is None
    assert json.loads(b'{"more":{"text":"y"},"text":"a"}')["text"] == "a"


def test_a_field_that_changes_with_every_chunk_is_not_learned_for_ever() -> None:
    asked: list[bytes] = []

    def of(payload: bytes) -> str | None:
        asked.append(payload)
        return str(json.loads(payload)["text"])

    repeated = _reader(of)
    for n in range(50):
        repeated.learn(b'{"n":%d,"text":"a"}' % n)
    assert len(asked) == 2 * MOST_LEARNED
    repeated = _reader(of)
    repeated.learn(b'{"text":"%b"}' % (b"a" * MOST_BYTES))
    assert len(asked) == 2 * MOST_LEARNED
