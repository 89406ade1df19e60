"""Defines the contract of a dialect: a wire protocol as a codec in both directions, without I/O.

Towards clients a dialect plays the server (`decode_request`, `encoder`, `encode_reply`,
`encode_failure`); towards upstreams the client (`encode_request`, `decoder`, `decode_failure`).
Both are tested against each other.  The table of dialects is in `dialects/registry.py`; this file
holds only what the dialects themselves need, so that imports point one way.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Protocol

import msgspec

from headgate.chat import Event, Reply, Request
from headgate.dialects.capabilities import Capabilities, ReasoningForm
from headgate.dialects.decoder import Decoder
from headgate.errors import Failure


class RequestTarget(msgspec.Struct, frozen=True):
    """What a request says outside its body."""

    model: str = ""  # Gemini names it in the path
    stream: bool | None = None  # Gemini: by the method in the path; None: the body says it
    array: bool = False  # Gemini streams without `alt=sse`: one JSON array
    headers: Mapping[str, str] = {}  # names in lower case


class ReplyFacts(msgspec.Struct, frozen=True):
    """What a reply shows of its exchange, the same in every chunk."""

    id: str  # the request id, without any protocol's prefix
    model: str  # the model's catalog name
    created: int  # Unix seconds
    input_estimate: int = 0  # tokens; for protocols that report input before the upstream does


class CardPrice(msgspec.Struct, frozen=True):
    """One tier of a model's prices: dollars per million tokens, as exact decimals."""

    input: str
    output: str
    cache_read: str
    cache_write: str
    up_to_input: int | None = None  # tokens; None: any


class CardPriceSpan(msgspec.Struct, frozen=True):
    """The prices that hold, held or will hold from one day to another."""

    begins: str  # as 2026-06-01; "": from the beginning
    ends: str  # the last day; "": no end is known
    tiers: tuple[CardPrice, ...]


class ModelCard(msgspec.Struct, frozen=True):
    """A model as the lists of models show it."""

    id: str
    display_name: str
    created: int  # Unix seconds
    context_window: int  # tokens, input and output together
    max_output: int  # tokens
    input: tuple[str, ...] = ("text",)  # modalities: text, image, video
    thinking: bool = True
    description: str = ""
    vendor: str = "minimax"
    prices: tuple[CardPrice, ...] = ()  # of today; (): not known, or free
    price_history: tuple[CardPriceSpan, ...] = ()  # the oldest first, today's among them
    free: bool = False
    efforts: tuple[str, ...] = ()  # of reasoning, the least first
    default_effort: str = ""  # where a request names none
    thinking_off: bool = False  # thinking can be switched off
    parameters: tuple[str, ...] = ()  # what a request may ask for
    retires: str = ""  # the day of its end at its vendor, as 2026-11-18; "": none is known
    closed: str = ""  # from this day its vendor takes no new users for it
    retired: bool = False  # that day has come
    successor: str = ""

    @property
    def lifecycle(self) -> Literal["active", "deprecated", "retired"]:
        if self.retired:
            return "retired"
        return "deprecated" if self.retires else "active"


class DialectFacts(msgspec.Struct, frozen=True):
    """What one protocol has by its specification, whoever asks: each package declares its own."""

    name: str
    title: str  # for people
    # Which thinking is sent sealed (reasoning/sealing.py): only what an upstream signed, what
    # the client is shown, or all of it, where the protocol returns a signature without its text.
    seals: Literal["signed", "shown", "always"]
    path: str  # below an upstream's base URL; Gemini's has the model in it
    served: tuple[str, ...]  # paths below our own address at which its requests are taken
    counted: tuple[str, ...]  # and its questions for the tokens of a request
    claims: tuple[str, ...]  # other paths that begin so are this protocol's mistakes
    client_headers: tuple[str, ...]  # which only its clients send
    id_prefix: str  # of a reply's id
    messages: str  # where a request has its messages
    no_messages: str  # how its own servers refuse a request without any
    effort: str  # the field of the effort
    budget: str  # and that of a budget of tokens for thinking
    limit_headers: Literal["openai", "anthropic", ""]  # in whose words limits are reported
    upstream_headers: tuple[tuple[str, str], ...]  # that every upstream of it needs
    models_path: str  # of an upstream: the list that the check asks for without a token
    count_path: str  # of an upstream: where it counts tokens; `{model}` is the model's name
    reasoning_forms: tuple[ReasoningForm, ...]  # that its wire can carry thinking back in
    lone_system: bool = False  # whether a prompt may be all system
    stream_type: str = "text/event-stream"  # content type of a streamed reply
    array_type: str = "application/json"  # and of one that is an array (`RequestTarget.array`)
    keepalive: bytes = b": keepalive\n\n"  # what may be sent into a silent stream


class Encoder(Protocol):
    """Turns events into the bytes of one streamed reply.

    `feed` gets Start, PartStart, Delta, PartStop and, last, Finish; `fail` ends it instead.  What
    `feed` returns for Finish holds the terminal frame ([DONE], message_stop).  `fail` returns
    pieces that are written apart, each in a write of its own.
    """

    def feed(self, events: Sequence[Event]) -> bytes: ...

    def fail(self, failure: Failure) -> tuple[bytes, ...]: ...


class Dialect(Protocol):
    facts: ClassVar[DialectFacts]
    name: ClassVar[str]

    # the server's part
    def decode_request(self, body: bytes, target: RequestTarget) -> Request:
        """A client's request; raises errors.Refused."""

    def encoder(self, request: Request, facts: ReplyFacts, target: RequestTarget) -> Encoder: ...

    def encode_reply(self, reply: Reply, request: Request, facts: ReplyFacts) -> bytes: ...

    def encode_count(self, tokens: int) -> bytes:
        """The answer to a question for the input's tokens."""

    def encode_failure(self, failure: Failure, request_id: str) -> tuple[int, bytes]:
        """Return the HTTP status and the body, in this protocol's words."""

    def refuses_in_stream(self, failure: Failure, headers: Mapping[str, str]) -> bool:
        """Whether this client understands a failure better as a stream than as a status."""

    def encode_models(self, cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes: ...

    def encode_model(self, card: ModelCard) -> bytes: ...

    # the client's part
    def encode_request(
        self, request: Request, capabilities: Capabilities, model: str, stream: bool
    ) -> bytes:
        """Return the body for an upstream; `request` was fitted to `capabilities` (policy/fit.py) before."""

    def request_path(self, model: str, stream: bool) -> str:
        """Return path and query below the upstream's base URL."""

    def decoder(self, capabilities: Capabilities, media: str, seed: str) -> Decoder: ...

    def decode_failure(self, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
        """The failure that an upstream's answer with an error status means."""
