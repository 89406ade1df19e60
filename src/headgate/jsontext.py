"""JSON is read and written at the border here: strict towards clients, tolerant towards upstreams, safe inside an event.

The only place that turns a decoder's complaint into an address and a fix, that refuses what two
parsers may read differently (duplicate keys, deep nesting), and that escapes the line separators
which naive event-stream clients take for line ends.
"""

import re
from contextlib import suppress
from typing import TypeVar

import msgspec

from headgate import utf8
from headgate.bounds import VALUES_BASE, VALUES_BYTES, VALUES_MOST
from headgate.errors import Failure, Refused, invalid

T = TypeVar("T")

MAX_DEPTH = 64  # a bound on recursion; real tool schemas stay below 20
# The keys that a body may give only once; one search for all of them, as a body may be long.
_GUARDED = re.compile(rb'"(?:m(?:odel|essages|ax_tokens)|stream|tools|contents)"\s*+:')
_SLICE = 1 << 16  # characters that are looked at together, so that their pieces are few
_encoder = msgspec.json.Encoder()
_decode = msgspec.json.Decoder().decode


def encode(value: object) -> bytes:
    """Compact JSON, UTF-8, without any character that some reader takes for a line end."""
    text = _encoder.encode(value)
    return text if text.isascii() else safe(text)


def encode_body(value: object) -> bytes:
    """Compact JSON for the body of a request, where no character is taken for a line end."""
    return _encoder.encode(value)


def safe(text: bytes) -> bytes:
    """U+2028, U+2029 and U+0085 as escapes; they can only stand inside JSON strings."""
    if text.isascii():  # nearly always, and much faster to see
        return text
    if b"\xe2\x80" in text:
        text = text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    if b"\xc2\x85" in text:
        text = text.replace(b"\xc2\x85", b"\\u0085")
    return text


def decode_request(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """A client's body in its own type, or Refused naming the place and the fix."""
    check_values(body)
    try:
        utf8.check(body)  # msgspec passes over the strings inside what stays Raw
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        place = str(error).partition(" - at ")[2]
        raise invalid(str(error), place.strip("`") or "$") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(f"The body is not valid JSON: {error}", "$", "invalid_json") from None
    except RecursionError:
        raise invalid(f"The body is nested deeper than {MAX_DEPTH} levels.", "$") from None
    check_duplicates(body)
    return value


def check_duplicates(body: bytes) -> None:
    """Refuse a body that gives one of the guarded keys twice."""
    seen = set()
    for found in _GUARDED.finditer(body):
        key = found[0].rstrip(b": \t\r\n")
        if key in seen:
            _refuse_duplicates(body)
            return
        seen.add(key)


def most_values(size: int) -> int:
    """How many JSON values a body of so many bytes may have."""
    return min(VALUES_MOST, VALUES_BASE + size // VALUES_BYTES)


def check_values(body: bytes) -> None:
    """Refuse a body with more JSON values than its bytes may have, before it is decoded."""
    most = most_values(len(body))
    # Of what has no comma beside it or inside, the names alone are longer than their values cost.
    if len(body) <= 2 * most or 3 * body.count(b",") <= most or within(body, most):
        return
    raise invalid(
        f"The body has more than {most} JSON values; at most {most} values are taken in"
        f" {len(body)} bytes.",
        "$",
    )


def _refuse_duplicates(body: bytes) -> None:
    """Parsers differ in which of two equal keys they believe; we believe neither.

    Only the body's own keys, not those inside of its values, as these are carried as they came.
    """
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    for key in fields:
        name = b'"%b"' % key.encode()
        if _GUARDED.fullmatch(name + b":") and (count := body.count(name)) > 1:
            inside = sum(bytes(value).count(name) for value in fields.values())
            if count - inside > 1:
                raise invalid(f"The key `{key}` is given twice; send it once.", f"$.{key}")


_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BRACKETS = re.compile(rb"[^][{}]+")


# Strings once their escaped quotes are gone.
_PLAIN_STRING = re.compile(rb'"[^"]*+"')


def within(text: bytes | str, most: int) -> bool:
    """Whether a JSON text surely has no more than `most` values outside of its strings.

    It costs nothing for texts that are too short for more, else a few milliseconds for each
    megabyte, and the memory of the text.
    """
    if len(text) <= 2 * most:  # a value and what parts it from the next take two bytes
        return True
    bare = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if bare.count(b",") + bare.count(b"{") + bare.count(b"[") <= most:
        return True
    if b"\\" in bare:
        bare = bare.replace(b"\\\\", b"").replace(b'\\"', b"")
    if bare.count(b'"') > 4 * most:  # keys and values, each with two
        return False
    bare = _PLAIN_STRING.sub(b"", bare)
    return bare.count(b",") + bare.count(b"{") + bare.count(b"[") <= most


def one_line(text: bytes) -> bytes:
    """The same JSON without line breaks, which can only stand between its values."""
    if b"\n" in text or b"\r" in text:
        return bytes(msgspec.json.format(text, indent=-1))
    return text


def squeezed(text: str) -> str:
    """Return the text without white space."""
    if len(text) <= _SLICE:
        return "".join(text.split())
    return "".join("".join(text[at : at + _SLICE].split()) for at in range(0, len(text), _SLICE))


def check_depth(raw: bytes | msgspec.Raw, param: str) -> None:
    """Refuse JSON we only carry when it is nested past MAX_DEPTH."""
    text = bytes(raw)
    if text.count(b"{") + text.count(b"[") <= MAX_DEPTH:
        return
    # Each pass takes the innermost brackets away, at the speed of C.
    left = _BRACKETS.sub(b"", _STRING.sub(b"", text)).replace(b"[", b"{").replace(b"]", b"}")
    for _ in range(MAX_DEPTH):
        left = left.replace(b"{}", b"")
        if not left:
            return
    raise invalid(f"Nested deeper than {MAX_DEPTH} levels.", param)


_DIGITS = b"0123456789"
_LONG = 1_000  # digits; Python reads whole numbers of up to 4,300, and others fewer
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % _LONG)


def has_long_number(text: bytes) -> bool:
    """Whether JSON that is only carried has a number of some thousand digits, which readers fail on.

    A run of twice _LONG digits covers one of the places that are looked at, and all up to the next.
    """
    seen = text[::_LONG]
    if len(seen.translate(None, _DIGITS)) == len(seen):
        return False
    if not any(text[n * _LONG : (n + 1) * _LONG].isdigit() for n in range(len(text) // _LONG)):
        return False
    return _LONG_NUMBER.search(_STRING.sub(b"", text)) is not None


def is_object(text: str) -> bool:
    """Whether `text` is one whole JSON object: what a finished tool call's arguments must be."""
    if text[-1:] != "}" and not text[-64:].rstrip().endswith("}"):
        return False
    if len(text) > VALUES_BASE and not within(text, VALUES_BASE):
        return False
    try:
        return type(_decode(text)) is dict
    except (msgspec.DecodeError, RecursionError):
        return False


def decoded_once(text: str) -> str | None:
    """The JSON object that is encoded in a JSON string, up to four times, or None where there is none."""
    with suppress(msgspec.DecodeError):
        for _ in range(4):
            if not text[:65].lstrip().startswith('"'):
                return None
            text = msgspec.json.decode(text, type=str)
            if is_object(text):
                return text
    return None


_GARBAGE = "The upstream's answer could not be read"


def garbage(what: str) -> Failure:
    return Failure("upstream", f"{_GARBAGE}: {what}.")


def is_garbage(failure: Failure) -> bool:
    """Whether a failure says that the upstream's answer could not be read."""
    return failure.message.startswith(_GARBAGE)


__all__ = [
    "MAX_DEPTH",
    "Refused",
    "check_depth",
    "check_duplicates",
    "decode_request",
    "decoded_once",
    "encode",
    "encode_body",
    "garbage",
    "has_long_number",
    "is_object",
    "safe",
]
