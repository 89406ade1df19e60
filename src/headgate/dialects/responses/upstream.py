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

import re
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from headgate import jsontext
from headgate.bounds import REPLY_PARTS, reply_too_large
from headgate.chat import (
    Choice,
    FinishReason,
    Format,
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
from headgate.dialects import fields, unreadable, vendor_errors
from headgate.dialects import usage as usages
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import Decoder
from headgate.dialects.openai_api import result_text
from headgate.errors import Failure, invalid

_Json = dict[str, object]

# --- wire types: what upstreams get --------------------------------------------------------------


class _RequestOut(Struct, frozen=True, omit_defaults=True):
    model: str
    input: list[_Json]
    instructions: str | Raw | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[_Json] | None = None
    tool_choice: str | _Json | None = None
    parallel_tool_calls: bool | None = None
    text: _Json | None = None
    reasoning: dict[str, str] | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None


# --- wire types: what upstreams answer, read with tolerance --------------------------------------


class _PieceIn(Struct, frozen=True, gc=False):
    """A part of a message, of a summary or of a reasoning's content."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None


class _ItemIn(Struct, frozen=True):
    type: str = ""
    content: list[_PieceIn] | None = None
    summary: list[_PieceIn] | None = None
    encrypted_content: str | None = None
    call_id: str | None = None
    id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | _Json | None = None  # an object from some servers
    input: str | None = None

    def arguments_text(self) -> str:
        """The arguments as JSON text."""
        if isinstance(self.arguments, dict):
            return msgspec.json.encode(self.arguments).decode()
        return self.arguments or ""


class _InputDetails(Struct, frozen=True, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(Struct, frozen=True, gc=False):
    reasoning_tokens: int | None = None


class _UsageIn(Struct, frozen=True, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Incomplete(Struct, frozen=True, gc=False):
    reason: str | None = None


class _ErrorIn(Struct, frozen=True):
    message: str | None = None
    code: str | int | None = None
    type: str | None = None
    upstream_code: str | None = None  # another Headgate's


class _ReplyIn(Struct, frozen=True):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    output: list[_ItemIn] | None = None
    usage: Raw = Raw(b"")  # read apart, so that no mistake in it harms the answer
    incomplete_details: _Incomplete | None = None
    error: Raw = Raw(b"")
    base_resp: vendor_errors.BaseResp | None = None


class _EventIn(Struct, frozen=True):
    type: str = ""
    output_index: int | None = None
    item_id: str | None = None
    summary_index: int | None = None
    delta: str | None = None
    item: _ItemIn | None = None
    response: _ReplyIn | None = None
    code: str | int | None = None  # of `error`, which is flat
    message: str | None = None
    error: Raw = Raw(b"")
    base_resp: vendor_errors.BaseResp | None = None


_event_decoder = msgspec.json.Decoder(_EventIn)
_reply_decoder = msgspec.json.Decoder(_ReplyIn)
_usage_decoder = msgspec.json.Decoder(_UsageIn)
_error_decoder = msgspec.json.Decoder(_ErrorIn)


# --- names and arguments that both sides of the wire write alike -----------------------------------


def flat(namespace: str, name: str) -> str:
    """The one name of a tool in a namespace; wires without namespaces know it by this."""
    return f"{namespace}__{name}" if namespace else name


# --- requests: to upstreams ----------------------------------------------------------------------


def request_out(request: Request, capabilities: Capabilities, model: str, stream: bool) -> bytes:
    """The body for an upstream; `request` was fitted to `capabilities` (policy/fit.py) before."""
    return jsontext.encode_body(_request(request, capabilities, model, stream))


def _request(request: Request, capabilities: Capabilities, model: str, stream: bool) -> _RequestOut:
    messages = request.messages
    instructions: str | Raw | None = None
    if len(messages) > 1 and messages[0].role == "system":  # alone it would leave no input
        texts = [p for p in messages[0].parts if isinstance(p, Text)]
        one = len(texts) == 1
        instructions = texts[0].source if one else "\n\n".join([t.text for t in texts])
        messages = messages[1:]
    sampling = request.sampling
    parallel = request.choice.parallel if request.tools and capabilities.parallel_switch else None
    tier = request.service_tier if capabilities.service_tier else ""
    format = _format_out(request.format)
    return _RequestOut(
        model=model,
        input=_items_out(messages, capabilities),
        instructions=instructions or None,
        stream=True if stream else None,
        max_output_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        tools=[_tool_out(t) for t in request.tools] or None,
        tool_choice=_choice_out(request.choice) if request.tools else None,
        parallel_tool_calls=parallel,
        text={"format": format} if format is not None else None,
        reasoning=_switch(request.reasoning, capabilities),
        service_tier=tier or None,
        prompt_cache_key=request.session or None,
    )


# "`minimal|low|medium|high` only switch thinking on" (MiniMax); models with real efforts know more.
_SWITCHES = frozenset(("minimal", "low", "medium", "high"))


def _switch(reasoning: Reasoning, capabilities: Capabilities) -> dict[str, str] | None:
    if capabilities.efforts and reasoning.effort not in ("", "none") and reasoning.mode != "off":
        return {"effort": reasoning.effort}  # one of those that are known here
    match reasoning.mode:
        case "on" if capabilities.thinking_switch != "none":
            effort = reasoning.effort or "medium"
            if capabilities.thinking_switch != "effort" and effort not in _SWITCHES:
                effort = "high"
            return {"effort": effort}
        case "off" if capabilities.thinking_switch != "none" and capabilities.thinking_off:
            return {"effort": "none"}
        case _:
            return None


def _tool_out(tool: Tool) -> _Json:
    """Freeform tools go out as the functions they are offered as: MiniMax takes functions only."""
    out: _Json = {"type": "function", "name": tool.name}
    if tool.description:
        out["description"] = tool.description
    out["parameters"] = tool.parameters
    # Absent means strict where the schema allows it (OpenAI), so it is always said.
    out["strict"] = tool.strict
    return out


def _choice_out(choice: Choice) -> str | _Json | None:
    if choice.mode == "named":
        return {"type": "function", "name": choice.name}
    return None if choice.mode == "auto" else choice.mode


def _format_out(format: Format | None) -> _Json | None:
    if format is None:
        return None
    if format.kind == "object":
        return {"type": "json_object"}
    out: _Json = {"type": "json_schema", "name": format.name or "reply", "schema": format.schema}
    if format.strict:
        out["strict"] = True
    return out


def _items_out(messages: Sequence[Message], capabilities: Capabilities) -> list[_Json]:
    out: list[_Json] = []
    attached: list[Media] = []  # media of tool results, shown after the run of results
    for message in messages:
        if attached and message.role != "tool":
            out.append(_message_out("user", attached))
            attached = []
        match message.role:
            case "tool":
                for part in message.parts:
                    if isinstance(part, ToolResult):
                        part = _without_films(part)
                        output = {"call_id": part.call_id, "output": result_text(part)}
                        out.append({"type": "function_call_output", **output})
                        attached += [p for p in part.parts if isinstance(p, Media)]
            case "assistant":
                _assistant_out(message, capabilities, out)
            case _:
                said = [p for p in message.parts if isinstance(p, Text | Media)]
                out.append(_message_out(message.role, said))
    if attached:
        out.append(_message_out("user", attached))
    return out


def _without_films(result: ToolResult) -> ToolResult:
    """The result with a note for each video, for which this wire has no form."""
    if not any(type(p) is Media and p.kind != "image" for p in result.parts):
        return result
    parts = [
        unreadable.note_of(unreadable.name_of(p.kind))
        if type(p) is Media and p.kind != "image"
        else p
        for p in result.parts
    ]
    return msgspec.structs.replace(result, parts=tuple(parts))


def _message_out(role: str, parts: Sequence[Text | Media]) -> _Json:
    content: object = ""
    if len(parts) == 1 and isinstance(parts[0], Text):
        content = parts[0].source
    elif parts:
        content = [_part_out(p) for p in parts]
    return {"type": "message", "role": role, "content": content}


def _part_out(part: Text | Media) -> _Json:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.source}
    if part.kind != "image":
        raise invalid("The Responses wire has no form for a film; send pictures.", "$.messages")
    url = part.address
    out: _Json = {"type": "input_image", "image_url": url}
    if part.detail:
        out["detail"] = part.detail
    return out


def _assistant_out(message: Message, capabilities: Capabilities, out: list[_Json]) -> None:
    for part in message.parts:
        match part:
            case Text():
                said: _Json = {"type": "output_text", "text": part.source, "annotations": []}
                out.append({"type": "message", "role": "assistant", "content": [said]})
            case Thinking(text, signature) if capabilities.reasoning_form != "none":
                if not (text or signature):
                    continue
                # The id is required, and means nothing where nothing is stored.
                item: _Json = {"type": "reasoning", "id": f"rs_{len(out)}", "summary": []}
                if text:
                    item["content"] = [{"type": "reasoning_text", "text": text}]
                if signature:
                    item["encrypted_content"] = signature
                out.append(item)
            case ToolCall():
                call = {"call_id": part.id, "name": part.name, "arguments": part.as_string}
                out.append({"type": "function_call", **call})
            case _:
                pass


# --- replies: from upstreams ---------------------------------------------------------------------

_INCOMPLETE_IN: dict[str, FinishReason] = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}
_SUMMARY_BREAK = "\n\n"  # between the parts of a summary, which are paragraphs


def _usage_in(raw: Raw) -> Usage | None:
    """None for zeros too: they come from upstreams that know nothing."""
    wire = usages.read(raw, _usage_decoder, _UsageIn)
    if wire is None:
        return None
    read, written = wire.input_tokens_details, wire.output_tokens_details
    return usages.usage_of(
        wire.input_tokens,
        wire.output_tokens,
        read.cached_tokens if read else 0,
        read.cache_write_tokens if read else 0,
        written.reasoning_tokens if written else 0,
    )


_Kind = Literal["text", "thinking", "call", "other"]
_KINDS: dict[str, _Kind] = {
    "message": "text",
    "reasoning": "thinking",
    "function_call": "call",
    "custom_tool_call": "call",
}


class _Seen:
    """What came of one item so far: `said` characters of it, over `channel`."""

    __slots__ = ("channel", "done", "kind", "named", "number", "said", "summary")

    def __init__(self, number: int, kind: _Kind) -> None:
        self.number = number  # in the order of appearance
        self.kind = kind
        self.said = 0
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
        event = jsontext.decode_upstream(_event_decoder, payload, _EventIn)
        match event.type:
            case "response.output_text.delta" | "response.refusal.delta":
                self._text(self._seen(event, "text"), event.delta or "")
            case "response.reasoning_text.delta":
                self._think(self._seen(event, "thinking"), "content", event.delta or "")
            case "response.reasoning_summary_text.delta":
                seen, index = self._seen(event, "thinking"), event.summary_index or 0
                broken = seen.said and index != seen.summary
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

    def whole(self, body: bytes) -> None:
        reply = jsontext.decode_upstream(_reply_decoder, body, _ReplyIn)
        if not reply.status and reply.output is None and _failure(reply.error, reply) is None:
            self.framer.fail(jsontext.garbage("no output"))
            return
        self._end(reply, reply.status or "completed")

    def _other(self, event: _EventIn) -> None:
        """Events that say nothing of the reply, unless one is an error in some wrapping."""
        failure = _failure(event.error, None)
        if failure is None and event.base_resp is not None and event.base_resp.status_code:
            failure = vendor_errors.failure_within(Raw(b""), event.base_resp)
        if failure is None and event.type == "error":
            failure = _failure_of(_ErrorIn(event.message, event.code))
        if failure is not None:
            self.framer.fail(failure)

    def _seen(self, event: _EventIn, kind: _Kind) -> _Seen:
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
            and not (last.said or last.done)
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
        seen.said += len(text)
        self.say(text)

    def _think(self, seen: _Seen, channel: Literal["summary", "content"], text: str) -> None:
        if text and seen.channel in ("", channel):
            self.end_text()
            seen.channel = channel
            seen.said += len(text)
            self.framer.thinking(text)

    def _arguments(self, seen: _Seen, text: str, id: str = "", name: str = "") -> None:
        seen.said += len(text)
        seen.named = seen.named or bool(name)
        self.end_text()
        self.framer.call(seen.number, id, name, text)

    def _added(self, seen: _Seen, item: _ItemIn) -> None:
        if item.type == "function_call":
            arguments = item.arguments_text() if not seen.said else ""
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

    def _done(self, seen: _Seen, item: _ItemIn) -> None:
        """The item as a whole: what came in no delta is emitted now."""
        if seen.done:
            return
        match item.type:
            case "message":
                text = "".join(p.text or p.refusal or "" for p in item.content or ())
                self._text(seen, text[seen.said :])
                self.end_text()
            case "reasoning":
                content = "".join(p.text or "" for p in item.content or ())
                summary = _SUMMARY_BREAK.join(p.text or "" for p in item.summary or ())
                if content and seen.channel != "summary":
                    self._think(seen, "content", content[seen.said :])
                else:
                    self._think(seen, "summary", summary[seen.said :])
                if item.encrypted_content:
                    self.framer.signature(item.encrypted_content)
            case "function_call":
                id, name = (
                    item.call_id or item.id or "",
                    flat(item.namespace or "", item.name or ""),
                )
                self._arguments(seen, item.arguments_text()[seen.said :], id, name)
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

    def _end(self, reply: _ReplyIn, status: str) -> None:
        usage = _usage_in(reply.usage)
        failure = _failure(reply.error, reply)
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
            reason = _INCOMPLETE_IN.get(why or "", "length")
        self.framer.finish(reason, usage)

    def _item(self, index: int, item: _ItemIn) -> _Seen:
        """The item under the name that its events gave it, or else the one that came in its place."""
        for key in (index, item.id, item.call_id):
            if key is not None and key in self._items:
                return self._items[key]
        kind = _KINDS.get(item.type, "other")
        return self._places.get((index, kind)) or self._new(index, kind)


# --- errors --------------------------------------------------------------------------------------

# What a code of this wire would have been as an HTTP status; MiniMax's numbers, where there is one
# in the message, say more and win.
_STATUS_IN: dict[str, int] = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 402,
    "usage_not_included": 402,
    "server_is_overloaded": 529,
    "slow_down": 529,
    "server_error": 500,
    "invalid_prompt": 400,
    "context_length_exceeded": 400,
}
_AGAIN = re.compile(r"try again in\s*(\d{1,6}(?:\.\d{1,6})?)\s*(ms|s)", re.I)


def _failure(error: Raw, reply: _ReplyIn | None) -> Failure | None:
    """The error inside a reply or an event, if there is one."""
    if bytes(error).startswith(b"{"):
        return _failure_of(jsontext.decode_upstream(_error_decoder, bytes(error), _ErrorIn))
    return vendor_errors.failure_within(error, reply.base_resp if reply is not None else None)


def _failure_of(error: _ErrorIn) -> Failure:
    message = error.message or ""
    code = str(error.code) if error.code is not None else ""
    status = _STATUS_IN.get(code, int(code) if re.fullmatch(r"[45]\d\d", code) else 200)
    wait = None
    if found := _AGAIN.search(message):
        wait = float(found[1]) / (1000 if found[2].lower() == "ms" else 1)
    failure = vendor_errors.failure_of(
        status, message, error.upstream_code or error.code, error.type or "", wait
    )
    if code == "context_length_exceeded" and failure.kind == "invalid":
        return msgspec.structs.replace(failure, kind="context_length", code=code)
    return failure
