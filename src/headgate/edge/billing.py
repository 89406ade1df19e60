"""What the upstream calls of one exchange are billed: usage as far as it is believed, and its price.

Note: a report above what the request allowed (the upper bound of its input, the `max_tokens` that were
sent) is billed at what it allowed, and the row is `disputed`.  So the reservation pays for all that is
billed, whatever an upstream reports; the row's warnings keep its numbers.
"""

import msgspec

from headgate.catalog.counting import RequestSize
from headgate.catalog.models import Price
from headgate.catalog.routes import Route
from headgate.chat import Request, Usage
from headgate.node.client import Admissions
from headgate.policy.pricing import Charge, Tariff

FREE = Charge(0, "free")
NO_USAGE = Usage()
MAX_SHOWN = 10**18  # of a number that an upstream reported


class Bill:
    """The calls of one exchange, added up; a reply that is asked for again makes a second one."""

    _sent: Request | None = None  # by the call that runs
    tier = ""  # the service tier of the call that runs
    # The bounds of what the upstream of the running call may report, and what it did report.
    most_input = _most_output = 0
    _call = NO_USAGE
    _dispute = ""
    # The calls before it.
    _earlier = NO_USAGE
    _earlier_nano: int | None = 0
    _earlier_dispute = ""

    def __init__(self, admissions: Admissions, began_s: float) -> None:
        self._admissions = admissions
        self._began_s = began_s

    def bound(self, size: RequestSize, route: Route) -> int:
        """Set the most input that the call may report; the answer is the bound before."""
        before = self.most_input
        self.most_input = size.bound_within(route.sizes.context_window)
        return before

    def sent(self, fitted: Request, route: Route) -> None:
        """Note what this route is sent: the bounds and the prices of the call follow from it."""
        self.tier = fitted.service_tier
        max_tokens = fitted.sampling.max_tokens
        self._most_output = route.sizes.max_output if max_tokens is None else max_tokens
        self._call, self._dispute = NO_USAGE, ""
        self._sent = fitted

    def begin_again(self, earlier_nano: int | None) -> None:
        """Add the call so far to the earlier ones, which cost `earlier_nano` together."""
        self._earlier, self._earlier_nano = _sum(self._earlier, self._call), earlier_nano
        self._earlier_dispute = self._dispute or self._earlier_dispute

    def measured(self, usage: Usage) -> Usage:
        """Return what is billed of the usage of the running call and of those before it together."""
        sound = _sound(usage)
        input, output = min(sound.input, self.most_input), min(sound.output, self._most_output)
        if input != sound.input or output != sound.output:
            if not usage.estimated:
                self._dispute = (
                    f"usage (disputed: the upstream reported {min(sound.input, MAX_SHOWN)} input and"
                    f" {min(sound.output, MAX_SHOWN)} output tokens, the request allowed"
                    f" {self.most_input} and {self._most_output})"
                )
            sound = _sound(msgspec.structs.replace(sound, input=input, output=output))
        self._call = sound
        return sound if self._earlier is NO_USAGE else _sum(self._earlier, sound)

    @property
    def dispute(self) -> str:
        """The report of an upstream that is not believed; "" when all of it is."""
        return self._dispute or self._earlier_dispute

    def charge(self, route: Route) -> Charge:
        """Return what the calls so far cost, each at the prices of its own size."""
        if route.free:
            return FREE
        charge = self.tariff(route.prices, self.tier).charge(
            self._call, lambda: self._writes_cost(route)
        )
        if self._earlier is NO_USAGE:
            return charge
        if charge.nano is None or self._earlier_nano is None:
            return Charge(None, charge.version)
        return Charge(self._earlier_nano + charge.nano, charge.version)

    def tariff(self, prices: tuple[Price, ...], tier: str) -> Tariff:
        """Return these prices as they were when the exchange began."""
        return self._admissions.tariff(prices, tier, self._began_s)

    def _writes_cost(self, route: Route) -> bool:
        """Whether what was written to the cache has the price of a write on this route."""
        if route.sizes.cache_writes == "reported":
            return True
        return route.upstream.dialect == "anthropic" and has_breakpoints(self._sent)


def has_breakpoints(request: Request | None) -> bool:
    """Return whether the request marks what shall be cached."""
    if request is None:
        return False
    if any(tool.cache for tool in request.tools):
        return True
    return any(getattr(part, "cache", "") for m in request.messages for part in m.parts)


def _sound(usage: Usage) -> Usage:
    """Return a report as the ledger takes it: parts are never below zero or above the whole.

    A row with such a part would break the schema, and its exchange would be in no row.  The order is
    that of pricing.charge, so that the row says what was billed.
    """
    parts = usage.cached or usage.cache_write or usage.reasoning
    if not parts and usage.input >= 0 and usage.output >= 0:
        return usage
    input, output = max(usage.input, 0), max(usage.output, 0)
    cached = min(max(usage.cached, 0), input)
    written = min(max(usage.cache_write, 0), input - cached)
    reasoning = min(max(usage.reasoning, 0), output)
    return Usage(input, output, cached, written, reasoning, usage.estimated)


def _sum(a: Usage, b: Usage) -> Usage:
    """Return what two calls used together."""
    return Usage(
        a.input + b.input,
        a.output + b.output,
        a.cached + b.cached,
        a.cache_write + b.cache_write,
        a.reasoning + b.reasoning,
        a.estimated or b.estimated,
    )
