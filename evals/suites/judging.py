"""When a test of the suites has failed, and what the gateway refuses by name on purpose.

A test that fails counts as refused only when the answer that it failed on is in REFUSALS; every
other failure is one.  The page shows the reason.
"""

import json
import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Refusal:
    name: str  # the parameter or path
    status: int
    pattern: re.Pattern[str]  # within the message
    reason: str


def _refusal(name: str, status: int, pattern: str, reason: str) -> Refusal:
    return Refusal(name, status, re.compile(pattern), reason)


_STORED = "nothing is stored, so there is nothing to fetch, list, change, cancel or delete"
REFUSALS = (
    _refusal(
        "stored responses", 404, r"nothing at /v1/responses/\w+(/cancel|/input_items)?\.", _STORED
    ),
    _refusal(
        "stored chat completions",
        404,
        r"nothing at /v1/chat/completions/\w+(/messages)?\.",
        _STORED,
    ),
    _refusal("stored chat completions", 405, r"/v1/chat/completions takes POST, not GET", _STORED),
    _refusal(
        "deleting a model",
        404,
        r"nothing at /v1/models/ft:",
        "models are not the clients' to delete",
    ),
    _refusal(
        "responses without `model`",
        400,
        r"missing required field `model`",
        "which model is meant is never guessed; OpenAI's default comes from a stored prompt",
    ),
    _refusal(
        "`previous_response_id`",
        400,
        r"`previous_response_id` is not supported",
        "nothing is stored",
    ),
    _refusal(
        "`thread`",
        400,
        r"^thread: Threads are not supported",
        "nothing is stored; the SDK goes on without threads",
    ),
    _refusal("`mcp_servers`", 400, r"`mcp_servers` is not supported", "tools run in the client"),
)


def refused(status: int, body: str) -> Refusal | None:
    """The refusal that an answer is, or None."""
    try:
        message = str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return None
    return next((r for r in REFUSALS if r.status == status and r.pattern.search(message)), None)


@dataclass
class Outcome:
    """Holds what came of one suite."""

    package: str
    version: str
    passed: int
    refused: dict[str, list[str]]  # the refusal's name: the tests
    failed: list[tuple[str, str]]  # test, why
    apart: int  # no request of theirs came here


def judged(package: str, version: str, tests: list[dict[str, Any]]) -> Outcome:
    """`tests` are as witness.py writes them."""
    outcome = Outcome(package, version, 0, {}, [], 0)
    for test in tests:
        asked = test["asked"]
        if not asked:
            outcome.apart += 1
        elif test["outcome"] == "passed":
            outcome.passed += 1
        elif test["outcome"] == "failed":
            last = asked[-1]
            if why := refused(last["status"], last["error"]):
                outcome.refused.setdefault(why.name, []).append(test["test"])
            else:
                outcome.failed.append((test["test"], last["error"] or test["why"][-600:]))
    return outcome
