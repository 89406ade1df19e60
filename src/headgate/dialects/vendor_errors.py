"""The error dictionary: what upstreams' error numbers and words mean to the caller.

The only place that knows MiniMax's numbers (platform.minimax.io/docs errorcode.md, read 2026-11)
and the 400s which are really something else.

Note: an upstream's 401, 402, 403 and 404 are the operator's to repair, not the client's. They never
reach a client as such: it would look for the fault in its own key, or in its own request.
"""

import re
from collections.abc import Mapping
from contextlib import suppress

import msgspec
from msgspec import Raw, Struct

from headgate.dialects import upstream_json
from headgate.dialects.error_words import NOTHING, ErrorWords, is_page, words_in
from headgate.dialects.retry_after import retry_after
from headgate.errors import MODEL_OUTPUT, Failure, Kind
from headgate.redaction import redacted

# code: (kind, what the client is told; "" passes the upstream's own words on)
CODES: dict[int, tuple[Kind, str]] = {
    1000: ("upstream", "The upstream reported an unknown error."),
    1001: ("timeout", "The upstream timed out."),
    1002: ("rate_limit", "The upstream's request rate limit is reached."),
    1004: ("upstream_auth", "The upstream refused the gateway's own key (wrong key or region)."),
    1008: ("upstream_quota", "The gateway's account at the upstream has no balance left."),
    1013: ("upstream", "The upstream reported an internal error."),
    1024: ("upstream", "The upstream reported an internal error."),
    1026: ("blocked", "The upstream refused the prompt as sensitive."),
    1027: ("blocked", "The upstream withheld its reply as sensitive."),
    1028: ("upstream_quota", "The gateway's quota at the upstream is used up."),
    1030: ("upstream_quota", "The gateway's quota at the upstream is used up."),
    1033: ("upstream", "The upstream reported a system error."),
    1039: ("rate_limit", "The upstream's token rate limit is reached."),
    1041: ("rate_limit", "The upstream's connection limit is reached."),
    1042: ("invalid", "The prompt has too many invisible or control characters."),
    2013: ("invalid", ""),
    2045: ("rate_limit", "The upstream limits how fast requests may grow."),
    2049: ("upstream_auth", "The upstream refused the gateway's own key."),
    2056: ("upstream_quota", "The gateway's plan at the upstream is used up for now."),
    2061: ("upstream_quota", "The gateway's plan at the upstream does not include this model."),
}

# The status that a `code` or `type` stands for, of an error that came inside a reply with status 200.
# OpenAI, Azure, Anthropic, vLLM (`BadRequestError`) and OpenRouter, read 2026-11.
_STATUS_OF_WORD: dict[str, int] = {
    **dict.fromkeys(
        (
            "invalid_request_error", "invalid_request", "invalid_prompt", "invalid_argument", "invalid_parameter",
            "bad_request", "bad_request_error", "badrequesterror", "unprocessableentityerror",
            "unsupported_parameter", "unsupported_value", "invalid_image", "invalid_function_parameters",
        ),
        400,
    ),
    **dict.fromkeys(("authentication_error", "invalid_api_key", "unauthorized", "authenticationerror"), 401),
    **dict.fromkeys(("billing_error", "payment_required"), 402),
    **dict.fromkeys(("permission_error", "permission_denied", "forbidden", "permissiondeniederror"), 403),
    **dict.fromkeys(("not_found_error", "not_found", "model_not_found", "notfounderror"), 404),
    **dict.fromkeys(("request_too_large", "request_entity_too_large", "payload_too_large"), 413),
    **dict.fromkeys(("rate_limit_error", "rate_limit_exceeded", "too_many_requests", "ratelimiterror"), 429),
    **dict.fromkeys(("timeout_error", "timeout", "gateway_timeout"), 504),
    **dict.fromkeys(("overloaded_error", "overloaded", "server_is_overloaded", "slow_down"), 529),
}  # fmt: skip
_BLOCKED_WORDS = frozenset(
    (
        "content_filter",
        "content_policy_violation",
        "responsibleaipolicyviolation",
        "moderation_blocked",
    )
)
# Groq's, with a 400, for a call that the model wrote wrongly (console.groq.com/docs/errors, read 2026-11).
_OUTPUT_WORDS = frozenset(("tool_use_failed", "json_validate_failed", "output_parse_failed"))
_QUOTA_WORDS = frozenset(("insufficient_quota", "insufficient_balance", "insufficient_credits"))

_CODE = re.compile(r"\((\d{4,5})\)\s*$")
_CONTEXT = re.compile(
    r"context (window|length|size)|maximum context|input token count|prompt is too long|too many tokens|context_length",
    re.I,
)
_UNKNOWN_MODEL = re.compile(
    r"unknown model|not support model|model .{0,80}(does not exist|not found)", re.I
)
# OpenRouter answers 403 to a prompt that its moderation flagged: the request's fault, not the key's.
_FLAGGED = re.compile(r"moderation|flagged|content policy", re.I)
# OpenAI and Azure answer 429 to a request that alone is above the limit of a minute: waiting does not help,
# and smaller requests pass.
_ALONE_TOO_LARGE = re.compile(r"request too large", re.I)
_OVERLOAD = re.compile(r"high traffic|high load|overloaded", re.I)
# Anthropic says with a 400 that the "credit balance is too low".
_BALANCE = re.compile(r"insufficient (balance|credit|quota)|credit balance is too low", re.I)
# Words of the request that an upstream repeats must not look like the upstream's own.
_QUOTED = re.compile(r"(?<![A-Za-z])'[^']*+'|\"[^\"]*+\"|`[^`]*+`")
MAX_CODE = 64  # characters of an upstream's code that are shown
MAX_MESSAGE = 600  # characters of an upstream's words that are passed on


def failure_of(
    status: int,
    message: str,
    code: int | str | None = None,
    type_: str = "",
    retry_after_s: float | None = None,
) -> Failure:
    """The failure behind an upstream's error; `status` 200 where it came inside a reply."""
    message = message[:MAX_MESSAGE]
    words = (str(code)[:MAX_CODE].lower(), type_[:MAX_CODE].lower())
    if status == 200:
        status = next((_STATUS_OF_WORD[w] for w in words if w in _STATUS_OF_WORD), status)
    found = _CODE.search(message)
    number = int(found[1]) if found else _number(code)
    known = CODES.get(number) if number is not None else None
    upstream_code = str(number) if number is not None else str(code or type_ or status)[:MAX_CODE]

    upstream_text = redacted(message)

    def failure(kind: Kind, text: str, **more: object) -> Failure:
        return Failure(
            kind,
            text,
            retry_after_s=retry_after_s,
            upstream_code=upstream_code,
            upstream_text=upstream_text,
            **more,  # type: ignore[arg-type]  # fields of Failure
        )

    if status < 500 and known is None:
        if not _BLOCKED_WORDS.isdisjoint(words):
            return failure("blocked", CODES[1026][1])
        if "context_length_exceeded" in words:
            text = message or "The prompt is longer than the model's context window."
            return failure("context_length", text, code="context_length_exceeded")
        if not _QUOTA_WORDS.isdisjoint(words):
            return failure("upstream_quota", CODES[1008][1])
        if not _OUTPUT_WORDS.isdisjoint(words):
            return failure(
                "upstream", "The model's output could not be read by its server.", code=MODEL_OUTPUT
            )
    if _CONTEXT.search(message) and (known is None or number == 2013) and status < 500:
        return failure("context_length", message, code="context_length_exceeded")
    own_words = _QUOTED.sub("", message)
    if _UNKNOWN_MODEL.search(own_words) and status < 500:
        return failure("upstream_config", "The upstream does not offer this model.")
    if _BALANCE.search(own_words):
        return failure("upstream_quota", CODES[1008][1])
    if known is not None:
        return failure(known[0], known[1] or message)
    if status == 529 or type_ == "overloaded_error" or _OVERLOAD.search(own_words):
        return failure("overloaded", "The upstream is overloaded.")
    if status == 429 and _ALONE_TOO_LARGE.search(own_words):
        return failure("too_large", "The request alone is above the upstream's limit of tokens.")
    if status == 429 or type_ == "rate_limit_error":
        return failure("rate_limit", "The upstream's rate limit is reached.")
    if status == 403 and _FLAGGED.search(message):
        return failure("blocked", "The upstream refused the prompt as sensitive.")
    if status == 403 or type_ == "permission_error":
        return failure(
            "upstream_auth",
            "The upstream refused the gateway's own key for this model.",
            code="upstream_forbidden",
        )
    if status == 401 or type_ == "authentication_error":
        return failure("upstream_auth", "The upstream refused the gateway's own key.")
    if status == 402 or type_ == "billing_error":
        return failure("upstream_quota", CODES[1008][1])
    if status in (408, 504) or type_ == "timeout_error":
        return failure("timeout", "The upstream timed out.")
    if status == 413:
        return failure("too_large", "The upstream refused the request as too large.")
    if status in (404, 405, 410) or type_ in ("not_found_error", "NOT_FOUND"):
        return failure("upstream_config", "The upstream does not offer this model or path.")
    if 300 <= status < 400:
        return failure(
            "upstream_config",
            f"The upstream answered with a redirect ({status}), which is not followed: set base_url"
            " to the address that it leads to.",
        )
    if 200 < status < 300:
        return failure("upstream", f"The upstream answered {status} without a reply.")
    if 400 <= status < 500 or type_ == "invalid_request_error":
        return failure("invalid", message or f"The upstream refused the request ({status}).")
    if status == 503:
        return failure("overloaded", "The upstream is unavailable.")
    return failure("upstream", f"The upstream failed ({upstream_code}).")


def _number(code: int | str | None) -> int | None:
    if isinstance(code, int):
        return code if 1000 <= code <= 99_999 else None
    if isinstance(code, str) and code.isdigit() and len(code) in (4, 5):
        return int(code)
    return None


# What upstreams wrap their errors in; all of them may come with status 200 too.
_NOTHING = Raw(b"")


def _given(raw: Raw) -> bool:
    return bytes(raw) not in (b"", b"null")


class BaseResp(Struct, frozen=True, gc=False):
    status_code: int | None = None
    status_msg: str | None = None


class _Envelope(Struct, frozen=True):
    error: Raw = _NOTHING
    base_resp: BaseResp | None = None


_envelope_decoder = msgspec.json.Decoder(_Envelope)


def failure_within(error: Raw, base: BaseResp | None) -> Failure | None:
    """The error inside a reply with status 200."""
    if _given(error):
        return _stated(words_in(bytes(error)), 200, None)
    if base is not None and base.status_code:
        return failure_of(200, base.status_msg or "", base.status_code)
    return None


def _stated(words: ErrorWords, status: int, retry_after_s: float | None) -> Failure:
    if status == 200:  # the real one may be given inside
        status = words.status or status
    if "API_KEY_INVALID" in words.reasons:
        status = 401  # Google says 400; it is the operator's key, not the client's request
    wait = words.wait_s if retry_after_s is None else retry_after_s
    failure = failure_of(status, words.message, words.code, words.type, wait)
    if failure.kind == "invalid" and "CONTEXT_LENGTH_EXCEEDED" in words.reasons:
        return msgspec.structs.replace(
            failure, kind="context_length", code="context_length_exceeded"
        )
    return failure


def read_failure(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """The failure an error page means, whichever envelope it came in; pages are never passed on."""
    wait = retry_after(headers)
    with suppress(ValueError, msgspec.MsgspecError):
        wire = upstream_json.decode(_envelope_decoder, body, _Envelope)
        base = wire.base_resp
        if not _given(wire.error) and base is not None and base.status_code:
            return failure_of(status, base.status_msg or "", base.status_code, retry_after_s=wait)
    words = words_in(body)
    if words != NOTHING:
        return _stated(words, status, wait)
    # A proxy's page is not for clients, but a text says what kind of failure it is.
    text = body[: 4 * MAX_MESSAGE].decode("utf-8", "replace")
    unsaid = failure_of(status, "", retry_after_s=wait)
    if is_page(text):
        return unsaid
    found = failure_of(status, text, retry_after_s=wait)
    message = unsaid.message if found.message == text[:MAX_MESSAGE] else found.message
    return msgspec.structs.replace(found, message=message, upstream_text="")
