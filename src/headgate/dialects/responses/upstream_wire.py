"""What an upstream of OpenAI Responses sends: the types of its JSON."""

import msgspec
from msgspec import Raw, Struct

from headgate.chat import Usage
from headgate.dialects import openai_api, vendor_errors
from headgate.dialects import usage as usages
from headgate.dialects.openai_api import InputDetails, OutputDetails

_Json = dict[str, object]


class _PieceIn(Struct, frozen=True, gc=False):
    """Holds a part of a message, of a summary or of a reasoning's content."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None


class ItemIn(Struct, frozen=True):
    type: str = ""
    content: list[_PieceIn] | None = None
    summary: list[_PieceIn] | None = None
    encrypted_content: str | None = None
    call_id: str | None = None
    id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | _Json | None = None  # an object from some servers
    input: str | None = None

    def arguments_text(self) -> str:
        """Return the arguments as JSON text."""
        if isinstance(self.arguments, dict):
            return msgspec.json.encode(self.arguments).decode()
        return self.arguments or ""


class UsageIn(Struct, frozen=True, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None


class _Incomplete(Struct, frozen=True, gc=False):
    reason: str | None = None


class ErrorIn(Struct, frozen=True):
    message: str | None = None
    code: str | int | None = None
    type: str | None = None
    upstream_code: str | None = None  # another Headgate's


class ReplyIn(Struct, frozen=True):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    output: list[ItemIn] | None = None
    usage: Raw = Raw(b"")  # read apart, so that no mistake in it harms the answer
    incomplete_details: _Incomplete | None = None
    error: Raw = Raw(b"")
    base_resp: vendor_errors.BaseResp | None = None


class EventIn(Struct, frozen=True):
    type: str = ""
    output_index: int | None = None
    item_id: str | None = None
    summary_index: int | None = None
    delta: str | None = None
    item: ItemIn | None = None
    response: ReplyIn | None = None
    code: str | int | None = None  # of `error`, which is flat
    message: str | None = None
    error: Raw = Raw(b"")
    base_resp: vendor_errors.BaseResp | None = None


event_decoder = msgspec.json.Decoder(EventIn)
reply_decoder = msgspec.json.Decoder(ReplyIn)
usage_decoder = msgspec.json.Decoder(UsageIn)
error_decoder = msgspec.json.Decoder(ErrorIn)


def usage_in(raw: Raw) -> Usage | None:
    """None for zeros too: they come from upstreams that know nothing."""
    wire = usages.read(raw, usage_decoder, UsageIn)
    if wire is None:
        return None
    return openai_api.usage_of(
        wire.input_tokens,
        wire.output_tokens,
        wire.input_tokens_details,
        wire.output_tokens_details,
    )
