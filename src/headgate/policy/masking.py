"""Personal data and secrets in a request: found, replaced by names, and put back in the reply.

A value becomes a name like `EMAIL_9F3C21AB04D7`, an HMAC of it: the same value has the same name in
every turn, so that an upstream's prompt cache and the signatures of thinking still hold.  Detection is
local and by form: see policy/masked_forms.py.

Note: pictures and films are not read.  A form that is written in another way is not found.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from itertools import chain

import msgspec

from headgate import bounds
from headgate.chat import (
    Message,
    Part,
    Request,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from headgate.policy import escapes
from headgate.policy.masked_forms import KINDS, PLACE, spans

_ORDER = ("key", "email", "iban", "card", "phone")

DIGITS = 12  # of a name; two values of one key share one with a chance of 2**-48
_LONGEST = len("EMAIL_") + DIGITS
_SHORTEST = 9  # characters; only addresses are shorter

_NAME = re.compile(
    f"(?:{'|'.join(k.upper() for k in KINDS)})_[0-9A-F]{{{DIGITS}}}"  # as `named` makes them
)


def _begun(word: str) -> str:
    """A pattern of every beginning of a name of this kind that is not whole."""
    pattern = f"(?:_[0-9A-F]{{0,{DIGITS - 1}}})?"
    for letter in reversed(word[1:]):
        pattern = f"(?:{letter}{pattern})?"
    return word[0] + pattern


_BEGUN = re.compile(f"(?:{'|'.join(_begun(k.upper()) for k in KINDS)})$")


def kinds(text: str) -> tuple[str, ...]:
    """Return the kinds of a text like `email,card` or `all`; ValueError names a wrong one."""
    found = set(text.lower().replace(",", " ").split())
    if found == {"all"}:
        return KINDS
    for word in sorted(found.difference(KINDS)):
        raise ValueError(f"`{word[:40]}` is not masked; name {', '.join(KINDS)}, or all")
    return tuple(k for k in KINDS if k in found)


def filled(text: str, words: list[str]) -> str:
    """Return the text with these words in its places."""
    if not words:
        return text
    pieces = text.split(PLACE)
    return "".join(chain.from_iterable(zip(pieces, [*words, ""], strict=True)))


class Masker:
    """Masks what leaves, and knows each name that it gave.

    A text that comes again, as when the request is fitted and sent, is not searched again.
    """

    def __init__(self, kinds: Iterable[str], secret: bytes) -> None:
        """`secret`: of the key, so that the names of one are nobody else's."""
        wanted = frozenset(kinds)
        # One after the other, so that a telephone number takes no digits of the card behind it.
        self._kinds = [k for k in _ORDER if k in wanted]
        self._secret = secret
        self._looked = 0
        self._texts: dict[str, str] = {}
        self._json_texts: dict[str, str] = {}
        self._names: dict[tuple[str, str], str] = {}
        self.values: dict[str, str] = {}
        self.counts: dict[str, int] = {}

    def text(self, text: str) -> str:
        """Return the text with each value replaced by its name; Refused above the bound of MASKED."""
        return self._known(text, self._texts, json=False)

    def _known(self, text: str, known: dict[str, str], *, json: bool) -> str:
        if len(text) < _SHORTEST and "@" not in text:
            return text
        masked = known.get(text)
        if masked is None:
            masked = known[text] = self._masked(text, json=json)
        return masked

    def _masked(self, text: str, *, json: bool) -> str:
        bare = escapes.marked(text, json=json)
        masked = bare
        names: list[str] = []  # in the order of their places
        for kind in self._kinds:
            masked, names = self._searched(kind, masked, names)
        if masked is bare:
            return text
        return filled(escapes.unmarked(masked), names)

    def _searched(self, kind: str, text: str, names: list[str]) -> tuple[str, list[str]]:
        """Return the text with PLACE for each value of this kind too, and the names of all places."""
        out: list[str] = []
        named: list[str] = []
        at = used = 0
        for begin, end in spans(kind, text, self._look):
            before = used + text.count(PLACE, at, begin)
            inside = before + text.count(PLACE, begin, end)
            value = escapes.meant(text[begin:end])
            value = filled(value, [self.values[name] for name in names[before:inside]])
            named += (*names[used:before], self._name(kind, value))
            out += (text[at:begin], PLACE)
            at, used = end, inside
        if not out:
            return text, names
        return "".join((*out, text[at:])), [*named, *names[used:]]

    def _look(self) -> None:
        self._looked += 1
        bounds.check(self._looked, bounds.MASKED, "")

    def _name(self, kind: str, value: str) -> str:
        name = self._names.get((kind, value))
        if name is None:
            digest = hmac.digest(self._secret, value.encode(), hashlib.sha256)
            name = f"{kind.upper()}_{digest.hex()[:DIGITS].upper()}"
            self._names[kind, value] = name
            if name not in self.values:
                self.values[name] = value
                self.counts[kind] = self.counts.get(kind, 0) + 1
        return name

    def request(self, request: Request) -> Request:
        """Return the request as it may leave; what the reply repeats of it is not changed."""
        replace = msgspec.structs.replace
        tools = tuple(self._tool(t) for t in request.tools)
        format = request.format
        if format is not None:
            format = replace(format, schema=self._raw(format.schema))
        return replace(
            request,
            messages=tuple(
                Message(m.role, tuple(self._part(p) for p in m.parts)) for m in request.messages
            ),
            tools=tools,
            format=format,
            sampling=self._sampling(request.sampling),
            session=self.text(request.session),
            user=self.text(request.user),
        )

    def _sampling(self, sampling: Sampling) -> Sampling:
        """Return it with its stop sequences as the reply, which has names too, must be looked for."""
        if not sampling.stop:
            return sampling
        return msgspec.structs.replace(sampling, stop=tuple(self.text(s) for s in sampling.stop))

    def _part(self, part: Part) -> Part:
        replace = msgspec.structs.replace
        if isinstance(part, Text):
            return self._text(part)
        if isinstance(part, Thinking):
            return replace(part, text=self.text(part.text))
        if isinstance(part, ToolCall):
            return self.call(part)
        if isinstance(part, ToolResult):
            inside = tuple(self._text(p) if isinstance(p, Text) else p for p in part.parts)
            return replace(part, parts=inside)
        return part

    def call(self, call: ToolCall) -> ToolCall:
        """Return the call with its arguments as they may leave."""
        arguments = self._json(call.arguments)
        if arguments == call.arguments:
            return call
        return ToolCall(call.id, call.name, arguments, call.cache)

    def _json(self, text: str) -> str:
        """As `text`, of JSON, which may write a character as `\\u0040`."""
        return self._known(text, self._json_texts, json=True)

    def _text(self, part: Text) -> Text:
        text = self.text(part.text)
        return part if text == part.text else Text(text, part.cache)

    def _tool(self, tool: Tool) -> Tool:
        return msgspec.structs.replace(
            tool, description=self.text(tool.description), parameters=self._raw(tool.parameters)
        )

    def _raw(self, raw: msgspec.Raw) -> msgspec.Raw:
        return msgspec.Raw(self._json(bytes(raw).decode("utf-8")).encode())

    def reason(self) -> str:
        """Return what the row says: how many values of each kind were masked; "" when none was."""
        found = ", ".join(f"{n} {kind}" for kind, n in sorted(self.counts.items()))
        return f"masked ({found})" if found else ""


class Restorer:
    """Puts values back into one text that comes in pieces, wherever a piece ends."""

    def __init__(self, values: dict[str, str], *, json: bool = False) -> None:
        """`json`: the text is JSON, in whose strings a value is escaped."""
        self._values = values
        self._json = json
        self._held = ""

    def feed(self, text: str) -> str:
        """Return what is sure of the text so far."""
        text, end = self._held + text, 0
        out: list[str] = []
        for found in _NAME.finditer(text):
            out += (text[end : found.start()], self._value(found))
            end = found.end()
        tail = _BEGUN.search(text, max(end, len(text) - _LONGEST + 1))
        cut = tail.start() if tail is not None else len(text)
        self._held = text[cut:]
        return "".join((*out, text[end:cut]))

    def close(self) -> str:
        """Return the rest."""
        rest, self._held = self._held, ""
        return rest

    def _value(self, found: re.Match[str]) -> str:
        value = self._values.get(found[0])
        if value is None:
            return found[0]
        return json.dumps(value, ensure_ascii=False)[1:-1] if self._json else value
