"""What an HTTP request must look like before anybody reads it: rules, no I/O.

Follows RFC 9112 (HTTP/1.1, 2022) where peers disagree and disagreement lets one request be read as
two (request smuggling): here the strict reading is the only one, and the connection closes.  The
parser, llhttp, refuses much of this itself; the rules stand here so that they hold whatever it
does in its next release.
"""

import re
from collections.abc import Sequence

from headgate.errors import Failure

# All names, and all values, of one request at once, each on a line: a regex per header costs more.
_NAMES = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:\n[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_VALUES = re.compile(rb"[\t\n\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(rb"/[!$-~]*")  # visible ASCII but `"` and `#`
# A name, an address, or an address in brackets, and a port: nothing that can change a path or a URL.
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_ONCE = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization", b"expect")
)
# RFC 9112, 3, recommends to support "request-line lengths of 8000 octets"; nginx and Apache take as much.
MAX_TARGET_BYTES = 8192
MAX_QUERY_FIELDS = 256  # each costs some microseconds wherever the query is read
METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))


def check(
    method: bytes,
    target: bytes,
    version: str,
    headers: Sequence[tuple[bytes, bytes]],
    hosts: frozenset[bytes] = frozenset(),
) -> Failure | None:
    """None, or why this request is refused and its connection closed; header names in lower case."""
    if method not in METHODS:
        return Failure("method", "This method is not known here.")
    if version not in ("1.1", "1.0"):
        # llhttp reads `POST /x` as HTTP/0.9, which has no headers and so no framing.
        return _bad("Of HTTP, only versions 1.0 and 1.1 are taken here.")
    seen: dict[bytes, bytes] = {}
    if headers:
        names, values = b"\n".join([n for n, _ in headers]), b"\n".join([v for _, v in headers])
        lines = len(headers) - 1
        if names.count(b"\n") != lines or not _NAMES.fullmatch(names):
            return _bad("A header name has characters that no header name may have.")
        if values.count(b"\n") != lines or not _VALUES.fullmatch(values):
            return _bad("A header has control characters.")
    for name, value in headers:
        if name in seen and name in _ONCE:
            return _bad(f"The header `{name.decode()}` is given twice.")
        seen[name] = value
    host = seen.get(b"host")
    if target.startswith((b"http://", b"https://")):
        # "a server MUST accept the absolute-form" (RFC 9112, 3.2.2); another host's is not ours.
        authority, slash, rest = target.partition(b"://")[2].partition(b"/")
        if authority != host:
            return _bad("The request names two different hosts.")
        target = slash + rest
    if len(target) > MAX_TARGET_BYTES:
        return Failure(
            "too_large",
            f"The request target is longer than {MAX_TARGET_BYTES} bytes.",
            code="header_too_large",
        )
    if target.count(b"&") >= MAX_QUERY_FIELDS:
        return _bad(f"The query has more than {MAX_QUERY_FIELDS} fields.")
    if not _TARGET.fullmatch(target):
        return _bad("The request target has characters that no address may have.")
    # "A server MUST respond with a 400 to any HTTP/1.1 request that lacks a Host" (RFC 9112, 3.2).
    if host is None and version == "1.1":
        return _bad("The header `host` is missing.")
    if host is not None:
        if not _HOST.fullmatch(host):
            return _bad("The header `host` is not a host.")
        if hosts and host.rpartition(b":")[0] not in hosts and host not in hosts:
            return Failure("forbidden", "This gateway does not answer for that host.")
    length, coding = seen.get(b"content-length"), seen.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            return _bad("Both content-length and transfer-encoding are given.")
        if version != "1.1":
            return _bad("HTTP/1.0 has no transfer-encoding.")
        if coding.lower() != b"chunked":
            return _bad("The only transfer-encoding taken is `chunked`.")
    if length is not None and not (length.isdigit() and len(length) <= 15):
        return _bad("The header `content-length` is not a number.")
    expect = seen.get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        return Failure(
            "invalid", "The only expectation taken is `100-continue`.", code="expectation_failed"
        )
    return None


def _bad(message: str) -> Failure:
    return Failure("invalid", message, code="bad_http")


def header_block(headers: Sequence[tuple[str, str]]) -> bytes:
    """Return header lines of a response; ValueError when one would break out of its line."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers])
    lines = len(headers)
    if text.count("\n") != lines or text.count("\r") != lines or "\0" in text:
        raise ValueError("a response header has control characters")
    return text.encode("latin-1")
