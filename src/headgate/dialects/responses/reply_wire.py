"""Replies of OpenAI Responses as clients get them: the types of their JSON."""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from headgate.chat import Request

_Json = dict[str, object]


class Echo(Struct, frozen=True):
    """What a reply repeats of its request, with OpenAI's own defaults for what was not given."""

    instructions: str | None = None
    tools: Sequence[Struct] = ()  # in the client's own words, as the choice
    tool_choice: str | Struct = "auto"
    parallel_tool_calls: bool = True
    temperature: float = 1.0
    top_p: float = 1.0
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    text: _Json = msgspec.field(default_factory=lambda: {"format": {"type": "text"}})
    reasoning: dict[str, str | None] = msgspec.field(
        default_factory=lambda: {"effort": None, "summary": None}
    )
    metadata: dict[str, str] = {}
    service_tier: str = "default"
    truncation: str = "disabled"
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None
    store: bool = False
    background: bool = False
    previous_response_id: str | None = None
    top_logprobs: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    @property
    def summarized(self) -> bool:
        return self.reasoning.get("summary") not in (None, "none")


def storing(request: Request, previous: str, store: bool) -> Request:
    """The request whose reply says that it is stored, and after which response it comes."""
    assert isinstance(request.echo, Echo)
    echo = msgspec.structs.replace(request.echo, store=store, previous_response_id=previous or None)
    return msgspec.structs.replace(request, echo=echo)


class CompactingEcho(Echo, frozen=True):
    """That of a request whose reply is a summary of its conversation, as one item."""


class Piece(Struct, frozen=True):
    type: str
    text: str


class Annotation(Struct, frozen=True):
    start_index: int
    end_index: int
    title: str
    url: str
    type: str = "url_citation"


class OutputText(Struct, frozen=True):
    text: str
    type: str = "output_text"
    annotations: tuple[Annotation, ...] = ()
    logprobs: tuple[()] = ()


class MessageItem(Struct, frozen=True):
    id: str
    content: tuple[OutputText, ...] = ()
    status: str = "in_progress"
    type: str = "message"
    role: str = "assistant"


class ReasoningItem(Struct, frozen=True):
    id: str
    summary: tuple[Piece, ...] = ()
    content: tuple[Piece, ...] | UnsetType = UNSET
    encrypted_content: str | None = None
    type: str = "reasoning"


class CallItem(Struct, frozen=True):
    id: str
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    arguments: str = ""
    status: str = "in_progress"
    type: str = "function_call"


class CustomItem(Struct, frozen=True):
    id: str
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    input: str = ""
    status: str = "in_progress"
    type: str = "custom_tool_call"


class SearchItem(Struct, frozen=True):
    id: str
    call_id: str
    arguments: Raw = Raw(b"{}")
    status: str = "in_progress"
    execution: str = "client"
    type: str = "tool_search_call"


class WebSearchItem(Struct, frozen=True):
    id: str
    action: _Json
    status: str = "completed"
    type: str = "web_search_call"


class CompactionItem(Struct, frozen=True):
    id: str
    encrypted_content: str
    type: str = "compaction"


Item = (
    MessageItem
    | ReasoningItem
    | CallItem
    | CustomItem
    | SearchItem
    | WebSearchItem
    | CompactionItem
)
