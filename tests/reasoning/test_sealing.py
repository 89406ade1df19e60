"""Sealed reasoning: what was sealed comes back, what was touched does not, and nothing ever raises."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.chat import (
    Delta,
    Event,
    Failed,
    Finish,
    Message,
    Part,
    PartStart,
    PartStop,
    Reply,
    Request,
    Start,
    Text,
    Thinking,
    ToolCall,
    Usage,
    collect,
    replay,
)
from headgate.dialects.anthropic.dialect import AnthropicDialect
from headgate.dialects.contract import ReplyFacts, RequestTarget
from headgate.dialects.gemini.dialect import GeminiDialect
from headgate.errors import Failure
from headgate.reasoning import sealing
from headgate.reasoning.sealing import Seal, Sealed, Sealer, is_sealed, unseal, unsigned
from headgate.stream.filters import Show

SEALER = Sealer(b"\x01" * 32)
OTHER = Sealer(b"\x02" * 32)
# Any text that Python can hold, lone surrogates too; and long ones that compress.
ANY = st.text(st.characters(exclude_categories=()), max_size=200) | st.builds(
    lambda s, n: s * n, st.text(min_size=1, max_size=20), st.integers(1, 200)
)
CALL = ToolCall("c1", "ls", '{"path":"."}')
USER = Message("user", (Text("list"),))


def request(*turns: tuple[Part, ...]) -> Request:
    return Request("m", (USER, *(Message("assistant", t) for t in turns)))


def turns(r: Request) -> list[tuple[Part, ...]]:
    return [m.parts for m in r.messages if m.role == "assistant"]


# --- one sealed field ---


@given(ANY, ANY, st.text(max_size=20))
def test_what_was_sealed_comes_back(text: str, signature: str, origin: str) -> None:
    assert SEALER.open(SEALER.seal(text, signature, origin)) == Sealed(text, signature, origin)


@given(ANY, ANY)
def test_a_sealed_field_is_standard_base64_without_padding_and_recognisable(
    text: str, s: str
) -> None:
    sealed = SEALER.seal(text, s)
    assert base64.b64encode(base64.b64decode(sealed, validate=True)).decode() == sealed
    assert is_sealed(sealed) and not sealed.endswith("=")


@given(ANY, st.data())
def test_a_sealed_field_with_one_character_changed_does_not_open(
    text: str, data: st.DataObject
) -> None:
    sealed = SEALER.seal(text, "sig")
    at = data.draw(st.integers(0, len(sealed) - 1))
    other = data.draw(st.characters(exclude_categories=()).filter(lambda c: c != sealed[at]))
    assert SEALER.open(sealed[:at] + other + sealed[at + 1 :]) is None


def test_every_bit_of_a_sealed_field_counts() -> None:
    raw = base64.b64decode(SEALER.seal("Let me look at the files.", "ab12"))
    for at in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[at // 8] ^= 1 << at % 8
        assert SEALER.open(base64.b64encode(changed).decode()) is None


@given(ANY, st.data())
def test_a_cut_or_lengthened_field_does_not_open(text: str, data: st.DataObject) -> None:
    sealed = SEALER.seal(text)
    assert SEALER.open(sealed[: data.draw(st.integers(0, len(sealed) - 1))]) is None
    assert SEALER.open(sealed[data.draw(st.integers(1, len(sealed))) :]) is None
    assert SEALER.open(sealed + data.draw(st.text("aA+/=\n ", min_size=1, max_size=4))) is None


@given(st.text(st.characters(exclude_categories=())) | st.text("hgc1AZaz09+/="))
def test_anything_else_does_not_open(text: str) -> None:
    assert SEALER.open(text) is None
    assert SEALER.open("hgc1" + text) is None


@given(st.binary(max_size=60))
def test_a_valid_mac_over_nonsense_opens_to_nothing_and_does_not_raise(said: bytes) -> None:
    """A later version may say other things under the same key."""
    raw = said + sealing._mac(SEALER._keys[0], said)
    opened = SEALER.open("hgc1" + base64.b64encode(raw).decode())
    assert opened is None or isinstance(opened, Sealed)


def test_another_secret_does_not_open_it_and_a_former_one_still_does() -> None:
    sealed = SEALER.seal("thought")
    assert OTHER.open(sealed) is None
    rotated = Sealer(b"\x02" * 32, b"\x01" * 32)
    assert rotated.open(sealed) == Sealed("thought")
    assert OTHER.open(rotated.seal("new")) == Sealed("new")


@pytest.mark.parametrize("secrets", [(), (b"short",), (b"\x01" * 32, b"")])
def test_a_sealer_wants_whole_secrets(secrets: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Sealer(*secrets)


def test_a_text_too_long_to_send_twice_is_left_out_but_not_its_signature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sealing, "MAX_SEALED", 200)
    text = "".join(map(chr, range(400)))
    sealed = SEALER.seal(text, "sig", "a")
    assert SEALER.open(sealed) == Sealed(None, "sig", "a")
    out, restored = unseal(request((Thinking(text, sealed), CALL)), SEALER, "a")
    assert (turns(out), restored) == ([(Thinking(text, "sig"), CALL)], 1)
    assert SEALER.seal("", text) == ""


def test_a_text_that_would_open_to_more_than_the_bound_is_not_sealed() -> None:
    sealed = SEALER.seal("a" * sealing.MAX_PAYLOAD)
    assert SEALER.open(sealed) == Sealed(None)


def test_a_sealed_field_that_opens_to_more_than_the_bound_counts_as_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sealed = SEALER.seal("a" * 5000)
    monkeypatch.setattr(sealing, "MAX_PAYLOAD", 4000)
    assert SEALER.open(sealed) is None


def test_the_sealed_fields_of_one_request_open_to_a_bounded_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sealing, "MAX_RESTORED", 10_000)
    small = SEALER.seal("a" * 4000)
    out, restored = unseal(request(*((Thinking("", small), CALL) for _ in range(50))), SEALER)
    assert restored == 3
    assert turns(out)[3:] == [(CALL,)] * 47


# --- replies ---


def sealed_reply(*parts: Text | Thinking | ToolCall, seal: Seal) -> Reply:
    """Event by event, as a stream comes."""
    events = replay(Reply(parts, Finish("stop", Usage(1, 1))))
    out = collect([e for event in events for e in seal.feed([event])])
    assert isinstance(out, Reply)
    return out


def test_every_thinking_part_ends_with_a_seal_of_its_own() -> None:
    out = sealed_reply(
        Thinking("one"), Text("hm"), Thinking("two", "sig"), CALL, seal=Seal(SEALER, "a")
    )
    one, hm, two, call = out.parts
    assert isinstance(one, Thinking) and isinstance(two, Thinking)
    assert SEALER.open(one.signature) == Sealed("one", "", "a")
    assert SEALER.open(two.signature) == Sealed("two", "sig", "a")
    assert (one.text, two.text, hm, call) == ("one", "two", Text("hm"), CALL)


def test_thinking_without_text_is_not_sealed() -> None:
    assert sealed_reply(Thinking(""), CALL, seal=Seal(SEALER)).parts == (Thinking(""), CALL)


def test_for_clients_that_return_the_text_only_a_signature_is_sealed() -> None:
    seal = Seal(SEALER, signed_only=True)
    plain, signed = sealed_reply(Thinking("one"), Thinking("two", "sig"), seal=seal).parts
    assert plain == Thinking("one")
    assert isinstance(signed, Thinking)
    assert SEALER.open(signed.signature) == Sealed("two", "sig")


def test_omitted_thinking_still_carries_its_text_in_sealed_form() -> None:
    events: list[Event] = [Start(), PartStart("thinking"), Delta("a"), Delta("b"), PartStop()]
    out = Show("omit").feed(Seal(SEALER).feed(events))
    assert [type(e) for e in out] == [Start, PartStart, PartStop]
    assert isinstance(out[-1], PartStop)
    assert SEALER.open(out[-1].signature) == Sealed("ab")


def test_a_reply_cut_while_thinking_passes_unchanged() -> None:
    events: list[Event] = [Start(), PartStart("thinking"), Delta("a")]
    events.append(Failed(Failure("upstream", "cut")))
    assert Seal(SEALER).feed(list(events)) == events


# --- requests ---


def test_the_sealed_text_wins_over_a_trimmed_copy_of_the_text() -> None:
    sealed = SEALER.seal("\n a long thought \n", "sig")
    for copy in ("", "a long thought", "[thinking removed]"):
        out, restored = unseal(request((Thinking(copy, sealed), CALL)), SEALER)
        assert turns(out) == [(Thinking("\n a long thought \n", "sig"), CALL)]
        assert restored == 1


@pytest.mark.parametrize(
    "bad", ["", "f" * 64, "hgc1AAAA", OTHER.seal("lie"), SEALER.seal("x")[:-4]]
)
def test_what_does_not_open_counts_as_absent_and_the_text_stays(bad: str) -> None:
    asked = request((Thinking("mine", bad), CALL), (Thinking("", bad), CALL), (Thinking("", bad),))
    out, restored = unseal(asked, SEALER)
    assert (turns(out), restored) == ([(Thinking("mine"), CALL), (CALL,)], 0)


def test_a_signature_goes_back_only_to_where_it_came_from() -> None:
    asked = request((Thinking("t", SEALER.seal("t", "sig", "a")), CALL))
    assert turns(unseal(asked, SEALER, "a")[0]) == [(Thinking("t", "sig"), CALL)]
    assert turns(unseal(asked, SEALER, "b")[0]) == [(Thinking("t"), CALL)]
    restored, _ = unseal(asked, SEALER, "a")
    assert turns(unsigned(restored)) == [(Thinking("t"), CALL)]


def test_a_request_without_signatures_is_given_back_as_it_is() -> None:
    asked = request((Text("hi"),), (CALL,))
    assert unseal(asked, SEALER) == (asked, 0)
    assert unseal(asked, SEALER)[0] is asked
    assert unsigned(asked) is asked


def test_pieces_of_streamed_thoughts_give_way_to_their_sealed_text() -> None:
    """google-genai keeps each chunk as content of its own."""
    sealed = SEALER.seal("one two three")
    whole = [(Thinking("one two three"), CALL)]
    together = request((Thinking("one "), Thinking("two"), Thinking("three", sealed), CALL))
    apart = request((Thinking("one"),), (Thinking("two three"),), (Thinking("", sealed), CALL))
    assert turns(unseal(together, SEALER)[0]) == whole
    assert turns(unseal(apart, SEALER)[0]) == whole
    assert unseal(apart, SEALER)[1] == 1


def test_thinking_of_another_part_or_turn_does_not_give_way() -> None:
    two = SEALER.seal("one two")
    between = (Thinking("one"), Text("so"), Thinking("", two), CALL)
    assert turns(unseal(request(between), SEALER)[0]) == [
        (Thinking("one"), Text("so"), Thinking("one two"), CALL)
    ]
    both = request((Thinking("", SEALER.seal("one")), Thinking("", two), CALL))
    assert turns(unseal(both, SEALER)[0]) == [(Thinking("one"), Thinking("one two"), CALL)]
    strange = request((Thinking("else"), Thinking("", two), CALL))
    assert turns(unseal(strange, SEALER)[0]) == [(Thinking("else"), Thinking("one two"), CALL)]


PARTS = st.lists(
    st.builds(Text, st.text(max_size=5))
    | st.builds(
        Thinking,
        st.text(max_size=5),
        st.text(max_size=5) | st.just("hgc1AAAA") | st.builds(SEALER.seal, st.text(max_size=5)),
    )
    | st.just(CALL),
    max_size=6,
).map(tuple)


@given(st.lists(PARTS, max_size=5))
def test_any_history_passes_with_its_words_and_calls_untouched(history: list[tuple[Part]]) -> None:
    asked = request(*history)
    out, restored = unseal(asked, SEALER)

    def spoken(r: Request) -> list[Part]:
        return [p for m in r.messages for p in m.parts if not isinstance(p, Thinking)]

    assert spoken(out) == spoken(asked)
    assert 0 <= restored <= len(history)
    assert unseal(out, SEALER)[0] == out
    assert not any(p == Thinking("") for t in turns(out) for p in t)


# --- through the protocols ---

FACTS = ReplyFacts("r1", "M", 1)
REPLY = Reply((Thinking("\nplan "), CALL), Finish("tool_calls", Usage(1, 1)), "u1", "M")


@pytest.mark.parametrize("show", ["yes", "omit"])
def test_thinking_survives_in_an_anthropic_signature(show: str) -> None:
    events = Seal(SEALER).feed(list(replay(REPLY)))
    reply = collect(events if show == "yes" else Show(show).feed(events))
    assert isinstance(reply, Reply)
    asked = Request("M", (USER,))
    said = json.loads(AnthropicDialect().encode_reply(reply, asked, FACTS))["content"]
    assert said[0]["thinking"] == ("\nplan " if show == "yes" else "")
    body = {
        "model": "M",
        "max_tokens": 9,
        "messages": [
            {"role": "user", "content": "list"},
            {"role": "assistant", "content": said},
        ],
    }
    back = AnthropicDialect().decode_request(json.dumps(body).encode(), RequestTarget())
    out, restored = unseal(back, SEALER)
    assert restored == 1
    assert turns(out)[0][0] == Thinking("\nplan ")


@pytest.mark.parametrize("kept", ["all", "no thoughts", "urlsafe", "one content a chunk"])
def test_thinking_survives_in_a_gemini_thought_signature(kept: str) -> None:
    """As Gemini CLI drops thoughts, google-genai changes the alphabet, and both keep the call."""
    encoder = GeminiDialect().encoder(Request("M", (USER,), stream=True), FACTS, RequestTarget())
    seal = Seal(SEALER)
    stream = b"".join(encoder.feed(seal.feed([e])) for e in replay(REPLY)).decode()
    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]
    parts = [p for c in chunks for p in c["candidates"][0]["content"]["parts"]]
    for part in parts:
        if kept == "urlsafe" and "thoughtSignature" in part:
            part["thoughtSignature"] = base64.urlsafe_b64encode(
                base64.b64decode(part["thoughtSignature"], validate=True)
            ).decode()
    if kept == "no thoughts":
        parts = [p for p in parts if not p.get("thought")]
    contents = [{"role": "model", "parts": parts}]
    if kept == "one content a chunk":
        contents = [{"role": "model", "parts": [p]} for p in parts]
    body = {"contents": [{"role": "user", "parts": [{"text": "list"}]}, *contents]}
    back = GeminiDialect().decode_request(json.dumps(body).encode(), RequestTarget("M"))
    out, restored = unseal(back, SEALER)
    assert restored == 1
    told = [p for t in turns(out) for p in t]
    assert told[0] == Thinking("\nplan ")
    assert [type(p) for p in told if not isinstance(p, Text)] == [Thinking, ToolCall]
