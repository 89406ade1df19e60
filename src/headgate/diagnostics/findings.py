"""Findings of a check, and the results they are written in."""

from typing import Literal

from msgspec import Struct

from headgate.chat import Usage
from headgate.diagnostics.probes import ProbeResult
from headgate.dialects.capabilities import Capabilities
from headgate.errors import DECLINED, Failure

State = Literal["ok", "warn", "fail"]


AT_ONCE_S = 2.0  # a reply that took this long and came within a twentieth of it was held back


class Finding(Struct, frozen=True):
    check: str
    state: State
    result: str
    do: str = ""  # what to do about it; never empty when it failed


class Comparison(Struct, frozen=True):
    """Compares the same measurement on both paths: one row of `bridge or native`."""

    check: str
    bridge: str
    native: str


class Report(Struct, frozen=True):
    findings: tuple[Finding, ...]
    capabilities: dict[str, object] = {}  # what to set, as measured
    comparison: tuple[Comparison, ...] = ()
    requests: int = 0
    usage: Usage = Usage()


# The upstream's numbers, and what an operator does about them.
FIXES = {
    "1008": "The account has no balance left: top it up at the provider.",
    "1028": "The account's quota is used up: wait for its next window, or use another key.",
    "1030": "The account's quota is used up: wait for its next window, or use another key.",
    "2056": "The plan's five-hour window is used up: wait for the next one, or use another key.",
    "402": "The account has no balance left: top it up at the provider.",
    "2061": "The plan does not include this model: choose another with --model, or another plan.",
}
_SHOWN = frozenset(("not_sent", "broken", "connect", "first_token", "stall", "total", "too_large"))
AGAIN = "Run it again in a minute; if it stays so, ask the provider, naming the time."


def what_of(failure: Failure) -> str:
    """A failure without any of the upstream's words, which may repeat what was sent."""
    code = failure.upstream_code
    shown = code if code in _SHOWN or (code.isdecimal() and len(code) <= 5) else ""
    return f"{failure.kind}, {shown}" if shown else failure.kind


def declined(probed: ProbeResult) -> bool:
    """Whether the upstream understood the question and does not do it (a 400)."""
    return probed.failure is not None and probed.failure.kind in DECLINED


class Results:
    """Holds the findings so far, and the capabilities as measured."""

    def __init__(self, capabilities: Capabilities) -> None:
        self.has = capabilities
        self.findings: list[Finding] = []
        self.measured: dict[str, object] = {}

    def add(self, check: str, state: State, stated: str, do: str = "") -> None:
        self.findings.append(Finding(check, state, stated, do))

    def failed(self, check: str, probed: ProbeResult) -> bool:
        """Whether this check has no result, as the request itself failed."""
        if probed.failure is None or declined(probed):
            return False
        self.add(check, "fail", f"could not be measured ({what_of(probed.failure)})", AGAIN)
        return True

    def able(self, check: str, field: str, has: bool, can: bool, value: object, what: str) -> None:
        """A capability against its measurement: claimed in vain fails, unused is a warning."""
        self.measured[field] = value
        if can:
            do = "" if has else f"The setting says otherwise: {field} can be used (lines below)."
            self.add(check, "ok" if has else "warn", f"{what}: honoured", do)
        elif has:
            do = f"Clients are promised what does not happen: set {field} (lines below)."
            self.add(check, "fail", f"{what}: not honoured", do)
        else:
            self.add(
                check, "ok", f"{what}: not honoured; not relied on, the gateway stands in for it"
            )

    def changes(self) -> dict[str, object]:
        return {k: v for k, v in self.measured.items() if v != getattr(self.has, k)}
