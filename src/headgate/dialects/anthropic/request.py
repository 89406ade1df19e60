"""Anthropic Messages is the wire of Claude Code and of Anthropic's SDKs.

The only place for its words from clients.  Sources, read 2026-11: the types of the anthropic SDK
2.12, code.claude.com/docs/en/llm-gateway-protocol, and bodies recorded from Claude Code 2.1.330.
`anthropic_reply.py` holds what clients get, `anthropic_upstream.py` the other side, what upstreams
get and send.

Note: clients' bodies are open lists, as Claude Code adds fields every month: what is
unknown is ignored, never refused; and thinking is off, and not shown, when it is not asked for.

Known losses: redacted thinking (nothing here made it, nothing here can read it), the place of text
between the tool results of one turn, citations.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

import msgspec
from msgspec import Raw

from headgate import bounds, jsontext
from headgate.chat import (
    Format,
    Reasoning,
    Request,
    Sampling,
)
from headgate.dialects import (
    hints,
    limits,
    malformed,
    provider,
    unknown,
    unknown_fields,
    unreadable,
)
from headgate.dialects.anthropic.content import (
    BLOCKS,
)
from headgate.dialects.anthropic.foreign import without_foreign
from headgate.dialects.anthropic.messages import mended_message, messages_of, system_of
from headgate.dialects.anthropic.request_wire import (
    FormatIn,
    MessageIn,
    OutputConfig,
    RequestIn,
    ThinkingIn,
    ToolIn,
    loose_decoder,
    request_decoder,
    user_id_decoder,
)
from headgate.dialects.anthropic.tools import choice_of, search_of, stated_choice, tools_of
from headgate.dialects.contract import RequestTarget
from headgate.dialects.fields import (
    check_sampling,
    read_whole,
    schema_of,
)
from headgate.errors import Refused, invalid, unsupported

# --- requests: from clients ----------------------------------------------------------------------


def _request(wire: RequestIn, headers: Mapping[str, str]) -> Request:
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
    config = wire.output_config or OutputConfig()
    bounds.check_size(config.effort, bounds.LABEL, "$.output_config.effort")
    stated = stated_choice(wire.tool_choice)
    tools = tools_of(wire.tools, stated, notes)
    search = search_of(wire, notes)
    messages = messages_of(wire.messages, notes, search is not None)
    preferences = provider.preferences(wire.provider, notes)
    request = Request(
        model=wire.model,
        messages=(*system_of(wire.system, notes), *messages),
        stream=bool(wire.stream),
        tools=tools,
        choice=choice_of(stated, tools, search, notes),
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


def _is_known(message: MessageIn) -> bool:
    content = message.content
    return isinstance(content, str) or all([block.type in BLOCKS for block in content])


_IGNORED = (
    "container",
    "context_management",
    "fallbacks",
    "inference_geo",
    "speed",
    "user_profile_id",
)
_TIERS = (None, "auto", "standard_only", "priority")


def _sampling(wire: RequestIn) -> Sampling:
    bounds.check_size(wire.stop_sequences, bounds.STOPS, "$.stop_sequences")
    stop = tuple(wire.stop_sequences or ())
    sampling = Sampling(wire.max_tokens, wire.temperature, wire.top_p, wire.top_k, stop=stop)
    check_sampling(sampling, "$.", stop="stop_sequences")
    return sampling


def _format(wire: FormatIn | None, param: str) -> Format | None:
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


def _reasoning(wire: ThinkingIn | None, effort: str, notes: list[str]) -> Reasoning:
    if wire is None or wire.type == "disabled":
        return Reasoning("off", "no", effort)
    if wire.type not in ("enabled", "adaptive", "between_tools"):
        notes.append(f"thinking.type ({unreadable.plain(wire.type)} read as adaptive)")
    show: Literal["omit", "yes"] = "omit" if wire.display == "omitted" else "yes"
    return Reasoning("on", show, effort, wire.budget_tokens)


def _session(wire: RequestIn, headers: Mapping[str, str]) -> str:
    stated = headers.get("x-claude-code-session-id", "")
    user = (wire.metadata.user_id or "") if wire.metadata is not None else ""
    if not stated and user.startswith("{"):
        # What is no JSON is a name that happens to begin with a brace.
        with suppress(msgspec.DecodeError, RecursionError):
            stated = user_id_decoder.decode(user).session_id or ""
    return (stated or user)[:256]


def _end_user(wire: RequestIn) -> str:
    user = (wire.metadata.user_id or "") if wire.metadata is not None else ""
    if user.startswith("{"):
        with suppress(msgspec.DecodeError, RecursionError):
            named = user_id_decoder.decode(user)
            user = named.account_uuid or named.device_id or ""
    return user[:256]


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
    return hints.read(
        lambda b: unknown_fields.read(lambda c: _limited(c, headers), b, _PLACES, silent=_SILENT),
        body,
        _HINTS,
    )


_PLACES = {
    "$": unknown_fields.names_of(RequestIn),
    "$.thinking": unknown_fields.names_of(ThinkingIn),
    "$.output_config": unknown_fields.names_of(OutputConfig),
    "$.output_config.format": unknown_fields.names_of(FormatIn),
    "$.output_format": unknown_fields.names_of(FormatIn),
    "$.tools[]": unknown_fields.names_of(ToolIn),
}
# Of tools that Anthropic or a client of it runs, anthropic 2.14 (read 2026-12).
_SILENT = frozenset(
    {
        "caching",
        "citations",
        "configs",
        "default_config",
        "display_height_px",
        "display_number",
        "display_width_px",
        "enable_zoom",
        "max_characters",
        "max_content_tokens",
        "max_tokens",
        "mcp_server_name",
        "model",
        "response_inclusion",
        "tools",
        "url_sources",
        "use_cache",
    }
)


def _limited(body: bytes, headers: Mapping[str, str]) -> Request:
    return limits.read(lambda b: _read(b, headers), body, ("max_tokens",), of_zero=1)


def _read(body: bytes, headers: Mapping[str, str]) -> Request:
    try:
        wire = jsontext.decode_request(request_decoder, body)
        if all([_is_known(message) for message in wire.messages]):
            return _request(wire, headers)
    except Refused as refused:
        if refused.failure.code == "invalid_json" or unknown_fields.is_at(refused, _PLACES):
            raise
        if refused.failure.param.startswith("$.messages["):
            again, warnings = without_foreign(body, refused)
            if again != body:
                return _read(again, headers).warn(*warnings)
    # A block has an unknown kind or a wrong type: each is read apart.
    try:
        return _request(jsontext.decode_request(loose_decoder, body), headers)
    except Refused as refused:
        again, warnings = malformed.mended(body, refused, "messages", mended_message)
    return _request(jsontext.decode_request(loose_decoder, again), headers).warn(*warnings)
