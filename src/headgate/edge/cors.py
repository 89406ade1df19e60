"""Which web pages may call the API from a browser: CORS, as the Fetch standard has it.

https://fetch.spec.whatwg.org/#http-cors-protocol (read 2026-11-30).  No I/O.  The API knows its callers
by a key in a header and by no cookie, so `Access-Control-Allow-Credentials` is never sent, neither with
`*` nor with a list, and a browser sends no cookies along.  The console and the admin API are never
allowed to other pages.
"""

import re
from collections.abc import Mapping

from headgate.errors import Failure
from headgate.net import guard

MAX_AGE_S = 7200  # how long a browser remembers a preflight; Chromium takes no more
METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
MAX_ASKED_BYTES = 4096  # of the names of headers; the SDKs send some 20 names, 400 bytes
_NAMES = re.compile(r"[ \t]*(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*(?:,[ \t]*|$))*")


class Cors:
    """`origins`: of the setting `cors.origins`, which config/ has checked."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._every = "*" in origins
        self._exact = frozenset(o.lower() for o in origins if "*" not in o)
        found = [o.lower().partition("*") for o in origins if "*." in o]
        self._below = tuple((scheme, rest) for scheme, _, rest in found)

    def allows(self, origin: str) -> bool:
        """Whether a page of this origin may call the API."""
        if self._every:
            return True
        origin = origin.lower()
        if origin in self._exact:
            return True
        return any(
            origin.startswith(scheme) and origin.endswith(rest) and _is_name(origin, scheme, rest)
            for scheme, rest in self._below
        )

    def headers(self, origin: str) -> bytes:
        """Return the header lines of every answer to a page of this origin; none when it may not call."""
        return guard.header_block(self.lines(origin))

    def lines(self, origin: str) -> list[tuple[str, str]]:
        """Return what `headers` has as names and values."""
        if not self.allows(origin):
            return []
        return [*self._origin(origin), ("access-control-expose-headers", "*")]

    def preflight(self, headers: Mapping[str, str]) -> list[tuple[str, str]] | Failure:
        """Return the headers of the answer to a preflight, or why the page may not call."""
        origin = headers.get("origin", "")
        if not self.allows(origin):
            return Failure(
                "forbidden",
                "Web pages of this origin may not call this gateway. Its operator allows them with"
                " the setting `cors.origins`.",
                code="origin_not_allowed",
                should_retry=False,
            )
        asked = headers.get("access-control-request-headers", "")
        if len(asked) > MAX_ASKED_BYTES or not _NAMES.fullmatch(asked):
            return Failure(
                "invalid", "`access-control-request-headers` is not a list of header names."
            )
        out = [
            *self._origin(origin),
            ("access-control-allow-methods", METHODS),
            ("access-control-max-age", str(MAX_AGE_S)),
        ]
        if asked:
            # "*" would not allow `authorization`, and SDKs add headers of their own with each release.
            out.append(("access-control-allow-headers", asked))
        if headers.get("access-control-request-private-network") == "true":
            out.append(("access-control-allow-private-network", "true"))
        return out

    def _origin(self, origin: str) -> list[tuple[str, str]]:
        if self._every:
            return [("access-control-allow-origin", "*")]
        return [("access-control-allow-origin", origin), ("vary", "origin")]


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser asks if a page may send a request that it is about to send."""
    return (
        method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers
    )


def _is_name(origin: str, scheme: str, rest: str) -> bool:
    """Whether what stands for the `*` is one or more labels of a host's name."""
    middle = origin[len(scheme) : len(origin) - len(rest)]
    return bool(middle) and re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", middle) is not None
