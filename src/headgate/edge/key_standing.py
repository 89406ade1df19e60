"""How the keys of an upstream stand, as the console and the doctor show it."""

import time

import msgspec

from headgate.catalog.routes import Route
from headgate.policy import plans
from headgate.policy.health import HealthState

MAX_OWNED_SHOWN = 64  # owners' keys of one upstream that are paused or of a plan


class KeyStanding(msgspec.Struct, frozen=True):
    """How one key of an upstream stands; `account` is a name, never the secret."""

    account: str
    paused_s: float = 0.0
    kind: str = ""  # of the refusal that paused it
    code: str = ""
    models: tuple[str, ...] = ()  # paused for these only; (): for all
    plan: tuple["PlanShown", ...] = ()
    plan_check: str = ""  # why the quota address says nothing


class PlanShown(msgspec.Struct, frozen=True):
    """Shows one window of a key's plan."""

    window: str
    left: float | None  # from 0 to 1; None: not known
    resets_in_s: float | None


def _plan_of(shared: HealthState, account: str) -> tuple[tuple[PlanShown, ...], str]:
    """Return the windows of an account's plan, and why its quota address reports none."""
    standing, now_s = shared.plans.get(account), time.time()
    if standing is None:
        return (), ""
    windows = tuple(
        PlanShown(w.name, w.left, None if w.resets_at_s is None else round(w.resets_at_s - now_s))
        for w in plans.current(standing.windows, now_s)
    )
    return windows, standing.reason


def key_standings(shared: HealthState, routes: list[Route], now_s: float) -> list[KeyStanding]:
    """Return how the keys of one upstream stand; `routes` are all of that upstream's."""
    pauses = shared.cooldowns.pauses
    out = []
    name = routes[0].upstream.name
    accounts = [key.account for key in routes[0].upstream.keys]
    owned = {*pauses, *shared.plans}
    own = sorted(a for a in owned if a.startswith(f"{name}#own-") and "\n" not in a)
    accounts += own[:MAX_OWNED_SHOWN]
    for account in accounts:
        plan, plan_check = _plan_of(shared, account)
        pause = pauses.get(account)
        models: tuple[str, ...] = ()
        if pause is None:
            found = [
                (p, r.model.id)
                for r in routes
                if (p := pauses.get(f"{account}\n{r.name}")) is not None
            ]
            models = tuple(model for _, model in found)
            pause = max((p for p, _ in found), key=lambda p: p.until_s, default=None)
        if pause is None:
            out.append(KeyStanding(account, plan=plan, plan_check=plan_check))
        else:
            left_s = round(max(0.0, pause.until_s - now_s), 1)
            out.append(
                KeyStanding(account, left_s, pause.kind, pause.code, models, plan, plan_check)
            )
    return out
