"""Personal data and secrets in a request: found, replaced by names, and put back in the reply.

A value becomes a name like `EMAIL_9F3C21AB04D7`, an HMAC of it: the same value has the same name in
every turn, so that an upstream's prompt cache and the signatures of thinking still hold.  Detection is
local and by form: e-mail addresses, telephone numbers (with `+` or `00`, and Chinese mobiles), payment
cards (Luhn), IBANs (mod 97), keys and tokens by their vendors' prefixes.

Note: pictures and films are not read.  A form that is written in another way is not found.
"""

import contextlib
import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from functools import partial

import msgspec

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

KINDS = ("email", "phone", "card", "iban", "key")
DIGITS = 12  # of a name; two values of one key share one with a chance of 2**-48
_LONGEST = len("EMAIL_") + DIGITS

# Each is linear: what repeats is bounded, and no match begins inside a run that one was tried for.
_FORMS: dict[str, str] = {
    "key": (
        r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----[A-Za-z0-9+/=\s]{1,8192}-----END [A-Z ]{0,32}PRIVATE KEY-----"
        r"|(?<![A-Za-z0-9_-])(?:"
        r"sk-[A-Za-z0-9_-]{16,256}|hg_(?:live|admin)_[0-9A-Za-z]{20,128}|gh[opsur]_[A-Za-z0-9]{20,255}"
        r"|github_pat_[A-Za-z0-9_]{20,255}|glpat-[A-Za-z0-9_-]{16,64}|xox[abeoprs]-[A-Za-z0-9-]{10,255}"
        r"|A(?:KIA|SIA)[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}|[rs]k_(?:live|test)_[0-9A-Za-z]{16,255}"
        r"|npm_[A-Za-z0-9]{30,64}|hf_[A-Za-z0-9]{30,64}"
        r"|eyJ[A-Za-z0-9_-]{8,1024}\.[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,1024}"
        r")(?![A-Za-z0-9_-])"
    ),
    "email": (
        r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,8}"
        r"\.[A-Za-z]{2,24}(?![A-Za-z0-9-])"
    ),
    "iban": r"(?<![A-Za-z0-9_])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])",
    # A run of digits in groups, in which a card's may be some: see `_cards`.
    "card": r"(?<![0-9A-Za-z_.-])[0-9]+(?:[ -][0-9]+)*",
    "phone": (
        r"(?<![0-9A-Za-z_+.])(?:\+|00)[1-9](?:[ ().-]{0,2}[0-9]){7,14}(?![0-9])"
        r"|(?<![0-9A-Za-z_+.-])1[3-9][0-9](?:[ -]?[0-9]{4}){2}(?![0-9A-Za-z]|[.-][0-9])"
    ),
}  # fmt: skip
# What a text has somewhere if it has such a value at all: looking for it is much cheaper.
_SIGNS: dict[str, tuple[str, ...]] = {
    "key": (
        "PRIVATE KEY",
        "sk-",
        "hg_",
        "gh",
        "glpat-",
        "xox",
        "AKIA",
        "ASIA",
        "AIza",
        "k_live_",
        "k_test_",
        "npm_",
        "hf_",
        "eyJ",
    ),
    "email": ("@",),
    "phone": ("+", "00", "1"),
}
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


class Masker:
    """Masks what leaves, and knows each name that it gave."""

    def __init__(self, kinds: Iterable[str], secret: bytes) -> None:
        """`secret`: of the key, so that the names of one are nobody else's."""
        wanted = frozenset(kinds)
        # One after the other, so that a telephone number takes no digits of the card behind it.
        self._find = [(k, re.compile(form)) for k, form in _FORMS.items() if k in wanted]
        self._secret = secret
        self.values: dict[str, str] = {}
        self.counts: dict[str, int] = {}

    def text(self, text: str) -> str:
        """Return the text with each value replaced by its name."""
        for kind, form in self._find:
            signs = _SIGNS.get(kind)
            if signs is not None and not any(sign in text for sign in signs):
                continue
            match kind:
                case "card":
                    text = form.sub(self._cards, text)
                case "iban":
                    text = form.sub(self._iban, text)
                case _:
                    text = form.sub(partial(self._found, kind), text)
        return text

    def _found(self, kind: str, found: re.Match[str]) -> str:
        return self._name(kind, found[0])

    def _iban(self, found: re.Match[str]) -> str:
        return self._name("iban", found[0]) if mod97(found[0]) else found[0]

    def _cards(self, found: re.Match[str]) -> str:
        """Replace the cards in a run of digits: one group of them, or several of three to six."""
        groups = list(re.finditer("[0-9]+", run := found[0]))
        if re.match(r"[A-Za-z]|\.[0-9]", found.string[found.end() : found.end() + 2]):
            groups.pop()  # it goes on, as a part of something else
        out: list[str] = []
        at, n = 0, 0
        while n < len(groups):
            end = self._card_from(groups, n, run)
            if end:
                first, last = groups[n].start(), groups[end - 1].end()
                out += (run[at:first], self._name("card", run[first:last]))
                at, n = last, end
            else:
                n += 1
        return "".join((*out, run[at:]))

    def _card_from(self, groups: list[re.Match[str]], first: int, run: str) -> int:
        """Return behind which group a card ends that begins with the group `first`; 0: none does."""
        digits = 0
        for n in range(first, min(first + 7, len(groups))):
            size = len(groups[n][0])
            digits += size
            if digits > 19 or (n > first and not 3 <= size <= 6):
                return 0
            if digits >= 13 and luhn(run[groups[first].start() : groups[n].end()]):
                return n + 1
            if not 3 <= size <= 6:
                return 0
        return 0

    def _name(self, kind: str, value: str) -> str:
        digest = hmac.digest(self._secret, value.encode("utf-8", "surrogatepass"), hashlib.sha256)
        name = f"{kind.upper()}_{digest.hex()[:DIGITS].upper()}"
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
        if "\\u" in text:
            with contextlib.suppress(ValueError, RecursionError):  # no JSON is read as it stands
                text = json.dumps(json.loads(text), ensure_ascii=False)
        return self.text(text)

    def _text(self, part: Text) -> Text:
        text = self.text(part.text)
        return part if text == part.text else Text(text, part.cache)

    def _tool(self, tool: Tool) -> Tool:
        return msgspec.structs.replace(
            tool, description=self.text(tool.description), parameters=self._raw(tool.parameters)
        )

    def _raw(self, raw: msgspec.Raw) -> msgspec.Raw:
        return msgspec.Raw(self._json(bytes(raw).decode("utf-8")).encode("utf-8", "surrogatepass"))

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


def luhn(text: str) -> bool:
    """Whether the digits are a payment card's number (ISO/IEC 7812-1, annex B)."""
    digits = [int(c) for c in text if c.isdigit()]
    total = sum(digits[-1::-2]) + sum(d * 2 - 9 * (d > 4) for d in digits[-2::-2])
    return total % 10 == 0 and len(set(digits)) > 1


def mod97(text: str) -> bool:
    """Whether the text is an IBAN (ISO 13616)."""
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1
