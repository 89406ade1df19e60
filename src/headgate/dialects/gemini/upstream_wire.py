"""What an upstream of generateContent sends: the types of its JSON."""

import msgspec
from msgspec import Raw, Struct


class _CallIn(Struct, frozen=True, gc=False):
    name: str | None = None
    args: Raw = Raw(b"null")
    id: str | None = None


class PartIn(Struct, frozen=True, gc=False, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _CallIn | None = None


class _ContentIn(Struct, frozen=True, gc=False):
    parts: list[PartIn] | None = None


class CandidateIn(Struct, frozen=True, gc=False, rename="camel"):
    content: _ContentIn | None = None
    finish_reason: str | None = None
    index: int | None = None


class UsageIn(Struct, frozen=True, gc=False, rename="camel"):
    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None


class _FeedbackIn(Struct, frozen=True, gc=False, rename="camel"):
    block_reason: str | None = None


class ReplyIn(Struct, frozen=True, gc=False, rename="camel"):
    """A chunk, or a whole reply: they do not differ."""

    candidates: list[CandidateIn] | None = None
    usage_metadata: Raw = Raw(b"")  # read apart, so that no mistake in it harms the answer
    prompt_feedback: _FeedbackIn | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Raw = Raw(b"null")


reply_decoder = msgspec.json.Decoder(ReplyIn)
replies_decoder = msgspec.json.Decoder(list[ReplyIn])
usage_decoder = msgspec.json.Decoder(UsageIn)
