"""OpenAI Responses, as its clients speak it: Codex above all, which speaks nothing else.

The only place for its words from clients; `responses_reply.py` holds what they get,
`responses_upstream.py` what upstreams get and send.  Sources, read 2026-11:
developers.openai.com/api/reference (types of openai 3.54), openai/codex
codex-rs/codex-api/src/sse/responses.rs, recorded bodies of Codex 0.169 and opencode 1.18.

Note:
- nothing is stored, so the whole conversation comes every time, and `store` is answered with false;
- freeform (`custom`) tools are offered as functions with one string `input`, tools of a namespace
  as "namespace__name";
- what the reply repeats of its request is kept with it (`Echo`).

Known losses: a namespace's own description, the grammar of a freeform tool (it is sent, not
enforced), item ids, citations; the input of a freeform tool comes in one delta, when it is whole.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from headgate import bounds, jsontext
from headgate.bounds import Int64
from headgate.chat import (
    WEB_SEARCH,
    Choice,
    Format,
    Media,
    Message,
    Part,
    Reasoning,
    Request,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    WebSearch,
)
from headgate.dialects import fields, limits, provider, unknown
from headgate.dialects.contract import RequestTarget
from headgate.dialects.fields import read_whole
from headgate.dialects.found import NOT_KEPT
from headgate.dialects.jsonstrings import (
    decoded,
    may_hold,
    string,
    string_or_list,
    string_or_none,
)
from headgate.dialects.responses.reply import (
    CompactingEcho,
    Echo,
)
from headgate.dialects.responses.upstream import flat
from headgate.errors import Refused, invalid, unsupported
from headgate.stream.thinking import untagged

_Json = dict[str, object]
_NOTHING = Raw(b"")

# --- wire types: what clients send ---------------------------------------------------------------


class _PartIn(Struct, frozen=True):
    """One struct for all kinds, so that a kind we refuse is refused by its name."""

    type: str = ""
    text: Raw = _NOTHING  # a string or null; see dialects/jsonstrings.py
    refusal: Raw = _NOTHING
    image_url: str | None = None
    detail: str | None = None


class _ItemIn(Struct, frozen=True):
    type: str | None = None  # a message may leave it out
    role: str | None = None
    content: Raw = _NOTHING  # a string, a list of `_PartIn`, or null
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: Raw = _NOTHING  # a string or null; an object in a search for tools
    input: str | None = None
    output: Raw = _NOTHING  # as `content`
    tools: "list[_ToolIn] | None" = None  # added to those of the request, or found by a search
    summary: list[_PartIn] | None = None
    encrypted_content: str | None = None
    id: Raw = _NOTHING  # these two of an earlier search of the web
    action: Raw = _NOTHING


class _FiltersIn(Struct, frozen=True, omit_defaults=True):
    allowed_domains: list[str] | None = None
    blocked_domains: list[str] | None = None


class _ActionIn(Struct, frozen=True):
    """The action of an earlier search; of any type, as it is history."""

    query: Raw = _NOTHING
    queries: Raw = _NOTHING


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
    execution: str | None = None
    tools: "list[_ToolIn] | None" = None
    filters: _FiltersIn | None = None  # of a search of the web
    user_location: Raw = _NOTHING
    # The schema under the names of Anthropic and of MCP:
    input_schema: Raw = _NOTHING
    inputSchema: Raw = _NOTHING


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
    max_output_tokens: Int64 | None = None
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
    max_tool_calls: Int64 | None = None  # counts hosted tools, of which there are none
    # Refused when they ask for something, see `_refuse`:
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Raw = _NOTHING
    prompt: Raw = _NOTHING
    top_logprobs: Int64 | None = None
    # Ignored with a warning:
    store: bool | None = None
    truncation: str | None = None
    include: list[str] | None = None
    context_management: Raw = _NOTHING
    moderation: Raw = _NOTHING
    provider: Raw = _NOTHING  # OpenRouter's: preferences among the upstreams


_request_decoder = msgspec.json.Decoder(_RequestIn)
_content_decoder = msgspec.json.Decoder(str | list[_PartIn] | None)
_arguments_decoder = msgspec.json.Decoder(str | _Json | None)
_Content = Raw | list[_PartIn] | None
# What a client may ask to be included and gets, or loses nothing by not getting.
_INCLUDED = frozenset(
    (
        "reasoning.encrypted_content",
        "file_search_call.results",
        "web_search_call.results",
        "web_search_call.action.sources",
        "message.input_image.image_url",
        "computer_call_output.output.image_url",
        "code_interpreter_call.outputs",
    )
)


# --- requests: from clients ----------------------------------------------------------------------


def _request(wire: _RequestIn) -> Request:
    _refuse(wire)
    _check_labels(wire)
    warnings: list[str] = []
    compacting = _triggered(wire)
    if compacting:
        wire = msgspec.structs.replace(wire, input=wire.input[:-1])
    tools, kept = _tools(wire.tools or (), warnings)
    if not isinstance(wire.input, str):
        tools = _with_history(tools, wire.input, warnings)
    search = _search(wire.tools or (), warnings)
    tools, choice, search = _choice(wire, tools, search)
    messages = _messages(wire, search is not None, warnings)
    if wire.store:
        warnings.append("store")
    if wire.truncation not in (None, "disabled"):
        warnings.append("truncation")
    bounds.check_size(wire.include, bounds.WORDS, "$.include")
    if wire.include and not _INCLUDED.issuperset(wire.include):
        warnings.append("include")
    for name in ("context_management", "moderation"):
        if fields.given(getattr(wire, name)):
            warnings.append(name)
    if wire.service_tier is not None and wire.service_tier not in unknown.TIERS:
        warnings.append("service_tier")
    if wire.text is not None and wire.text.verbosity not in (None, "medium"):
        warnings.append("text.verbosity")
    sampling = Sampling(wire.max_output_tokens, wire.temperature, wire.top_p)
    fields.check_sampling(sampling, "$.", "max_output_tokens")
    preferences = provider.preferences(wire.provider, warnings)
    request = Request(
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
        user=wire.user or wire.safety_identifier or "",
        search=search,
        warnings=unknown.warned(warnings) if warnings else (),
        echo=_echo(wire, kept),
        preferences=preferences,
    )
    return _compacting(request) if compacting else request


def _triggered(wire: _RequestIn) -> bool:
    """Whether the request asks for a summary of itself."""
    return not isinstance(wire.input, str) and wire.input[-1].type == TRIGGER


def _compacting(request: Request) -> Request:
    """The request for a summary, whose reply is one compaction item."""
    assert isinstance(request.echo, Echo)
    echo = CompactingEcho(**msgspec.structs.asdict(request.echo))
    return msgspec.structs.replace(
        request,
        messages=(*request.messages, Message("user", (Text(SUMMARIZE),))),
        choice=Choice("none") if request.tools else Choice(),
        format=None,
        search=None,
        echo=echo,
    )


def _refuse(wire: _RequestIn) -> None:
    """What changes the meaning of the reply and cannot be honoured, by name."""
    if wire.previous_response_id is not None:
        raise unsupported(
            "$.previous_response_id",
            "Nothing is stored here unless the operator sets `responses.store`; send the whole `input`.",
        )
    if fields.given(wire.conversation):
        raise unsupported("$.conversation", "Nothing is stored; send the whole `input`.")
    if wire.background:
        raise unsupported("$.background", "Nothing is stored; use `stream`.")
    if fields.given(wire.prompt):
        raise unsupported("$.prompt", "Nothing is stored; send the text itself.")
    if wire.top_logprobs:
        raise unsupported("$.top_logprobs")


def _check_labels(wire: _RequestIn) -> None:
    """What is repeated in the reply, up to three times in a stream, has bounds of its own."""
    bounds.check_size(wire.model, bounds.MODEL, "$.model")
    for name, value in (
        ("prompt_cache_key", wire.prompt_cache_key),
        ("safety_identifier", wire.safety_identifier),
        ("user", wire.user),
        ("service_tier", wire.service_tier),
        ("truncation", wire.truncation),
    ):
        if value is not None:
            bounds.check_size(value, bounds.LABEL, f"$.{name}")
    if wire.metadata:
        bounds.check_size(wire.metadata, bounds.METADATA, "$.metadata")
        for key, value in wire.metadata.items():
            bounds.check(max(len(key), len(value)), bounds.METADATA_VALUE, f"$.metadata.{key[:64]}")
    if wire.reasoning is not None:
        summary = wire.reasoning.summary or wire.reasoning.generate_summary
        bounds.check_size(summary, bounds.LABEL, "$.reasoning.summary")
    if wire.text is not None:
        bounds.check_size(wire.text.verbosity, bounds.LABEL, "$.text.verbosity")
        if wire.text.format is not None:
            bounds.check_size(wire.text.format.name, bounds.NAME, "$.text.format.name")


def _reasoning(wire: _ReasoningIn | None) -> Reasoning:
    if wire is None or wire.effort is None:
        return Reasoning()
    return Reasoning("off" if wire.effort == "none" else "on", effort=wire.effort)


def _format(wire: _FormatIn | None) -> Format | None:
    if wire is None or wire.type == "text":
        return None
    if wire.type == "json_object":
        return Format("object")
    if not fields.given(wire.schema):
        where = "$.text.format"
        raise invalid(f"Object missing required field `schema` - at `{where}`", where)
    schema = fields.schema_of(wire.schema, "$.text.format.schema")
    return Format("schema", wire.name or "", schema, bool(wire.strict))


def _echo(wire: _RequestIn, tools: list[_ToolIn]) -> Echo:
    text: _Json = {"format": {"type": "text"}}
    if wire.text is not None:
        if wire.text.format is not None:
            schema = wire.text.format.schema
            # On one line, as it stands in events; a copy, or the whole body would be kept.
            kept = (
                fields.carried(schema, "$.text.format.schema") if fields.given(schema) else _NOTHING
            )
            text["format"] = msgspec.structs.replace(wire.text.format, schema=kept)
        if wire.text.verbosity:
            text["verbosity"] = wire.text.verbosity
    asked = wire.reasoning or _ReasoningIn()
    summary = asked.summary or asked.generate_summary
    tier = wire.service_tier or "auto"
    return Echo(
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
# `web_search` always, which the gateway serves itself where it can (policy/web_search.py); a hosted
# `tool_search` spares the model tools that it is shown here anyway.
_HINTS = (WEB_SEARCH, "tool_search")
# A search that the client executes (Codex) is a function; what it finds comes in the history.
SEARCH = "tool_search"
_SEARCH_SCHEMA = Raw(
    b'{"type":"object","properties":{"query":{"type":"string","description":"What the tool must'
    b' do."},"limit":{"type":"integer"}},"required":["query"]}'
)
_SEARCH_WORDS = "Searches for more tools. The tools that it finds can be called afterwards."


def _tools(
    wires: Sequence[_ToolIn], warnings: list[str], place: str = "$.tools"
) -> tuple[tuple[Tool, ...], list[_ToolIn]]:
    """The tools as functions, and those of the wire that stayed, to be repeated in the reply."""
    tools: list[Tool] = []
    kept: list[_ToolIn] = []
    count = len(wires)
    bounds.check(count, bounds.TOOLS, place)
    for i, wire in enumerate(wires):
        where = f"{place}[{i}]"
        if wire.type == SEARCH and wire.execution == "client":
            schema = _SEARCH_SCHEMA
            if fields.given(wire.parameters):
                schema = fields.schema_of(wire.parameters, f"{where}.parameters")
            words = wire.description or _SEARCH_WORDS
            tools.append(Tool(SEARCH, words, schema, search=True))
            kept.append(msgspec.structs.replace(wire, parameters=schema))
            continue
        if wire.type.startswith(_HINTS):  # also web_search_preview and dated names
            if not wire.type.startswith(WEB_SEARCH):
                warnings.append("tools.tool_search")
            continue
        if wire.type != "namespace":
            tools.append(_tool(wire, "", where, warnings))
            kept.append(_plain(wire, tools[-1]))
            continue
        namespace, inner = _name(wire, where), []
        count += len(wire.tools or ())
        bounds.check(count, bounds.TOOLS, f"{where}.tools")
        for j, each in enumerate(wire.tools or ()):
            tools.append(_tool(each, namespace, f"{where}.tools[{j}]", warnings))
            inner.append(_plain(each, tools[-1]))
        kept.append(_ToolIn("namespace", namespace, wire.description or "", tools=inner))
    names = {tool.name for tool in tools}
    if len(names) < len(tools) and any(t.namespace or t.custom or t.search for t in tools):
        raise invalid("Two tools come to the same `namespace__name`; rename one.", place)
    return tuple(tools), kept


def _search(wires: Sequence[_ToolIn], warnings: list[str]) -> WebSearch | None:
    """The search of the web that the client declares."""
    for i, wire in enumerate(wires):
        if not wire.type.startswith(WEB_SEARCH):
            continue
        filters = wire.filters or _FiltersIn()
        where = f"$.tools[{i}].filters"
        fields.check_domains(filters.allowed_domains, f"{where}.allowed_domains")
        fields.check_domains(filters.blocked_domains, f"{where}.blocked_domains")
        if fields.given(wire.user_location):
            warnings.append("tools.web_search.user_location")
        return WebSearch(
            allowed=tuple(filters.allowed_domains or ()),
            blocked=tuple(filters.blocked_domains or ()),
        )
    return None


def _with_history(
    tools: tuple[Tool, ...], items: Sequence[_ItemIn], warnings: list[str]
) -> tuple[Tool, ...]:
    """The tools with those that items add, or that a search has found; of one name, the last.

    A tool keeps the place where it first came, as upstreams cache what stays the same.
    """
    known: dict[str, Tool] = {}
    count = 0
    for i, item in enumerate(items):
        if item.type not in ("additional_tools", "tool_search_output") or not item.tools:
            continue
        place = f"$.input[{i}].tools"
        known = known or {tool.name: tool for tool in tools}
        count += len(item.tools)
        bounds.check(count, bounds.TOOLS, place)
        found = item.type == "tool_search_output"
        for wire in [w for tool in item.tools for w in _apart(tool)] if found else item.tools:
            try:
                added, _ = _tools((wire,), warnings, place)
            except Refused as refused:
                if not found or (wire.type not in _CALLABLE and wire.type != "namespace"):
                    raise refused
                warnings.append("input.tool_search_output")  # found once; its call can be repeated
                continue
            known.update((tool.name, tool) for tool in added)
            bounds.check(len(known), bounds.TOOLS, place)
    return tuple(known.values()) if known else tools


def _apart(wire: _ToolIn) -> list[_ToolIn]:
    """A namespace as one for each of its tools, so that a malformed tool loses only itself."""
    if wire.type != "namespace" or not wire.tools:
        return [wire]
    return [msgspec.structs.replace(wire, tools=[each]) for each in wire.tools]


def _name(wire: _ToolIn, where: str) -> str:
    if not wire.name:
        raise invalid(f"Object missing required field `name` - at `{where}`", f"{where}.name")
    return wire.name


def _tool(wire: _ToolIn, namespace: str, where: str, warnings: list[str]) -> Tool:
    if wire.type not in _CALLABLE:
        raise unsupported(
            f"{where}.{wire.type}",
            "Only function, custom and namespace tools, and web_search, are.",
        )
    name, description = flat(namespace, _name(wire, where)), wire.description or ""
    bounds.check_name(name, f"{where}.name")
    if wire.type == "function":
        raw = fields.first_given(wire.parameters, wire.input_schema, wire.inputSchema)
        schema = fields.schema_of(raw, f"{where}.parameters")
        return Tool(name, description, schema, wire.strict is True, namespace=namespace)
    grammar = ("", "")
    if wire.format is not None and wire.format.type == "grammar":
        warnings.append("tools.custom.format")
        grammar = wire.format.syntax or "", wire.format.definition or ""
    return fields.freeform(name, description, grammar, namespace)


def _plain(wire: _ToolIn, tool: Tool) -> _ToolIn:
    """A tool as OpenAI repeats it: `parameters` and `strict` are always there."""
    if tool.custom:
        return wire
    replace = msgspec.structs.replace
    if wire.input_schema is not _NOTHING or wire.inputSchema is not _NOTHING:
        wire = replace(wire, input_schema=_NOTHING, inputSchema=_NOTHING)
    return replace(wire, parameters=tool.parameters, strict=tool.strict)


class _Names:
    """The tools by the names that a choice may give them."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._names = {tool.name for tool in tools}
        self._within: dict[str, set[str]] = {}  # of a namespace, all of its tools
        self._short: dict[str, set[str]] = {}  # without its namespace, what a name may mean
        for tool in tools:
            if tool.namespace:
                self._within.setdefault(tool.namespace, set()).add(tool.name)
                short = tool.name.removeprefix(flat(tool.namespace, ""))
                self._short.setdefault(short, set()).add(tool.name)

    def within(self, namespace: str | None) -> set[str]:
        return self._within.get(namespace or "", set())

    def chosen(self, wire: _ChoiceIn | _AllowedIn, where: str) -> str:
        """The name of the tool that is meant; the namespace may be left out where it is clear."""
        if wire.type == SEARCH and SEARCH in self._names:
            return SEARCH
        if wire.type not in _CALLABLE:
            raise unsupported(f"{where}.{wire.type[:64]}", "Use a function or a custom tool.")
        name = flat(wire.namespace or "", wire.name or "")
        if name in self._names:
            return name
        found = () if wire.namespace else self._short.get(name, ())
        if len(found) != 1:
            raise invalid(
                f"The tool `{(wire.name or '')[:64]}` is not in `tools`.", f"{where}.name"
            )
        return next(iter(found))


_CALLABLE = frozenset(("function", "custom"))


def _choice(
    wire: _RequestIn, tools: tuple[Tool, ...], search: WebSearch | None
) -> tuple[tuple[Tool, ...], Choice, WebSearch | None]:
    said, parallel = wire.tool_choice, wire.parallel_tool_calls
    if said is None:
        return tools, Choice(parallel=parallel), search
    if isinstance(said, _ChoiceIn):
        if said.type == "allowed_tools":
            bounds.check_size(said.tools, bounds.TOOLS, "$.tool_choice.tools")
            names, allowed = _Names(tools), set[str]()
            searching = False
            for i, each in enumerate(said.tools or ()):
                if each.type == "namespace":
                    allowed |= names.within(each.name)
                elif each.type == SEARCH:
                    allowed.add(SEARCH)
                elif each.type.startswith(_HINTS):
                    searching = True
                else:
                    allowed.add(names.chosen(each, f"$.tool_choice.tools[{i}]"))
            tools = tuple(t for t in tools if t.name in allowed)
            search = search if searching else None
            said = said.mode or "auto"
        elif said.type in _CALLABLE or any(t.search for t in tools if t.name == said.type):
            chosen = _Names(tools).chosen(said, "$.tool_choice")
            return tools, Choice("named", chosen, parallel), search
        elif said.type.startswith(WEB_SEARCH) and search is not None:
            return tools, Choice(parallel=parallel), msgspec.structs.replace(search, forced=True)
        else:
            raise unsupported(f"$.tool_choice.{said.type}", "Use a function or a custom tool.")
    if said == "required" and not tools and search is None:
        raise invalid("`tool_choice` asks for a call but `tools` is empty.", "$.tool_choice")
    return tools, Choice(said, parallel=parallel), search


TRIGGER = "compaction_trigger"  # as the last item it asks for a summary in place of a reply
SUMMARIZE = (
    "Summarize this conversation so that another model can continue it without reading it: what the"
    " user wants, what was decided and why, what was done, with the names of files, commands and"
    " results that matter, and what is left to do. Write the summary only. Do not call any tool."
)


# Items of hosted tools in the history: told by the messages around them, as far as they matter.
_SILENT = frozenset(
    ("web_search_call", "file_search_call", "code_interpreter_call", "compaction_trigger")
)


def _messages(wire: _RequestIn, searching: bool, warnings: list[str]) -> tuple[Message, ...]:
    """The messages; `searching`: searches of the history are calls, whose results are not kept."""
    out: list[Message] = []
    if wire.instructions:
        out.append(Message("system", (Text(wire.instructions),)))
    if isinstance(wire.input, str):
        out.append(Message("user", (Text(wire.input),) if wire.input else ()))
        return tuple(out)
    bounds.check_size(wire.input, bounds.MESSAGES, "$.input")
    tally = bounds.Tally()
    turn: list[Part] = []  # of the assistant: the items of one turn are one message
    for i, item in enumerate(wire.input):
        where = f"$.input[{i}]"
        content = string_or_list(item.content, _content_decoder, where, "content")
        if isinstance(content, list):
            tally.add(content, f"{where}.content")
        output = string_or_list(item.output, _content_decoder, where, "output")
        if isinstance(output, list):
            tally.add(output, f"{where}.output")
        if item.summary:
            tally.add(item.summary, f"{where}.summary")
        if searching and item.type == "web_search_call" and (call := _searched(item)):
            out.append(Message("assistant", (*turn, call)))
            out.append(Message("tool", (ToolResult(call.id, (Text(NOT_KEPT),)),)))
            turn = []
            continue
        if item.type in _SILENT:
            warnings.append(f"input.{item.type}")
            continue
        if item.type == "additional_tools":
            continue
        if item.type in ("tool_search_call", "tool_search_output") and not item.call_id:
            warnings.append(f"input.{item.type}")
            continue  # a hosted search: the model sees what it found among its tools
        parts, message = _item(item, content, output, where)
        turn += parts
        if message is not None:
            if turn:
                out.append(Message("assistant", tuple(turn)))
                turn = []
            out.append(message)
    if turn:
        out.append(Message("assistant", tuple(turn)))
    return tuple(out)


_action_decoder = msgspec.json.Decoder(_ActionIn)
_strings_decoder = msgspec.json.Decoder(list[str])


def _searched(wire: _ItemIn) -> ToolCall | None:
    """The call of an earlier search; None for one that cannot be read."""
    if not bytes(wire.id).startswith(b'"') or not bytes(wire.action).startswith(b"{"):
        return None
    action = _action_decoder.decode(wire.action)
    query = bytes(action.query)
    if not query.startswith(b'"'):
        try:
            query = msgspec.json.encode(_strings_decoder.decode(action.queries)[0])
        except (msgspec.MsgspecError, IndexError):
            return None
    id = bounds.call_id(msgspec.json.decode(wire.id, type=str))
    return ToolCall(id, WEB_SEARCH, f'{{"query":{query.decode()}}}')


def _item(
    wire: _ItemIn, content: _Content, output: _Content, where: str
) -> tuple[list[Part], Message | None]:
    """The parts that an item adds to the assistant's turn, or the message that it is."""
    match wire.type:
        case "message" | None:
            return _message(wire, content, where)
        case "reasoning":
            return _thinking(wire, content), None
        case "tool_search_call":
            text = _arguments(wire.arguments, where)
            return [ToolCall(bounds.call_id(wire.call_id or ""), SEARCH, text)], None
        case "tool_search_output":
            id = bounds.call_id(wire.call_id or "")
            return [], Message("tool", (ToolResult(id, (Text(_found(wire.tools or ())),)),))
        case "function_call" | "custom_tool_call":
            if not (wire.call_id and wire.name):
                missing = "name" if wire.call_id else "call_id"
                raise invalid(
                    f"Object missing required field `{missing}` - at `{where}`",
                    f"{where}.{missing}",
                )
            if wire.type == "custom_tool_call":
                arguments: str | Raw = fields.wrapped(wire.input or "")
            else:
                arguments = _arguments(wire.arguments, where)
            name = bounds.called_name(flat(wire.namespace or "", wire.name))
            return [ToolCall(bounds.call_id(wire.call_id), name, arguments)], None
        case "function_call_output" | "custom_tool_call_output":
            if not wire.call_id:
                raise invalid(
                    f"Object missing required field `call_id` - at `{where}`", f"{where}.call_id"
                )
            id = bounds.call_id(wire.call_id)
            result = ToolResult(id, tuple(_parts(output, f"{where}.output")))
            return [], Message("tool", (result,))
        case "item_reference":
            raise unsupported(f"{where}.item_reference", "Nothing is stored; send the item itself.")
        case _:
            raise unsupported(f"{where}.{wire.type}", "Send messages, reasoning and calls.")


def _arguments(raw: Raw, where: str) -> str | Raw:
    if (said := string_or_none(raw)) is not None:
        return said
    value = decoded(_arguments_decoder, raw, f"{where}.arguments") if bytes(raw) else None
    return jsontext.encode(value).decode() if isinstance(value, dict) else ""


def _found(tools: Sequence[_ToolIn]) -> str:
    """What a search found, by the names that the model calls; their schemas are declared."""
    names: list[str] = []
    for tool in tools:
        inner = tool.tools or () if tool.type == "namespace" else (tool,)
        namespace = tool.name or "" if tool.type == "namespace" else ""
        names += [flat(namespace, each.name) for each in inner if each.name]
    return jsontext.encode({"tools": names}).decode()


def _message(wire: _ItemIn, content: _Content, where: str) -> tuple[list[Part], Message | None]:
    match wire.role:
        case "user":
            return [], Message("user", tuple(_parts(content, f"{where}.content")))
        case "system" | "developer" | "assistant":
            parts = _parts(content, f"{where}.content")
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
    if not isinstance(part, Text):
        return [part]
    if isinstance(part.source, Raw) and not may_hold(part.source, b"<"):
        return [part]
    if not part.text.lstrip().startswith("<"):
        return [part]
    thinking, rest = untagged(part.text)
    if not thinking:
        return [part]
    return [Thinking(thinking), Text(rest)] if rest else [Thinking(thinking)]


def _thinking(wire: _ItemIn, content: _Content) -> list[Part]:
    """The text, if the client kept it, and what was sealed; the text has one of two places."""
    if isinstance(content, Raw):
        text = _text_of(content)
    else:
        text = "".join([_text_of(p.text) for p in content or ()])
    text = text or "\n\n".join([_text_of(p.text) for p in wire.summary or ()])
    signature = wire.encrypted_content or ""
    return [Thinking(text, signature)] if text or signature else []


def _text_of(raw: Raw) -> str:
    found = string_or_none(raw)
    return "" if found is None else Text(found).text


def _parts(content: _Content, where: str) -> list[Text | Media]:
    if content is None:
        return []
    if isinstance(content, Raw):
        return [Text(content)]
    out: list[Text | Media] = []
    for i, part in enumerate(content):
        at = f"{where}[{i}]"
        text = string(part.text, at, "text") or string(part.refusal, at, "refusal")
        match part.type:
            case "input_text" | "output_text" | "text" | "refusal":
                if text is not None:
                    out.append(Text(text))
            case "input_image" if part.image_url:
                detail = part.detail or ""
                out.append(fields.media_of("image", part.image_url, detail, f"{at}.image_url"))
            case "input_image":
                raise unsupported(f"{at}.file_id", "Nothing is stored; send `image_url`.")
            case _:
                raise unsupported(f"{at}.{part.type}", "Send text or images.")
    return out


def request_in(body: bytes, target: RequestTarget) -> Request:
    """A client's request; raises errors.Refused."""
    return read_whole(lambda b: limits.read(_read, b, ("max_output_tokens",)), body)


def _read(body: bytes) -> Request:
    try:
        return _request(jsontext.decode_request(_request_decoder, body))
    except Refused as refused:
        rewritten, warnings = unknown.responses(body, refused)
    return _request(jsontext.decode_request(_request_decoder, rewritten)).warn(*warnings)
