"""Gemini generateContent as Google, or another gateway, answers it: the upstream's side of the wire.

Requests to upstreams and replies from them; `gemini.py` holds what clients send,
`gemini_reply.py` what they get.  Sources, read 2026-11: ai.google.dev/api/generate-content, the
types of google-genai 3.4.

Note:
- results name their function, which other protocols leave out: the name is looked up in the calls;
- a stream has no terminator, usage repeats and grows: the end is the close after a finishReason;
- a wrong key is answered with 400, and only `details` tells it from a wrong request;
- Google indents its JSON, so arguments are made compact before anything else sees them.

Known losses: `strict`, the name of a schema, cache breakpoints, the order of text and pictures
inside one result; only the last of two reasons for an end is kept.
"""

import base64
import binascii
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Raw, Struct

from headgate import jsontext
from headgate.chat import (
    Choice,
    FinishReason,
    Media,
    Message,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from headgate.dialects import usage as usages
from headgate.dialects import vendor_errors
from headgate.dialects.capabilities import BUDGETS, Capabilities
from headgate.dialects.contract import Decoder
from headgate.errors import Failure

_Json = dict[str, object]

# --- wire types: what upstreams answer, read with tolerance --------------------------------------


class _CallIn(Struct, frozen=True, gc=False):
    name: str | None = None
    args: Raw = Raw(b"null")
    id: str | None = None


class _PartIn(Struct, frozen=True, gc=False, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _CallIn | None = None


class _ContentIn(Struct, frozen=True, gc=False):
    parts: list[_PartIn] | None = None


class _CandidateIn(Struct, frozen=True, gc=False, rename="camel"):
    content: _ContentIn | None = None
    finish_reason: str | None = None
    index: int | None = None


class _UsageIn(Struct, frozen=True, gc=False, rename="camel"):
    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None


class _FeedbackIn(Struct, frozen=True, gc=False, rename="camel"):
    block_reason: str | None = None


class _ReplyIn(Struct, frozen=True, gc=False, rename="camel"):
    """A chunk, or a whole reply: they do not differ."""

    candidates: list[_CandidateIn] | None = None
    usage_metadata: Raw = Raw(b"")  # read apart, so that no mistake in it harms the answer
    prompt_feedback: _FeedbackIn | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Raw = Raw(b"null")


class _DetailIn(Struct, frozen=True, rename="camel"):
    """google.rpc.ErrorInfo and RetryInfo, which share no name."""

    reason: str | None = None
    retry_delay: str | None = None  # "3.5s"


class _ErrorIn(Struct, frozen=True):
    code: int | None = None
    message: str | None = None
    status: str | None = None
    details: list[_DetailIn] | None = None


_reply_decoder = msgspec.json.Decoder(_ReplyIn)
_replies_decoder = msgspec.json.Decoder(list[_ReplyIn])
_usage_decoder = msgspec.json.Decoder(_UsageIn)
_error_decoder = msgspec.json.Decoder(_ErrorIn)


# --- signatures: `thoughtSignature` is base64, ours and other vendors' are any text --------------

# What is no base64 travels as base64 of this and the text, so that one wire form has one meaning.
_WRAP = b"hg:"


def bytes_of(text: str) -> bytes | None:
    """What base64 of either alphabet, padded or not, stands for; None for what is none."""
    body = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def encode_signature(signature: str) -> str:
    """Standard base64, which Google's SDKs insist on; `decode_signature` gives it back."""
    data = bytes_of(signature)
    if data is not None and not data.startswith(_WRAP) and _standard(data) == signature:
        return signature
    return _standard(_WRAP + signature.encode())


def decode_signature(wire: str) -> str:
    """The signature a client replays; "" for what is no base64.

    The alphabet is not the client's to choose: google-genai for Python changes it on the way.
    """
    data = bytes_of(wire)
    if data is None:
        return ""
    if not data.startswith(_WRAP):
        return _standard(data)
    try:
        return data[len(_WRAP) :].decode()
    except UnicodeDecodeError:
        return ""


def _standard(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _signature_in(wire: str) -> str:
    """An upstream's own, kept as it came; in the plain when it is sent back as the same bytes."""
    plain = decode_signature(wire)
    return plain if plain and _signature_out(plain) == wire else wire


def _signature_out(signature: str) -> str:
    return signature if bytes_of(signature) is not None else encode_signature(signature)


# --- requests: to upstreams ----------------------------------------------------------------------


def request_out(request: Request, capabilities: Capabilities, model: str, stream: bool) -> bytes:
    """The body for an upstream; `request` was fitted to `capabilities` (policy/fit.py) before."""
    return jsontext.encode_body(_request(request, capabilities))


def _request(request: Request, capabilities: Capabilities) -> _Json:
    out: _Json = {}
    messages = request.messages
    first = next((n for n, m in enumerate(messages) if m.role != "system"), len(messages))
    system = [part for m in messages[:first] for part in _parts_out(m, {}, capabilities)]
    if system:
        out["systemInstruction"] = {"parts": system}
    out["contents"] = _contents_out(messages[first:], capabilities)
    if request.tools:
        out["tools"] = [{"functionDeclarations": [_tool_out(t) for t in request.tools]}]
        if request.choice.mode != "auto":
            out["toolConfig"] = {"functionCallingConfig": _choice_out(request.choice)}
    out["generationConfig"] = _config_out(request, capabilities)
    return out


def _contents_out(messages: Sequence[Message], capabilities: Capabilities) -> list[_Json]:
    out: list[_Json] = []
    names: dict[str, str] = {}  # of functions, by the id of their call
    parts: list[_Json] = []
    after = ""
    for m in messages:
        said = _parts_out(m, names, capabilities)
        # "the number of function response parts is equal to the number of function call parts of
        # the function call turn": results are one turn, and what the user adds is part of it.
        if after == "tool" and m.role in ("tool", "user"):
            parts += said
        else:
            parts = said
            out.append({"role": _ROLES.get(m.role, "user"), "parts": parts})
        after = m.role
    return out


_ROLES = {"assistant": "model", "system": "system"}


def _parts_out(m: Message, names: dict[str, str], capabilities: Capabilities) -> list[_Json]:
    out: list[_Json] = []
    signature = ""  # of thinking, for the next part that is none
    for p in m.parts:
        part: _Json
        match p:
            case Thinking():
                if capabilities.reasoning_form == "none":
                    continue
                if signature:
                    out.append({"text": "", "thoughtSignature": _signature_out(signature)})
                if p.text:
                    out.append({"text": p.text, "thought": True})
                signature = p.signature
                continue
            case Text():
                part = {"text": p.source}
            case Media():
                part = _media_out(p)
            case ToolCall():
                names[p.id] = p.name
                args = p.as_object or compact(p.arguments) or Raw(b"{}")
                part = {"functionCall": {"id": p.id, "name": p.name, "args": args}}
            case ToolResult():
                part = {"functionResponse": _result_out(p, names)}
        if signature:
            part["thoughtSignature"] = _signature_out(signature)
            signature = ""
        out.append(part)
    if signature:
        out.append({"text": "", "thoughtSignature": _signature_out(signature)})
    return out


def compact(arguments: str) -> Raw | None:
    """Arguments as one line of JSON, numbers as they were written; None when they are no object.

    A newline between two keys is JSON, and would end the `data:` line it stands in.
    """
    if not arguments.strip():
        return Raw(b"{}")
    if not jsontext.is_object(arguments):
        return None
    return Raw(msgspec.json.format(arguments.encode(), indent=-1))


def _media_out(m: Media) -> _Json:
    if m.url:
        file: _Json = {"fileUri": m.url}
        if m.media_type:
            file["mimeType"] = m.media_type
        return {"fileData": file}
    return {"inlineData": {"mimeType": m.media_type, "data": m.data}}


def _result_out(result: ToolResult, names: Mapping[str, str]) -> _Json:
    texts = [p for p in result.parts if isinstance(p, Text)]
    text: str | Raw = texts[0].source if len(texts) == 1 else "".join([t.text for t in texts])
    if len(texts) == 1 and texts[0].is_empty:
        text = ""
    response: _Json = {}
    if text or result.is_error:
        response["error" if result.is_error else "output"] = text
    out: _Json = {
        "id": result.call_id,
        "name": result.name or names.get(result.call_id, ""),
        "response": response,
    }
    if media := [_media_out(p) for p in result.parts if isinstance(p, Media)]:
        out["parts"] = media
    return out


def _tool_out(tool: Tool) -> _Json:
    out: _Json = {"name": tool.name}
    if tool.description:
        out["description"] = tool.description
    out["parametersJsonSchema"] = tool.parameters
    return out


def _choice_out(choice: Choice) -> _Json:
    if choice.mode == "named":
        return {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    return {"mode": "NONE" if choice.mode == "none" else "ANY"}


def _config_out(request: Request, capabilities: Capabilities) -> _Json:
    s, format = request.sampling, request.format
    out: _Json = {}
    for name, value in (
        ("temperature", s.temperature),
        ("topP", s.top_p),
        ("topK", s.top_k),
        ("maxOutputTokens", s.max_tokens),
        ("stopSequences", s.stop or None),
        ("seed", s.seed),
        ("presencePenalty", s.presence_penalty),
        ("frequencyPenalty", s.frequency_penalty),
    ):
        if value is not None:
            out[name] = value
    if format is not None:
        out["responseMimeType"] = "application/json"
        if format.kind == "schema":
            out["responseJsonSchema"] = format.schema
    out["thinkingConfig"] = _thinking_out(request.reasoning, capabilities)
    return out


_LEVELS = {
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "XHIGH",
    "max": "XHIGH",
}


def _thinking_out(r: Reasoning, capabilities: Capabilities) -> _Json:
    """`thinkingBudget` and `thinkingLevel` exclude each other ("cannot be used together")."""
    out: _Json = {"includeThoughts": r.show in ("yes", "inline")}
    switch = capabilities.thinking_switch
    if r.effort in _LEVELS and r.mode != "off" and (capabilities.efforts or switch == "effort"):
        out["thinkingLevel"] = _LEVELS[r.effort]
        return out
    if r.mode == "default" or switch == "none":
        return out
    if r.mode == "off":
        if switch == "effort":
            out["thinkingLevel"] = "MINIMAL"  # models with levels cannot but think
        else:
            out["thinkingBudget"] = 0
    elif r.budget_tokens is not None:
        out["thinkingBudget"] = r.budget_tokens
    else:
        out["thinkingBudget"] = BUDGETS.get(r.effort, -1)  # "-1: the model decides"
    return out


# --- replies: from upstreams ---------------------------------------------------------------------

_FINISH_IN: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
}
# The model said something that is no answer, and it was cut out; asking again may help.
_BROKEN = frozenset(
    (
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
    )
)
# The zero of an enum, which proto JSON may write out: it was not set.
_UNSAID = frozenset(
    (
        "",
        "FINISH_REASON_UNSPECIFIED",
        "BLOCK_REASON_UNSPECIFIED",
        "BLOCKED_REASON_UNSPECIFIED",
    )
)


def _usage_in(raw: Raw) -> Usage | None:
    wire = usages.read(raw, _usage_decoder, _UsageIn)
    if wire is None:
        return None
    said, thought = wire.candidates_token_count or 0, wire.thoughts_token_count or 0
    if not (usages.known(said) and usages.known(thought)):
        return None
    cached = wire.cached_content_token_count
    input = wire.prompt_token_count
    if not input and not said and not thought and usages.known(cached):
        input = cached
    return usages.usage_of(input, said + thought, cached, 0, thought)


class GeminiDecoder(Decoder):
    def __init__(self, capabilities: Capabilities, media: str, seed: str) -> None:
        super().__init__(media, seed)
        self._reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._calls = 0

    def payload(self, payload: bytes) -> None:
        # Google sends no [DONE]; gateways that speak its protocol do.
        if payload.strip() and not payload.startswith(b"[DONE]"):
            self._reply(jsontext.decode_upstream(_reply_decoder, payload, _ReplyIn))

    def whole(self, body: bytes) -> None:
        for wire in _replies(body):
            if not self.framer.ended:
                self._reply(wire)
        self.eof()
        if not self.framer.ended:
            self.framer.fail(jsontext.garbage("no finishReason"), self._usage)

    def eof(self) -> None:
        if self._reason is not None and not self.framer.ended:
            self.end_text()
            self.framer.finish(self._reason, self._usage)

    def _reply(self, wire: _ReplyIn) -> None:
        if wire.usage_metadata:
            self._usage = _usage_in(wire.usage_metadata) or self._usage
        if bytes(wire.error) != b"null":
            self.framer.fail(_failure(wire.error, 0, None), self._usage)
            return
        feedback = wire.prompt_feedback
        if feedback is not None and (feedback.block_reason or "") not in _UNSAID:
            blocked = Failure("blocked", "The upstream refused the prompt as sensitive.")
            self.framer.fail(blocked, self._usage)
            return
        for candidate in wire.candidates or ():
            if not candidate.index:  # one reply was asked for
                self.framer.start(wire.response_id or "", wire.model_version or "")
                self._candidate(candidate)

    def _candidate(self, wire: _CandidateIn) -> None:
        for part in (wire.content.parts if wire.content is not None else None) or ():
            self._part(part)
        reason = wire.finish_reason or ""
        if reason in _BROKEN:
            failure = Failure("upstream", f"The upstream broke off its reply ({reason}).")
            self.framer.fail(failure, self._usage)
        elif reason not in _UNSAID:
            self._reason = _FINISH_IN.get(reason, "stop")

    def _part(self, wire: _PartIn) -> None:
        if wire.thought and wire.function_call is None:
            self.end_text()
            self.framer.thinking(wire.text or "")
            if wire.thought_signature:
                self.framer.signature(_signature_in(wire.thought_signature))
            return
        if wire.thought_signature:
            self.end_text()
            self.framer.signature(_signature_in(wire.thought_signature))
        if (call := wire.function_call) is not None:
            self.end_text()
            said = bytes(call.args).decode()
            if said.startswith('"'):  # some servers leave them as the model wrote them
                said = msgspec.json.decode(call.args, type=str)
            args = compact("" if said == "null" else said)
            said = said if args is None else bytes(args).decode()
            if self._calls and not (call.name or call.id):  # more of the call before it
                self.framer.call(self._calls - 1, "", "", "" if said == "{}" else said)
                return
            if bytes(call.args) == b"null":
                said = ""  # they may still come
            self.framer.call(self._calls, call.id or "", call.name or "", said)
            self._calls += 1
        elif wire.text:
            self.say(wire.text)


def _replies(body: bytes) -> Iterable[_ReplyIn]:
    """A whole reply, or a stream that was not asked for as events: an array."""
    if body[:64].lstrip().startswith(b"["):
        return jsontext.decode_upstream(_replies_decoder, body, list[_ReplyIn])
    return (jsontext.decode_upstream(_reply_decoder, body, _ReplyIn),)


# --- errors: from upstreams ----------------------------------------------------------------------

# google.rpc.Code and the HTTP status it stands for (google/rpc/code.proto, read 2026-11)
_HTTP = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_TOO_LONG = re.compile(r"input token count .{0,80}exceeds the maximum", re.I)


def read_failure(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """The failure an error page means; Google wraps it in an array where it would have streamed."""
    try:
        error = next((r.error for r in _replies(body) if bytes(r.error) != b"null"), Raw(b"null"))
    except (ValueError, msgspec.MsgspecError):
        error = Raw(b"null")
    if not bytes(error).startswith(b"{"):
        return vendor_errors.read_failure(status, headers, body)
    return _failure(error, status, vendor_errors.retry_after(headers))


def _failure(raw: Raw, status: int, retry_after_s: float | None) -> Failure:
    """`status` is HTTP's, or 0 where the error came inside a reply and must say it itself."""
    try:
        error = jsontext.decode_upstream(_error_decoder, bytes(raw), _ErrorIn)
    except (ValueError, msgspec.MsgspecError):
        return vendor_errors.failure_of(status or 500, "", retry_after_s=retry_after_s)
    word, message = error.status or "", error.message or ""
    details = error.details or ()
    reasons = [d.reason for d in details if d.reason]
    if not status:
        told = error.code or 0
        status = told if 400 <= told < 600 else _HTTP.get(word, 500)
    if "API_KEY_INVALID" in reasons:
        status = 401  # Google says 400; it is the operator's key, not the client's request
    if retry_after_s is None:
        waits = (_seconds(d.retry_delay) for d in details)
        retry_after_s = next((s for s in waits if s is not None), None)
    failure = vendor_errors.failure_of(status, message, type_=word, retry_after_s=retry_after_s)
    if failure.kind == "invalid" and (
        "CONTEXT_LENGTH_EXCEEDED" in reasons or _TOO_LONG.search(message)
    ):
        return msgspec.structs.replace(
            failure, kind="context_length", code="context_length_exceeded"
        )
    return failure


def _seconds(delay: str | None) -> float | None:
    try:
        value = float((delay or "").removesuffix("s"))
    except ValueError:
        return None
    return min(value, vendor_errors.MAX_WAIT_S) if math.isfinite(value) and value >= 0 else None
