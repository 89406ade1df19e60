"""One exchange in the ledger: admitted, with an intent record, before an upstream is asked; one row after.

This is the only module that decides what an exchange is billed (`basis`); billing.py adds up its calls.
Note:
- an exchange whose client left, or whose upstream failed, is billed what was relayed, and nothing
  when nothing was;
- a disk that takes no more rows refuses new exchanges and lets running ones end.
"""

import time
from collections.abc import Sequence
from typing import get_args

from headgate.catalog import counting
from headgate.catalog.counting import RequestSize
from headgate.catalog.routes import Route
from headgate.chat import FinishReason, Request, Usage
from headgate.edge.billing import FREE, NO_USAGE, Bill
from headgate.edge.context import EdgeContext
from headgate.edge.reads import no_node
from headgate.node.client import Admission, Demand
from headgate.policy import reservations
from headgate.policy.keys import Key
from headgate.policy.pricing import Tariff, dearest
from headgate.storage.errors import LedgerFault, StoreError
from headgate.storage.rows import AttemptRecord, Basis, IntentRecord, LedgerRow

ANSWERED: tuple[str, ...] = get_args(FinishReason)


class ExchangeRecord:
    """The reservation, the intent record and the row of one exchange."""

    opened = False  # there is an intent record
    settled = False  # there is a row
    _key: Key | None = None
    _admission: Admission | None = None
    _intent: IntentRecord | None = None

    def __init__(self, context: EdgeContext, id: str, dialect: str) -> None:
        self._context = context
        self._id = id
        self._dialect = dialect
        self._began_s = time.time()
        self._attempts: list[AttemptRecord] = []
        self._bill = Bill(context.admissions, self._began_s)

    async def open(
        self,
        key: Key,
        admission: Admission,
        request: Request,
        size: RequestSize,
        fitted: Request,
        route: Route,
        routes: Sequence[Route],
        input: int,
    ) -> int | None:
        """Admit and commit the intent record; Refused when a limit, a budget or the disk prevents it.

        `admission` is what the request entered with, `request` is the client's, of the `size` that was measured, `fitted` what `route`
        would be sent, `routes` all that may have to take its place, and `input` the estimate of its
        tokens.  What is reserved holds for each of them.  The answer is the max_tokens that the budget
        pays for, where that is less than the request allows.
        """
        self._key = key
        self._bill.tier = fitted.service_tier
        self._bill.bound(size, route)
        demand = self._demand(request, routes)
        max_tokens = fitted.sampling.max_tokens
        self._intent = IntentRecord(
            request_id=self._id,
            key_id=key.id,
            account=key.account,
            session=request.session,
            user=request.user,
            tags=request.tags,
            dialect=self._dialect,
            model=route.model.id,
            upstream=route.upstream.name,
            upstream_model=route.name,
            stream=request.stream,
            started_at=self._began_s,
            service_tier=fitted.service_tier,
        )
        self._admission = admission
        try:
            granted = await self._context.admissions.admit(
                key, admission, input, max_tokens, demand, self._intent
            )
        except StoreError:
            self._context.reporting.metrics.ledger_faults.add()
            raise no_node() from None
        self.opened = True
        return granted

    def _demand(self, request: Request, routes: Sequence[Route]) -> Demand:
        """Return the most that the request may cost on the dearest of these routes."""
        most, paid = 0, list[Tariff]()
        for route in routes:
            if not route.free:
                # A route without service tiers costs no more than one with them.
                tariff = self._bill.tariff(route.prices, request.service_tier)
                if not paid or tariff is not paid[-1]:
                    paid.append(tariff)
            # Anthropic's form of reasoning always has a limit of output: fit.py sets it.
            blocks, sizes = route.capabilities.reasoning_form == "blocks", route.sizes
            most = max(most, sizes.default_max_output if blocks else sizes.max_output)
        return Demand(
            dearest(tuple(paid)),
            self._bill.most_input,
            request.sampling.max_tokens,
            most,
        )

    def sent(self, fitted: Request, route: Route) -> None:
        """Note what this route is sent."""
        self._bill.sent(fitted, route)

    async def again(self, request: Request, route: Route) -> Request | None:
        """Reserve a second call of the same exchange, with its own bounds.

        The answer is the request to send, with less `max_tokens` where the budget pays for less; None
        when the budget has no room for it.
        """
        assert self._key is not None
        bill = self._bill
        charge, before = bill.charge(route), bill.bound(counting.measure(request), route)
        granted = await self._context.admissions.extend(
            self._key, self._id, self._demand(request, (route,)), charge.nano or 0
        )
        if granted is None:
            bill.most_input = before
            return None
        bill.begin_again(charge.nano)
        if granted.max_tokens is not None:
            request = reservations.lowered(request, granted.max_tokens)
        bill.sent(request, route)
        return request

    def measured(self, usage: Usage) -> Usage:
        """Return what is billed of the usage of all calls so far."""
        return self._bill.measured(usage)

    @property
    def dispute(self) -> str:
        """The report of an upstream that is not believed; "" when all of it is."""
        return self._bill.dispute

    def attempted(
        self,
        route: Route,
        outcome: str,
        code: str,
        text: str,
        took_s: float,
        reply_began: bool,
    ) -> None:
        """Add an attempt that has ended."""
        self._attempts.append(
            AttemptRecord(
                route.upstream.name,
                route.name,
                outcome,
                code,
                round(took_s * 1000),
                route.key.number,
                reply_began,
                text,
                route.key.owner,
            )
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
        """Return the row of an exchange that ended in this way, with its price."""
        intent = self._intent
        assert intent is not None
        basis, remarks = _basis(outcome, usage), warnings
        if basis == "none":
            usage, charge = NO_USAGE, FREE
        else:
            charge = self._bill.charge(route)
        if self.dispute and basis != "none":
            basis = "disputed"
            remarks = (*warnings, self.dispute)
            self._context.reporting.metrics.disputed.add(route.upstream.name)
        total_ms = round(total_s * 1000)
        return LedgerRow(
            request_id=self._id,
            key_id=intent.key_id,
            account=intent.account,
            session=intent.session,
            user=intent.user,
            tags=intent.tags,
            dialect=self._dialect,
            model=intent.model,
            upstream=route.upstream.name,
            upstream_model=route.name,
            stream=intent.stream,
            outcome=outcome,
            basis=basis,
            status=status,
            started_at=self._began_s,
            ended_at=self._began_s + total_ms / 1000,
            ttft_ms=round(first_token_s * 1000) if first_token_s else None,
            input_tokens=usage.input,
            cached_tokens=usage.cached,
            cache_write_tokens=usage.cache_write,
            output_tokens=usage.output,
            reasoning_tokens=usage.reasoning,
            cost_nano_usd=charge.nano,
            price_version=charge.version,
            service_tier=self._bill.tier,
            attempts=tuple(self._attempts),
            warnings=remarks,
        )

    async def settle(self, row: LedgerRow) -> None:
        """Commit the row; on a failing disk the row is kept until it can be written."""
        self._release(row)
        try:
            answer = await self._context.storage.ledger.settle(row)
            assert self._admission is not None
            self._context.admissions.settled(self._admission, answer)
        except LedgerFault:
            self._context.reporting.metrics.ledger_faults.add()

    def settle_soon(self, row: LedgerRow) -> None:
        """Have the row committed without waiting for it."""
        self._release(row)
        self._context.storage.ledger.settle_soon(row)

    def _release(self, row: LedgerRow) -> None:
        """Note that the row, with which the node gives back what was not used, is on its way."""
        self.settled = True
        assert self._admission is not None
        if row.cost_nano_usd is None:
            self._context.reporting.metrics.unpriced.add(row.model)
        self._context.admissions.settling(self._admission)


def _basis(outcome: str, usage: Usage) -> Basis:
    if outcome in ANSWERED:
        return "estimated" if usage.estimated else "upstream"
    return "partial" if usage.output else "none"
