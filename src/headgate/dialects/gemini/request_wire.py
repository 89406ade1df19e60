"""Requests of generateContent as clients send them: the types of their JSON, and its two spellings."""

import msgspec
from msgspec import Raw, Struct

from headgate import jsontext
from headgate.bounds import Int64
from headgate.dialects.gemini.content_wire import PART_TYPES, ContentIn
from headgate.dialects.gemini.names import Finder

_Json = dict[str, object]


_NOTHING = Raw(b"")


class FunctionIn(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    name: str
    description: str | None = None
    parameters: Raw = _NOTHING
    parameters_json_schema: Raw = _NOTHING
    behavior: str | None = None
    response: Raw = _NOTHING
    response_json_schema: Raw = _NOTHING


class FunctionConfigIn(Struct, frozen=True, gc=False, rename="camel", forbid_unknown_fields=True):
    mode: str | None = None
    allowed_function_names: list[str] | None = None
    stream_function_call_arguments: Raw = _NOTHING  # calls stream whenever a reply does


class ToolConfigIn(Struct, frozen=True, gc=False, rename="camel", forbid_unknown_fields=True):
    function_calling_config: FunctionConfigIn | None = None
    retrieval_config: Raw = _NOTHING
    include_server_side_tool_invocations: bool | None = None


class ThinkingIn(Struct, frozen=True, gc=False, rename="camel", forbid_unknown_fields=True):
    include_thoughts: bool | None = None
    thinking_budget: Int64 | None = None
    thinking_level: Raw = _NOTHING  # a hint: whatever is no known word is ignored with a warning


class ConfigIn(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None  # google-genai for Python sends 20.0
    max_output_tokens: Int64 | None = None
    stop_sequences: list[str] | None = None
    seed: Int64 | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_mime_type: str | None = None
    response_schema: Raw = _NOTHING
    response_json_schema: Raw = _NOTHING
    thinking_config: ThinkingIn | None = None
    # Refused when they ask for something, see `_refuse`:
    candidate_count: Int64 | None = None
    response_logprobs: bool | None = None
    logprobs: Int64 | None = None
    response_modalities: list[str] | None = None
    speech_config: Raw = _NOTHING
    # Ignored with a warning, see `_IGNORED`:
    media_resolution: Raw = _NOTHING
    image_config: Raw = _NOTHING
    audio_timestamp: Raw = _NOTHING
    routing_config: Raw = _NOTHING
    model_selection_config: Raw = _NOTHING
    enable_enhanced_civic_answers: Raw = _NOTHING
    audio_transcription_config: Raw = _NOTHING
    generation_output_config: Raw = _NOTHING


class RequestIn(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    # A text alone, one turn that is no list, and turns that are texts are common.
    contents: str | ContentIn | list[str | ContentIn] | None = None
    system_instruction: str | ContentIn | None = None
    tools: list[dict[str, Raw]] | dict[str, Raw] | None = (
        None  # each key is another kind, refused by its name
    )
    tool_config: ToolConfigIn | None = None
    generation_config: ConfigIn | None = None
    cached_content: str | None = None
    safety_settings: Raw = _NOTHING
    labels: Raw = _NOTHING
    model_armor_config: Raw = _NOTHING
    service_tier: Raw = _NOTHING
    store: Raw = _NOTHING
    model: Raw = _NOTHING  # it stands in the path
    generate_content_request: "RequestIn | None" = None  # of countTokens


_request_decoder = msgspec.json.Decoder(RequestIn)
functions_decoder = msgspec.json.Decoder(list[FunctionIn] | None)
schema_decoder = msgspec.json.Decoder()
SNAKE_CASE = Finder(
    (
        "function_declarations",
        *(
            field.name
            for struct in (
                FunctionIn,
                FunctionConfigIn,
                ToolConfigIn,
                ThinkingIn,
                ConfigIn,
                RequestIn,
                *PART_TYPES,
            )
            for field in msgspec.structs.fields(struct)
        ),
    )
)
DEFAULTS = ConfigIn()


def read_request(body: bytes) -> RequestIn:
    wire = jsontext.decode_request(_request_decoder, body)
    inner = wire.generate_content_request
    return inner if inner is not None and wire.contents is None else wire
