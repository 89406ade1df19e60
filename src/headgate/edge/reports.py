"""What a key may ask about itself: its exchanges, its sessions, its own terms.

Read from the ledger in a thread, for the asking key only; another key's exchange does not exist for it.
"""

from collections.abc import Mapping

import msgspec

from headgate.edge.context import EdgeContext
from headgate.edge.reads import no_node
from headgate.errors import Failure, Refused, invalid
from headgate.policy import pricing
from headgate.policy.keys import Key
from headgate.storage.errors import StoreError
from headgate.storage.rows import shown

PAGE = 100  # generations of a session in one answer, if the request names no number
MAX_PAGE = 1000  # some 600 kB


async def of_generation(context: EdgeContext, key: Key, id: str) -> bytes:
    """One exchange by its request id; Refused while it runs and when there is none."""

    def read() -> bytes:
        row = context.storage.key_reports.generation(id)
        return b"" if row is None or row.key_id != key.id else msgspec.json.encode(shown(row))

    page = await context.storage.reads(read)
    if not page:
        raise Refused(Failure("not_found", "There is no such generation of this key (yet)."))
    return page


async def of_session(context: EdgeContext, key: Key, id: str, query: Mapping[str, str]) -> bytes:
    """One conversation by the id that the client gave it: its sum, and a page of its exchanges.

    `query` may have `limit` (up to MAX_PAGE) and `after`, the `next` of the page before.
    """
    asked = query.get("limit", str(PAGE))
    if not asked.isascii() or not asked.isdecimal() or not 1 <= int(asked[:9]) <= MAX_PAGE:
        raise invalid(f"`limit` must be a whole number from 1 to {MAX_PAGE}.", "limit")
    limit, after = int(asked), query.get("after", "")

    def read() -> bytes:
        sums, rows, more = context.storage.key_reports.session(id, key.id, limit, after)
        if not sums.requests:
            return b""
        return msgspec.json.encode(
            {
                "session": id,
                "requests": sums.requests,
                "unpriced": sums.unpriced,
                "input_tokens": sums.input_tokens,
                "cached_tokens": sums.cached_tokens,
                "output_tokens": sums.output_tokens,
                "cost_usd": pricing.usd(sums.cost_nano_usd),
                "generations": [shown(r) for r in rows],
                "has_more": more,
                "next": rows[-1].request_id if more else None,
            }
        )

    page = await context.storage.reads(read)
    if not page:
        raise Refused(Failure("not_found", "There is no such session of this key."))
    return page


async def of_key(context: EdgeContext, key: Key) -> bytes:
    """The asking key: its terms, what it has spent, and how it and its account stand."""
    spent, where = await context.storage.reads(lambda: context.storage.key_reports.spent(key.id))
    try:
        now = await context.admissions.standing(key)
    except StoreError:
        raise no_node() from None
    fields = msgspec.to_builtins(key)
    budget = msgspec.to_builtins(now.key)
    account = msgspec.to_builtins(now.account)
    return msgspec.json.encode(
        {
            **fields,
            "spent_nano": spent,
            "spent_usd": pricing.usd(spent),
            **({"spent_on": where} if where else {}),
            "budget": budget,
            "account_budget": account,
        }
    )
