"""README's table of clients, run as it stands: each agent of a row with the row's variables only.

The only place that reads the table.  Agents choose their models by themselves here, as nothing but
the row says where they are pointed.  SDKs have tests of their own (tests/sdk).
"""

import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
_URL = "http://127.0.0.1:8787"
_KEY = "$HEADGATE_API_KEY"
_SDKS = ("OpenAI SDKs", "Anthropic SDKs", "Google's SDKs")


@dataclass(frozen=True)
class Row:
    """One row: the clients that it names, and what it sets."""

    clients: tuple[str, ...]
    settings: dict[str, str]

    def variables(self, url: str, key: str) -> dict[str, str]:
        """Return the row's variables with a real address and a real key."""
        return {n: v.replace(_URL, url).replace(_KEY, key) for n, v in self.settings.items()}

    @property
    def agents(self) -> tuple[str, ...]:
        return tuple(client for client in self.clients if client not in _SDKS)


def rows(text: str) -> list[Row]:
    """Parse the table; a row may say `as` another row's first client, and add to it."""
    table = re.search(r"^\| client \| settings \|\n\|---\|---\|\n((?:\|.*\|\n)+)", text, re.M)
    if table is None:
        raise LookupError("README has no table of clients")
    found: list[Row] = []
    for line in table[1].splitlines():
        clients, settings = (cell.strip() for cell in line.strip("|").split("|"))
        pairs = dict(re.findall(r"`(\w+)=([^`]+)`", settings))
        if like := re.match(r"as ([^,]+),", settings):
            base = next(row for row in found if like[1] in row.clients)
            pairs = base.settings | pairs
        found.append(Row(tuple(c.strip() for c in clients.split(",")), pairs))
    return found


def row_of(agent: str, text: str) -> Row | None:
    """Return the row that names the agent."""
    return next((row for row in rows(text) if agent in row.clients), None)
