"""What a fact is that only a real key settles: its small request, its judgement, and what came of it."""

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from headgate.errors import DECLINED, Failure

Result = Literal["confirmed", "different", "unknown"]
FLASH = "MiniMax-M3.1-Flash"
MINIMAX = ("minimax", "minimax-cn", "minimax-anthropic")


class Verdict(Struct, frozen=True):
    result: Result
    seen: str
    do: str = ""  # what follows where it is different


class Answer(Struct, frozen=True):
    """Holds what came back: a failure, or a page of JSON."""

    failure: Failure | None = None
    page: bytes = b""

    @property
    def declined(self) -> bool:
        """Whether the request was understood and refused (a 400)."""
        return self.failure is not None and self.failure.kind in DECLINED

    @property
    def no_model(self) -> bool:
        """Whether this key does not get this model."""
        return self.failure is not None and (
            self.failure.kind == "upstream_config"
            or self.failure.upstream_code == "2061"
            or self.failure.code == "upstream_forbidden"
        )

    @property
    def what(self) -> str:
        """Return the failure without any of the upstream's words."""
        if self.failure is None:
            return "answered"
        code = self.failure.upstream_code
        number = f" {code}" if code.isdecimal() and len(code) <= 5 else ""
        return f"refused ({self.failure.kind}{number})"


class Request(Struct, frozen=True):
    path: str  # beside the origin of the upstream
    body: dict[str, object] | None = None  # None: a GET


class Fact(Struct, frozen=True):
    name: str
    believed: str
    request: Request | None  # None: no small request shows it
    judge: Callable[[Answer], Verdict]
    presets: tuple[str, ...] = MINIMAX
    model: str = ""  # that it is about; "": about the vendor
    plan_only: bool = False  # only keys of plans can show it


class Tried(Struct, frozen=True):
    """Holds one fact with its verdict."""

    name: str
    believed: str
    result: Result
    seen: str
    do: str = ""
