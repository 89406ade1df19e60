"""How a request to an upstream fails below HTTP."""

from typing import Literal

import msgspec

from headgate.net.dial import NotSent

Phase = Literal["connect", "first_token", "stall", "total"]


class Timeouts(msgspec.Struct, frozen=True):
    connect_s: float = 10.0  # name, TCP, proxy and TLS together
    first_token_s: float = 60.0  # request written -> first body byte, or the head of an empty body
    stall_s: float = 120.0  # between two pieces of a body
    total_s: float = 600.0  # from the call of `send` to the last byte


class Broken(Exception):
    """The connection ended, or the answer was no HTTP, after the request was written."""


class TimedOut(Exception):
    """The upstream was silent for too long after the request was written."""

    def __init__(self, what: Phase) -> None:
        super().__init__(f"timed out: {what}")
        self.what: Phase = what


class Stale(Broken):
    """The other side had closed a kept connection before it read the request, which can be sent again."""


class NoConnection(NotSent):
    """The client has no room for one more connection to this origin, or to any."""
