"""What an upstream of Chat Completions sends: the types of its JSON."""

import msgspec
from msgspec import Raw, Struct

from headgate.dialects import vendor_errors
from headgate.dialects.openai_api import InputDetails, OutputDetails

_Json = dict[str, object]


class DetailIn(Struct, frozen=True):
    text: str | None = None
    summary: str | None = None
    signature: str | None = None
    index: int | None = None


class FunctionDelta(Struct, frozen=True, gc=False):
    name: str | None = None
    arguments: str | _Json | None = None  # an object from some self-hosted parsers


class CallDelta(Struct, frozen=True, gc=False):
    index: int | None = None
    id: str | None = None
    function: FunctionDelta | None = None
    # Beside the id, as in Responses, where there is no `function`.
    name: str | None = None
    arguments: str | _Json | None = None


class PieceIn(Struct, frozen=True):
    """A part of a content that is a list: text, or thinking, whose text may be a list again."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    thinking: "str | list[PieceIn] | None" = None
    reasoning: str | None = None
    content: "str | list[PieceIn] | None" = None
    summary: "str | list[PieceIn] | None" = None


Stated = str | list[PieceIn]


class DeltaIn(Struct, frozen=True):
    content: Stated | None = None
    refusal: str | None = None
    reasoning_details: list[DetailIn] | None = None
    reasoning_content: Stated | None = None
    reasoning: Stated | None = None
    tool_calls: list[CallDelta] | None = None
    function_call: FunctionDelta | None = None  # of 2023


class ChoiceDelta(Struct, frozen=True, gc=False):
    index: int | None = None
    delta: DeltaIn | None = None
    message: DeltaIn | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None  # vLLM: the stop sequence, or the id of a stop token


class UsageIn(Struct, frozen=True, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None


class ReplyIn(Struct, frozen=True, gc=False):
    """A chunk, or a whole reply: they differ in `delta` and `message` only."""

    id: str | None = None
    model: str | None = None
    choices: list[ChoiceDelta] | None = None
    usage: Raw = Raw(b"")  # read apart, so that no mistake in it harms the answer
    error: Raw = Raw(b"")
    base_resp: vendor_errors.BaseResp | None = None
    output_sensitive: bool | None = None


reply_decoder = msgspec.json.Decoder(ReplyIn)
decode_reply = reply_decoder.decode
usage_decoder = msgspec.json.Decoder(UsageIn)
