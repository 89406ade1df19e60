"""Anthropic Messages: the wire of Claude Code and of Anthropic's SDKs.

The only place for its words from clients.  Sources, read 2026-11: the types of the anthropic SDK
2.12, code.claude.com/docs/en/llm-gateway-protocol, and bodies recorded from Claude Code 2.1.330.
`anthropic_reply.py` holds what clients get, `anthropic_upstream.py` the other side, what upstreams
get and send.

Note: clients' bodies are open lists, as Claude Code adds fields every month: what is
unknown is ignored, never refused; and thinking is off, and not shown, when it is not asked for.

Known losses: redacted thinking (nothing here made it, nothing here can read it), the place of text
between the tool results of one turn, citations.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from headgate import bounds, jsontext
from headgate.bounds import Int64
from headgate.chat import (
    WEB_SEARCH,
    Choice,
    Format,
    Found,
    Media,
    Message,
    Part,
    Reasoning,
    Request,
    Role,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    WebSearch,
)
from headgate.dialects import hints, limits, malformed, provider, unknown, unreadable
from headgate.dialects.anthropic.own_tools import own_tool
from headgate.dialects.contract import RequestTarget
from headgate.dialects.fields import (
    check_domains,
    check_sampling,
    first_given,
    media_of,
    read_whole,
    schema_of,
)
from headgate.dialects.found import listed, opened
from headgate.dialects.jsonstrings import decoded, string, string_or_none
from headgate.errors import Refused, invalid, unsupported

_Json = dict[str, object]

# --- wire types: what clients send ---------------------------------------------------------------

_NOTHING = Raw(b"null")


class _CacheControl(Struct, frozen=True):
    ttl: str | None = None


class _Source(Struct, frozen=True):
    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: str | list[Raw] | None = None


class _BlockIn(Struct, frozen=True):
    """One struct for all kinds, so that a kind we refuse is refused by its name."""

    type: str
    text: Raw = _NOTHING  # a string or null; see dialects/jsonstrings.py
    source: _Source | None = None
    title: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = _NOTHING
    tool_use_id: str | None = None
    content: Raw = _NOTHING  # a string, a list of blocks, or null
    is_error: bool | None = None
    cache_control: _CacheControl | None = None


class _TypedBlockIn(_BlockIn, frozen=True):
    text: str | None = None  # type: ignore[assignment]  # checked, where `_BlockIn` passes over it
    content: str | list[Raw] | None = None  # type: ignore[assignment]  # as `text`


class _Rendered(Struct, frozen=True):
    """A block that the model is shown as text: whatever type its fields have, none is refused."""

    type: Raw = _NOTHING
    title: Raw = _NOTHING
    tool_name: Raw = _NOTHING
    name: Raw = _NOTHING
    source: Raw = _NOTHING
    text: Raw = _NOTHING
    thinking: Raw = _NOTHING
    content: Raw = _NOTHING


class _MessageIn(Struct, frozen=True):
    role: str
    content: str | list[_BlockIn]


class _LooseMessageIn(_MessageIn, frozen=True):
    """A message with blocks of which one has an unknown kind or a wrong type; each is read apart."""

    content: str | list[Raw]  # type: ignore[assignment]  # blocks that are not decoded yet


class _ToolIn(Struct, frozen=True):
    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: Raw = _NOTHING
    strict: bool | None = None
    cache_control: _CacheControl | None = None
    # As OpenAI's protocols and MCP have them:
    function: Raw = _NOTHING
    parameters: Raw = _NOTHING
    inputSchema: Raw = _NOTHING
    # Of a search of the web:
    max_uses: Int64 | None = None
    allowed_domains: list[str] | None = None
    blocked_domains: list[str] | None = None
    user_location: Raw = _NOTHING


class _ChoiceIn(Struct, frozen=True):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _ThinkingIn(Struct, frozen=True):
    type: str
    budget_tokens: Int64 | None = None
    display: str | None = None


class _FormatIn(Struct, frozen=True):
    type: str
    schema: Raw = _NOTHING
    name: str | None = None


class _OutputConfig(Struct, frozen=True):
    effort: Raw = _NOTHING  # a hint: whatever is no known word is ignored with a warning
    format: _FormatIn | None = None


class _Metadata(Struct, frozen=True):
    user_id: str | None = None


class _UserId(Struct, frozen=True):
    """What Claude Code writes into `metadata.user_id`, as JSON in a string."""

    session_id: str | None = None
    account_uuid: str | None = None
    device_id: str | None = None


class _RequestIn(Struct, frozen=True):
    model: str
    messages: list[_MessageIn]
    max_tokens: Int64 | None = None
    system: str | list[Raw] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Int64 | None = None
    stop_sequences: list[str] | None = None
    tools: list[_ToolIn] | None = None
    tool_choice: _ChoiceIn | None = None
    thinking: _ThinkingIn | None = None
    output_config: _OutputConfig | None = None
    output_format: _FormatIn | None = None  # its older place (beta structured-outputs-2025-11-13)
    metadata: _Metadata | None = None
    service_tier: str | None = None
    thread: Raw = _NOTHING
    mcp_servers: list[Raw] | None = None
    # Ignored with a warning, see `_IGNORED`:
    container: Raw = _NOTHING
    context_management: Raw = _NOTHING
    fallbacks: Raw = _NOTHING
    inference_geo: Raw = _NOTHING
    speed: Raw = _NOTHING
    user_profile_id: Raw = _NOTHING
    provider: Raw = _NOTHING  # OpenRouter's: preferences among the upstreams


class _LooseRequestIn(_RequestIn, frozen=True):
    messages: list[_LooseMessageIn]  # type: ignore[assignment]  # as above


_request_decoder = msgspec.json.Decoder(_RequestIn)
_loose_decoder = msgspec.json.Decoder(_LooseRequestIn)
_blocks_decoder = msgspec.json.Decoder(list[_BlockIn])
_block_decoder = msgspec.json.Decoder(_BlockIn)
_typed_decoder = msgspec.json.Decoder(_TypedBlockIn)
_rendered_decoder = msgspec.json.Decoder(_Rendered)
_list_decoder = msgspec.json.Decoder(list[Raw])
_content_decoder = msgspec.json.Decoder(str | list[Raw] | None)
_BRACKET = ord("[")
_user_id_decoder = msgspec.json.Decoder(_UserId)


# --- requests: from clients ----------------------------------------------------------------------

# Claude Code's first system block; older versions changed it with each request, which spoils every
# cache of prefixes.  Only Anthropic itself takes it out (llm-gateway-protocol).
_BILLING = re.compile(r"x-anthropic-billing-header:", re.I)
_RENDERED = frozenset(
    ("search_result", "tool_reference", "browser_state", "server_tool_use", "mcp_tool_use")
)


def _request(wire: _RequestIn, headers: Mapping[str, str]) -> Request:
    if bytes(wire.thread) != b"null":
        # The SDK's tool runner would send the next turn without tools and history; on this code it
        # goes on without threads (anthropic 2.12).
        raise invalid(
            "Threads are not supported; send the whole history.",
            "$.thread",
            "thread_unsupported_request",
        )
    if wire.mcp_servers:
        raise unsupported("$.mcp_servers", "Run the servers in the client.")
    bounds.check_size(wire.model, bounds.MODEL, "$.model")
    notes: list[str] = [name for name in _IGNORED if bytes(getattr(wire, name)) != b"null"]
    if wire.service_tier not in _TIERS:
        notes.append("service_tier")
    config = wire.output_config or _OutputConfig()
    bounds.check_size(config.effort, bounds.LABEL, "$.output_config.effort")
    tools = _tools(wire.tools, wire.tool_choice, notes)
    search = _search(wire, notes)
    messages = _messages(wire.messages, notes, search is not None)
    preferences = provider.preferences(wire.provider, notes)
    request = Request(
        model=wire.model,
        messages=(*_system(wire.system, notes), *messages),
        stream=bool(wire.stream),
        tools=tools,
        choice=_choice(wire.tool_choice, tools, search, notes),
        sampling=_sampling(wire),
        reasoning=_reasoning(wire.thinking, _effort(config.effort, notes), notes),
        format=_format(config.format, "$.output_config.format")
        or _format(wire.output_format, "$.output_format"),
        service_tier="priority" if wire.service_tier == "priority" else "",
        session=_session(wire, headers),
        user=_end_user(wire),
        search=search,
        preferences=preferences,
    )
    return request.warn(*notes)


def _is_known(message: _MessageIn) -> bool:
    content = message.content
    return isinstance(content, str) or all([block.type in _BLOCKS for block in content])


_IGNORED = (
    "container",
    "context_management",
    "fallbacks",
    "inference_geo",
    "speed",
    "user_profile_id",
)
_TIERS = (None, "auto", "standard_only", "priority")


def _sampling(wire: _RequestIn) -> Sampling:
    bounds.check_size(wire.stop_sequences, bounds.STOPS, "$.stop_sequences")
    stop = tuple(wire.stop_sequences or ())
    sampling = Sampling(wire.max_tokens, wire.temperature, wire.top_p, wire.top_k, stop=stop)
    check_sampling(sampling, "$.", stop="stop_sequences")
    return sampling


def _format(wire: _FormatIn | None, param: str) -> Format | None:
    if wire is None:
        return None
    if wire.type != "json_schema":
        raise unsupported(f"{param}.type", "Use `json_schema`.")
    return Format(
        "schema", wire.name or "response", schema_of(wire.schema, f"{param}.schema"), True
    )


def _effort(raw: Raw, notes: list[str]) -> str:
    """The effort in a word that is known; policy/effort.py fits it to a route."""
    value = unknown.word_of(raw)
    known = unknown.effort(value) if value else ""
    if value and not known:
        notes.append(f"output_config.effort ({unreadable.plain(value)} ignored)")
    elif value and known != value:
        notes.append(f"output_config.effort ({unreadable.plain(value)} read as {known})")
    return known


def _reasoning(wire: _ThinkingIn | None, effort: str, notes: list[str]) -> Reasoning:
    if wire is None or wire.type == "disabled":
        return Reasoning("off", "no", effort)
    if wire.type not in ("enabled", "adaptive", "between_tools"):
        notes.append(f"thinking.type ({unreadable.plain(wire.type)} read as adaptive)")
    show: Literal["omit", "yes"] = "omit" if wire.display == "omitted" else "yes"
    return Reasoning("on", show, effort, wire.budget_tokens)


def _session(wire: _RequestIn, headers: Mapping[str, str]) -> str:
    said = headers.get("x-claude-code-session-id", "")
    user = (wire.metadata.user_id or "") if wire.metadata is not None else ""
    if not said and user.startswith("{"):
        # What is no JSON is a name that happens to begin with a brace.
        with suppress(msgspec.DecodeError, RecursionError):
            said = _user_id_decoder.decode(user).session_id or ""
    return (said or user)[:256]


def _end_user(wire: _RequestIn) -> str:
    user = (wire.metadata.user_id or "") if wire.metadata is not None else ""
    if user.startswith("{"):
        with suppress(msgspec.DecodeError, RecursionError):
            named = _user_id_decoder.decode(user)
            user = named.account_uuid or named.device_id or ""
    return user[:256]


def _tools(
    wires: list[_ToolIn] | None, choice: "_ChoiceIn | None", notes: list[str]
) -> tuple[Tool, ...]:
    """The tools as functions; those that Anthropic executes are left out, unless one is forced."""
    bounds.check_size(wires, bounds.TOOLS, "$.tools")
    forced = choice.name if choice is not None and choice.type == "tool" else None
    tools: list[Tool] = []
    for i, wire in enumerate(wires or ()):
        kind, param = wire.type or "custom", f"$.tools[{i}]"
        if kind.startswith(_SEARCH_TYPE):
            continue
        if kind == "function":
            wire = _of_openai(wire, param)
        elif (own := own_tool(kind)) is not None:
            words, schema = own
            wire = msgspec.structs.replace(wire, description=words, input_schema=schema)
        elif kind != "custom":
            if forced is not None and forced == wire.name:
                raise unsupported(
                    f"{param}.type",
                    f"`{kind[:40]}` is executed by Anthropic; describe a tool of your own.",
                )
            notes.append(f"tools.{unreadable.plain(kind)}")
            continue
        tools.append(_tool(wire, param))
    return tuple(tools)


def _of_openai(wire: _ToolIn, param: str) -> _ToolIn:
    """A function in a form of OpenAI's, nested or flat, as a tool of this protocol."""
    inner = wire
    if bytes(wire.function).startswith(b"{"):
        try:
            inner = msgspec.json.decode(wire.function, type=_ToolIn)
        except msgspec.MsgspecError as error:
            raise invalid(str(error), f"{param}.function") from None
    return msgspec.structs.replace(inner, cache_control=inner.cache_control or wire.cache_control)


_SEARCH_TYPE = "web_search_"  # a tool of Anthropic's that the gateway serves, of any date


def _search(wire: _RequestIn, notes: list[str]) -> WebSearch | None:
    """The search of the web that the client declares."""
    tools = enumerate(wire.tools or ())
    found = next(((i, t) for i, t in tools if (t.type or "").startswith(_SEARCH_TYPE)), None)
    if found is None:
        return None
    i, tool = found
    check_domains(tool.allowed_domains, f"$.tools[{i}].allowed_domains")
    check_domains(tool.blocked_domains, f"$.tools[{i}].blocked_domains")
    if bytes(tool.user_location) != b"null":
        notes.append("tools.web_search.user_location")
    choice = wire.tool_choice
    forced = choice is not None and choice.type == "tool" and choice.name == tool.name
    return WebSearch(
        forced and tool.name is not None,
        tool.max_uses,
        tuple(tool.allowed_domains or ()),
        tuple(tool.blocked_domains or ()),
    )


def _tool(wire: _ToolIn, param: str) -> Tool:
    if not wire.name:
        raise invalid("A tool needs a `name`.", f"{param}.name")
    bounds.check_name(wire.name, f"{param}.name")
    return Tool(
        wire.name,
        wire.description or "",
        schema_of(
            first_given(wire.input_schema, wire.parameters, wire.inputSchema),
            f"{param}.input_schema",
        ),
        bool(wire.strict),
        cache=_cache(wire.cache_control),
    )


def _choice(
    wire: _ChoiceIn | None, tools: tuple[Tool, ...], search: WebSearch | None, notes: list[str]
) -> Choice:
    if wire is None:
        return Choice()
    said = wire.disable_parallel_tool_use
    parallel = None if said is None else not said
    match wire.type:
        case "auto":
            return Choice("auto", parallel=parallel)
        case "none":
            return Choice("none", parallel=parallel)
        case "any" if tools or search is not None:
            return Choice("required", parallel=parallel)
        case "any":
            raise invalid("A tool can only be called when `tools` are given.", "$.tool_choice")
        case "tool" if wire.name and any(t.name == wire.name for t in tools):
            return Choice("named", wire.name, parallel)
        case "tool" if search is not None and search.forced:
            return Choice("auto", parallel=parallel)  # edge/ names the tool that it offers
        case "tool":
            raise invalid(f"There is no tool `{(wire.name or '')[:64]}`.", "$.tool_choice.name")
    notes.append(f"tool_choice ({unreadable.plain(wire.type)} read as auto)")
    return Choice("auto", parallel=parallel)


def _system(wire: str | list[Raw] | None, notes: list[str]) -> Iterator[Message]:
    """One message for each block: whoever joins them puts a blank line between."""
    if isinstance(wire, list):
        bounds.check_size(wire, bounds.MESSAGES, "$.system")
    if isinstance(wire, str):
        if wire:
            yield Message("system", (Text(wire),))
        return
    for i, raw in enumerate(wire or ()):
        param = f"$.system[{i}]"
        block = _readable(raw, param, notes)
        if block.type in unreadable.ATTACHMENTS:
            raise unsupported(f"{param}.type", f"`{block.type}` cannot stand here.")
        for text in _told([(block, param)], notes):
            if i or not _BILLING.match(text.text):
                yield Message("system", (text,))


def _messages(wires: Sequence[_MessageIn], notes: list[str], searching: bool) -> Iterator[Message]:
    """The messages; `searching`: searches of the history are calls with their results."""
    bounds.check_size(wires, bounds.MESSAGES, "$.messages")
    tally = bounds.Tally()
    end = len(wires) - 1
    for i, wire in enumerate(wires):
        param = f"$.messages[{i}]"
        # Only what the reply is for may be refused; all before it is history.
        asked = i == end and wire.role not in ("assistant", "system", "developer")
        blocks: list[_BlockIn] = []
        if isinstance(wire.content, str):
            if wire.content:
                yield Message(*_said(wire.role, wire.content, notes))
                continue
        else:
            tally.add(wire.content, f"{param}.content")
            if searching and wire.role == "assistant":
                yield from _searched(wire.content, param, notes)
                continue
            blocks = _read_blocks(wire.content, f"{param}.content", notes, asked)
        places = [(block, f"{param}.content[{k}]") for k, block in enumerate(blocks)]
        match wire.role:
            case "user":
                # What stands beside or behind a tool's result is what the tool returned.
                own = asked and not any(map(_answers, wires[max(0, i - 1) : i + 1]))
                yield from _user(places, tally, notes, own)
            case "assistant":
                yield Message("assistant", tuple(_assistant(places, notes)))
            case "system" | "developer":
                yield Message("system", tuple(_told(places, notes)))
            case role:
                notes.append(f"history: role {unreadable.plain(role)} read as user")
                yield from _user(places, tally, notes, asked)


def _mended(raw: Raw, warnings: list[str]) -> Raw | None:
    """A message of the history with a role and a content that can be read."""
    fields = malformed.fields_of(raw)
    if fields is None:
        warnings.append("history: malformed message skipped")
        return None
    role, content = fields.get("role"), fields.get("content")
    if malformed.is_text(role) and (malformed.is_text(content) or malformed.is_list(content)):
        return raw
    warnings.append("history: malformed message mended")
    if not malformed.is_text(role):
        role = Raw(b'"user"')
    if content is not None and bytes(content).startswith(b"{"):
        content = Raw(b"[" + bytes(content) + b"]")
    elif not malformed.is_text(content) and not malformed.is_list(content):
        content = Raw(b'""')
    return Raw(msgspec.json.encode({"role": role, "content": content}))


def _said(role: str, text: str, notes: list[str]) -> tuple[Role, tuple[Text]]:
    """The role and the parts of a message that is one text."""
    parts = (Text(text),)
    match role:
        case "user" | "assistant":
            return role, parts
        case "system" | "developer":
            return "system", parts
    notes.append(f"history: role {unreadable.plain(role)} read as user")
    return "user", parts


def _read_blocks(
    wires: Sequence[_BlockIn | Raw], param: str, notes: list[str], asked: bool
) -> list[_BlockIn]:
    read = _block if asked else _readable
    return [
        wire if isinstance(wire, _BlockIn) else read(wire, f"{param}[{k}]", notes)
        for k, wire in enumerate(wires)
    ]


def _answers(wire: _MessageIn) -> bool:
    """Whether a turn of the user holds the result of a tool."""
    if wire.role != "user" or isinstance(wire.content, str):
        return False
    for block in wire.content:
        if isinstance(block, _BlockIn):
            if block.type == "tool_result":
                return True
        elif b'"tool_result"' in bytes(block):
            return True
    return False


def _told(places: list[tuple[_BlockIn, str]], notes: list[str]) -> Iterator[Text]:
    """The texts of a message that holds nothing else."""
    for block, _ in places:
        if block.type == "text" and malformed.is_text(block.text):
            yield Text(block.text.copy(), _cache(block.cache_control))
        else:
            yield from _kept(block, notes)


def _user(
    places: list[tuple[_BlockIn, str]], tally: bounds.Tally, notes: list[str], asked: bool
) -> Iterator[Message]:
    """Results are messages of their own, before what else the turn says."""
    parts: list[Part] = []
    results = 0
    for block, param in places:
        if block.type == "tool_result":
            result = _result(block, param, tally, notes)
            if result.call_id:
                results += 1
                yield Message("tool", (result,))
            else:
                notes.append("history: tool_result without tool_use_id kept as text")
                parts += result.parts
        elif block.type in _SHOWN or block.type in unreadable.ATTACHMENTS:
            if asked:
                parts.append(_shown(block, param, notes))
            else:
                parts += _seen_before(block, param, notes)
        else:
            parts.extend(_kept(block, notes))
    if parts or not results:
        yield Message("user", tuple(parts))


_SHOWN = ("text", "image", "video", "document")


def _seen_before(block: _BlockIn, param: str, notes: list[str]) -> Iterator[Text | Media]:
    """What a user attached in an earlier turn; a note stands for what cannot be read."""
    if block.type == "text":
        yield from _told([(block, param)], notes)
        return
    try:
        yield _shown(block, param, notes)
    except Refused:
        source = block.source
        media_type = (source.media_type or "") if source is not None else ""
        what = unreadable.name_of(block.type, media_type)
        notes.append(unreadable.replaced(what))
        yield unreadable.attached(what, _cache(block.cache_control))


def _kept(block: _BlockIn, notes: list[str]) -> Iterator[Text]:
    """What a turn of this role does not hold: its text, or a warning only."""
    what = f"{unreadable.plain(block.type)} block"
    said = string_or_none(block.text) or block.thinking or string_or_none(block.content)
    if block.type == "document" and block.source is not None and block.source.type == "text":
        said = block.source.data
    if block.type == "tool_use" and not said:
        said = f"[called {block.name or 'a tool'}: {bytes(block.input).decode()}]"
    text = Text(said or "", _cache(block.cache_control))
    if not text.is_blank:
        notes.append(unreadable.kept_as_text(what))
        yield text
    else:
        notes.append(unreadable.skipped(what))


def _assistant(places: list[tuple[_BlockIn, str]], notes: list[str]) -> Iterator[Part]:
    for block, param in places:
        match block.type:
            case "thinking":
                yield Thinking(block.thinking or "", block.signature or "")
            case "redacted_thinking":
                notes.append(unreadable.skipped("redacted_thinking block"))
            case "tool_use" if block.id and block.name:
                yield _call(block, param)
            case _:
                yield from _told([(block, param)], notes)


class _ResultIn(Struct, frozen=True):
    """One result of an earlier search; of any type, as it is history."""

    url: Raw = _NOTHING
    title: Raw = _NOTHING
    encrypted_content: Raw = _NOTHING
    page_age: Raw = _NOTHING


_result_decoder = msgspec.json.Decoder(_ResultIn)


def _searched(content: Sequence[_BlockIn | Raw], param: str, notes: list[str]) -> Iterator[Message]:
    """A turn that may have searched the web, as the rounds that it was made of."""
    parts: list[Part] = []
    for k, raw in enumerate(content):
        if isinstance(raw, _BlockIn):  # of a kind that is no search
            parts.extend(_assistant([(raw, f"{param}.content[{k}]")], notes))
            continue
        kind = _kind(raw)
        if kind in ("server_tool_use", "web_search_tool_result"):
            with suppress(msgspec.MsgspecError):  # one of another shape is kept as text
                block = _block_decoder.decode(raw)
                if kind == "server_tool_use" and block.name == WEB_SEARCH and block.id:
                    parts.append(_call(block, f"{param}.content[{k}]"))
                    continue
                if kind == "web_search_tool_result" and block.tool_use_id and parts:
                    yield Message("assistant", tuple(parts))
                    parts = []
                    yield Message("tool", (_results(block),))
                    continue
        place = f"{param}.content[{k}]"
        parts.extend(_assistant([(_readable(raw, place, notes), place)], notes))
    yield Message("assistant", tuple(parts))


def _results(block: _BlockIn) -> ToolResult:
    found: list[Found] = []
    listing = malformed.is_list(block.content)
    for raw in _list_decoder.decode(block.content) if listing else ():
        if bytes(raw).startswith(b"{"):
            wire = _result_decoder.decode(raw)
            snippet = opened(_string(wire.encrypted_content))
            age = _string(wire.page_age)
            found.append(Found(_string(wire.url), _string(wire.title), snippet, age))
    id = bounds.call_id(block.tool_use_id or "")
    return ToolResult(id, (Text(listed(found)),))


def _call(block: _BlockIn, param: str) -> ToolCall:
    assert block.id
    assert block.name
    id, name, cache = bounds.call_id(block.id), bounds.called_name(block.name), block.cache_control
    json = bytes(block.input)
    jsontext.check_depth(json, f"{param}.input")
    # Some clients keep it as the model wrote it; policy/history.py repairs what no upstream reads.
    if json.startswith((b"{", b'"')) and not jsontext.has_long_number(json):
        return ToolCall(id, name, block.input.copy(), _cache(cache))
    return ToolCall(id, name, "{}" if json == b"null" else json.decode(), _cache(cache))


def _result(block: _BlockIn, param: str, tally: bounds.Tally, notes: list[str]) -> ToolResult:
    """What a tool returned; a note stands for each block that cannot be read."""
    parts: list[Text | Media] = []
    said = string_or_none(block.content)
    if said is not None:
        parts.append(Text(said))
    elif memoryview(block.content)[0] == _BRACKET:
        parts = _returned_list(block.content, f"{param}.content", tally, notes)
    else:
        decoded(_content_decoder, block.content, f"{param}.content")
    cache = _cache(block.cache_control)
    id = bounds.call_id(block.tool_use_id or "")
    return ToolResult(id, tuple(parts), bool(block.is_error), cache=cache)


def _returned_list(
    content: Raw, param: str, tally: bounds.Tally, notes: list[str]
) -> list[Text | Media]:
    with suppress(msgspec.ValidationError):
        blocks = _blocks_decoder.decode(content)
        if all([block.type == "text" for block in blocks]):
            tally.add(blocks, param)
            with suppress(Refused):
                return [_text(b, f"{param}[{i}]") for i, b in enumerate(blocks)]
    raws = _list_decoder.decode(content)
    tally.add(raws, param)
    return [_returned(raw, f"{param}[{i}]", notes) for i, raw in enumerate(raws)]


def _returned(raw: Raw, param: str, notes: list[str]) -> Text | Media:
    """One block of a tool's result, or a note in its place."""
    kind = what = cache = ""
    try:
        kind = _kind(raw)
        block = _block(raw, param, notes)
        cache, source = _cache(block.cache_control), block.source
        media_type = (source.media_type or "") if source is not None else ""
        what = unreadable.name_of(kind, media_type)
        if block.type in _SHOWN:
            return _shown(block, param, notes)
        said = Text(string_or_none(block.text) or string_or_none(block.content) or "", cache)
        if not said.is_blank:
            notes.append(f"tool result: {unreadable.plain(kind)} block kept as text")
            return said
    except msgspec.DecodeError as error:  # an unpaired surrogate in its kind
        raise invalid(f"The text is not valid JSON: {error}", param, "invalid_json") from None
    except Refused as refused:
        if refused.failure.code == "invalid_json":  # it is read once more, without the surrogates
            raise
    what = what or unreadable.name_of(kind)
    notes.append(unreadable.warning_of(what))
    return unreadable.note_of(what, cache)


def _shown(block: _BlockIn, param: str, notes: list[str]) -> Text | Media:
    """What a user or a tool can show the model."""
    match block.type:
        case "text":
            return _text(block, param)
        case "image" | "video":  # films are MiniMax's addition
            return _media(block, param)
        case "document":
            return _document(block, param, notes)
    raise unsupported(f"{param}.type", f"`{block.type[:40]}` cannot stand here.")


def _cache(wire: _CacheControl | None) -> str:
    if wire is None:
        return ""
    return "1h" if wire.ttl == "1h" else "5m"


def _text(block: _BlockIn, param: str) -> Text:
    if block.type != "text":
        raise unsupported(f"{param}.type", f"`{block.type[:40]}` cannot stand here.")
    text = string(block.text, param, "text")
    if text is None and bytes(block.text) == b"null":
        raise invalid("A text block needs `text`.", f"{param}.text")
    return Text(text or "", _cache(block.cache_control))


def _media(block: _BlockIn, param: str) -> Media:
    source, kind, cache = block.source, block.type, _cache(block.cache_control)
    if source is not None and source.type == "url":
        media = media_of(kind, source.url or "", "", f"{param}.source.url")
        return msgspec.structs.replace(media, cache=cache)
    if source is None or source.type != "base64":
        raise unsupported(f"{param}.source.type", "Send it as `base64` or `url`.")
    media_type = source.media_type or ""
    if not source.data or not media_type.startswith(f"{kind}/"):
        raise invalid(f"Expected `data` and a `media_type` {kind}/....", f"{param}.source")
    return Media("image" if kind == "image" else "video", "", media_type, source.data, cache=cache)


def _document(block: _BlockIn, param: str, notes: list[str]) -> Text:
    source = block.source
    if source is None or source.type not in ("text", "content"):
        raise unsupported(f"{param}.source.type", "Send documents as text.")
    text = source.data or ""
    if source.type == "content":
        text = source.content if isinstance(source.content, str) else ""
        if isinstance(source.content, list):
            bounds.check_size(source.content, bounds.PARTS, f"{param}.source.content")
            place = f"{param}.source.content"
            blocks = [_block(raw, f"{place}[{i}]", notes) for i, raw in enumerate(source.content)]
            text = "\n".join(_text(b, f"{place}[{i}]").text for i, b in enumerate(blocks))
    title = f" title={json.dumps(block.title, ensure_ascii=False)}" if block.title else ""
    return Text(f"<document{title}>\n{text}\n</document>", _cache(block.cache_control))


def _readable(raw: Raw, param: str, notes: list[str]) -> _BlockIn:
    """A block of the history; one with fields of other types is its text, or skipped later."""
    try:
        return _block(raw, param, notes)
    except Refused as refused:
        if refused.failure.code == "invalid_json":  # read once more, without the surrogates
            raise
    rendered = _rendered_decoder.decode(raw) if bytes(raw).startswith(b"{") else _Rendered()
    kind = _string(rendered.type)
    said = _rendering(rendered)
    text = Raw(msgspec.json.encode(said)) if "\n" in said else _NOTHING
    return _BlockIn(kind or "unknown", text)


def _block(raw: Raw, param: str, notes: list[str]) -> _BlockIn:
    """A block in its own type; one that the model can only be shown as text is text here."""
    try:
        try:
            _typed_decoder.decode(raw)  # for the words of what it refuses
            block = _block_decoder.decode(raw)
            if block.type in _BLOCKS:
                return block
            kind = block.type
        except msgspec.ValidationError as error:
            kind = _kind(raw)
            message, _, place = str(error).partition(" - at ")
            place = param + place.strip("`").removeprefix("$")
            if kind in _BLOCKS or not kind:
                raise invalid(f"{message} - at `{place}`", place) from None
        rendered = _rendering(_rendered_decoder.decode(raw))
        if not _is_rendered(kind) and "\n" not in rendered:
            return _BlockIn(kind)  # nothing of it can be read
        notes.append(unreadable.kept_as_text(f"{unreadable.plain(kind)} block"))
        return _BlockIn("text", Raw(msgspec.json.encode(rendered)))
    except msgspec.DecodeError as error:  # an unpaired surrogate
        raise invalid(f"The text is not valid JSON: {error}", param, "invalid_json") from None


# Kinds that are read in their own types, or refused by their names.
_BLOCKS = frozenset(
    (
        "text",
        "image",
        "video",
        "document",
        "thinking",
        "redacted_thinking",
        "tool_use",
        "tool_result",
        "container_upload",
        "audio",
        "input_audio",
        "file",
    )
)


def _kind(raw: Raw) -> str:
    return _string(_rendered_decoder.decode(raw).type) if bytes(raw).startswith(b"{") else ""


def _is_rendered(kind: str) -> bool:
    """Search results of the client, and what Anthropic's own tools left in a history."""
    return kind in _RENDERED or (kind.endswith("_tool_result") and kind != "tool_result")


def _rendering(wire: _Rendered) -> str:
    names = map(_string, (wire.title, wire.tool_name, wire.name, wire.source))
    title = next((name for name in names if name), "")
    said = [_string(wire.text), _string(wire.thinking), _string(wire.content)]
    if bytes(wire.content).startswith(b"["):
        for raw in _list_decoder.decode(wire.content):
            if bytes(raw).startswith(b"{"):
                inner = _rendered_decoder.decode(raw)
                said += (_string(inner.title), _string(inner.text))
    kind = _string(wire.type)
    head = f"[{kind}: {title}]" if title else f"[{kind}]"
    return "\n".join([head, *filter(None, said)])


def _string(raw: Raw) -> str:
    return msgspec.json.decode(raw, type=str) if bytes(raw).startswith(b'"') else ""


# What only tunes a reply: with a value of another type it is left out.
_HINTS = (
    "service_tier",
    "metadata",
    "metadata.user_id",
    "thinking",
    "thinking.type",
    "thinking.display",
    "thinking.budget_tokens",
    "output_config",
    "output_config.effort",
    "top_k",
    "tools[].cache_control",
    "tools[].cache_control.ttl",
    "tools[].strict",
    "system[].cache_control",
    "messages[].content[].cache_control",
)


def request_in(body: bytes, target: RequestTarget) -> Request:
    """A client's request; raises errors.Refused."""
    return read_whole(lambda b: _hinted(b, target.headers), body)


def _hinted(body: bytes, headers: Mapping[str, str]) -> Request:
    return hints.read(lambda b: _limited(b, headers), body, _HINTS)


def _limited(body: bytes, headers: Mapping[str, str]) -> Request:
    return limits.read(lambda b: _read(b, headers), body, ("max_tokens",), of_zero=1)


def _read(body: bytes, headers: Mapping[str, str]) -> Request:
    try:
        wire = jsontext.decode_request(_request_decoder, body)
        if all([_is_known(message) for message in wire.messages]):
            return _request(wire, headers)
    except Refused as refused:
        if refused.failure.code == "invalid_json":
            raise
    # A block has an unknown kind or a wrong type: each is read apart.
    try:
        return _request(jsontext.decode_request(_loose_decoder, body), headers)
    except Refused as refused:
        again, warnings = malformed.mended(body, refused, "messages", _mended)
    return _request(jsontext.decode_request(_loose_decoder, again), headers).warn(*warnings)
