"""How much a request reserves of its budget, and how much output it may have for that.

This file is the only place that decides it. A reservation is an upper bound: of the input tokens
(catalog/counting.py, `input_bound`) and of the output tokens, which the upstream itself is sent as
`max_tokens`. So whatever an upstream reports within these bounds is paid for before it is asked.

    the client says max_tokens    all of it is reserved; lowered when the budget has less left to spend
    the client does not say       the model's most, or a share of what is left, but not less than this
                                  key's recent replies of this model took

Note: a share instead of all that is left keeps room for requests in parallel, each of which takes its
share of the rest. An explicit `max_tokens` is never lowered because of other requests that run: these
may end in a moment, so the client is asked to try again.
"""

from collections.abc import Iterable

import msgspec

from headgate.chat import Request
from headgate.policy.owner_budget import Room
from headgate.policy.pricing import Tariff

# A reply cut shorter than this is of no use; a request that asks for less gets what it asks for.
USEFUL_OUTPUT = 256
SHARE = 16  # a request that does not say may take one part in so many of what is left
USUAL_OUTPUT = 4096  # tokens of a reply as long as nothing is known
MARGIN = 2  # a reply may be so many times as long as recent ones
FADE = 64  # a long reply is forgotten over some so many others
MAX_KNOWN = 4096  # pairs of a key and a model whose replies are remembered


class Grant(msgspec.Struct, frozen=True, gc=False):
    """`nano` None: the price is not known. `max_tokens` None: what the client asked for stands."""

    nano: int | None
    max_tokens: int | None = None


def grant(
    tariff: Tariff, input: int, asked: int | None, most: int, usual: int, room: Room
) -> Grant:
    """What to reserve for up to `input` tokens of input, and the output that it pays for.

    `asked` is the client's max_tokens, `most` what the model generates when nobody limits it, and
    `usual` what is likely to be enough. The amount may be above what is left: then it is the least
    that this request can be served for, and reserving it will be refused.
    """
    wanted = most if asked is None else min(asked, most)
    full = tariff.worst_case(input, wanted).nano
    left = room.left_nano
    if full is None or left is None:
        return Grant(full)
    if asked is not None:
        assert room.unspent_nano is not None  # both are of the same budget
        if full <= left or (full <= room.unspent_nano and left < room.unspent_nano):
            return Grant(full)
        affordable = tariff.output_for(input, left)
    else:
        affordable = tariff.output_for(input, left)
        alone = tariff.worst_case(input, 0).nano
        if alone is not None and affordable is not None:
            share = tariff.output_for(input, alone + max(0, left - alone) // SHARE)
            affordable = min(affordable, max(share or 0, usual))
    assert affordable is not None  # a price without one for the input has no price for all of it
    if affordable >= wanted:
        return Grant(full)
    useful = min(USEFUL_OUTPUT, wanted)
    tokens = max(affordable, useful)
    nano = tariff.worst_case(input, tokens).nano
    return Grant(nano, tokens if tokens < wanted else None)


def lowered(request: Request, max_tokens: int) -> Request:
    """The request with the output that its budget pays for, and a warning of it."""
    sampling = msgspec.structs.replace(request.sampling, max_tokens=max_tokens)
    return msgspec.structs.replace(request, sampling=sampling).warn(
        "max_tokens (lowered to what the budget holds)"
    )


class Outputs:
    """How long the replies of each key and model were lately: nearly the longest of them."""

    def __init__(self) -> None:
        self._longest: dict[tuple[str, str], float] = {}

    def usual(self, key_id: str, model: str) -> int:
        """Output tokens that are likely to be enough for the next reply."""
        longest = self._longest.get((key_id, model), 0.0)
        return max(USUAL_OUTPUT, round(MARGIN * longest))

    def known(self) -> list[tuple[str, str, float]]:
        """What is known: key, model, tokens."""
        return [(key_id, model, tokens) for (key_id, model), tokens in self._longest.items()]

    def restore(self, known: Iterable[tuple[str, str, float]]) -> None:
        """Go on with what another process has learnt."""
        self._longest.update({(key_id, model): tokens for key_id, model, tokens in known})

    def learn(self, key_id: str, model: str, output: int) -> None:
        """Take in the output tokens of a reply that ended by itself."""
        known = self._longest
        before = known.pop((key_id, model), 0.0)  # and put it at the end of the dict
        if len(known) >= MAX_KNOWN:
            del known[next(iter(known))]
        known[key_id, model] = max(float(output), before * (1 - 1 / FADE))
