"""The contents of generateContent as clients send them: the types of their JSON."""

import msgspec
from msgspec import Raw, Struct

SENTINEL = "skip_thought_signature_validator"  # gemini-cli 0.61, for turns that had no signature


NULL = Raw(b"null")


class BlobIn(Struct, frozen=True, gc=False, rename="camel"):
    data: str = ""
    mime_type: str = ""


class FileIn(Struct, frozen=True, gc=False, rename="camel"):
    file_uri: str = ""
    mime_type: str | None = None


class CallIn(Struct, frozen=True, gc=False):
    name: str = ""
    args: Raw = NULL
    id: str | None = None


class ResultIn(Struct, frozen=True, gc=False):
    name: str = ""
    response: Raw = NULL
    id: str | None = None
    parts: "list[PartIn] | None" = None


class _CodeIn(Struct, frozen=True, gc=False):
    code: str | None = None


class _OutcomeIn(Struct, frozen=True, gc=False):
    output: str | None = None


class PartIn(Struct, frozen=True, gc=False, rename="camel"):
    text: Raw = NULL  # a string or null; see dialects/jsonstrings.py
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: BlobIn | None = None
    file_data: FileIn | None = None
    function_call: CallIn | None = None
    function_response: ResultIn | None = None
    executable_code: _CodeIn | None = None
    code_execution_result: _OutcomeIn | None = None
    tool_call: Raw = NULL
    tool_response: Raw = NULL
    # Ignored with a warning, see `_HINTS`:
    media_resolution: Raw = NULL
    media_processing: Raw = NULL
    video_metadata: Raw = NULL
    audio_transcription: Raw = NULL


class _TypedPartIn(PartIn, frozen=True, gc=False, rename="camel"):
    text: str | None = None  # type: ignore[assignment]  # checked, where `PartIn` passes over it


class ContentIn(Struct, frozen=True, gc=False):
    parts: str | PartIn | list[PartIn] | None = None  # one part that is no list is common
    role: str | None = None


PART_TYPES = (BlobIn, FileIn, CallIn, ResultIn, _CodeIn, _OutcomeIn, PartIn, ContentIn)
part_decoder = msgspec.json.Decoder(_TypedPartIn)
response_decoder = msgspec.json.Decoder(dict[str, Raw])
