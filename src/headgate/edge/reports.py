"""What a key may ask about itself: its exchanges, its sessions, its own terms.

Read from the books, for the asking key only; another key's exchange does not exist for it.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from headgate.edge.gate import Gate
from headgate.errors import Failure, Refused
from headgate.policy import pricing
from headgate.policy.keys import Key
from headgate.store.ledger import LedgerFault, Row

T = TypeVar("T")


def of_generation(gate: Gate, key: Key, id: str) -> bytes:
    """One exchange by its request id; Refused while it runs and when there is none."""
    row = _books(lambda: gate.books.generation(id))
    if row is None or row.key != key.id:
        raise Refused(Failure("not_found", "There is no such generation of this key (yet)."))
    return msgspec.json.encode(_shown(row))


def of_session(gate: Gate, key: Key, id: str) -> bytes:
    """All exchanges of one conversation, by the id that the client gave it, with their sum."""
    rows = _books(lambda: gate.books.session(id, key.id))
    if not rows:
        raise Refused(Failure("not_found", "There is no such session of this key."))
    costs = [r.cost_nano for r in rows if r.cost_nano is not None]
    total = {
        "session": id,
        "requests": len(rows),
        "unpriced": len(rows) - len(costs),
        "input_tokens": sum(r.input for r in rows),
        "cached_tokens": sum(r.cached for r in rows),
        "output_tokens": sum(r.output for r in rows),
        "cost_usd": pricing.usd(sum(costs)),
        "generations": [_shown(r) for r in rows],
    }
    return msgspec.json.encode(total)


def of_key(gate: Gate, key: Key) -> bytes:
    """The asking key: its terms, what it has spent, and how it and its account stand."""
    spent = _books(lambda: sum(b.spent_nano for b in gate.books.balances() if b.key == key.id))
    now = gate.admissions.standing(key)
    fields = msgspec.to_builtins(key)
    budget = msgspec.to_builtins(now)
    account = msgspec.to_builtins(gate.admissions.account_standing(key))
    return msgspec.json.encode(
        {
            **fields,
            "spent_nano": spent,
            "spent_usd": pricing.usd(spent),
            "budget": budget,
            "account_budget": account,
        }
    )


def _shown(row: Row) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(row)
    fields["cost_usd"] = None if row.cost_nano is None else pricing.usd(row.cost_nano)
    return fields


def _books(read: Callable[[], T]) -> T:
    try:
        return read()
    except LedgerFault:
        raise Refused(
            Failure("unavailable", "The books cannot be read now.", retry_after_s=5)
        ) from None
