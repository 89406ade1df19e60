"""Pieces of pages: the prose that is package data, request examples, tables, front matter.

The only place that reads `text/` and that knows how a text becomes markdown.  What has mark-up is
written as such; what comes from the catalog or the settings goes through `plain`, so that a name with
`|` or `<script>` in it stays a name.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec
from msgspec import Struct

from headgate.dialects.registry import ANTHROPIC, GEMINI, OPENAI
from headgate.errors import Failure, Kind

Protocol = Literal["openai", "responses", "anthropic", "gemini"]
Language = Literal["bash", "python", "typescript"]

PROTOCOLS: dict[Protocol, str] = {
    "openai": "OpenAI Chat Completions",
    "responses": "OpenAI Responses",
    "anthropic": "Anthropic Messages",
    "gemini": "Gemini",
}
LANGUAGES: dict[Language, str] = {"bash": "curl", "python": "Python", "typescript": "TypeScript"}


class Example(Struct, frozen=True, forbid_unknown_fields=True):
    protocol: Protocol
    language: Language
    text: str


class Facts(Struct, frozen=True, forbid_unknown_fields=True):
    use_when: str = ""
    weights: str = ""  # where they are published; "": they are not, or nobody here knows
    licence: str = ""  # of the weights
    licence_source: str = ""  # where that was read


@cache
def text(name: str) -> str:
    return files("headgate.web.site").joinpath("text", name).read_text("utf-8")


@cache
def facts() -> dict[str, Facts]:
    return msgspec.convert(tomllib.loads(text("facts.toml")), dict[str, Facts])


def facts_of(model: str) -> Facts:
    """Return what is known of a model beside the catalog; nothing of the operator's own."""
    return facts().get(model, Facts())


@cache
def _examples() -> tuple[Example, ...]:
    tree = tomllib.loads(text("examples.toml"))["example"]
    return msgspec.convert(tree, tuple[Example, ...])


def examples(base_url: str, model: str) -> tuple[Example, ...]:
    """A request in each language over each protocol; keys are read from the environment."""
    return tuple(
        Example(e.protocol, e.language, fill(e.text.strip("\n"), base=base_url, model=model))
        for e in _examples()
    )


def fill(template: str, **values: str) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def code(example: Example) -> str:
    return f"```{example.language}\n{example.text}\n```"


def plain(words: str) -> str:
    """Text as markdown that reads the same: no mark-up, table cells or HTML come out of it."""
    return re.sub(r"([\\`*_\[\]<>|&#])", r"\\\1", " ".join(words.split()))


def front(**fields: object) -> str:
    """Return YAML of one level; JSON's scalars are YAML's."""
    lines = (f"{k}: {json.dumps(v, ensure_ascii=False, default=str)}" for k, v in fields.items())
    return "\n".join(("---", *lines, "---", ""))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    marks = ["---:" if n in numbers else "---" for n in range(len(titles))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, marks, *rows))


def bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


_MEANING: dict[Kind, str] = {
    "invalid": "a field is wrong or not supported",
    "context_length": "input and output do not fit the model",
    "unauthenticated": "no key, or a wrong or revoked one",
    "no_credit": "the budget of the key is used up",
    "forbidden": "the key may not do this",
    "not_found": "no such model or path",
    "method": "the path takes another method",
    "too_large": "the body is too large",
    "blocked": "the upstream's filter refused the prompt",
    "rate_limit": "too many requests or tokens",
    "internal": "the gateway failed",
    "upstream": "the upstream failed or answered nonsense",
    "overloaded": "the upstream has no room",
    "upstream_auth": "the upstream refused the operator's key",
    "upstream_quota": "the operator's balance or plan at the upstream is used up",
    "upstream_config": "the upstream does not have what the operator configured",
    "unavailable": "the gateway is shutting down, not set up, or every route is paused",
    "timeout": "the upstream took too long",
}


def errors() -> str:
    """What the dialects themselves say, so that this table cannot be wrong."""
    rows = []
    for kind, meaning in _MEANING.items():
        cells = []
        for dialect in (OPENAI, ANTHROPIC, GEMINI):
            status, body = dialect.encode_failure(Failure(kind, ""), "")
            error = json.loads(body).get("error", {})  # Gemini has a 200 for a blocked prompt
            word = (
                (dialect is OPENAI and error.get("code"))
                or error.get("status")
                or error.get("type")
            )
            cells.append(f"{status} `{word}`" if word else str(status))
        rows.append((meaning, *cells))
    return table(("Means", "OpenAI", "Anthropic", "Gemini"), rows)
