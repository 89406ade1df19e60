"""What an error says, in whichever vendor's form it comes: servers answer with the forms of others.

Google's endpoint for OpenAI's protocol answers with arrays of google.rpc.Status, gateways wrap OpenAI's errors in
those of Gemini or Anthropic, and write JSON into the text of a message.  A body that is not JSON says nothing here.
"""

import json
import math
import re
from typing import Any

import msgspec
from msgspec import Struct

from headgate import utf8
from headgate.dialects.retry_after import MAX_WAIT_S

# google.rpc.Code: its number, and the HTTP status it stands for (google/rpc/code.proto, read 2026-11).
_RPC: dict[str, tuple[int, int]] = {
    "CANCELLED": (1, 499),
    "UNKNOWN": (2, 500),
    "INVALID_ARGUMENT": (3, 400),
    "DEADLINE_EXCEEDED": (4, 504),
    "NOT_FOUND": (5, 404),
    "ALREADY_EXISTS": (6, 409),
    "PERMISSION_DENIED": (7, 403),
    "RESOURCE_EXHAUSTED": (8, 429),
    "FAILED_PRECONDITION": (9, 400),
    "ABORTED": (10, 409),
    "OUT_OF_RANGE": (11, 400),
    "UNIMPLEMENTED": (12, 501),
    "INTERNAL": (13, 500),
    "UNAVAILABLE": (14, 503),
    "DATA_LOSS": (15, 500),
    "UNAUTHENTICATED": (16, 401),
}
_OF_WORD = {word: status for word, (_, status) in _RPC.items()}
_OF_NUMBER = dict(_RPC.values())
_DEEPEST = 5  # an error in the text of an error in an array takes three
_MOST = 16  # items of a list that are looked at
_PREFIX = 200  # characters before JSON in a text, such as "429 {...}" and "got status: 429. {...}"
_LONGEST = 1 << 16  # characters of a text that are searched for JSON
_INNER = ("error", "errors", "detail", "fault")
_MESSAGES = ("message", "msg", "error_message", "error_description", "error_msg", "title", "reason")
_PAGE = re.compile(r"\s*<(?:!doctype|html|head|body|\?xml)\b", re.I)
_json = json.JSONDecoder()


class ErrorWords(Struct, frozen=True):
    """What was found; `status` is what the error itself gives as HTTP's, or 0."""

    message: str = ""
    code: int | str | None = None
    type: str = ""
    status: int = 0
    reasons: tuple[str, ...] = ()  # of google.rpc.ErrorInfo
    wait_s: float | None = None  # of google.rpc.RetryInfo


NOTHING = ErrorWords()


def words_in(body: bytes) -> ErrorWords:
    """Return what an error's JSON says: an object, a list, or a text."""
    try:
        value = json.loads(body.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return NOTHING
    found = _words(value, 0)
    return msgspec.structs.replace(found, message=utf8.whole_text(found.message))


def is_page(text: str) -> bool:
    """Whether a text is a page of HTML or XML, which is no client's to read."""
    return _PAGE.match(text) is not None


def _words(value: Any, depth: int) -> ErrorWords:  # Any: an upstream's JSON
    if depth > _DEEPEST:
        return NOTHING
    if isinstance(value, str):
        return _of_text(value, depth)
    if isinstance(value, list):
        found = [_words(each, depth + 1) for each in value[:_MOST]]
        return next((each for each in found if each != NOTHING), NOTHING)
    return _of_object(value, depth) if isinstance(value, dict) else NOTHING


def _of_text(text: str, depth: int) -> ErrorWords:
    at = min((n for n in (text.find("{"), text.find("[{")) if n >= 0), default=-1)
    if 0 <= at <= _PREFIX and len(text) <= _LONGEST:
        try:
            inner = _words(_json.raw_decode(text, at)[0], depth + 1)
        except (ValueError, RecursionError):
            inner = NOTHING
        if inner.message:
            return inner
    return NOTHING if is_page(text) else ErrorWords(text)


def _of_object(error: dict[str, Any], depth: int) -> ErrorWords:
    own = next((text for n in _MESSAGES if isinstance(text := error.get(n), str) and text), "")
    of_message = _of_text(own, depth + 1) if own else NOTHING
    codes = [error.get("code"), error.get("error_code")]
    inner = NOTHING
    if own and isinstance(error.get("error"), str):
        codes.append(error["error"])  # a word beside the message
    else:
        found = (_words(error.get(name), depth + 1) for name in _INNER)
        inner = next((each for each in found if each != NOTHING), NOTHING)
    kind, status = error.get("type"), error.get("status")
    word = status if isinstance(status, str) else ""
    code = next((c for c in codes if isinstance(c, int | str) and not isinstance(c, bool)), None)
    details = error.get("details")
    details = (
        [d for d in details[:_MOST] if isinstance(d, dict)] if isinstance(details, list) else []
    )
    this = ErrorWords(
        code=None if word in _RPC else code,
        type=kind if isinstance(kind, str) else word,
        status=_status(error, word, code),
        reasons=tuple(d["reason"] for d in details if isinstance(d.get("reason"), str)),
        wait_s=_wait(details),
    )
    layers = (inner, of_message, this)
    return ErrorWords(
        next((each.message for each in layers if each.message), ""),
        next((each.code for each in layers if each.code is not None), None),
        next((each.type for each in layers if each.type), ""),
        next((each.status for each in layers if each.status), 0),
        next((each.reasons for each in layers if each.reasons), ()),
        next((each.wait_s for each in layers if each.wait_s is not None), None),
    )


def _status(error: dict[str, Any], word: str, code: int | str | None) -> int:
    """Return the HTTP status that an error gives: MiniMax as `http_code`, vLLM as `code`, Google in words."""
    for value in (error.get("http_code"), code, error.get("status"), error.get("status_code")):
        text = str(value)
        if len(text) == 3 and text.isdecimal() and 400 <= int(text) < 600:
            return int(text)
    if word in _OF_WORD:
        return _OF_WORD[word]
    if isinstance(code, int) and "type" not in error:
        return _OF_NUMBER.get(code, 0)
    return 0


def _wait(details: list[dict[str, Any]]) -> float | None:
    """Return the seconds of google.rpc.RetryInfo, such as "3.5s"."""
    for detail in details:
        try:
            value = float(str(detail.get("retryDelay", "")).removesuffix("s"))
        except ValueError:
            continue
        if math.isfinite(value) and value >= 0:
            return min(value, MAX_WAIT_S)
    return None
