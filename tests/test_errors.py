"""What follows from a kind of failure stands in one table, and nowhere else."""

import ast
from pathlib import Path
from typing import get_args

import pytest

from headgate import errors
from headgate.errors import FAULTS, HOPELESS, NO_WORK, PASSING, REPEATABLE, RULES, Kind
from headgate.policy.cooldown import BY_KIND

ROOT = Path(__file__).parents[1] / "src" / "headgate"


def test_every_kind_has_one_row() -> None:
    assert {*RULES} == {*get_args(Kind)}


def test_a_refusal_without_work_pauses_its_route_and_is_no_fault() -> None:
    assert {*BY_KIND} == NO_WORK
    assert not NO_WORK & FAULTS


def test_a_route_is_asked_again_only_for_what_a_client_may_repeat() -> None:
    assert PASSING <= REPEATABLE
    assert not REPEATABLE & HOPELESS


def test_what_the_upstream_may_have_worked_on_goes_to_no_other_route() -> None:
    billed = [kind for kind, rule in RULES.items() if rule.may_bill and rule.origin == "upstream"]
    assert billed == ["timeout"]
    assert not any(RULES[kind].fallback for kind in billed)


@pytest.mark.parametrize("name", ["FINAL", "FAULTS", "HOPELESS", "FREQUENT", "MAY_BILL"])
def test_no_set_holds_all_kinds_or_none(name: str) -> None:
    found = getattr(errors, name)
    assert found and found < {*RULES}


def spelled_out(source: str) -> list[str]:
    """Return the literal collections of two or more strings that are all kinds of failure."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Tuple | ast.List | ast.Set) and len(node.elts) > 1:
            words = [e.value for e in node.elts if isinstance(e, ast.Constant)]
            if len(words) == len(node.elts) and all(w in RULES for w in words):
                found.append(ast.unparse(node))
    return found


def test_the_test_sees_a_set_that_is_spelled_out() -> None:
    assert spelled_out("X = frozenset(('timeout', 'upstream'))\nY = ('timeout', 'other')") == [
        "('timeout', 'upstream')"
    ]


def test_no_other_module_spells_out_a_set_of_kinds() -> None:
    found = {
        str(file.relative_to(ROOT)): sets
        for file in sorted(ROOT.rglob("*.py"))
        if file.name != "errors.py"
        and "dialects"
        not in file.parts  # whose tables have the protocols' words, some of them equal
        and (sets := spelled_out(file.read_text()))
    }
    assert found == {}
