"""The models as data: what models.toml and an operator may write about one.

`load` in catalog.py joins these with the operator's settings.  Note: prices stay decimal strings here;
policy/pricing.py turns them into whole nano-dollars.
"""

import tomllib
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec
from msgspec import Struct

DialectName = Literal["openai", "responses", "anthropic", "gemini"]
Media = Literal["text", "image", "video"]
# From the least to the most; `none` is no effort but the wish not to think.
Effort = Literal["minimal", "low", "medium", "high", "xhigh", "max"]


class Price(Struct, frozen=True, forbid_unknown_fields=True):
    """Gives USD per million tokens as decimal strings; the first tier that the input fits holds."""

    valid_from: date
    input: str
    output: str
    cache_read: str = ""  # "": as input
    cache_write: str = ""  # "": as input
    up_to_input: int | None = None  # tokens; None: any
    priority_factor: str = "1"


class Retirement(Struct, frozen=True, forbid_unknown_fields=True):
    """The end of a model at one vendor; other upstreams may serve it on."""

    ends: date  # the vendor answers until the day before
    successor: str  # the model that the vendor names in its place
    at: tuple[str, ...]  # the presets of the vendor's API
    closed: date | None = None  # from this day the vendor takes no new users for it


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """A model that clients may name."""

    display_name: str
    released: date
    created: int  # Unix seconds
    context_window: int  # tokens, input and output together
    max_output: int  # tokens
    default_max_output: int  # tokens, where an upstream must be sent a number
    prices: tuple[Price, ...]
    description: str = ""
    input: tuple[Media, ...] = ("text",)
    aliases: tuple[str, ...] = ()  # other names of the same model
    rpm: int | None = None  # requests a minute of a pay-as-you-go account at MiniMax
    tpm: int | None = None  # tokens a minute, input and output, of such an account
    efforts: tuple[Effort, ...] = ()  # of reasoning that the model knows, the least first
    default_effort: str = ""  # what the model does when a request names none
    # Client dialects in which this model does not think unless the request names `reasoning`.
    thinking_on_request: tuple[DialectName, ...] = ()
    # Which tokens have the price of a cache write: those of a request with cache breakpoints in
    # Anthropic's dialect, or whatever the upstream reports as written.
    cache_writes: Literal["breakpoints", "reported"] = "reported"
    legacy: bool = False  # the vendor advises against it, without a date
    retirement: Retirement | None = None
    vendor: str = "minimax"
    effort: str = ""  # the operator's: sent where neither the request nor its key names one
    own: bool = False  # the operator's, not shipped
    id: str = ""

    def names(self) -> tuple[str, ...]:
        """Return every name of this very model, in lower case."""
        return (self.id.lower(), *(a.lower() for a in self.aliases))


@cache
def models() -> dict[str, Model]:
    """Return the shipped models by id."""
    tree = tomllib.loads(files("headgate.catalog").joinpath("models.toml").read_text("utf-8"))
    return {k: msgspec.convert({**v, "id": k}, Model) for k, v in tree.items()}


def prices_on(prices: tuple[Price, ...], on: date) -> tuple[Price, ...]:
    """Return the newest table of prices that holds on that day, as policy/pricing.py bills by."""
    begun = [p for p in prices if p.valid_from <= on]
    newest = max((p.valid_from for p in begun), default=None)
    return tuple(p for p in begun if p.valid_from == newest)
