"""JSON at the border: strict towards clients, tolerant towards upstreams."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import jsontext, utf8
from headgate.dialects import upstream_json
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import DIALECTS
from headgate.errors import Refused


class Body(msgspec.Struct):
    model: str
    messages: list[msgspec.Raw] = []


DECODER = msgspec.json.Decoder(Body)
BAD = {
    "no JSON": (b"{", "$"),
    "a wrong type": (b'{"model": 1}', "$.model"),
    "a missing field": (b"{}", "$"),
    "a key given twice": (b'{"model": "a", "model": "b"}', "$.model"),
    "bytes that are no UTF-8": (b'{"model": "\xff"}', "$"),
    "a nest": (b'{"model": "a", "x": ' + b"[" * 100000 + b"]" * 100000 + b"}", "$"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_client_is_told_the_place(name: str) -> None:
    body, place = BAD[name]
    with pytest.raises(Refused) as caught:
        jsontext.decode_request(DECODER, body)
    assert caught.value.failure.kind == "invalid"
    assert caught.value.failure.param == place


def test_equal_keys_in_different_objects_are_fine() -> None:
    body = b'{"model": "a", "messages": [{"model": "b"}, {"model": "c"}]}'
    assert jsontext.decode_request(DECODER, body).model == "a"


def test_no_character_that_some_reader_takes_for_a_line_end_is_written_bare() -> None:
    text = "a\u2028b\u2029c\u0085d\r\n"
    out = jsontext.encode({"t": text})
    assert not any(c in out.decode() for c in "\u2028\u2029\u0085\r\n")
    assert msgspec.json.decode(out)["t"] == text


def test_a_lone_surrogate_from_an_upstream_kills_nothing() -> None:
    value = upstream_json.decode(DECODER, b'{"model": "a\\ud83d"}', Body)
    assert value.model.startswith("a")


def test_nests_are_counted_outside_strings_only() -> None:
    jsontext.check_depth(b'{"a": "' + b"[" * 200 + b'"}', "$.x")
    with pytest.raises(Refused):
        jsontext.check_depth(b"[" * 65 + b"]" * 65, "$.x")


@pytest.mark.parametrize(
    "text, whole", [('{"a":1}', True), ('{"a":', False), ("[]", False), ("", False), ("{} ", True)]
)
def test_a_whole_object_is_known(text: str, whole: bool) -> None:
    assert jsontext.is_object(text) is whole


HALVES: dict[bytes, bytes] = {
    rb'"\ud83d"': rb'"\ufffd"',
    rb'"\uDE00 x"': rb'"\ufffd x"',
    rb'"\ud83d\ude00"': rb'"\ud83d\ude00"',
    rb'"\ud83d\ud83d\ude00"': rb'"\ufffd\ud83d\ude00"',
    rb'"\ud83d\ude00\ude00"': rb'"\ud83d\ude00\ufffd"',
    rb'"\\ud83d"': rb'"\\ud83d"',  # an escaped backslash, and plain text
    rb'"\\\ud83d"': rb'"\\\ufffd"',
    b'"\xed\xa0\xbd"': b'"\xef\xbf\xbd"',
    b'"\xed\x9f\xbf"': b'"\xed\x9f\xbf"',  # U+D7FF, the last before them
}


@pytest.mark.parametrize("body", HALVES)
def test_halves_of_surrogate_pairs_that_stand_alone_are_replaced(body: bytes) -> None:
    assert utf8.without_lone_surrogates(body) == HALVES[body]


@given(st.lists(st.sampled_from([r"\ud83d", r"\ude00", "\\\\", r"\n", "x", "ud83d"]), max_size=12))
def test_any_text_with_surrogates_is_read_as_a_tolerant_reader_reads_it(pieces: list[str]) -> None:
    text = '"' + "".join(pieces) + '"'
    read = msgspec.json.decode(utf8.without_lone_surrogates(text.encode()), type=str)
    assert read == utf8.whole_text(json.loads(text))


@pytest.mark.parametrize("slice_", [1, 5, 6, 7, 11, 13])
@given(
    st.lists(
        st.sampled_from(
            [r"\ud83d", r"\ude00", "\\\\", r"\n", "x", "ud83d", "\xed\x9f\xbf", "\xed\xa0\xbd"]
        ),
        max_size=16,
    )
)
def test_where_slices_of_a_long_text_end_makes_no_difference(
    slice_: int, pieces: list[str]
) -> None:
    body = b'"' + "".join(pieces).encode("latin-1") + b'"'
    whole = utf8.without_lone_surrogates(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utf8, "_SLICE", slice_)
        assert utf8.without_lone_surrogates(body) == whole


@pytest.mark.parametrize("letter", ["é", "中", "😀"])
@pytest.mark.parametrize("before", range(4088, 4100))
def test_bytes_that_are_no_utf8_are_found_wherever_slices_end(letter: str, before: int) -> None:
    whole = b"a" * before + letter.encode() * 3000
    utf8.check(whole)
    for cut in (before + 1, before + 1001, len(whole) - 1):
        broken = whole[:cut] + b"a" + whole[cut + 1 :]
        with pytest.raises(UnicodeDecodeError) as ours:
            utf8.check(broken)
        with pytest.raises(UnicodeDecodeError) as python:
            broken.decode()
        assert str(ours.value) == str(python.value)


def test_a_text_without_lone_surrogates_stays_the_same_object() -> None:
    for text in ("\ud55c\uad6d\uc5b4 \ud7ff", r"\ud83d\ude00", "a\0" + r"\ud83d"):
        body = f'"{text * 20_000}"'.encode()
        assert utf8.without_lone_surrogates(body) is body


@pytest.mark.parametrize("name", ["openai", "responses", "anthropic", "gemini"])
def test_a_lone_surrogate_of_a_client_is_no_end_of_its_session(name: str) -> None:
    text = r"a\ud83d"
    bodies = {
        "openai": '{"model":"m","messages":[{"role":"user","content":"%s"}]}',
        "responses": '{"model":"m","input":"%s"}',
        "anthropic": '{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"%s"}]}]}',
        "gemini": '{"contents":[{"parts":[{"text":"%s"}]}]}',
    }
    body = (bodies[name] % text).encode()
    request = DIALECTS[name].decode_request(body, RequestTarget("m"))
    assert request.messages[-1].text == "a\ufffd"
