"""One bucket of a limit: a level that sinks with the rate (GCRA as a leaky bucket)."""

import math

import msgspec


class Bucket(msgspec.Struct):
    most: int
    window_ns: int
    at_ns: int
    level: int = 0  # units
    # Of a unit that was taken when `kept` was k, exp(kept - k) is still there, unless the bucket
    # was empty in between: each time it is, an `epoch` ends.
    kept: float = 0.0
    epoch: int = 0

    @property
    def size(self) -> int:
        return self.most * self.window_ns

    def advance(self, now_ns: int) -> None:
        gone_ns = now_ns - self.at_ns
        self.at_ns = now_ns  # also back: else a clock that was put right would stand still for us
        if gone_ns > 0 and self.level:
            self._drain(gone_ns * self.most)

    def limit(self, most: int) -> None:
        """Go on with another limit; what was taken stays taken."""
        self.most = most
        if self.level > 2 * self.size:  # the rest is forgiven, and with it what would come back
            self.level, self.kept = 2 * self.size, 0.0
            self.epoch += 1

    def _drain(self, units: int) -> None:
        if units >= self.level:
            self.level, self.kept = 0, 0.0
            self.epoch += 1
        else:
            self.kept += math.log((self.level - units) / self.level)
            self.level -= units

    def share(self, units: int, kept: float, epoch: int) -> int:
        """What is still there of `units` that were taken then."""
        if epoch != self.epoch:
            return 0
        return min(self.level, units * round(math.exp(min(0.0, self.kept - kept)) * 2**52) >> 52)

    def wait_ns(self, units: int) -> float:
        """How long until `units` fit: 0, or a whole number, or never."""
        over = self.level + units - self.size
        if over <= 0 and self.most:
            return 0
        return math.inf if units > self.size or not self.most else -(-over // self.most)
