"""Where a text has personal data and secrets, by their form: what policy/masking.py replaces.

E-mail addresses, telephone numbers (with `+` or `00`, and Chinese mobiles), payment cards (Luhn), IBANs
(mod 97), keys and tokens by their vendors' prefixes.

The work grows with the text, and no regular expression reads more than a window of it at a time, so that
other threads go on meanwhile.  Each place that is looked at more closely is counted by `look`, which
refuses a request with too many.  Texts come with the marks of policy/escapes.py.
"""

import re
from collections.abc import Callable, Iterator

from headgate.policy.escapes import SPACES

KINDS = ("email", "phone", "card", "iban", "key")
PLACE = "\udc82"  # of a value that was found before; no text has it, see policy/escapes.py
_WINDOW = 1 << 16  # characters that are searched at a time
_LONGEST = 1 << 14  # more than any value has

Span = tuple[int, int]
Look = Callable[[], None]


def spans(kind: str, text: str, look: Look) -> Iterator[Span]:
    """Yield where values of this kind begin and end, from left to right."""
    match kind:
        case "key":
            return _keys(text, look)
        case "email":
            return _emails(text, look)
        case "card":
            return _cards(text, look)
        case "iban":
            return _found(_IBAN, text, look, mod97)
        case _:
            return _found(_PHONE, text, look, bool)


# --- by a form alone -----------------------------------------------------------------------------

# Each begins with the characters that it may begin with, which is what the search skips to; what must
# not stand before them is looked at then.
_IBAN = re.compile(
    r"[A-Z](?<![A-Za-z0-9_][\s\S])[A-Z][0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"
)
_PHONE = re.compile(
    r"[+01](?<![0-9A-Za-z_+.][\s\S])(?:(?<=\+)|(?<=0)0)[1-9](?:[ ().-]{0,2}[0-9]){7,14}(?![0-9])"
    r"|1(?<![0-9A-Za-z_+.-][\s\S])[3-9][0-9](?:[ -]?[0-9]{4}){2}(?![0-9A-Za-z]|[.-][0-9])"
)


def _found(
    form: re.Pattern[str], text: str, look: Look, valid: Callable[[str], bool]
) -> Iterator[Span]:
    at, size = 0, len(text)
    while at < size:
        stop = at + _WINDOW
        end = min(size, stop + _LONGEST)
        at = stop
        for found in form.finditer(text, stop - _WINDOW, end):
            if found.start() >= stop:
                break
            look()
            at = max(stop, found.end())
            if valid(found[0]):
                yield found.span()


# --- e-mail --------------------------------------------------------------------------------------

_LOCAL = re.compile(rf"[A-Za-z0-9._%+{PLACE}-]+\Z")
_DOMAIN = re.compile(
    r"@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,8}\.[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
_MOST_LOCAL = 64


def _emails(text: str, look: Look) -> Iterator[Span]:
    last, at = 0, text.find("@")
    while at >= 0:
        look()
        domain = _DOMAIN.match(text, at, at + _LONGEST)
        if domain is not None:
            head = max(last, at - _MOST_LOCAL - 1)
            local = _LOCAL.search(text[head:at])
            if local is not None and len(local[0]) <= _MOST_LOCAL:
                last = domain.end()
                yield head + local.start(), last
        at = text.find("@", max(last, at + 1))


# --- keys ----------------------------------------------------------------------------------------

_PEM = r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----[A-Za-z0-9+/=\s%s]{1,8192}-----END [A-Z ]{0,32}PRIVATE KEY-----"
_KEY = re.compile(
    (_PEM % SPACES) + r"|(?<![A-Za-z0-9_-])(?:"
    r"sk-[A-Za-z0-9_-]{16,256}|hg_(?:live|admin)_[0-9A-Za-z]{20,128}|gh[opsur]_[A-Za-z0-9]{20,255}"
    r"|github_pat_[A-Za-z0-9_]{20,255}|glpat-[A-Za-z0-9_-]{16,64}|xox[abeoprs]-[A-Za-z0-9-]{10,255}"
    r"|A(?:KIA|SIA)[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}|[rs]k_(?:live|test)_[0-9A-Za-z]{16,255}"
    r"|npm_[A-Za-z0-9]{30,64}|hf_[A-Za-z0-9]{30,64}"
    r"|eyJ[A-Za-z0-9_-]{8,1024}\.[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,1024}"
    r")(?![A-Za-z0-9_-])"
)
# How each begins: looking for it is much cheaper.
_BEGINNINGS = (
    "-----BEGIN ", "sk-", "hg_live_", "hg_admin_", "gho_", "ghp_", "ghs_", "ghu_", "ghr_", "github_pat_",
    "glpat-", "xoxa-", "xoxb-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-", "AKIA", "ASIA", "AIza",
    "sk_live_", "sk_test_", "rk_live_", "rk_test_", "npm_", "hf_", "eyJ",
)  # fmt: skip


def _keys(text: str, look: Look) -> Iterator[Span]:
    places: list[int] = []
    for word in _BEGINNINGS:
        at = text.find(word)
        while at >= 0:
            look()
            places.append(at)
            at = text.find(word, at + len(word))
    end = 0
    for at in sorted(places):
        if at >= end and (found := _KEY.match(text, at, at + _LONGEST)) is not None:
            end = found.end()
            yield at, end


# --- cards ---------------------------------------------------------------------------------------

# The first group of digits that a card's may be, and at least two more of them, as 13 digits need three.
_CARD = re.compile(
    r"[0-9](?<![0-9A-Za-z_.][\s\S])(?:[0-9]{12,18}(?![0-9])"
    r"|[0-9]{2,5}(?=((?:[ -][0-9]{3,6}(?![0-9])){2,5})))"
)
_GROUP = re.compile("[ -][0-9]+")
_GOES_ON = re.compile(r"[A-Za-z]|\.[0-9]")  # as a part of something else
_DIGITS, _MOST_DIGITS = 13, 19
_BACK = 64  # characters of a run of groups that are looked back at


def _cards(text: str, look: Look) -> Iterator[Span]:
    """Cards in a run of digits: one group of them, or several of three to six."""
    at, size = 0, len(text)
    while at < size:
        stop = at + _WINDOW
        window = min(size, stop + _LONGEST)
        while at < stop and (found := _CARD.search(text, at, window)) is not None:
            first = found.start()
            if first >= stop:
                break
            at = found.end()
            look()
            if _begins_run(text, first) and (end := _card_end(text, found)):
                at = end
                yield first, end
        at = max(at, stop)


def _card_end(text: str, found: re.Match[str]) -> int:
    """Return where a card ends that begins with this group; 0: none does."""
    first, end = found.span()
    digits = end - first
    more = _GROUP.finditer(found[1] or "")
    while True:
        if digits > _MOST_DIGITS:
            return 0
        if digits >= _DIGITS and luhn(text[first:end]) and not _GOES_ON.match(text, end):
            return end
        group = next(more, None)
        if group is None:
            return 0
        digits += len(group[0]) - 1
        end = found.end() + group.end()


def _begins_run(text: str, first: int) -> bool:
    """Whether the groups before this one, joined to it by `-`, begin where a run of groups may."""
    if first == 0 or text[first - 1] != "-":
        return True
    head = text[max(0, first - _BACK) : first]
    joined = head[len(head.rstrip("0123456789-")) :]
    if joined[0] == "-" or "--" in joined:
        return False
    before = head[: len(head) - len(joined)][-1:]
    return not (before.isascii() and before.isalnum()) and before not in ("_", ".")


_ONES = bytes.maketrans(b"0123456789", bytes(range(10)))
_TWICE = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))


def luhn(text: str) -> bool:
    """Whether the digits are a payment card's number (ISO/IEC 7812-1, annex B)."""
    digits = text.encode("ascii").translate(None, b" -")
    total = sum(digits[-1::-2].translate(_ONES)) + sum(digits[-2::-2].translate(_TWICE))
    return total % 10 == 0 and len(set(digits)) > 1


def mod97(text: str) -> bool:
    """Whether the text is an IBAN (ISO 13616)."""
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1
