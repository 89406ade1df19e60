"""Requests of Chat Completions as clients send them: the types of their JSON."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from headgate.bounds import Int64
from headgate.chat import Choice, Reasoning, Sampling
from headgate.dialects.openai.upstream_wire import DetailIn

NOTHING = Raw(b"")
_Json = dict[str, object]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]


class Url(Struct, frozen=True):
    url: str
    detail: str | None = None


class PartIn(Struct, frozen=True):
    """One struct for all kinds, so that a kind we refuse is refused by its name."""

    type: str
    text: Raw = NOTHING  # a string or null; see dialects/jsonstrings.py
    refusal: Raw = NOTHING
    image_url: Url | str | None = None  # a bare string is common among clients of vLLM
    video_url: Url | str | None = None


class _FunctionCallIn(Struct, frozen=True):
    name: str
    arguments: Raw = NOTHING  # a string


class _CustomCallIn(Struct, frozen=True):
    name: str
    input: str = ""


class _ToolCallIn(Struct, frozen=True):
    id: str
    type: str = "function"
    function: _FunctionCallIn | None = None
    custom: _CustomCallIn | None = None


class MessageIn(Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Raw = NOTHING  # a string, a list of `PartIn`, or null
    name: str | None = None
    tool_calls: list[_ToolCallIn] | None = None
    tool_call_id: str | None = None
    reasoning_details: list[DetailIn] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    function_call: Raw = NOTHING
    refusal: Raw = NOTHING
    # Ignored, as it says nothing to the model:
    annotations: Raw = NOTHING
    audio: Raw = NOTHING
    copilot_source: Raw = msgspec.field(default=NOTHING, name="__copilotMessageSource")
    cache_control: Raw = NOTHING
    id: Raw = NOTHING
    metadata: Raw = NOTHING
    partial: Raw = NOTHING  # Moonshot's and
    prefix: Raw = NOTHING  # DeepSeek's mark of a text to be continued, which any last one is


class FunctionIn(Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: Raw = NOTHING
    strict: bool | None = None
    # The schema under the names of Anthropic and of MCP:
    input_schema: Raw = NOTHING
    inputSchema: Raw = NOTHING
    # Ignored, as it says nothing to the model:
    cache_control: Raw = NOTHING
    defer_loading: Raw = NOTHING


class _CustomIn(Struct, frozen=True):
    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    format: Raw = NOTHING


class ToolIn(Struct, frozen=True):
    type: str = "function"
    function: FunctionIn | None = None
    custom: _CustomIn | None = None


class _Named(Struct, frozen=True):
    name: str


class _AllowedTool(Struct, frozen=True):
    type: str = "function"
    function: _Named | None = None
    custom: _Named | None = None


class _Allowed(Struct, frozen=True):
    mode: Literal["auto", "required"] = "auto"
    tools: list[_AllowedTool] = []


class ChoiceIn(Struct, frozen=True):
    type: str = "function"
    function: _Named | None = None
    custom: _Named | None = None
    allowed_tools: _Allowed | None = None


class SchemaIn(Struct, frozen=True, forbid_unknown_fields=True):
    name: str = ""
    schema: Raw = Raw(b"{}")
    strict: bool | None = None
    description: Raw = NOTHING


class FormatIn(Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaIn | None = None


class ThinkingIn(Struct, frozen=True):
    type: Literal["adaptive", "enabled", "disabled"]
    budget_tokens: Int64 | None = None


class StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


class RequestIn(Struct, frozen=True, forbid_unknown_fields=True):
    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[MessageIn], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Int64 | None = None  # vLLM's
    seed: Int64 | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    stop: str | list[str] | None = None
    tools: list[ToolIn] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChoiceIn | None = None
    parallel_tool_calls: bool | None = None
    response_format: FormatIn | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    thinking: ThinkingIn | None = None  # MiniMax's
    reasoning_split: bool | None = None  # MiniMax's
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    # Refused when they ask for something, see `_refuse`:
    n: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Int64 | None = None
    modalities: list[str] | None = None
    audio: Raw = NOTHING
    web_search_options: Raw = NOTHING
    functions: Raw = NOTHING
    function_call: Raw = NOTHING
    # Ignored, as it changes nothing of a reply:
    metadata: Raw = NOTHING
    prompt_cache_retention: Raw = NOTHING
    usage: Raw = NOTHING  # OpenRouter's: the usage in the stream's last chunk
    # Ignored with a warning:
    prediction: Raw = NOTHING
    store: bool | None = None
    verbosity: str | None = None
    logit_bias: Raw = NOTHING
    reasoning: Raw = NOTHING  # OpenRouter's
    provider: Raw = NOTHING  # OpenRouter's: preferences among the upstreams


request_decoder = msgspec.json.Decoder(RequestIn)
content_decoder = msgspec.json.Decoder(str | list[PartIn] | None)
arguments_decoder = msgspec.json.Decoder(str)


# What a request asks for that says nothing of it; frozen, and so for all of them the same.
USUAL_CHOICE, USUAL_REASONING, USUAL_SAMPLING = Choice(), Reasoning(), Sampling()
