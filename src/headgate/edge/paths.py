"""Which dialect a path belongs to, and where a request's credential is: the only place with the tables of paths."""

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from headgate.dialects.contract import Dialect
from headgate.dialects.registry import COMPACT, DIALECTS, GEMINI, OPENAI, REPLY_ID
from headgate.errors import Failure, invalid
from headgate.net.inbound import Inbound

# Google's clients in Vertex AI's mode put the publisher into the path.  Gemini CLI needs that mode, as
# without a settings file it takes a base URL from no other variables (0.61.0).
_GOOGLE = r"/(?:v1|v1beta|v1alpha|(?:v1|v1beta1)/publishers/google)/models"
# Nothing but a plain name is between the slash and the method; %3A is a colon.
# A model's name may have slashes, and colons of its own before the method's.
_NAME = r"((?!.*\.\.)[A-Za-z0-9](?:[A-Za-z0-9._:@+/-]|%(?:2[BbFf]|3[Aa]|40)){0,255})"
GENERATE = re.compile(
    _GOOGLE + "/" + _NAME + r"(?::|%3[Aa])"
    r"(generateContent|streamGenerateContent|countTokens)"
)
_GEMINI_PATH = re.compile(_GOOGLE + r"(?:/|$)")
MODEL = re.compile(_GOOGLE + "/" + _NAME)
GENERATION = re.compile("/v1/generations/" + REPLY_ID)
SESSION = re.compile(r"/v1/sessions/([A-Za-z0-9%._:-]{1,300})")
MODELS = re.compile(_GOOGLE + "/?")
# What control never sees: there a mistaken path is refused in the protocol of who asked.
_API = re.compile(r"/(?:v1|v1beta|v1beta1|v1alpha|chat|responses|messages)(?:/|$)")
POST: dict[str, Dialect] = {p: d for d in DIALECTS.values() for p in d.facts.served}
POST["/v1/responses/compact"] = COMPACT
COUNT: dict[str, Dialect] = {p: d for d in DIALECTS.values() for p in d.facts.counted}
# What a request would cost: its own path behind /quote, with the same body.
QUOTE: dict[str, Dialect] = {
    p.replace("/v1/", "/v1/quote/", 1): d for d in DIALECTS.values() for p in d.facts.served
}
QUOTE["/v1/quote"] = OPENAI
# Users put /v1 into a base URL to which their client adds it again, or leave it out where it does not.
for _table in (POST, COUNT, QUOTE):
    _table.update([(p.removeprefix("/v1"), d) for p, d in _table.items()])
    _table.update([(f"/v1{p}", d) for p, d in _table.items() if p.startswith("/v1/")])
# Headers are looked at in this order, as a request may have those of two protocols.
_CLAIMING = sorted(DIALECTS.values(), key=lambda d: d is not GEMINI)
TAKEN = frozenset((*POST, *COUNT, *QUOTE))


# What stands before the API's paths at a vendor: MiniMax and DeepSeek, Groq, OpenRouter.  A user who replaces the host of
# a base URL keeps it.
_PREFIX = re.compile(r"/(?:anthropic|openai|api)(?=/v1)")
_SLASHES = re.compile(r"//+")
PREFIXED = ("//", "/anthropic/", "/openai/", "/api/")  # how such a path begins


def plain(path: str) -> str:
    """The API's own path that is meant, without a vendor's prefix and needless slashes; else the same path."""
    found = _PREFIX.sub("", _SLASHES.sub("/", path), count=1).rstrip("/")
    known = found in TAKEN or MODELS.fullmatch(found) or MODEL.fullmatch(found)
    return found if known or GENERATE.fullmatch(found) else path


def is_api(path: str) -> bool:
    """Also a path of the API that is cut, or behind a prefix: its client gets a hint."""
    if path.startswith("/docs/"):  # a guide may be called as a path of the API: /docs/responses
        return False
    known = (*POST, *COUNT)
    cut = len(path) > 4 and any(k.endswith(path) for k in known)  # "/messages"
    return cut or _API.match(path) is not None or path.endswith(known)


def no_path(path: str) -> Failure:
    hint = ""
    for known in (*POST, *COUNT):
        if path.endswith(known.removeprefix("/v1")) or (known.endswith(path) and len(path) > 4):
            hint = f" Did you mean {known}?"
            break
    return Failure("not_found", f"There is nothing at {path[:128]}.{hint}", code="unknown_path")


def dialect_of(path: str, headers: Mapping[str, str], query: str) -> Dialect:
    """The protocol of a path that several claim, by what its clients send."""
    if path in POST:
        return POST[path]
    for dialect in _CLAIMING:
        if path.startswith(dialect.facts.claims):
            return dialect
    if GENERATE.fullmatch(path) or "key=" in query:
        return GEMINI
    for dialect in _CLAIMING:
        if any(name in headers for name in dialect.facts.client_headers):
            return dialect
    return OPENAI


def credential(headers: Mapping[str, str], query: str, path: str) -> str | None:
    """The one key a request presents, through whichever door; two different ones are refused."""
    found: set[str] = set()
    authorization = headers.get("authorization", "")
    if authorization:
        scheme, _, token = authorization.partition(" ")
        found.add(token.strip() if scheme.lower() == "bearer" else authorization)
    for name in ("x-api-key", "x-goog-api-key"):
        if value := headers.get(name, "").strip():
            found.add(value)
    # Only Google's clients put keys into addresses; elsewhere an address must not open anything.
    if "key=" in query and _GEMINI_PATH.match(path):
        found.update(v for k, v in parse_qsl(query) if k == "key" and v)
    found.discard("")
    if len(found) > 1:
        raise invalid(
            "Two different API keys were sent. Send one, in one header.",
            code="conflicting_credentials",
        )
    return found.pop() if found else None


def wants_page(inbound: Inbound) -> bool:
    """Whether a browser asks for the front page, and not a client or a probe."""
    return inbound.path == "/" and "text/html" in inbound.headers.get("accept", "")
