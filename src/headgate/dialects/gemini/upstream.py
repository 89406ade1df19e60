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

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from headgate import jsontext
from headgate.chat import (
    FinishReason,
    Request,
    Usage,
)
from headgate.dialects import mended_replies, upstream_json, vendor_errors
from headgate.dialects import usage as usages
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.decoder import Decoder
from headgate.dialects.gemini.signatures import signature_in
from headgate.dialects.gemini.upstream_request import compact, wire_request
from headgate.dialects.gemini.upstream_wire import (
    CandidateIn,
    PartIn,
    ReplyIn,
    UsageIn,
    replies_decoder,
    reply_decoder,
    usage_decoder,
)
from headgate.errors import MODEL_OUTPUT, Failure

_Json = dict[str, object]

# --- requests: to upstreams ----------------------------------------------------------------------


def request_out(request: Request, capabilities: Capabilities, model: str, stream: bool) -> bytes:
    """Return the body for an upstream; `request` was fitted to `capabilities` (policy/fit.py) before."""
    return jsontext.encode_body(wire_request(request, capabilities))


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
    wire = usages.read(raw, usage_decoder, UsageIn)
    if wire is None:
        return None
    stated, thought = wire.candidates_token_count or 0, wire.thoughts_token_count or 0
    if not (usages.known(stated) and usages.known(thought)):
        return None
    cached = wire.cached_content_token_count
    input = wire.prompt_token_count
    if not input and not stated and not thought and usages.known(cached):
        input = cached
    return usages.usage_of(input, stated + thought, cached, 0, thought)


class GeminiDecoder(Decoder):
    def __init__(self, capabilities: Capabilities, media: str, seed: str) -> None:
        super().__init__(media, seed)
        self._reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._calls = 0

    def payload(self, payload: bytes) -> None:
        # Google sends no [DONE]; gateways that speak its protocol do.
        if payload.strip() and not payload.startswith(b"[DONE]"):
            self._reply(upstream_json.decode(reply_decoder, payload, ReplyIn))

    def mended(self, body: bytes, whole: bool) -> bytes | None:
        mend = mended_replies.gemini_whole if whole else mended_replies.gemini
        return mended_replies.mended(body, mend, mended_replies.GEMINI)

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

    def _reply(self, wire: ReplyIn) -> None:
        if wire.usage_metadata:
            self._usage = _usage_in(wire.usage_metadata) or self._usage
        if bytes(wire.error) != b"null":
            self._failed(wire.error)
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

    def _failed(self, error: Raw) -> None:
        failure = vendor_errors.failure_within(error, None)
        assert failure is not None
        self.framer.fail(failure, self._usage)

    def _candidate(self, wire: CandidateIn) -> None:
        for part in (wire.content.parts if wire.content is not None else None) or ():
            self._part(part)
        reason = wire.finish_reason or ""
        if reason in _BROKEN:
            failure = Failure(
                "upstream", f"The upstream broke off its reply ({reason}).", code=MODEL_OUTPUT
            )
            self.framer.fail(failure, self._usage)
        elif reason not in _UNSAID:
            self._reason = _FINISH_IN.get(reason, "stop")

    def _part(self, wire: PartIn) -> None:
        if wire.thought and wire.function_call is None:
            self.end_text()
            self.framer.thinking(wire.text or "")
            if wire.thought_signature:
                self.framer.signature(signature_in(wire.thought_signature))
            return
        if wire.thought_signature:
            self.end_text()
            self.framer.signature(signature_in(wire.thought_signature))
        if (call := wire.function_call) is not None:
            self.end_text()
            stated = bytes(call.args).decode()
            if stated.startswith('"'):  # some servers leave them as the model wrote them
                stated = msgspec.json.decode(call.args, type=str)
            args = compact("" if stated == "null" else stated)
            stated = stated if args is None else bytes(args).decode()
            if self._calls and not (call.name or call.id):  # more of the call before it
                self.framer.call(self._calls - 1, "", "", "" if stated == "{}" else stated)
                return
            if bytes(call.args) == b"null":
                stated = ""  # they may still come
            self.framer.call(self._calls, call.id or "", call.name or "", stated)
            self._calls += 1
        elif wire.text:
            self.say(wire.text)


def _replies(body: bytes) -> Iterable[ReplyIn]:
    """A whole reply, or a stream that was not asked for as events: an array."""
    if body[:64].lstrip().startswith(b"["):
        return upstream_json.decode(replies_decoder, body, list[ReplyIn])
    return (upstream_json.decode(reply_decoder, body, ReplyIn),)
