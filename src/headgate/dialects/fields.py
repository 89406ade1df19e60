"""What every dialect reads and refuses in the same way: numbers, schemas, pictures."""

import codecs
import math
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Raw, Struct

from headgate import jsontext, utf8
from headgate.bounds import LABEL, MAX_TOKENS_BOUND, SCHEMA_VALUES, WORDS, check_size, check_stops
from headgate.chat import Media, Request, Sampling, Tool
from headgate.errors import Refused, invalid

SURROGATES = "lone surrogates (replaced by U+FFFD)"


def read_whole(read: Callable[[bytes], Request], body: bytes) -> Request:
    """What `read` makes of the body; lone halves of surrogate pairs in it are replaced, if it must.

    Only a body that is refused is searched for them: looking costs as much as decoding.  A byte order mark in
    front is passed over, as RFC 8259 allows; PowerShell and .NET write one.
    """
    try:
        return read(body)
    except Refused:
        plain = body.removeprefix(codecs.BOM_UTF8)
        whole = utf8.without_lone_surrogates(plain)
        if whole is body:
            raise
        if whole is plain:
            return read(plain)
        return read(whole).warn(SURROGATES)


EMPTY_SCHEMA = Raw(b'{"type":"object","properties":{}}')


def check_sampling(
    s: Sampling,
    place: str,
    max_tokens: str = "max_tokens",
    camel: bool = False,
    stop: str = "stop",
) -> None:
    """Refuse what no model takes; `place` is the address of the fields' object, "$." at the top."""

    def name(words: str) -> str:
        first, *rest = words.split("_")
        return place + (first + "".join(w.capitalize() for w in rest) if camel else words)

    if s.max_tokens is not None and not 1 <= s.max_tokens <= MAX_TOKENS_BOUND:
        raise invalid(
            f"Expected a number of tokens from 1 to {MAX_TOKENS_BOUND}, got {s.max_tokens}.",
            place + max_tokens,
        )
    for field, value, low, high in (
        ("temperature", s.temperature, 0.0, 2.0),
        ("top_p", s.top_p, 0.0, 1.0),
        ("presence_penalty", s.presence_penalty, -2.0, 2.0),
        ("frequency_penalty", s.frequency_penalty, -2.0, 2.0),
    ):
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            raise invalid(f"Expected a number from {low:g} to {high:g}, got {value}.", name(field))
    if s.stop:
        check_stops(s.stop, place + ("stopSequences" if camel else stop))


def check_domains(domains: Sequence[str] | None, param: str) -> None:
    """Refuse lists of domains for a web search that are too long."""
    check_size(domains, WORDS, param)
    for domain in domains or ():
        check_size(domain, LABEL, param)


def given(raw: Raw) -> bool:
    """Whether a field asks for something: absent, null and an empty list do not."""
    return bytes(raw) not in (b"", b"null", b"[]")


def schema_of(raw: Raw, where: str) -> Raw:
    """A JSON Schema that is carried as it came; absent or empty becomes the empty object's."""
    if bytes(raw).strip() in (b"", b"null", b"{}"):
        return EMPTY_SCHEMA
    if not bytes(raw).lstrip().startswith(b"{"):
        raise invalid("A JSON Schema is an object.", where)
    return carried(raw, where)


def first_given(*raws: Raw) -> Raw:
    """The first that is there: a schema may stand under another vendor's name."""
    return next((raw for raw in raws if bytes(raw) not in (b"", b"null")), raws[0])


def carried(raw: Raw, where: str) -> Raw:
    """A schema that is sent on as it came, on one line, and without the rest of the body.

    A newline between two keys would end the line of an event stream that the schema is repeated in.
    """
    text = bytes(raw)
    if not jsontext.within(text, SCHEMA_VALUES.most):
        raise invalid(
            f"`{where.removeprefix('$.')}` has more than {SCHEMA_VALUES.most} values; at most"
            f" {SCHEMA_VALUES.most} values are taken.",
            where,
        )
    jsontext.check_depth(text, where)
    if jsontext.has_long_number(text):
        field = where.removeprefix("$.")
        raise invalid(
            f"`{field}` has a number of over 1,000 digits, which no upstream reads.", where
        )
    return Raw(jsontext.one_line(text))


def media_of(kind: str, url: str, detail: str, where: str) -> Media:
    """A picture or film from a data URL or an address, which is passed on and never fetched."""
    assert kind in ("image", "video")
    if url.startswith("data:"):
        head, comma, data = url[5:].partition(",")
        media_type = head.removesuffix(";base64")
        if not comma or not head.endswith(";base64") or not media_type.startswith(f"{kind}/"):
            raise invalid(f"Expected `data:{kind}/...;base64,...`.", where)
        return Media("image" if kind == "image" else "video", "", media_type, data, detail)
    if not url.startswith(("http://", "https://")):
        raise invalid("Expected an http(s) or data URL.", where)
    return Media("image" if kind == "image" else "video", url, detail=detail)


# --- freeform tools --------------------------------------------------------------------------------

_FREEFORM = "Put the tool's whole freeform text into the string `input`."


def freeform(
    name: str, description: str, grammar: tuple[str, str] = ("", ""), namespace: str = ""
) -> Tool:
    """Return a freeform (`custom`) tool as a function with one string; its grammar is only described."""
    what = _FREEFORM
    if grammar[1]:
        what += f" It follows this {grammar[0]} grammar:\n{grammar[1]}"
    schema = Raw(
        msgspec.json.encode(
            {
                "type": "object",
                "properties": {"input": {"type": "string", "description": what}},
                "required": ["input"],
                "additionalProperties": False,
            }
        )
    )
    # The client's own words may forbid JSON ("do not wrap the patch in JSON"), so ours come last.
    description = f"{description}\n\n{_FREEFORM}" if description else _FREEFORM
    return Tool(name, description, schema, custom=True, namespace=namespace)


def wrapped(text: str) -> str:
    """The input of a freeform tool as the arguments of the function it is offered as."""
    return msgspec.json.encode({"input": text}).decode()


class _Wrapped(Struct, frozen=True):
    input: str


_wrapped_decoder = msgspec.json.Decoder(_Wrapped | str)


def unwrapped(arguments: str) -> str:
    """The freeform text in a call's arguments; models forget the wrapping now and then."""
    try:
        value = _wrapped_decoder.decode(arguments)
    except (msgspec.MsgspecError, RecursionError):
        return arguments
    return value if isinstance(value, str) else value.input
