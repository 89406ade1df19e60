"""What follows a failed attempt: another route, the same one again, or the answer to the client.

Pure decisions; edge/pipeline/attempt.py carries them out.  An attempt follows only if nothing was relayed and
the upstream surely did not work on the request, or refused it in so many words.
"""

from typing import Literal

import msgspec

from headgate.errors import FAULTS, FINAL, NO_WORK, OPERATORS, PASSING, REPEATABLE, Failure, Kind

STALE = "stale"  # upstream_code: a kept connection had been closed before the request came
CONNECT = "connect"  # upstream_code: no connection within timeouts.connect
MAX_ATTEMPTS = 10  # of one request, whatever else holds

# What else there is to ask: a route that is not known to be bad; one that is probed, demoted, or
# limited to probes; nothing.
Others = Literal["good", "doubtful", "none"]
# `fresh`: the same route, on a new connection.
Decision = Literal["stop", "other", "same", "fresh"]


class After(msgspec.Struct, frozen=True):
    """A failed attempt and what there is to go on with."""

    failure: Failure
    attempts: int  # so far, this one included
    allowed: int  # by the setting retry.attempts
    others: Others = "none"
    closed: bool = True  # the failed route may still be asked, after this failure
    budget: bool = True  # one more attempt is within the budgets of retries
    fresh: bool = False  # this attempt was made on a new connection because of a stale one


def decide(after: After) -> Decision:
    """What to do after a failed attempt.

    A good route is asked whatever the budgets say, so that a request succeeds while any route
    answers; the failed one is then demoted.  All else is within the budgets and the setting.
    """
    failure = after.failure
    if failure.kind in FINAL or failure.should_retry is False or after.attempts >= MAX_ATTEMPTS:
        return "stop"
    if failure.upstream_code == STALE and not after.fresh:
        return "fresh"
    free = failure.kind in NO_WORK or failure.should_retry is True
    if after.others == "good" and (free or after.allowed > 1):
        return "other"
    if after.attempts >= after.allowed or not after.budget:
        return "stop"
    if after.others == "doubtful":
        return "other"
    again = failure.kind in PASSING and failure.upstream_code != CONNECT and after.closed
    return "same" if again else "stop"


def demotes(after: After) -> bool:
    """Whether going on to a good route demotes the failed one: the budgets have no room for more."""
    return not after.budget and after.failure.kind in FAULTS


def shown(before: Failure | None, failure: Failure) -> Failure:
    """Which of two failures the client gets: one that it may repeat rather than one that it may not."""
    if before is not None and before.kind in REPEATABLE and failure.kind in OPERATORS:
        return before
    return failure


def final(failure: Failure, wait_s: float | None) -> Failure:
    """The failure as the client gets it: whether to try again, and when.

    `wait_s`: until one of the model's routes may be asked again; None: one may be now.
    """
    should_retry, retry_after_s = failure.should_retry, failure.retry_after_s
    if failure.kind in OPERATORS:
        should_retry = False
    elif should_retry is None and failure.kind in REPEATABLE:
        should_retry = True
    if wait_s is not None and should_retry and failure.kind in REPEATABLE:
        retry_after_s = max(wait_s, retry_after_s or 0.0)
    if should_retry == failure.should_retry and retry_after_s == failure.retry_after_s:
        return failure
    return msgspec.structs.replace(failure, should_retry=should_retry, retry_after_s=retry_after_s)


_PAUSED: dict[Kind, str] = {
    "rate_limit": "The upstream's rate limit is reached",
    "upstream_auth": "The upstream refused the gateway's own key",
    "upstream_quota": "The gateway's balance or plan at the upstream is used up",
    "upstream_config": "The upstream does not have this model or path",
}


def paused(model: str, upstream: str, kind: Kind, code: str, wait_s: float) -> Failure:
    """The answer while no route may be asked: the pause that ends first decides it.

    What only the operator can repair is not to be repeated; all else is, after `wait_s`.
    """
    if kind in OPERATORS:
        text = f"{_PAUSED[kind]}: {upstream}, for {model}. Ask the gateway's operator."
        return Failure(kind, text, should_retry=False, upstream_code=code)
    if kind == "rate_limit":
        text = f"{_PAUSED[kind]}: {upstream}, for {model}."
    else:
        kind, text = (
            "unavailable",
            f"Every route to {model} is paused after failures of its upstream.",
        )
    return Failure(
        kind,
        text,
        code="upstream_paused",
        retry_after_s=wait_s,
        should_retry=True,
        upstream_code=code,
    )
