"""Why a request has no budget, and when it may come again."""

import math
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

import msgspec

from headgate.errors import Failure
from headgate.policy.key_terms import Period
from headgate.policy.owner_budget import Owner, OwnerBudget, What, _Period
from headgate.policy.periods import end_of
from headgate.policy.pricing import usd

RESERVED_RETRY_S = 2.0  # nobody knows when the requests that run will end
UNKNOWN_RETRY_S = 5.0  # as long as SQLite waits for a lock


class BudgetRefusal(msgspec.Struct, frozen=True, gc=False):
    what: What
    asked_nano: int
    left_nano: int  # neither spent nor held
    held_nano: int  # by requests that run; some of it may come back
    spent_nano: int
    limit_nano: int
    period: Period
    resets_at_s: float | None  # None: never
    unknown: bool = False  # only the ledger knows what was spent in the period of now

    @property
    def too_large(self) -> bool:
        """Even a budget of which nothing is spent would not do."""
        return self.asked_nano > self.limit_nano

    @property
    def only_reserved(self) -> bool:
        """The money is not spent: requests that run hold it, and may give it back."""
        return self.held_nano > 0 and self.spent_nano + self.asked_nano <= self.limit_nano

    def failure(self) -> Failure:
        if self.unknown:
            return Failure(
                "unavailable",
                f"The gateway cannot read now what was spent of the budget of this {self.what};"
                " try again shortly.",
                code="storage_unavailable",
                retry_after_s=UNKNOWN_RETRY_S,
            )
        per = {"total": "", "day": " a day", "month": " a month"}[self.period]
        budget = f"the budget of this {self.what}, {usd(self.limit_nano)} USD{per}"
        text = f"This request may cost up to {usd(self.asked_nano)} USD, "
        if self.only_reserved:
            text += (
                f"and of {budget}, {usd(self.left_nano)} USD are left while running requests have"
                f" reserved {usd(self.held_nano)} USD."
                f" Please try again in {math.ceil(RESERVED_RETRY_S)}s."
            )
            return Failure(
                "rate_limit",
                text,
                code="budget_reserved",
                retry_after_s=RESERVED_RETRY_S,
                should_retry=True,
            )
        if self.too_large:
            text += f"which is more than {budget}. Send less, or allow less output."
        else:
            text += f"and of {budget}, {usd(self.left_nano)} USD are left"
            if self.held_nano:
                text += f" while running requests have reserved {usd(self.held_nano)} USD"
            text += "."
            if self.resets_at_s is not None:
                at = datetime.fromtimestamp(self.resets_at_s, UTC)
                text += f" It resets at {at:%Y-%m-%dT%H:%M:%SZ}."
        return Failure("no_credit", text, code="insufficient_quota", should_retry=False)


def _refusal(
    owners: Sequence[Owner],
    purses: Sequence[OwnerBudget],
    terms: Sequence[_Period],
    amount: int,
    unknown: Collection[Owner] = (),
) -> BudgetRefusal | None:
    """Of the first owner whose budget does not hold so much more; nothing always fits."""
    if not amount:
        return None
    for owner, spending_of, term in zip(owners, purses, terms, strict=True):
        budget = spending_of.budget
        if budget is None:
            continue
        if owner in unknown or amount > term.left(budget):
            return BudgetRefusal(
                owner[0],
                amount,
                max(0, term.left(budget)),
                term.held,
                term.spent,
                budget.nano,
                budget.period,
                end_of(budget, term.first),
                owner in unknown,
            )
    return None
