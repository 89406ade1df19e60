"""Bytes to server-sent events and back: the only place that knows where an event ends.

Follows WHATWG HTML, "Server-sent events", section 9.2.6 (html.spec.whatwg.org, read 2026-11), for
the one field our peers use: the payload of `data`.  `event`, `id` and `retry` lines and comments
are passed over, because every dialect repeats the type inside the JSON.  Note: the
last event of a stream counts even when its closing blank line is missing, as some servers leave
it out after `[DONE]`; a line that was cut short does not count.
"""

# The longest real event is a tool call sent whole; 1 MiB is the cap, so that a
# hostile upstream cannot make us buffer without end.
MAX_EVENT_BYTES = 1 << 20
# As numbers: for `b"\r" in data` CPython first makes an error, that this is no number, and drops it again.
_CR, _LF = b"\r\n"


class EventTooLarge(ValueError):
    """One event grew past the bound; the stream cannot be followed any further."""


class EventReader:
    """Feed bytes as they come, get the `data` payloads of the events they complete."""

    _size = 0  # of an event that is not whole
    _last = b""  # the last byte of it
    _after_cr = False
    _begun = False

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._rest = bytearray()  # that event; it grows in place

    def feed(self, data: bytes) -> list[bytes]:
        if _CR in data or self._after_cr:
            data = self._one_newline(data)
        if not self._begun and data:
            if self._size:
                data = self._take() + data
            if len(data) < 3 and b"\xef\xbb\xbf".startswith(data):
                self._keep(data)
                return []
            if data[0] == 0xEF:
                data = data.removeprefix(b"\xef\xbb\xbf")
            self._begun = True
        if self._size:
            # Only the new bytes (and the one before) can complete a blank line.
            if b"\n\n" not in data and not (self._last == b"\n" and data.startswith(b"\n")):
                self._keep(data)
                return []
            data = self._take() + data
        if data[:6] == b"data: " and data[-2:] == b"\n\n":  # cheaper than `startswith`
            payloads = data[6:-2].split(b"\n\ndata: ")
            if data.count(b"\n") == 2 * len(payloads):  # whole events of one such line each
                return payloads
        blocks = data.split(b"\n\n")
        if rest := blocks.pop():
            self._keep(rest)
        payloads = []
        for block in blocks:
            if block.startswith(b"data: ") and _LF not in block:
                payloads.append(block[6:])
            elif (payload := _payload(block)) is not None:
                payloads.append(payload)
        return payloads

    def close(self) -> list[bytes]:
        """The event whose closing blank line never came, if its last line is whole."""
        rest = self._take()
        payload = _payload(rest) if rest.endswith(b"\n") else None
        return [] if payload is None else [payload]

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        self._size += len(data)
        if self._size > self._max:
            raise EventTooLarge(f"an event of more than {self._max} bytes")
        self._rest += data
        self._last = data[-1:]

    def _take(self) -> bytes:
        rest = bytes(self._rest)
        self._rest.clear()
        self._size = 0
        return rest

    def _one_newline(self, data: bytes) -> bytes:
        """CRLF and CR become LF, also when CR and LF come in different pieces."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
            if not data:
                return data
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _payload(block: bytes) -> bytes | None:
    """The joined `data` lines of one event, or None when it has none."""
    lines = []
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            value = line[5:]
            lines.append(value[1:] if value.startswith(b" ") else value)
        elif line == b"data":
            lines.append(b"")
    return b"\n".join(lines) if lines else None


def encode(data: bytes, event: bytes = b"") -> bytes:
    """Return one event; `data` must be free of newlines, as JSON from `jsontext.encode` is."""
    if event:
        return b"event: " + event + b"\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"
