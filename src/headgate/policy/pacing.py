"""Pacing: how fast we may ask an upstream."""

from collections import deque
from collections.abc import Sequence

import msgspec

from headgate.policy.limit_kinds import MINUTE_NS
from headgate.policy.limits import whole_seconds


class UpstreamLimits(msgspec.Struct, frozen=True, gc=False):
    """Holds the limits that an upstream publishes for one model and account; None: it does not."""

    rpm: int | None = None
    tpm: int | None = None


class PacedTurn(msgspec.Struct, eq=False):
    """Leave to contact the upstream after `wait_s`."""

    wait_s: float
    at_ns: int
    tokens: int
    line: "_Line"
    counted: bool = True


class PacerRefusal(msgspec.Struct, frozen=True, gc=False):
    """The wait would be longer than the caller has patience for."""

    retry_after_s: float


class _Line(msgspec.Struct, eq=False):
    turns: deque[PacedTurn]  # in the order of their times, of which some are still to come
    tokens: int = 0  # of all turns


class LineOfTurns(msgspec.Struct, frozen=True, array_like=True):
    """The turns of an upstream's account and model, for another process of the machine."""

    account: str
    model: str
    turns: list[tuple[int, int]]  # when, in nanoseconds, and how many tokens


class Pacer:
    """Lets through what fits any 60 seconds, first come, first served.

    A sliding window and not GCRA: the upstreams do not say how they count, and what never exceeds
    the limit in any minute is right for a fixed minute, a sliding one and a bucket of that size.
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], _Line] = {}

    def ask(
        self,
        account: str,
        model: str,
        pace: UpstreamLimits,
        tokens: int,
        now_ns: int,
        patience_s: float,
    ) -> PacedTurn | PacerRefusal:
        """A turn for a request of up to `tokens`, or Later, which takes nothing."""
        line = self._lines.get((account, model))
        if line is None:
            line = self._lines[account, model] = _Line(deque())
        turns = line.turns
        while turns and turns[0].at_ns <= now_ns - MINUTE_NS:
            self._uncount(turns.popleft())
        tokens = max(0, tokens)
        if pace.tpm is not None:
            tokens = min(tokens, pace.tpm)  # one that is larger than all goes alone
        at_ns = max(now_ns, turns[-1].at_ns) if turns else now_ns
        if pace.rpm and len(turns) >= pace.rpm:
            at_ns = max(at_ns, turns[-pace.rpm].at_ns + MINUTE_NS)
        if pace.tpm is not None and line.tokens + tokens > pace.tpm:
            within = tokens
            for turn in reversed(turns):
                within += turn.tokens
                if within > pace.tpm:
                    at_ns = max(at_ns, turn.at_ns + MINUTE_NS)
                    break
        wait_s = whole_seconds(at_ns - now_ns)
        if wait_s > patience_s:
            return PacerRefusal(wait_s)
        turn = PacedTurn(wait_s, at_ns, tokens, line)
        turns.append(turn)
        line.tokens += tokens
        return turn

    def settle(self, turn: PacedTurn, tokens: int) -> None:
        """Count what it really took in the place of the estimate."""
        if turn.counted:
            turn.line.tokens += tokens - turn.tokens
            turn.tokens = tokens

    def cancel(self, turn: PacedTurn) -> None:
        """It was not used after all; those behind it keep the times they got."""
        if turn.counted:
            turn.line.turns.remove(turn)
            self._uncount(turn)

    def _uncount(self, turn: PacedTurn) -> None:
        turn.counted = False
        turn.line.tokens -= turn.tokens

    def lines(self) -> list[LineOfTurns]:
        """The turns of the last minute, and those to come."""
        return [
            LineOfTurns(account, model, [(turn.at_ns, turn.tokens) for turn in line.turns])
            for (account, model), line in self._lines.items()
        ]

    def restore(self, lines: Sequence[LineOfTurns]) -> None:
        """Go on with the turns that another process has given."""
        for found in lines:
            line = self._lines[found.account, found.model] = _Line(deque())
            for at_ns, tokens in found.turns:
                line.turns.append(PacedTurn(0.0, at_ns, tokens, line))
                line.tokens += tokens
