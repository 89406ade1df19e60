"""One exchange's place in the books: admitted and marked before an upstream hears of it, settled once.

The only place that decides what an exchange is billed (`basis`), and so how far an upstream's report
of usage is believed.  What will surprise:
- an exchange whose client left, or whose upstream failed, is billed what was relayed, and nothing
  when nothing was;
- a report above what the request allowed (the upper bound of its input, the `max_tokens` that were
  sent) is billed at what it allowed, and the row is `disputed`: the reservation pays for all that is
  billed, whatever an upstream says.  The row's warnings keep what it said;
- a disk that takes no more rows refuses new exchanges and lets running ones end.
"""

import time
from collections.abc import Sequence
from typing import get_args

import msgspec

from headgate.catalog import counting
from headgate.catalog.catalog import Route
from headgate.chat import FinishReason, Request, Usage
from headgate.edge.admission import Admitted, Demand
from headgate.edge.context import EdgeContext
from headgate.errors import Failure, Refused
from headgate.policy import reservations
from headgate.policy.keys import Key
from headgate.policy.limits import Admission
from headgate.policy.pricing import Charge, Tariff
from headgate.storage.sqlite.database import StoreError
from headgate.storage.sqlite.ledger import (
    AttemptRecord,
    Basis,
    IntentRecord,
    LedgerFault,
    LedgerRow,
)

ANSWERED: tuple[str, ...] = get_args(FinishReason)
FREE = Charge(0, "free")
NO_USAGE = Usage()
MAX_SHOWN = 10**18  # of a number that an upstream reported


class ExchangeRecord:
    opened = False
    settled = False
    _account = _session = _tier = _model = ""
    _stream = False
    _key: Key | None = None
    _ticket: Admitted | None = None
    # Of the call that runs: the bounds of what its upstream may report, and what it did report.
    _most_input = _most_output = 0
    _call = NO_USAGE
    _dispute = ""
    # Of the calls before it, when a reply was asked for again.
    _earlier = NO_USAGE
    _earlier_nano: int | None = 0
    _earlier_dispute = ""

    def __init__(self, gate: EdgeContext, id: str, dialect: str) -> None:
        self._gate = gate
        self._id = id
        self._dialect = dialect
        self._began_s = time.time()
        self._attempts: list[AttemptRecord] = []

    async def open(
        self,
        key: Key,
        admission: Admission | None,
        request: Request,
        fitted: Request,
        route: Route,
        routes: Sequence[Route],
        input: int,
    ) -> int | None:
        """Admit and commit the mark; Refused when a limit, a budget or the disk does not let it.

        `admission` is what the request entered with, `request` is the client's, `fitted` what `route` would be sent, `routes` all that may have to
        take its place, and `input` the estimate of its tokens.  What is reserved holds for each of
        them.  The answer is the max_tokens that the budget pays for, where that is less than the
        request allows.
        """
        self._key, self._account = key, key.account
        self._session, self._stream = request.session, request.stream
        self._tier, self._model = fitted.service_tier, route.model.id
        self._most_input = counting.input_bound(request, route.model.context_window)
        demand = self._demand(request, routes)
        asked = fitted.sampling.max_tokens
        self._ticket = self._gate.admissions.admit(key, admission, input, asked, demand)
        self.opened = True  # also when this is cancelled: what was queued is written
        mark = IntentRecord(
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

        return self._ticket.max_tokens

    def _demand(self, request: Request, routes: Sequence[Route]) -> Demand:
        """The most that the request may cost on the dearest of these routes."""
        model = routes[0].model
        most, paid = 0, False
        for route in routes:
            paid = paid or not route.upstream.free
            blocks = (
                route.capabilities.reasoning_form == "blocks"
            )  # is always told a number: fit.py
            most = max(most, model.default_max_output if blocks else model.max_output)
        # A route without service tiers costs no more than one with them.
        tariff = self._gate.admissions.tariff(model, request.service_tier, self._began_s)
        return Demand(
            self._id,
            self._began_s,
            model.id,
            tariff if paid else None,
            self._most_input,
            request.sampling.max_tokens,
            min(most, model.max_output),
        )

    def sent(self, fitted: Request, route: Route) -> None:
        """Note what this route is sent: the bounds and the prices of the call follow from it."""
        self._tier = fitted.service_tier
        asked = fitted.sampling.max_tokens
        self._most_output = route.model.max_output if asked is None else asked
        self._call, self._dispute = NO_USAGE, ""

    def again(self, request: Request, route: Route) -> Request | None:
        """Reserve a second call of the same exchange, with its own bounds.

        The answer is the request to send, with less `max_tokens` where the budget pays for less; None
        when the budget has no room for it.
        """
        assert self._key is not None
        assert self._ticket is not None
        charge = self._charge(route)
        bound = counting.input_bound(request, route.model.context_window)
        before, self._most_input = self._most_input, bound
        granted = self._gate.admissions.extend(
            self._ticket, self._key, self._demand(request, (route,)), charge.nano or 0
        )
        if granted is None:
            self._most_input = before
            return None
        self._earlier, self._earlier_nano = _sum(self._earlier, self._call), charge.nano
        self._earlier_dispute = self._dispute or self._earlier_dispute
        if granted.max_tokens is not None:
            request = reservations.lowered(request, granted.max_tokens)
        self.sent(request, route)
        return request

    def measured(self, usage: Usage) -> Usage:
        """What is billed of the usage of the call that runs, and of those before it together."""
        sound = _sound(usage)
        input, output = min(sound.input, self._most_input), min(sound.output, self._most_output)
        if input != sound.input or output != sound.output:
            if not usage.estimated:
                self._dispute = (
                    f"usage (disputed: the upstream reported {min(sound.input, MAX_SHOWN)} input and"
                    f" {min(sound.output, MAX_SHOWN)} output tokens, the request allowed"
                    f" {self._most_input} and {self._most_output})"
                )
            sound = _sound(msgspec.structs.replace(sound, input=input, output=output))
        self._call = sound
        return sound if self._earlier is NO_USAGE else _sum(self._earlier, sound)

    @property
    def dispute(self) -> str:
        """What an upstream reported that is not believed; "" when all of it is."""
        return self._dispute or self._earlier_dispute

    def _charge(self, route: Route) -> Charge:
        """What the calls so far cost: each at the prices of its own size."""
        if route.upstream.free:
            return FREE
        charge = self._tariff(route).charge(self._call)
        if self._earlier is NO_USAGE:
            return charge
        if charge.nano is None or self._earlier_nano is None:
            return Charge(None, charge.version)
        return Charge(self._earlier_nano + charge.nano, charge.version)

    def _tariff(self, route: Route) -> Tariff:
        return self._gate.admissions.tariff(route.model, self._tier, self._began_s)

    def attempted(self, route: Route, outcome: str, code: str, seconds: float) -> None:
        ms, number = round(seconds * 1000), route.key.number
        self._attempts.append(
            AttemptRecord(route.upstream.name, route.name, outcome, code, ms, number)
        )

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
    ) -> LedgerRow:
        """The row of an exchange that ended so, priced."""
        basis, remarks = _basis(outcome, usage), warnings
        if basis == "none":
            usage, charge = NO_USAGE, FREE
        else:
            charge = self._charge(route)
        if self.dispute and basis != "none":
            basis = "disputed"
            remarks = (*warnings, self.dispute)
            self._gate.metrics.disputed.add(route.upstream.name)
        assert self._key is not None
        return LedgerRow(
            id=self._id,
            account=self._account,
            key=self._key.id,
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
            warnings=remarks,
        )

    async def settle(self, row: LedgerRow) -> None:
        """Commit the row; a disk that fails keeps nobody waiting, and the row is kept for it."""
        self._done(row)
        try:
            await self._gate.ledger.settle(row)
        except LedgerFault:
            self._gate.metrics.ledger_faults.add()

    def settle_soon(self, row: LedgerRow) -> None:
        self._done(row)
        self._gate.ledger.settle_soon(row)

    def _done(self, row: LedgerRow) -> None:
        self.settled = True
        assert self._ticket is not None
        assert self._key is not None
        if row.cost_nano is None:
            self._gate.metrics.unpriced.add(row.model)
        if row.basis == "upstream":
            self._gate.admissions.replied(self._key, row.model, row.output)
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


def _sum(a: Usage, b: Usage) -> Usage:
    """What two calls took together."""
    return Usage(
        a.input + b.input,
        a.output + b.output,
        a.cached + b.cached,
        a.cache_write + b.cache_write,
        a.reasoning + b.reasoning,
        a.estimated or b.estimated,
    )


def _basis(outcome: str, usage: Usage) -> Basis:
    if outcome in ANSWERED:
        return "estimated" if usage.estimated else "upstream"
    return "partial" if usage.output else "none"
