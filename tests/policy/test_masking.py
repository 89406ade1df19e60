"""Masking: what is found, that it leaves under another name, and comes back wherever a chunk ends."""

import json
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from growth import superlinear
from headgate import bounds
from headgate.chat import (
    Delta,
    Event,
    Finish,
    Message,
    PartStart,
    PartStop,
    Request,
    Start,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.registry import DIALECTS
from headgate.edge.pipeline.masking import Restore
from headgate.errors import Refused
from headgate.policy.masked_forms import KINDS
from headgate.policy.masking import Masker, Restorer, kinds

SECRET = b"s" * 32
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\n-----END PRIVATE KEY-----"
FOUND = {
    "email": ["ada@example.com", "a.b+c@sub.example.co.uk"],
    "phone": ["+49 30 1234567", "+1 (415) 555-0132", "0044 20 7946 0958", "13812345678"],
    "card": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"],
    "key": [
        "sk-proj-" + "ab12" * 8, "hg_live_0123456789abcdefghijABCD", "AKIAIOSFODNN7EXAMPLE",
        "ghp_0123456789abcdefghijABCDEFGHIJ012345", PEM,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijk",
    ],
}  # fmt: skip
LEFT = [
    "4111 1111 1111 1112", "0000 0000 0000 0000", "DE89 3704 1144 0532 1130 01", "user@localhost",
    "2026-11-30 22:00:00", "1.2.3.4", "sk-short", "192.168.100.200", "version 13.812.345",
    "f(a@b)", "0x4111111111111111", "deadbeef-1234-5678-9abc-def012345678",
]  # fmt: skip


def masker() -> Masker:
    return Masker(KINDS, SECRET)


@pytest.mark.parametrize(("kind", "value"), [(k, v) for k, vs in FOUND.items() for v in vs])
def test_a_value_is_replaced_and_comes_back(kind: str, value: str) -> None:
    m = masker()
    masked = m.text(f"call ({value}), now")
    assert value not in masked and masked.startswith(f"call ({kind.upper()}_")
    restorer = Restorer(m.values)
    assert restorer.feed(masked) + restorer.close() == f"call ({value}), now"
    assert m.reason() == f"masked (1 {kind})"


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_a_value_is_left(text: str) -> None:
    assert masker().text(text) == text


def test_a_value_has_the_same_name_in_every_turn_and_another_for_another_key() -> None:
    text = "ada@example.com and bob@example.com and ada@example.com"
    first, again = masker(), masker()
    assert first.text(text) == again.text(text)
    assert first.counts == {"email": 2}
    assert Masker(KINDS, b"t" * 32).text(text) != first.text(text)


def test_only_the_kinds_that_were_chosen_are_masked() -> None:
    m = Masker(kinds("email"), SECRET)
    assert "4111" in m.text("ada@example.com 4111 1111 1111 1111")
    assert kinds("all") == KINDS and kinds(" Card, email ") == ("email", "card") and kinds("") == ()
    with pytest.raises(ValueError, match="names"):
        kinds("names")


def test_nothing_of_a_request_leaves_unmasked() -> None:
    secret = "ada@example.com"
    request = Request(
        "m",
        (
            Message("system", (Text(f"You serve {secret}"),)),
            Message("user", (Text(secret),)),
            Message("assistant", (Thinking(secret, "sig"), ToolCall("1", "f", '{"to":"ada\\u0040example.com"}'))),
            Message("tool", (ToolResult("1", (Text(secret),)),)),
        ),
        tools=(Tool("f", secret, Raw(json.dumps({"description": secret}).encode())),),
        session=secret,
        user=secret,
    )  # fmt: skip
    masked = masker().request(request)
    wire = b"".join(
        DIALECTS[name].encode_request(masked, Capabilities(reasoning_form="blocks"), "m", False)
        for name in DIALECTS
    )
    assert secret.encode() not in wire and b"EMAIL_" in wire
    assert secret not in (masked.session, masked.user)


VALUES = [v for vs in FOUND.values() for v in vs]
TEXTS = st.lists(st.sampled_from([*VALUES, *LEFT, " ", "EMAIL", "KEY_", "CARD_12AB", "x é\n"]), max_size=8)  # fmt: skip


def cut(text: str, at: list[int]) -> list[str]:
    places = [0, *sorted({a % (len(text) + 1) for a in at}), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


@given(TEXTS, st.lists(st.integers(0, 10_000), max_size=40))
@settings(max_examples=150, deadline=None)
def test_a_reply_is_what_it_would_have_been_wherever_its_chunks_end(
    words: list[str], at: list[int]
) -> None:
    text = " ".join(words)
    m = masker()
    restorer = Restorer(m.values)
    pieces = cut(m.text(text), at)
    assert "".join([restorer.feed(p) for p in pieces]) + restorer.close() == text


@given(TEXTS, st.lists(st.integers(0, 10_000), max_size=40))
@settings(max_examples=100, deadline=None)
def test_arguments_of_a_call_stay_json(words: list[str], at: list[int]) -> None:
    m = masker()
    value = " ".join(words)
    masked = json.dumps({"q": m.text(value)})
    events: list[Event] = [Start(), PartStart("tool_call", "1", "f")]
    events += [Delta(p) for p in cut(masked, at) if p]
    events += [PartStop(), Finish("tool_calls")]
    filter = Restore(m)
    out = [e for event in events for e in filter.feed([event])]
    arguments = "".join(e.text for e in out if isinstance(e, Delta))
    assert json.loads(arguments) == {"q": value}
    assert [type(e) for e in out if not isinstance(e, Delta)] == [
        type(e) for e in events if not isinstance(e, Delta)
    ]


def test_what_is_held_back_is_no_longer_than_a_name() -> None:
    restorer = Restorer({})
    for text in ("E" * 100, "EMAIL_0123456789A", "KEY_" * 50, "CARD_" + "A" * 100):
        fed = restorer.feed(text)
        assert len(text) - len(fed) < 18
        assert fed + restorer.close() == text


def test_a_card_behind_a_telephone_number_is_found() -> None:
    m = masker()
    masked = m.text("+49 30 1234567 4111 1111 1111 1111 and 12 4111-1111-1111-1111 99")
    assert "4111" not in masked and m.counts == {"card": 2, "phone": 1}


ESCAPED = [v for v in VALUES if v != PEM]


@pytest.mark.parametrize("value", ESCAPED)
@pytest.mark.parametrize("before", ["\n", "\t", '"', "\\", "é", "/"])
def test_a_value_behind_an_escape_of_json_is_found_and_the_json_stays_whole(
    before: str, value: str
) -> None:
    """`\\nada@example.com` is a line's end and an address, and not the address `nada@...`."""
    for inside in (f"{before}{value}{before}", f"a{before}{value}"):
        arguments = json.dumps({"q": inside})
        m = masker()
        masked = m.call(ToolCall("1", "f", arguments)).arguments
        name, sent = next(iter(m.values)), json.loads(masked)["q"]
        assert m.values[name] == value and sent == inside.replace(value, name)
        result = masker().text(arguments)  # JSON that a tool returned, as text
        assert json.loads(result)["q"] == sent


def test_a_value_with_a_secret_inside_comes_back_whole() -> None:
    for text in (
        "ada.sk-0123456789abcdef@example.com and bob@example.com",
        "ada@example.com.eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijk",
        "AKIAIOSFODNN7EXAMPLE@x.de 4111 1111 1111 1111 AKIAIOSFODNN7EXAMPLE ada@x.de +49 30 1234567",
    ):
        m = masker()
        masked = m.text(text)
        assert "sk-" not in masked and "x.de" not in masked and "AKIA" not in masked
        restorer = Restorer(m.values)
        assert restorer.feed(masked) + restorer.close() == text


def test_a_private_key_in_json_is_found_with_its_line_ends() -> None:
    m = masker()
    masked = m.call(ToolCall("1", "f", json.dumps({"key": PEM, "path": "C:\\new"}))).arguments
    assert list(m.values.values()) == [PEM]
    assert json.loads(masked) == {"key": next(iter(m.values)), "path": "C:\\new"}


@given(
    st.lists(
        st.sampled_from(
            [*ESCAPED, *LEFT, "\\", '"', "\n", "\\n", "\\u00e9", "é", "😀", "/", "u0040", " "]
        ),
        max_size=12,
    )
)
@settings(max_examples=200, deadline=None)
def test_arguments_with_any_escapes_stay_json_and_come_back(words: list[str]) -> None:
    text = "".join(words)
    for ascii in (True, False):
        m = masker()
        arguments = json.dumps({"q": text}, ensure_ascii=ascii)
        masked = m.call(ToolCall("1", "f", arguments)).arguments
        json.loads(masked)
        restorer = Restorer(m.values, json=True)
        assert json.loads(restorer.feed(masked) + restorer.close()) == {"q": text}
        plain = masker()
        restorer = Restorer(plain.values, json=True)
        masked = plain.text(arguments)
        assert json.loads(restorer.feed(masked) + restorer.close()) == {"q": text}


def test_a_value_at_the_end_of_a_searched_window_is_found() -> None:
    for value in VALUES:
        for back in (1, len(value) // 2, len(value) - 1, len(value)):
            m = masker()
            masked = m.text("." * ((1 << 16) - back - 1) + f" {value} x\\n")
            assert list(m.values.values()) == [value] and masked.endswith(" x\\n"), (value, back)


@pytest.mark.parametrize(
    "piece",
    [
        "4111 ", "123-", "+1 2345678 ", "+4 ", "a@b.co ", "a@", "@b.", "eyJaaaaaaaaa.", "eyJ", "sk-",
        "-----BEGIN PRIVATE KEY-----AAAA ", "-----BEGIN ", "DE89 ", "AA00 AAAA ", "AA00AAAA", "00", "1",
        "13812345678", "\\n", "\\u0040", "\\", "10:30 on 2026-11-30. ",
    ],
)  # fmt: skip
def test_the_work_of_masking_grows_with_the_text(piece: str) -> None:
    def make(n: int) -> Callable[[], object]:
        text = piece * (n // len(piece))
        return lambda: masker().text(text)

    assert superlinear(make, 40_000) is None


def test_more_places_than_the_bound_are_refused_and_no_value_is_shown() -> None:
    most = bounds.MASKED.most
    m = Masker(("email",), SECRET)
    m.text("a@b.co " * most)
    with pytest.raises(
        Refused, match=rf"The body has {most + 1} places where values to mask may begin"
    ) as e:
        m.text("ada@example.com")
    assert "ada" not in str(e.value)


def test_a_text_that_comes_again_is_searched_once() -> None:
    m = Masker(("email",), SECRET)
    text = "a@b.co " * (bounds.MASKED.most // 2 + 1)
    assert m.text(text) == m.text(text) == m.text(text)


@pytest.mark.parametrize(
    "piece", ["1 ", "1-", "+1 ", "a@", "eyJ", "AB12 ", "EMAIL_", "sk-", "-----BEGIN "]
)
def test_a_long_text_of_beginnings_is_read_in_one_pass(piece: str) -> None:
    """Ten times the text takes about ten times as long: this ends, where a square would not."""
    text = piece * 60_000
    m = masker()
    restorer = Restorer(m.values)
    assert restorer.feed(m.text(text)) + restorer.close() == text
