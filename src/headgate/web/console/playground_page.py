"""The playground: a page whose script sends ordinary requests to the gateway itself, and keys for it.

The page calls no model through us: the browser sends POST /v1/chat/completions, as any client, with a
key that was pasted or that is made here for an hour.  Note: a key made here is the
visitor's account's, like every other, so that what is tried is counted, limited and paid as usual.
"""

import time

from starlette.responses import Response

from headgate.admin import keys as operations
from headgate.policy import pricing
from headgate.policy.keys import Key
from headgate.policy.terms import MAX_NAME_CHARS
from headgate.storage.interface import Keys
from headgate.web.app import Rule
from headgate.web.context import NavigationEntry, Problem, RequestContext

KEY_S = 3600.0  # a made key lives so long
KEY_NANO = 10**9  # and may spend a dollar
MOST_KEYS = 5  # of one person at a time: each page that is loaded anew makes one


def show(visit: RequestContext) -> Response:
    catalog = visit.console_context.catalog
    models = [
        (m, any("image" in r.capabilities.input for r in routes))
        for m in catalog.models
        if (routes := catalog.routes(m.id))
    ]
    return visit.render(
        "playground.html", models=models, key_usd=pricing.usd(KEY_NANO), key_minutes=int(KEY_S / 60)
    )


def make_key(visit: RequestContext) -> Response:
    """Return a key for an hour and a dollar, as JSON; its text is shown to nobody again."""
    if visit.body:
        raise Problem(400, "This takes no body.")
    operator, now_s = visit.operator, time.time()
    name = f"playground: {operator.name}"[:MAX_NAME_CHARS].strip()
    account = visit.who.account
    older = _older(operator.store, name, account, now_s)
    with visit.problems():
        key, text = operations.create(
            operator,
            name,
            expires_s=now_s + KEY_S,
            account=account,
            terms={"budget_nano": KEY_NANO},
            now_s=now_s,
        )
        for old in older[: max(0, len(older) - MOST_KEYS + 1)]:
            operations.revoke(operator, old.id, now_s=now_s)
    return visit.json({"key": text, "id": key.id, "lives_s": KEY_S})


def _older(store: Keys, name: str, account: str, now_s: float) -> list[Key]:
    """The keys that were made here for the same person and are still good, oldest first."""
    keys = store.keys()
    return [
        key
        for key in keys
        if (key.name, key.account, key.budget_nano) == (name, account, KEY_NANO)
        and key.expires_s == key.created_s + KEY_S
        and key.good(now_s)
    ]


ENTRY = NavigationEntry("/playground", "Playground", "use")
RULES = (
    Rule("GET", "/playground", show, "use"),
    Rule("POST", "/playground/key", make_key, "use"),
)
