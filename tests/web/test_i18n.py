"""Every text of the console is there in Chinese, with the same values in it."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.dialects.capabilities import EFFORTS
from headgate.policy.keys import KEY_STATES
from headgate.policy.terms import TERMS
from headgate.web import i18n
from headgate.web.console import audit_log_page
from headgate.web.console.navigation import ENTRIES
from headgate.web.context import NOTICES

CONTROL = Path(i18n.__file__).parent
# What templates show by `_(name)` where the text itself is elsewhere: in a table of a module.
_CALL = re.compile(r"""\b_\(\s*("(?:[^"\\]|\\.)*")""")
CHINESE = tomllib.loads((CONTROL / "zh.toml").read_text("utf-8"))


def of_templates() -> Iterator[tuple[str, str]]:
    for file in sorted((CONTROL / "templates").glob("*.html")):
        for literal in _CALL.findall(file.read_text("utf-8")):
            yield file.name, ast.literal_eval(literal)


def of_modules() -> Iterator[tuple[str, str]]:
    """The first argument of every call of `.word(...)` that is a text."""
    for file in sorted(CONTROL.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            first = node.args[0]
            if (
                name == "word"
                and isinstance(first, ast.Constant)
                and isinstance(first.value, str)
                and "visit" in ast.unparse(node.func)
            ):
                yield file.name, first.value


TEXTS = sorted({*of_templates(), *of_modules()})


@pytest.mark.parametrize(("place", "text"), TEXTS, ids=[f"{p}:{t[:30]}" for p, t in TEXTS])
def test_a_text_has_its_chinese(place: str, text: str) -> None:
    assert text in CHINESE, place


def test_the_navigation_and_what_pages_say_have_theirs() -> None:
    texts = (
        {e.title for e in ENTRIES}
        | {e.section for e in ENTRIES if e.section}
        | set(NOTICES.values())
    )
    assert texts <= set(CHINESE)


@pytest.mark.parametrize("text", CHINESE)
def test_a_translation_has_the_same_values(text: str) -> None:
    values = re.compile(r"\{(\w*)\}")
    assert sorted(values.findall(text)) == sorted(values.findall(CHINESE[text]))


def test_the_terms_and_states_of_keys_have_theirs() -> None:
    terms = [{t.label, t.empty, t.summary, *t.names} - {*EFFORTS, "UTC"} for t in TERMS.values()]
    texts = set().union(*terms, KEY_STATES.values(), audit_log_page.LABELS.values())
    assert texts - {"", "{value}"} <= set(CHINESE)


def test_what_nobody_translated_is_shown_as_it_is() -> None:
    assert i18n.word("zh", "never written") == "never written"
    assert i18n.word("zh", "never {x}", x=1) == "never 1"
