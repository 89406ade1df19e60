"""OpenAI Responses as MiniMax answers it: the upstream's side of the wire.

Requests to upstreams and replies from them; `responses.py` holds what clients send,
`responses_reply.py` what they get.  Sources, read 2026-11: platform.minimax.io/docs "responses",
developers.openai.com/api/reference (types of openai 3.54), agent-zero#1754 (MiniMax's errors on
this path).

Note:
- MiniMax does not document its list of events, so any of them may be missing: what no delta told
  is taken from `output_item.done`, and then from the last event's `output`;
- thinking has two places, `summary` and `content`; the one that spoke first is believed per item;
- MiniMax-M3 does not think here unless it is asked to (`thinking_default = "off"`), and every effort
  but `none` only switches thinking on.

Known losses: this wire has no stop sequences, seed, penalties or top_k (a route over it must not
claim them), no films, no `is_error` (it becomes "Error: ...") and no cache breakpoints.
"""

from typing import Literal

from msgspec import Raw

from headgate import jsontext
from headgate.bounds import REPLY_PARTS, reply_too_large
from headgate.chat import (
    FinishReason,
    Request,
)
from headgate.dialects import fields, mended_replies, upstream_json, vendor_errors
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.decoder import Decoder
from headgate.dialects.responses.upstream_errors import INCOMPLETE_IN, failure_in, failure_of
from headgate.dialects.responses.upstream_request import wire_request
from headgate.dialects.responses.upstream_wire import (
    ErrorIn,
    EventIn,
    ItemIn,
    ReplyIn,
    event_decoder,
    reply_decoder,
    usage_in,
)
from headgate.errors import Failure

_Json = dict[str, object]

# --- names and arguments that both sides of the wire write alike -----------------------------------


def flat(namespace: str, name: str) -> str:
    """The one name of a tool in a namespace; wires without namespaces know it by this."""
    return f"{namespace}__{name}" if namespace else name


# --- requests: to upstreams ----------------------------------------------------------------------


def request_out(request: Request, capabilities: Capabilities, model: str, stream: bool) -> bytes:
    """Return the body for an upstream; `request` was fitted to `capabilities` (policy/fit.py) before."""
    return jsontext.encode_body(wire_request(request, capabilities, model, stream))


# --- replies: from upstreams ---------------------------------------------------------------------

_SUMMARY_BREAK = "\n\n"  # between the parts of a summary, which are paragraphs


_Kind = Literal["text", "thinking", "call", "other"]
_KINDS: dict[str, _Kind] = {
    "message": "text",
    "reasoning": "thinking",
    "function_call": "call",
    "custom_tool_call": "call",
}


class _Seen:
    """Keeps what came of one item so far: `stated` characters of it, over `channel`."""

    __slots__ = ("channel", "done", "kind", "named", "number", "stated", "summary")

    def __init__(self, number: int, kind: _Kind) -> None:
        self.number = number  # in the order of appearance
        self.kind = kind
        self.stated = 0
        self.channel: Literal["", "summary", "content"] = ""
        self.summary = 0  # the part of the summary that spoke last
        self.named = False  # a call whose name is known, and whose arguments may follow
        self.done = False


class ResponsesDecoder(Decoder):
    def __init__(self, capabilities: Capabilities, media: str, seed: str) -> None:
        super().__init__(media, seed)
        self._items: dict[int | str | None, _Seen] = {}
        self._places: dict[tuple[int, _Kind], _Seen] = {}  # the same, by their order of appearance
        self._open = {"all": 0, "calls": 0}  # items that are not done
        self._last: _Seen | None = None

    def payload(self, payload: bytes) -> None:
        if not payload.strip() or payload.startswith(b"[DONE]"):
            return
        event = upstream_json.decode(event_decoder, payload, EventIn)
        match event.type:
            case "response.output_text.delta" | "response.refusal.delta":
                self._text(self._seen(event, "text"), event.delta or "")
            case "response.reasoning_text.delta":
                self._think(self._seen(event, "thinking"), "content", event.delta or "")
            case "response.reasoning_summary_text.delta":
                seen, index = self._seen(event, "thinking"), event.summary_index or 0
                broken = seen.stated and index != seen.summary
                seen.summary = index
                self._think(
                    seen, "summary", (_SUMMARY_BREAK if broken else "") + (event.delta or "")
                )
            case "response.function_call_arguments.delta":
                self._arguments(self._seen(event, "call"), event.delta or "")
            case "response.output_item.added" if event.item is not None:
                self._added(self._seen(event, _KINDS.get(event.item.type, "other")), event.item)
            case "response.output_item.done" if event.item is not None:
                self._done(self._seen(event, _KINDS.get(event.item.type, "other")), event.item)
            case "response.created" | "response.in_progress" | "response.queued":
                if event.response is not None:
                    self.framer.start(event.response.id or "", event.response.model or "")
            case "response.completed" | "response.incomplete" | "response.failed":
                if event.response is None:
                    self.framer.fail(jsontext.garbage(f"{event.type} without a response"))
                else:
                    self._end(event.response, event.type.removeprefix("response."))
            case _:
                self._other(event)

    def mended(self, body: bytes, whole: bool) -> bytes | None:
        return mended_replies.mended(body, mended_replies.responses, mended_replies.RESPONSES)

    def whole(self, body: bytes) -> None:
        reply = upstream_json.decode(reply_decoder, body, ReplyIn)
        if not reply.status and reply.output is None and failure_in(reply.error, reply) is None:
            self.framer.fail(jsontext.garbage("no output"))
            return
        self._end(reply, reply.status or "completed")

    def _other(self, event: EventIn) -> None:
        """Events that say nothing of the reply, unless one is an error in some wrapping."""
        failure = failure_in(event.error, None)
        if failure is None and event.base_resp is not None and event.base_resp.status_code:
            failure = vendor_errors.failure_within(Raw(b""), event.base_resp)
        if failure is None and event.type == "error":
            failure = failure_of(ErrorIn(event.message, event.code))
        if failure is not None:
            self.framer.fail(failure)

    def _seen(self, event: EventIn, kind: _Kind) -> _Seen:
        """The item of an event, by its index, or else one of its ids, or else the open one."""
        item = event.item
        name = event.item_id or (item.id or item.call_id if item is not None else None)
        key = name if event.output_index is None else event.output_index
        seen = self._items.get(key)
        last = self._last
        if seen is None and event.output_index is None and last is not None:
            # Some name an item only when it is done, or never.
            unnamed = name is None or event.type.endswith(".done")
            if unnamed and last.kind == kind and not last.done:
                seen = last
        if (
            seen is None
            and kind == "call"
            and item is None
            and last is not None
            and last.named
            and not (last.stated or last.done)
        ):
            seen = last  # arguments under another index or id than their call, which waits for them
        if seen is None:
            return self._new(key, kind)
        self._last = seen
        return seen

    def _new(self, key: int | str | None, kind: _Kind) -> _Seen:
        number = len(self._items)
        if number >= REPLY_PARTS.most:
            self.framer.fail(reply_too_large(REPLY_PARTS))
        seen = self._last = self._items[f"#{number}" if key is None else key] = _Seen(number, kind)
        self._places[number, kind] = seen
        self._open["all"] += 1
        self._open["calls"] += kind == "call"
        return seen

    def _text(self, seen: _Seen, text: str) -> None:
        seen.stated += len(text)
        self.say(text)

    def _think(self, seen: _Seen, channel: Literal["summary", "content"], text: str) -> None:
        if text and seen.channel in ("", channel):
            self.end_text()
            seen.channel = channel
            seen.stated += len(text)
            self.framer.thinking(text)

    def _arguments(self, seen: _Seen, text: str, id: str = "", name: str = "") -> None:
        seen.stated += len(text)
        seen.named = seen.named or bool(name)
        self.end_text()
        self.framer.call(seen.number, id, name, text)

    def _added(self, seen: _Seen, item: ItemIn) -> None:
        if item.type == "function_call":
            arguments = item.arguments_text() if not seen.stated else ""
            self._arguments(
                seen,
                arguments,
                item.call_id or item.id or "",
                flat(item.namespace or "", item.name or ""),
            )
        elif item.type in ("message", "reasoning") and not self._open["calls"]:
            # Two of a kind are two parts; but a call under way would be cut short.
            self.end_text()
            self.framer.close_part()

    def _done(self, seen: _Seen, item: ItemIn) -> None:
        """The item as a whole: what came in no delta is emitted now."""
        if seen.done:
            return
        match item.type:
            case "message":
                text = "".join(p.text or p.refusal or "" for p in item.content or ())
                self._text(seen, text[seen.stated :])
                self.end_text()
            case "reasoning":
                content = "".join(p.text or "" for p in item.content or ())
                summary = _SUMMARY_BREAK.join(p.text or "" for p in item.summary or ())
                if content and seen.channel != "summary":
                    self._think(seen, "content", content[seen.stated :])
                else:
                    self._think(seen, "summary", summary[seen.stated :])
                if item.encrypted_content:
                    self.framer.signature(item.encrypted_content)
            case "function_call":
                id, name = (
                    item.call_id or item.id or "",
                    flat(item.namespace or "", item.name or ""),
                )
                self._arguments(seen, item.arguments_text()[seen.stated :], id, name)
            case "custom_tool_call":
                id, name = (
                    item.call_id or item.id or "",
                    flat(item.namespace or "", item.name or ""),
                )
                self._arguments(seen, fields.wrapped(item.input or ""), id, name)
            case _:
                return  # hosted tools' items; no one asked for them
        seen.done = True
        self._open["all"] -= 1
        self._open["calls"] -= seen.kind == "call"
        if not self._open["all"]:  # else another item is under way, whose part must stay open
            self.framer.close_part()

    def _end(self, reply: ReplyIn, status: str) -> None:
        usage = usage_in(reply.usage)
        failure = failure_in(reply.error, reply)
        if failure is None and status in ("failed", "cancelled"):
            failure = Failure("upstream", f"The upstream's reply {status}.")
        if failure is not None:
            self.framer.fail(failure, usage)
            return
        if status in ("in_progress", "queued"):
            self.framer.fail(jsontext.garbage(f"a reply that is {status}"), usage)
            return
        self.framer.start(reply.id or "", reply.model or "")
        for index, item in enumerate(reply.output or ()):
            self._done(self._item(index, item), item)
        self.end_text()
        reason: FinishReason = "stop"
        if status == "incomplete":
            why = reply.incomplete_details.reason if reply.incomplete_details is not None else None
            reason = INCOMPLETE_IN.get(why or "", "length")
        self.framer.finish(reason, usage)

    def _item(self, index: int, item: ItemIn) -> _Seen:
        """The item under the name that its events gave it, or else the one that came in its place."""
        for key in (index, item.id, item.call_id):
            if key is not None and key in self._items:
                return self._items[key]
        kind = _KINDS.get(item.type, "other")
        return self._places.get((index, kind)) or self._new(index, kind)
