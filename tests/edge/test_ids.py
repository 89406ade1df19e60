"""Ids of requests: unique, and in the order of time, so that rows of one time share pages."""

import re

from headgate.dialects.registry import REPLY_ID
from headgate.edge.ids import Ids, new_id


def test_an_id_has_the_form_that_reports_are_asked_for() -> None:
    assert re.fullmatch(REPLY_ID, new_id())


def test_ids_are_in_the_order_of_the_milliseconds_in_which_they_were_made() -> None:
    now_s = iter((0.001, 1_764_560_000.0, 1_764_560_000.001, 1_764_560_001.0, 17_000_000_000.0))
    ids = Ids(lambda: next(now_s))
    made = [ids() for _ in range(5)]
    assert made == sorted(made)
    assert {len(id) for id in made} == {24}


def test_ids_of_one_moment_are_different_and_stand_together() -> None:
    ids = Ids(lambda: 1_764_560_000.0)
    made = {ids() for _ in range(10_000)}
    assert len(made) == 10_000
    assert len({id[:11] for id in made}) == 1
