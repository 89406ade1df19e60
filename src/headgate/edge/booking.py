"""One exchange's place in the books: admitted and marked before an upstream hears of it, settled once.

The only place that decides what an exchange is billed (`basis`).  What will surprise: an exchange
whose client left, or whose upstream failed, is billed what was relayed, and nothing when nothing
was; a disk that takes no more rows refuses new exchanges and lets running ones end.
"""

import time

from headgate.catalog.catalog import Route
from headgate.chat import Request, Usage
from headgate.edge.admission import Ticket
from headgate.edge.gate import Gate
from headgate.errors import Failure, Refused
from headgate.policy.keys import Key
from headgate.policy.pricing import Charge, Tariff
from headgate.store.ledger import Attempt, Basis, LedgerFault, Mark, Row
from headgate.store.sqlite import StoreError

ANSWERED = ("stop", "stop_sequence", "length", "context_full", "tool_calls", "content_filter")
FREE = Charge(0, "free")


class Booking:
    opened = False
    settled = False
    _key = _account = _session = _tier = _model = ""
    _stream = False
    _ticket: Ticket | None = None

    def __init__(self, gate: Gate, id: str, dialect: str) -> None:
        self._gate = gate
        self._id = id
        self._dialect = dialect
        self._began_s = time.time()
        self._attempts: list[Attempt] = []

    async def open(
        self, key: Key, request: Request, route: Route, input: int, *, free: bool
    ) -> None:
        """Admit and commit the mark; Refused when a limit, a budget or the disk does not let it.

        `free`: not only this route, but every one that may have to take its place.
        """
        self._key, self._account = key.id, key.account
        self._session, self._stream = request.session, request.stream
        self._tier, self._model = request.service_tier, route.model.id
        asked = request.sampling.max_tokens
        most = FREE
        if not free:
            output = asked if asked is not None else route.model.max_output
            most = self._tariff(route).worst_case(input, output)
        self._ticket = self._gate.admissions.admit(key, input, asked, most.nano)
        self.opened = True  # also when this is cancelled: what was queued is written
        mark = Mark(
            id=self._id,
            account=key.account,
            key=key.id,
            session=self._session,
            dialect=self._dialect,
            model=self._model,
            upstream=route.upstream.name,
            upstream_model=route.name,
            stream=self._stream,
            began_s=self._began_s,
            service_tier=self._tier,
        )
        try:
            await self._gate.ledger.open(mark)
        except StoreError:
            self._gate.metrics.ledger_faults.add()
            self.opened = False
            self._gate.admissions.settle(self._ticket, 0, 0)
            raise Refused(
                Failure(
                    "unavailable",
                    "The gateway cannot write its books now, so it takes no new requests.",
                    code="ledger_unavailable",
                    retry_after_s=5,
                )
            ) from None

    def _tariff(self, route: Route) -> Tariff:
        return self._gate.admissions.tariff(route.model, self._tier, self._began_s)

    def attempted(self, route: Route, outcome: str, code: str, seconds: float) -> None:
        ms, number = round(seconds * 1000), route.key.number
        self._attempts.append(Attempt(route.upstream.name, route.name, outcome, code, ms, number))

    def row(
        self,
        route: Route,
        outcome: str,
        status: int,
        usage: Usage,
        *,
        first_token_s: float,
        total_s: float,
        warnings: tuple[str, ...],
    ) -> Row:
        """The row of an exchange that ended so, priced."""
        basis = _basis(outcome, usage)
        usage = Usage() if basis == "none" else _sound(usage)
        if route.upstream.free or basis == "none":
            charge = FREE
        else:
            charge = self._tariff(route).charge(usage)
        return Row(
            id=self._id,
            account=self._account,
            key=self._key,
            session=self._session,
            dialect=self._dialect,
            model=self._model,
            upstream=route.upstream.name,
            upstream_model=route.name,
            stream=self._stream,
            outcome=outcome,
            basis=basis,
            status=status,
            began_s=self._began_s,
            first_token_ms=round(first_token_s * 1000) if first_token_s else None,
            total_ms=round(total_s * 1000),
            input=usage.input,
            cached=usage.cached,
            cache_write=usage.cache_write,
            output=usage.output,
            reasoning=usage.reasoning,
            cost_nano=charge.nano,
            price_version=charge.version,
            service_tier=self._tier,
            attempts=tuple(self._attempts),
            warnings=warnings,
        )

    async def settle(self, row: Row) -> None:
        """Commit the row; a disk that fails keeps nobody waiting, and the row is kept for it."""
        self._done(row)
        try:
            await self._gate.ledger.settle(row)
        except LedgerFault:
            self._gate.metrics.ledger_faults.add()

    def settle_soon(self, row: Row) -> None:
        self._done(row)
        self._gate.ledger.settle_soon(row)

    def _done(self, row: Row) -> None:
        self.settled = True
        assert self._ticket is not None
        if row.cost_nano is None:
            self._gate.metrics.unpriced.add(row.model)
        self._gate.admissions.settle(self._ticket, row.input + row.output, row.cost_nano)


def _sound(usage: Usage) -> Usage:
    """What an upstream reported, as the ledger takes it: parts are never below zero or above the whole.

    A row with such a part would break the schema, and its exchange would be nobody's.  The order is
    that of pricing.charge, so that the row says what was billed.
    """
    parts = usage.cached or usage.cache_write or usage.reasoning
    if not parts and usage.input >= 0 and usage.output >= 0:
        return usage
    input, output = max(usage.input, 0), max(usage.output, 0)
    cached = min(max(usage.cached, 0), input)
    written = min(max(usage.cache_write, 0), input - cached)
    reasoning = min(max(usage.reasoning, 0), output)
    return Usage(input, output, cached, written, reasoning, usage.estimated)


def _basis(outcome: str, usage: Usage) -> Basis:
    if outcome in ANSWERED:
        return "estimated" if usage.estimated else "upstream"
    return "partial" if usage.output else "none"
