"""What an upstream of Anthropic Messages sends: the types of its JSON."""

import msgspec
from msgspec import Raw, Struct

from headgate.dialects import vendor_errors


class _OutputDetails(Struct, frozen=True, gc=False):
    thinking_tokens: int | None = None


class UsageIn(Struct, frozen=True, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class BlockIn(Struct, frozen=True, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    reasoning: str | None = None  # as some servers name it
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = Raw(b"")


class MessageIn(Struct, frozen=True, gc=False):
    """A whole reply, or the skeleton in message_start."""

    id: str | None = None
    model: str | None = None
    content: list[BlockIn] | None = None
    usage: Raw = Raw(b"")  # read apart, so that no mistake in it harms the answer
    stop_reason: str | None = None
    stop_sequence: str | None = None
    error: Raw = Raw(b"")
    base_resp: vendor_errors.BaseResp | None = None


class DeltaIn(Struct, frozen=True, gc=False):
    """Of a block (text, thinking, signature, partial_json) or of the message (stop_...)."""

    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class EventIn(Struct, frozen=True, gc=False):
    type: str = ""
    index: int | None = None
    message: MessageIn | None = None
    content_block: BlockIn | None = None
    delta: DeltaIn | None = None
    usage: Raw = Raw(b"")  # read apart, so that no mistake in it harms the answer
    error: Raw = Raw(b"")
    base_resp: vendor_errors.BaseResp | None = None


event_decoder = msgspec.json.Decoder(EventIn)
usage_decoder = msgspec.json.Decoder(UsageIn)
message_decoder = msgspec.json.Decoder(MessageIn)
