"""Colours in code: every character stays what it is, escaped, and long code costs its length."""

import html
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.web.site import guides, highlight

LANGUAGES = ("bash", "python", "typescript", "json", "toml", "", "unknown")


@given(st.text(), st.sampled_from(LANGUAGES))
def test_without_its_tags_the_code_is_the_same_and_nothing_of_it_is_a_tag(
    code: str, language: str
) -> None:
    shown = highlight.highlighted(code, language)
    plain = re.sub(r"</?span[^>]*>", "", shown)
    assert "<" not in plain and html.unescape(plain) == html.unescape(code.replace("&", "&amp;"))


@pytest.mark.parametrize(
    ("language", "code", "shown"),
    [
        ("bash", "curl x # why", '<span class="k">curl</span> x <span class="c"># why</span>'),
        ("bash", "a#b", "a#b"),
        (
            "python",
            'print("<b>")',
            '<span class="k">print</span>(<span class="s">"&lt;b&gt;"</span>)',
        ),
        ("json", '{"a": "b"}', '{<span class="k">"a"</span>: <span class="s">"b"</span>}'),
        ("toml", "rpm = 200", '<span class="k">rpm</span> = <span class="n">200</span>'),
        (
            "typescript",
            "const a = 1; // n",
            '<span class="k">const</span> a = <span class="n">1</span>; <span class="c">// n</span>',
        ),
    ],
)
def test_words_texts_numbers_and_comments_have_a_class(
    language: str, code: str, shown: str
) -> None:
    assert highlight.highlighted(code, language) == shown


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ("[upstreams.x]\nkey = 1", "toml"),
        ('{"a": 1}', "json"),
        ("from openai import OpenAI", "python"),
        ("headgate keys list", "bash"),
    ],
)
def test_code_without_a_name_is_guessed(code: str, language: str) -> None:
    assert highlight.guessed(code) == language


def test_the_package_has_every_guide() -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    forced = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    wanted = {f"docs/{n}": f"headgate/docs/{n}" for n in guides.names()}
    assert forced == wanted and len(wanted) > 20
