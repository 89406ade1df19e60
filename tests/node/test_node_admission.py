"""Admission at the node: clocks, and budgets that change."""

import contextlib
import math
from datetime import date
from typing import Any

import msgspec
import pytest

from headgate.catalog.models import models
from headgate.errors import Failure
from headgate.node import admission
from headgate.node.admission import Admissions, Admitted, Demand
from headgate.node.wire import Bounds
from headgate.policy.keys import Key
from headgate.policy.limit_kinds import Limit
from headgate.policy.owner_budget import BudgetStatus
from headgate.policy.pricing import Tariff
from headgate.storage.errors import LedgerFault

DAY_S = 86_400.0
NOON_S = 20_000 * DAY_S + DAY_S / 2
TARIFF = Tariff(models()["MiniMax-M2"].prices, "", date(2026, 11, 30))


class Yesterdays:
    """A ledger that says what was spent on each day, or cannot be read."""

    def __init__(self, days: dict[int, int]) -> None:
        self.days = days
        self.asked: list[set[float]] = []
        self.fails = False

    def spent(self, moments: set[tuple[str, float]]) -> dict[tuple[str, float], dict[str, int]]:
        self.asked.append({at_s for _, at_s in moments})
        if self.fails:
            raise LedgerFault("database is locked")
        return {moment: self.since(moment[1]) for moment in moments}

    def since(self, at_s: float) -> dict[str, int]:
        return {"k": sum(nano for day, nano in self.days.items() if day * DAY_S >= at_s)}

    def recorded(self, ids: object) -> set[str]:
        return set()

    def snapshot(self) -> Any:
        return contextlib.nullcontext()


def demand(began_s: float, tokens: int) -> Demand:
    bounds = Bounds(TARIFF.tiers, 0, tokens, 100_000)
    return Demand("x", "k", "", "MiniMax-M2", began_s, TARIFF.worst_case(0, tokens).nano, bounds)


def admitted(admissions: Admissions, began_s: float, tokens: int) -> Admitted:
    found = admissions.admit(demand(began_s, tokens), None, tokens)
    assert isinstance(found, Admitted)
    return found


def refused(admissions: Admissions, began_s: float, tokens: int) -> Failure:
    found = admissions.admit(demand(began_s, tokens), None, tokens)
    assert isinstance(found, Failure)
    return found


def standing(admissions: Admissions) -> BudgetStatus:
    return admissions.standing(("key", "k"))


def loaded(
    books: Yesterdays, monkeypatch: pytest.MonkeyPatch, now_s: float, nano: int
) -> Admissions:
    monkeypatch.setattr(admission.time, "time", lambda: now_s)
    admissions = Admissions(books)  # type: ignore[arg-type]
    admissions.load([Key("k", "n", 0.0, budget_nano=nano, budget_period="day")])
    return admissions


def test_a_gateway_that_started_while_the_clock_was_ahead_asks_the_ledger_for_its_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    books = Yesterdays({20_040: 900_000, 20_000: 200_000})
    admissions = loaded(books, monkeypatch, NOON_S + 40 * DAY_S, 1_200_000)
    assert standing(admissions).spent_nano == 900_000
    monkeypatch.setattr(admission.time, "time", lambda: NOON_S)
    ticket = admitted(admissions, NOON_S, 800)  # 960,000 of the 1,000,000 left
    assert standing(admissions).spent_nano == 200_000
    assert books.asked[-1] == {20_000 * DAY_S, 20_001 * DAY_S}
    admissions.settle(ticket, 800, 960_000)
    assert refused(admissions, NOON_S + 60, 100).kind == "no_credit"
    asked = len(books.asked)
    monkeypatch.setattr(admission.time, "time", lambda: NOON_S + DAY_S)
    # A day that the ledger is asked about once.
    admitted(admissions, NOON_S + DAY_S, 800)
    admitted(admissions, NOON_S + DAY_S, 100)
    assert len(books.asked) == asked + 1


def test_a_period_that_changes_counts_rows_that_are_on_their_way_to_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission.time, "time", lambda: NOON_S)
    books = Yesterdays({})
    key = Key("k", "n", 0.0, budget_nano=10**6)
    admissions = Admissions(books)  # type: ignore[arg-type]
    admissions.load([key])
    admissions.settle(admitted(admissions, NOON_S, 500), 500, 600_000)
    admissions.load([msgspec.structs.replace(key, budget_period="day")])
    assert standing(admissions).spent_nano == 600_000
    books.days[20_000] = 600_000
    admissions.committed("x")
    admissions.load([msgspec.structs.replace(key, budget_period="month")])
    assert standing(admissions).spent_nano == 600_000


def test_a_ledger_that_cannot_be_read_after_a_clock_went_back_admits_nothing_that_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    books = Yesterdays({20_000: 400_000})
    admissions = loaded(books, monkeypatch, NOON_S + 40 * DAY_S, 960_000)
    books.fails = True
    monkeypatch.setattr(admission.time, "time", lambda: NOON_S)
    monkeypatch.setattr(admission.time, "monotonic", lambda: 100.0)
    for _ in range(20):
        failure = refused(admissions, NOON_S, 1)
        assert (failure.kind, failure.code) == ("unavailable", "storage_unavailable")
    assert len(books.asked) == 2  # who comes soon after a failure does not cause another read
    free = msgspec.structs.replace(demand(NOON_S, 1), nano=0, bounds=None)
    assert isinstance(admissions.admit(free, None, 1), Admitted)
    books.fails = False
    monkeypatch.setattr(admission.time, "monotonic", lambda: 100.0 + admission.FOLLOW_AGAIN_S)
    admitted(admissions, NOON_S, 1)
    assert standing(admissions).spent_nano == 400_000


def test_what_another_node_has_admitted_is_held_and_its_slots_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admissions = loaded(Yesterdays({}), monkeypatch, NOON_S, 1_000_000)
    ticket = admissions.held_before(demand(NOON_S, 500), 600_000)
    slots = (Limit("concurrency", 1), Limit("requests", 1))
    ticket.admission = admissions.resume("k", slots)
    assert standing(admissions).held_nano == 600_000
    assert refused(admissions, NOON_S, 500).code == "budget_reserved"
    busy = admissions.enter("k", (Limit("concurrency", 1),))
    assert getattr(busy, "retry_after_s", math.inf) == 1.0
    admissions.settle(ticket, 500, 100_000)
    assert (standing(admissions).held_nano, standing(admissions).spent_nano) == (0, 100_000)
    assert not hasattr(admissions.enter("k", (Limit("concurrency", 1),)), "retry_after_s")
