"""OpenAI Responses, as its clients speak it: Codex above all, which speaks nothing else.

The only place for its words towards clients; `responses_upstream.py` holds what upstreams get and
send.  Sources, read 2026-11: developers.openai.com/api/reference (types of openai 3.54),
openai/codex codex-rs/codex-api/src/sse/responses.rs, recorded bodies of Codex 0.169 and opencode 1.18.

What will surprise:
- nothing is stored, so the whole conversation comes every time, and `store` is answered with false;
- freeform (`custom`) tools are offered as functions with one string `input`, tools of a namespace
  as "namespace__name"; calls are given back in the client's words;
- the reply repeats much of its request (`_Echo`), three times in a stream, as OpenAI's does;
- thinking is a summary where one was asked for, else the reasoning's `content`: clients that want
  one do not look at the other.  A signature is the `encrypted_content` of either;
- Codex takes `response.failed` apart by its code, and waits as long as "try again in Ns" says.

Known losses: a namespace's own description, the grammar of a freeform tool (it is told, not
enforced), item ids, citations; the input of a freeform tool comes in one delta, when it is whole.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from headgate.chat import (
    Choice,
    Delta,
    Event,
    Finish,
    FinishReason,
    Format,
    Media,
    Message,
    Part,
    PartStart,
    PartStop,
    Reasoning,
    Reply,
    Request,
    Sampling,
    Start,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
    replay,
)
from headgate.errors import Failure, Kind, invalid, unsupported
from headgate.wire import bounds, jsontext, vendor
from headgate.wire.capabilities import Capabilities
from headgate.wire.dialect import Decoder, Encoder, Facts, ModelCard, Target
from headgate.wire.openai import OpenAIDialect
from headgate.wire.responses_upstream import ResponsesDecoder, flat, request_out, wrapped
from headgate.wire.thinking import untagged

_Json = dict[str, object]
_NOTHING = Raw(b"")

# --- wire types: what clients send ---------------------------------------------------------------


class _PartIn(Struct, frozen=True):
    """One struct for all kinds, so that a kind we refuse is refused by its name."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None


class _ItemIn(Struct, frozen=True):
    type: str | None = None  # a message may leave it out
    role: str | None = None
    content: str | list[_PartIn] | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | list[_PartIn] | None = None
    summary: list[_PartIn] | None = None
    encrypted_content: str | None = None


class _GrammarIn(Struct, frozen=True, omit_defaults=True):
    type: str
    syntax: str | None = None
    definition: str | None = None


class _ToolIn(Struct, frozen=True, omit_defaults=True):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: Raw = _NOTHING
    strict: bool | None = None
    format: _GrammarIn | None = None
    tools: "list[_ToolIn] | None" = None


class _AllowedIn(Struct, frozen=True, omit_defaults=True):
    type: str
    name: str | None = None
    namespace: str | None = None


class _ChoiceIn(Struct, frozen=True, omit_defaults=True):
    type: str
    name: str | None = None
    namespace: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[_AllowedIn] | None = None


class _FormatIn(Struct, frozen=True, omit_defaults=True):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: Raw = _NOTHING
    strict: bool | None = None


class _TextIn(Struct, frozen=True):
    format: _FormatIn | None = None
    verbosity: str | None = None


class _ReasoningIn(Struct, frozen=True):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: str | None = None
    generate_summary: str | None = None  # "deprecated: use `summary` instead"


class _RequestIn(Struct, frozen=True):
    model: Annotated[str, Meta(min_length=1)]
    input: str | Annotated[list[_ItemIn], Meta(min_length=1)]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[_ToolIn] | None = None
    tool_choice: Literal["none", "auto", "required"] | _ChoiceIn | None = None
    parallel_tool_calls: bool | None = None
    text: _TextIn | None = None
    reasoning: _ReasoningIn | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    # Only repeated in the reply:
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    user: str | None = None
    max_tool_calls: int | None = None  # counts hosted tools, of which there are none
    # Refused when they ask for something, see `_refuse`:
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Raw = _NOTHING
    prompt: Raw = _NOTHING
    top_logprobs: int | None = None
    # Ignored with a warning:
    store: bool | None = None
    truncation: str | None = None
    include: list[str] | None = None
    context_management: Raw = _NOTHING
    moderation: Raw = _NOTHING


_request_decoder = msgspec.json.Decoder(_RequestIn)


# --- wire types: what clients get ----------------------------------------------------------------


class _Echo(Struct, frozen=True):
    """What a reply repeats of its request, with OpenAI's own defaults for what was not said."""

    instructions: str | None = None
    tools: list[_ToolIn] = []
    tool_choice: str | _ChoiceIn = "auto"
    parallel_tool_calls: bool = True
    temperature: float = 1.0
    top_p: float = 1.0
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    text: _Json = msgspec.field(default_factory=lambda: {"format": {"type": "text"}})
    reasoning: dict[str, str | None] = msgspec.field(
        default_factory=lambda: {"effort": None, "summary": None}
    )
    metadata: dict[str, str] = {}
    service_tier: str = "default"
    truncation: str = "disabled"
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None
    store: bool = False
    background: bool = False
    previous_response_id: None = None
    top_logprobs: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    @property
    def summarized(self) -> bool:
        return self.reasoning.get("summary") not in (None, "none")


class _Piece(Struct, frozen=True):
    type: str
    text: str


class _OutputText(Struct, frozen=True):
    text: str
    type: str = "output_text"
    annotations: tuple[()] = ()
    logprobs: tuple[()] = ()


class _MessageItem(Struct, frozen=True):
    id: str
    content: tuple[_OutputText, ...] = ()
    status: str = "in_progress"
    type: str = "message"
    role: str = "assistant"


class _ReasoningItem(Struct, frozen=True):
    id: str
    summary: tuple[_Piece, ...] = ()
    content: tuple[_Piece, ...] | UnsetType = UNSET
    encrypted_content: str | None = None
    type: str = "reasoning"


class _CallItem(Struct, frozen=True):
    id: str
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    arguments: str = ""
    status: str = "in_progress"
    type: str = "function_call"


class _CustomItem(Struct, frozen=True):
    id: str
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    input: str = ""
    status: str = "in_progress"
    type: str = "custom_tool_call"


_Item = _MessageItem | _ReasoningItem | _CallItem | _CustomItem


# --- requests: from clients ----------------------------------------------------------------------


def _request(wire: _RequestIn) -> Request:
    _refuse(wire)
    warnings: list[str] = []
    tools, kept = _tools(wire.tools or (), warnings)
    tools, choice = _choice(wire, tools)
    messages = _messages(wire, warnings)
    if wire.store:
        warnings.append("store")
    if wire.truncation not in (None, "disabled"):
        warnings.append("truncation")
    if any("logprobs" in name for name in wire.include or ()):
        warnings.append("include")
    for name in ("context_management", "moderation"):
        if bounds.given(getattr(wire, name)):
            warnings.append(name)
    if wire.service_tier in ("flex", "scale", "fast"):
        warnings.append("service_tier")
    sampling = Sampling(wire.max_output_tokens, wire.temperature, wire.top_p)
    bounds.check_sampling(sampling, "$.", "max_output_tokens")
    return Request(
        model=wire.model,
        messages=messages,
        stream=bool(wire.stream),
        tools=tools,
        choice=choice,
        sampling=sampling,
        reasoning=_reasoning(wire.reasoning),
        format=_format(wire.text.format if wire.text is not None else None),
        service_tier=wire.service_tier if wire.service_tier in ("priority", "standard") else "",
        session=wire.prompt_cache_key or "",
        warnings=tuple(dict.fromkeys(warnings)),
        echo=_echo(wire, kept),
    )


def _refuse(wire: _RequestIn) -> None:
    """What changes the meaning of the reply and cannot be honoured, by name."""
    if wire.previous_response_id is not None:
        raise unsupported("$.previous_response_id", "Nothing is stored; send the whole `input`.")
    if bounds.given(wire.conversation):
        raise unsupported("$.conversation", "Nothing is stored; send the whole `input`.")
    if wire.background:
        raise unsupported("$.background", "Nothing is stored; use `stream`.")
    if bounds.given(wire.prompt):
        raise unsupported("$.prompt", "Nothing is stored; send the text itself.")
    if wire.top_logprobs:
        raise unsupported("$.top_logprobs")


def _reasoning(wire: _ReasoningIn | None) -> Reasoning:
    if wire is None or wire.effort is None:
        return Reasoning()
    return Reasoning("off" if wire.effort == "none" else "on", effort=wire.effort)


def _format(wire: _FormatIn | None) -> Format | None:
    if wire is None or wire.type == "text":
        return None
    if wire.type == "json_object":
        return Format("object")
    if not bounds.given(wire.schema):
        where = "$.text.format"
        raise invalid(f"Object missing required field `schema` - at `{where}`", where)
    schema = bounds.schema_of(wire.schema, "$.text.format.schema")
    return Format("schema", wire.name or "", schema, bool(wire.strict))


def _echo(wire: _RequestIn, tools: list[_ToolIn]) -> _Echo:
    text: _Json = {"format": {"type": "text"}}
    if wire.text is not None:
        if wire.text.format is not None:
            schema = wire.text.format.schema
            # A copy, or the whole body would be kept as long as the reply lasts.
            kept = schema.copy() if bounds.given(schema) else _NOTHING
            text["format"] = msgspec.structs.replace(wire.text.format, schema=kept)
        if wire.text.verbosity:
            text["verbosity"] = wire.text.verbosity
    asked = wire.reasoning or _ReasoningIn()
    summary = asked.summary or asked.generate_summary
    tier = wire.service_tier or "auto"
    return _Echo(
        instructions=wire.instructions,
        tools=tools,
        tool_choice=wire.tool_choice or "auto",
        parallel_tool_calls=wire.parallel_tool_calls is not False,
        temperature=1.0 if wire.temperature is None else wire.temperature,
        top_p=1.0 if wire.top_p is None else wire.top_p,
        max_output_tokens=wire.max_output_tokens,
        max_tool_calls=wire.max_tool_calls,
        text=text,
        reasoning={"effort": asked.effort, "summary": summary},
        metadata=wire.metadata or {},
        service_tier=tier if tier == "priority" else "default",
        prompt_cache_key=wire.prompt_cache_key,
        safety_identifier=wire.safety_identifier,
        user=wire.user,
    )


# Hosted tools that only help: the model answers without them, if less well.  Codex sends
# `web_search` always; `tool_search` only spares the model the tools that it is shown here anyway.
_HINTS = ("web_search", "tool_search")
_FREEFORM = "Put the tool's whole freeform text into the string `input`."


def _tools(wires: Sequence[_ToolIn], warnings: list[str]) -> tuple[tuple[Tool, ...], list[_ToolIn]]:
    """The tools as functions, and those of the wire that stayed, to be repeated in the reply."""
    tools: list[Tool] = []
    kept: list[_ToolIn] = []
    for i, wire in enumerate(wires):
        where = f"$.tools[{i}]"
        if wire.type.startswith(_HINTS):  # also web_search_preview and dated names
            warnings.append("tools." + next(h for h in _HINTS if wire.type.startswith(h)))
            continue
        if wire.type != "namespace":
            tools.append(_tool(wire, "", where, warnings))
            kept.append(_plain(wire, tools[-1]))
            continue
        namespace, inner = _name(wire, where), []
        for j, each in enumerate(wire.tools or ()):
            tools.append(_tool(each, namespace, f"{where}.tools[{j}]", warnings))
            inner.append(_plain(each, tools[-1]))
        kept.append(_ToolIn("namespace", namespace, wire.description or "", tools=inner))
    names = {tool.name for tool in tools}
    if len(names) < len(tools) and any(tool.namespace or tool.custom for tool in tools):
        raise invalid("Two tools come to the same `namespace__name`; rename one.", "$.tools")
    return tuple(tools), kept


def _name(wire: _ToolIn, where: str) -> str:
    if not wire.name:
        raise invalid(f"Object missing required field `name` - at `{where}`", f"{where}.name")
    return wire.name


def _tool(wire: _ToolIn, namespace: str, where: str, warnings: list[str]) -> Tool:
    if wire.type not in ("function", "custom"):
        raise unsupported(
            f"{where}.{wire.type}",
            "Only function, custom and namespace tools, and web_search, are.",
        )
    name, description = flat(namespace, _name(wire, where)), wire.description or ""
    if wire.type == "function":
        schema = bounds.schema_of(wire.parameters, f"{where}.parameters")
        return Tool(name, description, schema, wire.strict is True, namespace=namespace)
    what = _FREEFORM
    if wire.format is not None and wire.format.type == "grammar":
        warnings.append("tools.custom.format")
        what += f" It follows this {wire.format.syntax or ''} grammar:\n{wire.format.definition}"
    schema = Raw(
        msgspec.json.encode(
            {
                "type": "object",
                "properties": {"input": {"type": "string", "description": what}},
                "required": ["input"],
                "additionalProperties": False,
            }
        )
    )
    # The client's own words may forbid JSON ("do not wrap the patch in JSON"), so ours come last.
    description = f"{description}\n\n{_FREEFORM}" if description else _FREEFORM
    return Tool(name, description, schema, custom=True, namespace=namespace)


def _plain(wire: _ToolIn, tool: Tool) -> _ToolIn:
    """A tool as OpenAI repeats it: `parameters` and `strict` are always there."""
    if tool.custom:
        return wire
    return msgspec.structs.replace(wire, parameters=tool.parameters, strict=tool.strict)


def _choice(wire: _RequestIn, tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], Choice]:
    said, parallel = wire.tool_choice, wire.parallel_tool_calls
    if said is None:
        return tools, Choice(parallel=parallel)
    if isinstance(said, _ChoiceIn):
        if said.type == "allowed_tools":
            allowed: set[str] = set()
            for i, each in enumerate(said.tools or ()):
                where = f"$.tool_choice.tools[{i}]"
                if each.type == "namespace":
                    allowed |= {t.name for t in tools if t.namespace == each.name}
                elif not each.type.startswith(_HINTS):
                    allowed.add(_chosen(tools, each, where))
            tools = tuple(t for t in tools if t.name in allowed)
            said = said.mode or "auto"
        elif said.type in ("function", "custom"):
            return tools, Choice("named", _chosen(tools, said, "$.tool_choice"), parallel)
        else:
            raise unsupported(f"$.tool_choice.{said.type}", "Use a function or a custom tool.")
    if said == "required" and not tools:
        raise invalid("`tool_choice` asks for a call but `tools` is empty.", "$.tool_choice")
    return tools, Choice(said, parallel=parallel)


def _chosen(tools: Sequence[Tool], wire: _ChoiceIn | _AllowedIn, where: str) -> str:
    """The one name of the tool that is meant; the namespace may be left out where it is clear."""
    if wire.type not in ("function", "custom"):
        raise unsupported(f"{where}.{wire.type}", "Use a function or a custom tool.")
    name = flat(wire.namespace or "", wire.name or "")
    found = [t.name for t in tools if t.name == name]
    if not found and not wire.namespace:
        found = [t.name for t in tools if t.namespace and t.name == flat(t.namespace, name)]
    if len(found) != 1:
        raise invalid(f"The tool `{wire.name}` is not in `tools`.", f"{where}.name")
    return found[0]


# Items of hosted tools in the history: told by the messages around them, as far as they matter.
_SILENT = ("web_search_call", "file_search_call", "code_interpreter_call", "tool_search_call")


def _messages(wire: _RequestIn, warnings: list[str]) -> tuple[Message, ...]:
    out: list[Message] = []
    if wire.instructions:
        out.append(Message("system", (Text(wire.instructions),)))
    if isinstance(wire.input, str):
        out.append(Message("user", (Text(wire.input),) if wire.input else ()))
        return tuple(out)
    turn: list[Part] = []  # of the assistant: the items of one turn are one message
    for i, item in enumerate(wire.input):
        where = f"$.input[{i}]"
        if item.type in _SILENT:
            warnings.append(f"input.{item.type}")
            continue
        parts, message = _item(item, where)
        turn += parts
        if message is not None:
            if turn:
                out.append(Message("assistant", tuple(turn)))
                turn = []
            out.append(message)
    if turn:
        out.append(Message("assistant", tuple(turn)))
    return tuple(out)


def _item(wire: _ItemIn, where: str) -> tuple[list[Part], Message | None]:
    """The parts that an item adds to the assistant's turn, or the message that it is."""
    match wire.type:
        case "message" | None:
            return _message(wire, where)
        case "reasoning":
            return _thinking(wire), None
        case "function_call" | "custom_tool_call":
            if not (wire.call_id and wire.name):
                missing = "name" if wire.call_id else "call_id"
                raise invalid(
                    f"Object missing required field `{missing}` - at `{where}`",
                    f"{where}.{missing}",
                )
            custom = wire.type == "custom_tool_call"
            arguments = wrapped(wire.input or "") if custom else wire.arguments or ""
            return [ToolCall(wire.call_id, flat(wire.namespace or "", wire.name), arguments)], None
        case "function_call_output" | "custom_tool_call_output":
            if not wire.call_id:
                raise invalid(
                    f"Object missing required field `call_id` - at `{where}`", f"{where}.call_id"
                )
            result = ToolResult(wire.call_id, tuple(_parts(wire.output, f"{where}.output")))
            return [], Message("tool", (result,))
        case "item_reference":
            raise unsupported(f"{where}.item_reference", "Nothing is stored; send the item itself.")
        case _:
            raise unsupported(f"{where}.{wire.type}", "Send messages, reasoning and calls.")


def _message(wire: _ItemIn, where: str) -> tuple[list[Part], Message | None]:
    match wire.role:
        case "user":
            return [], Message("user", tuple(_parts(wire.content, f"{where}.content")))
        case "system" | "developer" | "assistant":
            parts = _parts(wire.content, f"{where}.content")
            for i, part in enumerate(parts):
                if not isinstance(part, Text):
                    raise invalid(
                        f"A {wire.role} message holds text only.", f"{where}.content[{i}]"
                    )
            if wire.role == "assistant":
                return [p for part in parts for p in _spoken(part)], None
            return [], Message("system", tuple(parts))
        case None if wire.type is None:
            raise unsupported(f"{where}.item_reference", "Nothing is stored; send the item itself.")
        case None:
            raise invalid(f"Object missing required field `role` - at `{where}`", f"{where}.role")
        case _:
            raise invalid(
                f"Expected one of user, assistant, system, developer - at `{where}.role`",
                f"{where}.role",
            )


def _spoken(part: Part) -> list[Part]:
    """A text of the assistant; pydantic-ai writes reasoning it has no item for in tags of its own."""
    if not isinstance(part, Text) or not part.text.lstrip().startswith("<"):
        return [part]
    thinking, rest = untagged(part.text)
    if not thinking:
        return [part]
    return [Thinking(thinking), Text(rest)] if rest else [Thinking(thinking)]


def _thinking(wire: _ItemIn) -> list[Part]:
    """The text, if the client kept it, and what was sealed; the text has one of two places."""
    content = wire.content
    if isinstance(content, list):
        content = "".join(p.text or "" for p in content)
    text = content or "\n\n".join(p.text or "" for p in wire.summary or ())
    signature = wire.encrypted_content or ""
    return [Thinking(text, signature)] if text or signature else []


def _parts(content: str | list[_PartIn] | None, where: str) -> list[Text | Media]:
    if content is None or isinstance(content, str):
        return [Text(content)] if content else []
    out: list[Text | Media] = []
    for i, part in enumerate(content):
        at = f"{where}[{i}]"
        match part.type:
            case "input_text" | "output_text" | "text" | "refusal":
                if text := part.text or part.refusal:
                    out.append(Text(text))
            case "input_image" if part.image_url:
                detail = part.detail or ""
                out.append(bounds.media_of("image", part.image_url, detail, f"{at}.image_url"))
            case "input_image":
                raise unsupported(f"{at}.file_id", "Nothing is stored; send `image_url`.")
            case _:
                raise unsupported(f"{at}.{part.type}", "Send text or images.")
    return out


# --- replies: to clients -------------------------------------------------------------------------

# reason: (status, incomplete_details.reason)
_FINISH_OUT: dict[FinishReason, tuple[str, str]] = {
    "stop": ("completed", ""),
    "stop_sequence": ("completed", ""),
    "tool_calls": ("completed", ""),
    "length": ("incomplete", "max_output_tokens"),
    "context_full": ("incomplete", "max_output_tokens"),
    "content_filter": ("incomplete", "content_filter"),
}


def _usage(usage: Usage) -> _Json:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


class _Frame:
    """The response object around its output: what is the same each time is encoded once."""

    def __init__(self, request: Request, facts: Facts) -> None:
        self.echo = request.echo if isinstance(request.echo, _Echo) else _Echo()
        head: _Json = {"id": f"resp_{facts.id}", "object": "response", "created_at": facts.created}
        self._head = jsontext.encode({**head, "model": facts.model})[:-1] + b","
        self._tail = b"," + jsontext.encode(self.echo)[1:]

    def response(
        self,
        status: str,
        output: Sequence[_Item] = (),
        usage: Usage | None = None,
        incomplete: str = "",
        error: _Json | None = None,
    ) -> bytes:
        middle: _Json = {
            "status": status,
            "completed_at": None,  # no clock is read here, and nobody needs it
            "error": error,
            "incomplete_details": {"reason": incomplete} if incomplete else None,
            "output": output,
            "usage": _usage(usage) if usage is not None else None,
        }
        return self._head + jsontext.encode(middle)[1:-1] + self._tail

    def finished(self, output: list[_Item], finish: Finish) -> tuple[str, bytes]:
        """The status, and the response with it; the item that was cut short says so."""
        status, incomplete = _FINISH_OUT[finish.reason]
        if incomplete and output and not isinstance(output[-1], _ReasoningItem):
            output = [*output[:-1], msgspec.structs.replace(output[-1], status="incomplete")]
        return status, self.response(status, output, finish.usage or Usage(), incomplete)


class ResponsesEncoder:
    """Each part is an item of its own.  Only the text of a delta is encoded anew."""

    def __init__(self, request: Request, facts: Facts) -> None:
        self._frame = _Frame(request, facts)
        self._tools = {t.name: t for t in request.tools}
        self._id = facts.id
        self.output: list[_Item] = []
        self._sequence = 0
        self._started = False
        self._part = PartStart("text")
        self._pieces: list[str] = []
        self._item = ""  # id of the open item
        self._opened = False  # its content part was announced
        # Around the number and the JSON text of a delta of the open part:
        self._opening = self._between = self._closing = b""

    def feed(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            match event:
                case Delta(text):
                    self._pieces.append(text)
                    if not text:
                        continue
                    if not self._opened:
                        self._open_content(out)
                    if self._opening:
                        number, self._sequence = self._sequence, self._sequence + 1
                        said = jsontext.encode(text)
                        out += (self._opening, b"%d" % number, self._between, said, self._closing)
                case PartStart():
                    self._start(event, out)
                case PartStop(signature):
                    self._stop(signature, out)
                case Start():
                    self._begin(out)
                case Finish():
                    status, response = self._frame.finished(self.output, event)
                    self._lifecycle(out, status, response)
        return b"".join(out)

    def fail(self, failure: Failure) -> tuple[bytes, ...]:
        out: list[bytes] = []
        if not self._started:
            # The SDKs' accumulators want `response.created` before anything else.
            self._begin(out)
        response = self._frame.response("failed", self.output, error=_error(failure))
        self._lifecycle(out, "failed", response)
        return (b"".join(out),)

    # --- the frames ---

    def _begin(self, out: list[bytes]) -> None:
        self._started = True
        response = self._frame.response("in_progress")
        self._lifecycle(out, "created", response)
        self._lifecycle(out, "in_progress", response)

    def _lifecycle(self, out: list[bytes], name: str, response: bytes) -> None:
        self._write(out, f"response.{name}".encode(), b'"response":' + response)

    def _event(self, out: list[bytes], kind: str, **fields: object) -> None:
        """An event of the open item."""
        place = {"item_id": self._item, "output_index": len(self.output), **fields}
        self._write(out, f"response.{kind}".encode(), jsontext.encode(place)[1:-1])

    def _write(self, out: list[bytes], name: bytes, fields: bytes) -> None:
        number, self._sequence = self._sequence, self._sequence + 1
        head = b"event: %b\ndata: {" % name + b'"type":"%b","sequence_number":%d,' % (name, number)
        out += (head, fields, b"}\n\n")

    def _item_event(self, out: list[bytes], name: str, item: _Item) -> None:
        fields = {"output_index": len(self.output), "item": item}
        self._write(out, f"response.output_item.{name}".encode(), jsontext.encode(fields)[1:-1])

    def _deltas(self, name: str, **fields: object) -> None:
        place = {"item_id": self._item, "output_index": len(self.output), **fields}
        kind = f"response.{name}.delta".encode()
        self._opening = b"event: %b\ndata: {" % kind + b'"type":"%b","sequence_number":' % kind
        self._between = b"," + jsontext.encode(place)[1:-1] + b',"delta":'
        self._closing = b',"logprobs":[]}\n\n' if name == "output_text" else b"}\n\n"

    # --- the parts ---

    def _start(self, part: PartStart, out: list[bytes]) -> None:
        self._part, self._pieces = part, []
        self._opening = b""
        number = len(self.output)
        item: _Item
        match part.kind:
            case "text":
                self._item = f"msg_{self._id}_{number}"
                item = _MessageItem(self._item)
            case "thinking":
                self._item = f"rs_{self._id}_{number}"
                item = _ReasoningItem(self._item)
            case "tool_call":
                item = self._call("", "in_progress")
                self._item = item.id
        self._item_event(out, "added", item)
        self._opened = part.kind == "tool_call"
        if part.kind == "text":
            self._open_content(out)
        elif isinstance(item, _CallItem):
            self._deltas("function_call_arguments")

    def _open_content(self, out: list[bytes]) -> None:
        """Announce the part inside the item: at once for text, with its first word for thinking."""
        self._opened = True
        if self._part.kind == "text":
            self._event(out, "content_part.added", content_index=0, part=_OutputText(""))
            self._deltas("output_text", content_index=0)
        elif self._frame.echo.summarized:
            part = _Piece("summary_text", "")
            self._event(out, "reasoning_summary_part.added", summary_index=0, part=part)
            self._deltas("reasoning_summary_text", summary_index=0)
        else:
            part = _Piece("reasoning_text", "")
            self._event(out, "content_part.added", content_index=0, part=part)
            self._deltas("reasoning_text", content_index=0)

    def _stop(self, signature: str, out: list[bytes]) -> None:
        text = "".join(self._pieces)
        item: _Item
        match self._part.kind:
            case "text":
                part = _OutputText(text)
                self._event(out, "output_text.done", content_index=0, text=text, logprobs=())
                self._event(out, "content_part.done", content_index=0, part=part)
                item = _MessageItem(self._item, (part,), "completed")
            case "thinking":
                item = self._thought(text, signature, out)
            case "tool_call":
                item = self._called(text, out)
        self._item_event(out, "done", item)
        self.output.append(item)

    def _thought(self, text: str, signature: str, out: list[bytes]) -> _ReasoningItem:
        sealed = signature or None
        if not text:
            return _ReasoningItem(self._item, encrypted_content=sealed)
        if self._frame.echo.summarized:
            piece = _Piece("summary_text", text)
            self._event(out, "reasoning_summary_text.done", summary_index=0, text=text)
            self._event(out, "reasoning_summary_part.done", summary_index=0, part=piece)
            return _ReasoningItem(self._item, (piece,), encrypted_content=sealed)
        piece = _Piece("reasoning_text", text)
        self._event(out, "reasoning_text.done", content_index=0, text=text)
        self._event(out, "content_part.done", content_index=0, part=piece)
        return _ReasoningItem(self._item, (), (piece,), sealed)

    def _call(self, arguments: str, status: str) -> _CallItem | _CustomItem:
        """The call in the client's own words: its namespace, and freeform where the tool is."""
        part, number = self._part, len(self.output)
        tool = self._tools.get(part.name)
        name, namespace = part.name, UNSET if tool is None or not tool.namespace else tool.namespace
        if namespace is not UNSET:
            name = name.removeprefix(flat(namespace, ""))
        if tool is not None and tool.custom:
            id = f"ctc_{self._id}_{number}"
            return _CustomItem(id, part.id, name, namespace, _unwrapped(arguments), status)
        return _CallItem(f"fc_{self._id}_{number}", part.id, name, namespace, arguments, status)

    def _called(self, arguments: str, out: list[bytes]) -> _CallItem | _CustomItem:
        # Codex runs a call as soon as its item is done, so one that was cut short must say so.
        item = self._call(arguments, "completed" if jsontext.is_object(arguments) else "incomplete")
        if isinstance(item, _CustomItem):
            if item.input:
                self._event(out, "custom_tool_call_input.delta", delta=item.input)
            self._event(out, "custom_tool_call_input.done", input=item.input)
        else:
            self._event(out, "function_call_arguments.done", name=item.name, arguments=arguments)
        return item


class _Wrapped(Struct, frozen=True):
    input: str


_wrapped_decoder = msgspec.json.Decoder(_Wrapped | str)


def _unwrapped(arguments: str) -> str:
    """The freeform text in a call's arguments; models forget the wrapping now and then."""
    try:
        value = _wrapped_decoder.decode(arguments)
    except (msgspec.MsgspecError, RecursionError):
        return arguments
    return value if isinstance(value, str) else value.input


# --- errors --------------------------------------------------------------------------------------

# Codes of `response.failed`.  Codex 0.169 (measured 2026-11) gives up at once on
# context_length_exceeded, insufficient_quota, invalid_prompt and server_is_overloaded, waits as told
# on rate_limit_exceeded, and tries again on any other.  A status 429 it never tries again.
_CODES: dict[Kind, str] = {
    "invalid": "invalid_prompt",
    "context_length": "context_length_exceeded",
    "blocked": "invalid_prompt",
    "too_large": "invalid_prompt",
    "media_type": "invalid_prompt",
    "not_found": "invalid_prompt",
    "method": "invalid_prompt",
    "conflict": "invalid_prompt",
    "request_timeout": "server_error",
    "unauthenticated": "invalid_prompt",
    "forbidden": "invalid_prompt",
    "no_credit": "insufficient_quota",
    "rate_limit": "rate_limit_exceeded",
    "internal": "server_error",
    "unavailable": "server_error",
    "upstream": "server_error",
    "upstream_auth": "server_error",
    "overloaded": "server_is_overloaded",
    "timeout": "server_error",
    "client_gone": "server_error",
}


def _timed(failure: Failure) -> Failure:
    """Codex reads how long to wait out of the message, not out of the header."""
    if failure.kind != "rate_limit" or failure.retry_after_s is None:
        return failure
    wait = f"Please try again in {math.ceil(failure.retry_after_s)}s."
    if "try again in" in failure.message:
        return failure
    return msgspec.structs.replace(failure, message=f"{failure.message} {wait}")


def _error(failure: Failure) -> _Json:
    error: _Json = {"code": _CODES[failure.kind], "message": _timed(failure).message}
    if failure.upstream_code:
        error["upstream_code"] = failure.upstream_code
    return error


# --- the dialect ---------------------------------------------------------------------------------


class ResponsesDialect:
    """Errors with a status of their own, and models, are those of Chat Completions."""

    name: ClassVar[str] = "responses"
    capsules: ClassVar[Literal["signed", "shown", "always"]] = "always"
    stream_type: ClassVar[str] = "text/event-stream"
    keepalive: ClassVar[bytes] = b": keepalive\n\n"

    _chat: ClassVar[OpenAIDialect] = OpenAIDialect()

    def decode_request(self, body: bytes, target: Target) -> Request:
        return _request(jsontext.decode_request(_request_decoder, body))

    def encoder(self, request: Request, facts: Facts, target: Target) -> Encoder:
        return ResponsesEncoder(request, facts)

    def encode_reply(self, reply: Reply, request: Request, facts: Facts) -> bytes:
        encoder = ResponsesEncoder(request, facts)
        encoder.feed([e for e in replay(reply) if not isinstance(e, Start | Finish)])
        return _Frame(request, facts).finished(encoder.output, reply.finish)[1]

    def encode_failure(self, failure: Failure, request_id: str) -> tuple[int, bytes]:
        return self._chat.encode_failure(_timed(failure), request_id)

    def encode_count(self, tokens: int) -> bytes:
        return self._chat.encode_count(tokens)

    def refuses_in_stream(self, failure: Failure, headers: Mapping[str, str]) -> bool:
        # Codex ends its turn on a status 429, and waits as told by the event (0.169, 2026-11).
        return failure.kind == "rate_limit" and headers.get("originator", "").startswith("codex")

    def encode_models(self, cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
        return self._chat.encode_models(cards, query)

    def encode_model(self, card: ModelCard) -> bytes:
        return self._chat.encode_model(card)

    def encode_request(
        self, request: Request, capabilities: Capabilities, model: str, stream: bool
    ) -> bytes:
        return jsontext.encode(request_out(request, capabilities, model, stream))

    def request_path(self, model: str, stream: bool) -> str:
        return "/responses"

    def decoder(self, capabilities: Capabilities, media: str, seed: str) -> Decoder:
        return ResponsesDecoder(media, seed)

    def decode_failure(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        return vendor.read_failure(status, headers, body)
