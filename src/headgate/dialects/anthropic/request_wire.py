"""Requests of Anthropic Messages as clients send them: the types of their JSON."""

import msgspec
from msgspec import Raw, Struct

from headgate.bounds import Int64

_Json = dict[str, object]


NOTHING = Raw(b"null")


class CacheControl(Struct, frozen=True):
    ttl: str | None = None


class _Source(Struct, frozen=True):
    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: str | list[Raw] | None = None


class BlockIn(Struct, frozen=True):
    """One struct for all kinds, so that a kind we refuse is refused by its name."""

    type: str
    text: Raw = NOTHING  # a string or null; see dialects/jsonstrings.py
    source: _Source | None = None
    title: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = NOTHING
    tool_use_id: str | None = None
    content: Raw = NOTHING  # a string, a list of blocks, or null
    is_error: bool | None = None
    cache_control: CacheControl | None = None


class _TypedBlockIn(BlockIn, frozen=True):
    text: str | None = None  # type: ignore[assignment]  # checked, where `BlockIn` passes over it
    content: str | list[Raw] | None = None  # type: ignore[assignment]  # as `text`


class Rendered(Struct, frozen=True):
    """A block that the model is shown as text: whatever type its fields have, none is refused."""

    type: Raw = NOTHING
    title: Raw = NOTHING
    tool_name: Raw = NOTHING
    name: Raw = NOTHING
    source: Raw = NOTHING
    text: Raw = NOTHING
    thinking: Raw = NOTHING
    content: Raw = NOTHING


class MessageIn(Struct, frozen=True, forbid_unknown_fields=True):
    role: str
    content: str | list[BlockIn]
    # Ignored, as it says nothing to the model; some clients send a reply back whole.
    cache_control: Raw = NOTHING
    container: Raw = NOTHING
    context_management: Raw = NOTHING
    id: Raw = NOTHING
    model: Raw = NOTHING
    stop_details: Raw = NOTHING
    stop_reason: Raw = NOTHING
    stop_sequence: Raw = NOTHING
    type: Raw = NOTHING
    usage: Raw = NOTHING


class _LooseMessageIn(MessageIn, frozen=True):
    """A message with blocks of which one has an unknown kind or a wrong type; each is read apart."""

    content: str | list[Raw]  # type: ignore[assignment]  # blocks that are not decoded yet


class ToolIn(Struct, frozen=True):
    """Holds a tool; in OpenAI's form, what is inside of `function` may have any fields."""

    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: Raw = NOTHING
    strict: bool | None = None
    cache_control: CacheControl | None = None
    # As OpenAI's protocols and MCP have them:
    function: Raw = NOTHING
    parameters: Raw = NOTHING
    inputSchema: Raw = NOTHING
    # Of a search of the web:
    max_uses: Int64 | None = None
    allowed_domains: list[str] | None = None
    blocked_domains: list[str] | None = None
    user_location: Raw = NOTHING
    # Ignored, as it says nothing to the model:
    allowed_callers: Raw = NOTHING
    defer_loading: Raw = NOTHING
    eager_input_streaming: Raw = NOTHING
    input_examples: Raw = NOTHING


class _ListedToolIn(ToolIn, frozen=True, forbid_unknown_fields=True):
    pass


class _NamedIn(Struct, frozen=True):
    name: str | None = None


class ChoiceIn(Struct, frozen=True):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None
    function: _NamedIn | None = None  # as in Chat Completions


class ThinkingIn(Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    budget_tokens: Int64 | None = None
    display: str | None = None


class FormatIn(Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    schema: Raw = NOTHING
    name: str | None = None
    # As OpenAI's protocols have them; a reply is always of the schema:
    strict: Raw = NOTHING
    description: Raw = NOTHING


class OutputConfig(Struct, frozen=True, forbid_unknown_fields=True):
    effort: Raw = NOTHING  # a hint: whatever is no known word is ignored with a warning
    format: FormatIn | None = None


class _Metadata(Struct, frozen=True):
    user_id: str | None = None


class _UserId(Struct, frozen=True):
    """What Claude Code writes into `metadata.user_id`, as JSON in a string."""

    session_id: str | None = None
    account_uuid: str | None = None
    device_id: str | None = None


class RequestIn(Struct, frozen=True, forbid_unknown_fields=True):
    model: str
    messages: list[MessageIn]
    max_tokens: Int64 | None = None
    system: str | list[Raw] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Int64 | None = None
    stop_sequences: list[str] | None = None
    tools: list[_ListedToolIn] | None = None
    tool_choice: ChoiceIn | str | None = None  # see tools.py, `stated_choice`
    thinking: ThinkingIn | None = None
    output_config: OutputConfig | None = None
    output_format: FormatIn | None = None  # its older place (beta structured-outputs-2025-11-13)
    metadata: _Metadata | None = None
    service_tier: str | None = None
    thread: Raw = NOTHING
    mcp_servers: list[Raw] | None = None
    cache_control: Raw = NOTHING  # of the whole prompt; prefixes are cached anyway
    betas: Raw = NOTHING  # the names of a header that some clients put here too
    # Ignored with a warning, see `_IGNORED`:
    container: Raw = NOTHING
    context_management: Raw = NOTHING
    fallbacks: Raw = NOTHING
    inference_geo: Raw = NOTHING
    speed: Raw = NOTHING
    user_profile_id: Raw = NOTHING
    provider: Raw = NOTHING  # OpenRouter's: preferences among the upstreams


class _LooseRequestIn(RequestIn, frozen=True):
    messages: list[_LooseMessageIn]  # type: ignore[assignment]  # as above


request_decoder = msgspec.json.Decoder(RequestIn)
loose_decoder = msgspec.json.Decoder(_LooseRequestIn)
blocks_decoder = msgspec.json.Decoder(list[BlockIn])
block_decoder = msgspec.json.Decoder(BlockIn)
typed_decoder = msgspec.json.Decoder(_TypedBlockIn)
rendered_decoder = msgspec.json.Decoder(Rendered)
list_decoder = msgspec.json.Decoder(list[Raw])


user_id_decoder = msgspec.json.Decoder(_UserId)
