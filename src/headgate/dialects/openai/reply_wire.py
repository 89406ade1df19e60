"""Replies of Chat Completions as clients get them: the types of their JSON."""

from collections.abc import Sequence

from msgspec import UNSET, Raw, Struct, UnsetType

from headgate.dialects.openai.upstream_request import WireCall, WireDetail


class Custom(Struct, frozen=True):
    name: str
    input: str


class CustomCall(Struct, frozen=True):
    id: str
    custom: Custom
    type: str = "custom"


class UrlCitation(Struct, frozen=True):
    start_index: int
    end_index: int
    title: str
    url: str


class Annotation(Struct, frozen=True):
    url_citation: UrlCitation
    type: str = "url_citation"


class ReplyMessage(Struct, frozen=True):
    content: str | None
    role: str = "assistant"
    refusal: None = None
    annotations: Sequence[
        Annotation
    ] = ()  # as OpenAI always writes it; strict checkers look for it
    reasoning_content: str | UnsetType = UNSET
    reasoning_details: list[WireDetail] | UnsetType = UNSET
    tool_calls: list[WireCall | CustomCall] | UnsetType = UNSET


class ReplyChoice(Struct, frozen=True):
    message: ReplyMessage
    finish_reason: str
    index: int = 0
    logprobs: None = None


class ReplyOut(Struct, frozen=True):
    id: str
    object: str
    created: int
    model: str
    choices: list[ReplyChoice]
    usage: Raw
