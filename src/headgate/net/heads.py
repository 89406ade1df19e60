"""Heads of requests that were understood before: the only place that saves reading one again.

A client sends the same head all day, but for the length of its body.  What llhttp and the guard made
of those bytes once they would make of them again, so the next request with them needs neither.

Note: only a request that came whole, in one piece and with nothing behind it, is
looked for or remembered, and only one after which the connection goes on as if it were new.  Then
there is no state of a parser that could have made a difference.
"""

import msgspec

MAX_HEADS = 512  # all of them are forgotten when there are more
MAX_HEAD_BYTES = 4096  # of one of these; a client's is some 500
MAX_LINES = 48  # of headers of one of these; so all of them take a few megabytes
_LENGTH_NAMES = (b"\ncontent-length: ", b"\nContent-Length: ")  # as all clients write it


class Head(msgspec.Struct, frozen=True, gc=False):
    method: str
    path: str  # as it was sent, not decoded
    query: str
    headers: dict[str, str]  # names in lower case; repeated ones joined by ", "
    version: str  # "1.1" or "1.0"


class Cut(msgspec.Struct, frozen=True, gc=False):
    """A whole request: its head without the digits of its length, these, and its body."""

    key: bytes
    length: str
    body: bytes


def cut(data: bytes) -> Cut | None:
    """None for all but one whole request, with a plain length and a head that is not too long."""
    end = data.find(b"\r\n\r\n")
    if not 0 < end <= MAX_HEAD_BYTES:
        return None
    for name in _LENGTH_NAMES:
        at = data.find(name, 0, end)
        if at >= 0:
            break
    else:
        return None
    at += len(name)
    stop = data.find(b"\r", at, end)
    stop = end if stop < 0 else stop
    digits = data[at:stop]
    if not digits.isdigit() or len(digits) > 9 or len(data) != end + 4 + int(digits):
        return None
    return Cut(data[:at] + data[stop:end], digits.decode(), data[end + 4 :])


class Heads:
    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, request: Cut) -> tuple[Head, dict[str, str]] | None:
        """The head of such a request, and its own headers; None when it is not known."""
        head = self._known.get(request.key)
        if head is None:
            return None
        headers = head.headers.copy()
        headers["content-length"] = request.length
        return head, headers

    def keep(self, request: Cut, head: Head) -> None:
        """`head`: what was made of the request."""
        if len(head.headers) > MAX_LINES:
            return
        if len(self._known) >= MAX_HEADS:
            self._known.clear()
        own = head.headers.copy()  # its handler may do with its what it likes
        self._known[request.key] = msgspec.structs.replace(head, headers=own)
