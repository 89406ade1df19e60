"""Requests of OpenAI Responses as clients send them: the types of their JSON."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from headgate.bounds import Int64

Json = dict[str, object]
NOTHING = Raw(b"")


class _PartIn(Struct, frozen=True):
    """One struct for all kinds, so that a kind we refuse is refused by its name."""

    type: str = ""
    text: Raw = NOTHING  # a string or null; see dialects/jsonstrings.py
    refusal: Raw = NOTHING
    image_url: str | None = None
    detail: str | None = None


class ItemIn(Struct, frozen=True, forbid_unknown_fields=True):
    type: str | None = None  # a message may leave it out
    role: str | None = None
    content: Raw = NOTHING  # a string, a list of `_PartIn`, or null
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: Raw = NOTHING  # a string or null; an object in a search for tools
    input: str | None = None
    output: Raw = NOTHING  # as `content`
    tools: "list[ToolIn] | None" = None  # added to those of the request, or found by a search
    summary: list[_PartIn] | None = None
    encrypted_content: str | None = None
    text: str | None = None  # of reasoning, from clients that write it beside the summary
    id: Raw = NOTHING  # these two of an earlier search of the web
    action: Raw = NOTHING
    # Ignored, as it says nothing to the model:
    annotations: Raw = NOTHING
    caller: Raw = NOTHING
    created_by: Raw = NOTHING
    execution: Raw = NOTHING
    metadata: Raw = NOTHING
    phase: Raw = NOTHING
    status: Raw = NOTHING


class FiltersIn(Struct, frozen=True, omit_defaults=True):
    allowed_domains: list[str] | None = None
    blocked_domains: list[str] | None = None


class ActionIn(Struct, frozen=True):
    """The action of an earlier search; of any type, as it is history."""

    query: Raw = NOTHING
    queries: Raw = NOTHING


class _GrammarIn(Struct, frozen=True, omit_defaults=True):
    type: str
    syntax: str | None = None
    definition: str | None = None


class ToolIn(Struct, frozen=True, omit_defaults=True):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: Raw = NOTHING
    strict: bool | None = None
    format: _GrammarIn | None = None
    execution: str | None = None
    tools: "list[ToolIn] | None" = None
    filters: FiltersIn | None = None  # of a search of the web
    user_location: Raw = NOTHING
    # The schema under the names of Anthropic and of MCP:
    input_schema: Raw = NOTHING
    inputSchema: Raw = NOTHING


class AllowedIn(Struct, frozen=True, omit_defaults=True):
    type: str
    name: str | None = None
    namespace: str | None = None


class ChoiceIn(Struct, frozen=True, omit_defaults=True):
    type: str
    name: str | None = None
    namespace: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[AllowedIn] | None = None


class FormatIn(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: Raw = NOTHING
    strict: bool | None = None


class TextIn(Struct, frozen=True, forbid_unknown_fields=True):
    format: FormatIn | None = None
    verbosity: str | None = None


class ReasoningIn(Struct, frozen=True, forbid_unknown_fields=True):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: str | None = None
    generate_summary: str | None = None  # "deprecated: use `summary` instead"


class RequestIn(Struct, frozen=True, forbid_unknown_fields=True):
    model: Annotated[str, Meta(min_length=1)]
    input: str | Annotated[list[ItemIn], Meta(min_length=1)]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Int64 | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[ToolIn] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChoiceIn | None = None
    parallel_tool_calls: bool | None = None
    text: TextIn | None = None
    reasoning: ReasoningIn | None = None
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
    conversation: Raw = NOTHING
    prompt: Raw = NOTHING
    top_logprobs: Int64 | None = None
    # Ignored, as it changes nothing of a reply:
    client_metadata: Raw = NOTHING  # Codex's
    prompt_cache_retention: Raw = NOTHING
    stream_options: Raw = NOTHING  # whether events are padded
    # Ignored with a warning:
    store: bool | None = None
    truncation: str | None = None
    include: list[str] | None = None
    context_management: Raw = NOTHING
    moderation: Raw = NOTHING
    provider: Raw = NOTHING  # OpenRouter's: preferences among the upstreams


request_decoder = msgspec.json.Decoder(RequestIn)
content_decoder = msgspec.json.Decoder(str | list[_PartIn] | None)
arguments_decoder = msgspec.json.Decoder(str | Json | None)
Content = Raw | list[_PartIn] | None
