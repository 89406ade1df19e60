"""What an edge and its node send each other, beside the ledger's own entries (storage/sqlite/writer.py).

Every message is a JSON array whose first element is its number.  The node decides the messages of one
connection in their order, and answers each with `null` or with one of the answers below.

Note: a message that was not answered is sent again to the next node.  That one knows nothing of it but
what is on the disk, so that nothing is counted twice.  During an upgrade the edges of the version before
ask the new node, so messages and answers only grow, at their ends.
"""

import msgspec

from headgate.errors import Failure
from headgate.policy.health import HealthEvent
from headgate.policy.idempotency import Saved, Verdict
from headgate.policy.limit_headers import LimitStatus
from headgate.policy.limit_kinds import Limit
from headgate.policy.metrics_merge import Sample
from headgate.policy.owner_budget import BudgetStatus
from headgate.policy.pricing import Tier
from headgate.policy.stored_responses import KeptBounds, Missing

HELLO, OPEN, ENTER, LEAVE, EXTEND, STANDING = 4, 5, 6, 7, 8, 9
HAPPENED, PACE, PACED, UNPACED, BEGIN, KEEP, DROP = 10, 11, 12, 13, 14, 15, 16
REPORT, COLLECT, TURN, USED = 17, 18, 19, 20
STORE, RECALL, FORGET = 21, 22, 23
# How a notice of the node begins; the rest is msgpack, as times may be infinite there.
HEALTH_NOTICE, EVENTS_NOTICE, TURNS_NOTICE, USED_NOTICE = b"H", b"E", b"T", b"U"
KEYS_NOTICE = b"K"  # the keys have changed; an edge of a version before looks by itself


class Bounds(msgspec.Struct, array_like=True, frozen=True):
    """What a budget needs to know of a request to lower its output: see policy/reservations.py."""

    tiers: tuple[Tier, ...]  # its tariff
    input: int  # the upper bound, in tokens
    asked: int | None  # the client's max_tokens
    most: int  # output tokens when nobody limits them


class Held(msgspec.Struct, array_like=True, frozen=True):
    """A request that has entered, as its edge announces it to a new node."""

    number: int
    owner: str
    limits: tuple[Limit, ...]
    id: str = ""  # of its exchange, once that is open


class Begin(msgspec.Struct, array_like=True, tag=BEGIN):
    """Begin a request with an Idempotency-Key, unless it was sent before."""

    number: int  # never the same again on this edge
    key: str  # the API key's id
    text: str
    fingerprint: bytes


class Keep(msgspec.Struct, array_like=True, tag=KEEP):
    """Keep the reply of such a request, or why there is none."""

    number: int
    saved: Saved | None
    verdict: Verdict = "running"


class Drop(msgspec.Struct, array_like=True, tag=DROP):
    """Forget such a request: it came to nothing."""

    number: int


class Happened(msgspec.Struct, array_like=True, tag=HAPPENED):
    """Tell the other edges what was seen of an upstream."""

    event: HealthEvent


class Report(msgspec.Struct, array_like=True, tag=REPORT):
    """Leave the metrics of an edge with the node, for the pages of the others."""

    samples: list[Sample]


class Collect(msgspec.Struct, array_like=True, tag=COLLECT):
    """Ask for the metrics of the other edges, and of those that have ended."""


class KeepTurn(msgspec.Struct, array_like=True, tag=TURN):
    """Keep the reasoning of a turn for the other edges, before its row says that the turn is over."""

    name: str
    data: bytes


class Used(msgspec.Struct, array_like=True, tag=USED):
    """Keep turns for longer, as they are used."""

    names: list[str]


class Store(msgspec.Struct, array_like=True, tag=STORE):
    """Keep a response for its owner (policy/stored_responses.py)."""

    owner: str
    id: str
    previous: str
    data: bytes
    bounds: KeptBounds


class Recall(msgspec.Struct, array_like=True, tag=RECALL):
    """Ask for a response, with those before it unless `alone`."""

    owner: str
    id: str
    alone: bool = False


class Forget(msgspec.Struct, array_like=True, tag=FORGET):
    """Forget a response."""

    owner: str
    id: str


class Pace(msgspec.Struct, array_like=True, tag=PACE):
    """Ask for a turn at an upstream with limits."""

    number: int  # never the same again on this edge
    account: str
    model: str
    rpm: int | None
    tpm: int | None
    tokens: int
    patience_s: float


class Paced(msgspec.Struct, array_like=True, tag=PACED):
    """Count what a turn took in the end."""

    number: int
    tokens: int


class Unpaced(msgspec.Struct, array_like=True, tag=UNPACED):
    """Give a turn back that was not used."""

    number: int


class Hello(msgspec.Struct, array_like=True, tag=HELLO):
    """Names an edge, in its first message on each connection."""

    instance: str
    held: tuple[Held, ...] = ()
    running: tuple[Begin, ...] = ()  # with an Idempotency-Key
    health: bytes = b""  # a HealthSnapshot, for a node that has none


class Open(msgspec.Struct, array_like=True, tag=OPEN):
    """Admit an exchange and commit its intent."""

    id: str
    instance: str
    intent: msgspec.Raw
    owner: str
    account: str
    model: str
    began_s: float
    number: int  # of the request that has entered; 0: nothing of its key is limited
    tokens: int  # the estimate, for limits of tokens
    nano: int | None  # the most that it may cost as it was sent; None: nobody knows
    version: int  # of the keys that the edge has read (storage/sqlite/database.py, data_version)
    bounds: Bounds | None = None  # None: there is no budget
    waited_s: float = 0.0  # since it was sent first, as its budget or tokens have to be leased


class Enter(msgspec.Struct, array_like=True, tag=ENTER):
    """Take the rate and the slot of a request."""

    number: int  # never the same again on this edge
    owner: str
    limits: tuple[Limit, ...]
    waited_s: float = 0.0  # since it was sent first, as its limits have to be drawn


class Leave(msgspec.Struct, array_like=True, tag=LEAVE):
    """End what a request has entered with; nothing changes once its row is there."""

    number: int


class Extend(msgspec.Struct, array_like=True, tag=EXTEND):
    """Reserve another call of an exchange, whose calls so far cost `spent_nano`."""

    id: str
    nano: int | None
    spent_nano: int
    version: int
    bounds: Bounds | None = None


class Standing(msgspec.Struct, array_like=True, tag=STANDING):
    """Ask how a key and its account stand."""

    owner: str
    account: str


Question = (
    Open
    | Enter
    | Leave
    | Extend
    | Standing
    | Happened
    | Pace
    | Paced
    | Unpaced
    | Begin
    | Keep
    | Drop
    | Report
    | Collect
    | KeepTurn
    | Used
    | Store
    | Recall
    | Forget
)


class Entered(msgspec.Struct, array_like=True, frozen=True):
    """The answer to Enter; `refused` None: there was room."""

    refused: Failure | None
    standings: dict[str, LimitStatus]
    exact_s: float = 0.0  # for so long the same refusal holds, whatever happens meanwhile
    again: bool = False  # nothing was decided: send it again in a moment


class Opened(msgspec.Struct, array_like=True, frozen=True):
    """The answer to Open, unless it is plainly granted."""

    refused: Failure | None = None
    max_tokens: int | None = None  # what the budget pays for; None: all that the request allows
    standings: dict[str, LimitStatus] = {}
    again: bool = False  # nothing was decided: send it again in a moment


class Settled(msgspec.Struct, array_like=True, frozen=True):
    """The answer to the row of a request that has limits: what is left of them."""

    standings: dict[str, LimitStatus]


class Extended(msgspec.Struct, array_like=True, frozen=True):
    """The answer to Extend."""

    granted: bool
    max_tokens: int | None = None


class Begun(msgspec.Struct, array_like=True, frozen=True):
    """The answer to Begin for a request that was sent before; without one it may run."""

    saved: Saved | None = None
    verdict: Verdict | None = None


class Collected(msgspec.Struct, array_like=True, frozen=True):
    """The answer to Collect."""

    others: list[list[Sample]]


class StoreAnswer(msgspec.Struct, array_like=True, frozen=True):
    """The answer to Store and Forget: whether it is kept, or was there."""

    done: bool


class Recalled(msgspec.Struct, array_like=True, frozen=True):
    """The answer to Recall: the responses, the first one first; or why there are none."""

    found: list[bytes]
    missing: Missing | None = None


class PacedTurn(msgspec.Struct, array_like=True, frozen=True):
    """The answer to Pace: how long to wait; or when to come back, as that is too long."""

    wait_s: float
    retry_after_s: float | None = None


class Standings(msgspec.Struct, array_like=True, frozen=True):
    """The answer to Standing."""

    key: BudgetStatus
    account: BudgetStatus | None
