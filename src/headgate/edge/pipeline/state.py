"""What the steps of the pipeline share about one exchange.

Note: nothing here refers back to the exchange, so that its memory is free as soon as it ends.
"""

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from headgate.catalog.routes import Route
from headgate.chat import Request, Usage
from headgate.dialects.contract import Dialect, Encoder, ReplyFacts, RequestTarget
from headgate.edge import relay, upstream
from headgate.edge.context import EdgeContext
from headgate.edge.entry import Entry
from headgate.edge.ids import new_id
from headgate.edge.metrics import RouteMetrics
from headgate.edge.record import ANSWERED, ExchangeRecord
from headgate.edge.stored_responses import PendingResponse
from headgate.errors import BLAMELESS
from headgate.net.inbound import Inbound
from headgate.net.upstream_connection import Response
from headgate.node.client import UpstreamTurn
from headgate.policy.masking import Masker
from headgate.stream.translate import Translator

P = ParamSpec("P")
R = TypeVar("R")

UNKNOWN_USAGE = Usage(estimated=True)


class Arrival:
    """A request to a model as it arrived, before its body is read."""

    __slots__ = ("began_s", "client", "context", "dialect", "entry", "target")

    def __init__(
        self,
        client: Inbound,
        context: EdgeContext,
        dialect: Dialect,
        target: RequestTarget,
        entry: Entry,
    ) -> None:
        self.client = client
        self.context = context
        self.dialect = dialect
        self.target = target
        self.entry = entry
        self.began_s = time.monotonic()


class Progress:
    """What the ledger row, the metrics and the log line report about the exchange."""

    # What most exchanges do not change stays in the class, where it costs them nothing.
    outcome = "internal"
    status = 0
    model = ""
    stream = False
    route: Route | None = None  # the last one that was asked
    attempts = 0
    usage = UNKNOWN_USAGE
    first_token_s = 0.0
    upstream_code = ""  # of the last attempt
    upstream_text = ""  # of the last attempt's error, redacted
    warnings: tuple[str, ...] = ()
    recalled: tuple[str, ...] = ()  # how reasoning came back that the client did not carry
    where = ""  # the places of an error of the gateway's own

    @property
    def shown_first_token_s(self) -> float:
        """Return when the upstream's first token came; 0 where there was none, or the reply failed."""
        fine = self.outcome in ANSWERED or self.outcome in BLAMELESS
        return self.first_token_s if fine else 0.0


class AttemptState:
    """What the exchange holds at its upstreams, and what it measures there."""

    probe: Route | None = None  # a paused route that no other request asks meanwhile
    paced: UpstreamTurn | None = None
    response: Response | None = None
    translator: Translator | None = None
    counters: RouteMetrics | None = None  # of the last route that answered
    began_s = 0.0  # when the last attempt began
    running_since_s = 0.0  # the same; 0 once the attempt is recorded
    reply_began = False  # the upstream failed after its reply had begun, and may bill it


class Exchange:
    """One client request with its attempts."""

    encoder: Encoder | None = None  # of a streamed reply
    large = False  # the work on a large body is done in a thread
    input_estimate = 0  # tokens
    turn: PendingResponse | None = None  # what is kept of it for `previous_response_id`
    masker: Masker | None = None  # of a key whose requests are masked before they leave
    facts = ReplyFacts("", "", 0)  # set once the request is read

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.context = arrival.context
        self.progress = Progress()
        self.attempt = AttemptState()
        self.begin(new_id())

    def begin(self, id: str) -> None:
        """Set the exchange's id, before anything of it is recorded."""
        self.id = id
        self.record = ExchangeRecord(self.context, id, self.arrival.dialect.name)

    async def worked(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what `work` returns; it runs in the thread if it would delay other requests."""
        if self.large:
            place = self.arrival.entry.place
            return await self.context.overload.off_loop(place, work, *args, **kwargs)
        return work(*args, **kwargs)

    async def encoded(self, route: Route, request: Request) -> bytes:
        """Return the body that the route is sent: the only way by which a request leaves."""
        if self.masker is not None:
            request = await self.worked(self.masker.request, request)
        return await self.worked(upstream.encoded, route, request)

    async def keep(self, response: bytes) -> None:
        """Keep a response whose request wants that, before its client sees the end."""
        kept_here = self.context.storage.responses
        if self.turn is None or kept_here is None:
            return
        worker = self.context.overload.worker(self.arrival.entry.place)
        if not await kept_here.keep(self.turn, f"resp_{self.id}", response, worker):
            self.progress.warnings = (*self.progress.warnings, "store (not kept)")

    def measure(self, translator: Translator) -> None:
        """Set the usage to what is billed of this reply."""
        usage = relay.measure(translator, self.input_estimate)
        self.progress.usage = self.record.measured(usage)
