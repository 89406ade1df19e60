"""To control: every path that is not the API goes over a unix socket to the process with the pages.

The only place that says which headers pass, in both directions.  Note: a path reaches
control as it was sent; control learns the client's address and the host it named from headers that
only we can set, as its socket takes nobody else.  While control starts, or comes back, a request
waits for it for some seconds.
"""

import asyncio
import re

from headgate.errors import Failure, Refused
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut, Timeouts
from headgate.net.dial import NotSent
from headgate.net.inbound import BodyOwner, Inbound

WAIT_S = 5.0  # for a control that is not there yet
RETRY_S = 0.05
MAX_BODY = 256 << 10
_PASSED = (
    "accept",
    "accept-language",
    "authorization",
    "content-type",
    "cookie",
    "if-none-match",
    "origin",
    "sec-fetch-site",
    "hx-request",
    "hx-target",
    "x-csrf-token",
    "x-api-key",
)
_RETURNED = (
    "allow",
    "cache-control",
    "content-disposition",
    "content-language",
    "content-security-policy",
    "content-type",
    "etag",
    "hx-redirect",
    "hx-refresh",
    "hx-trigger",
    "link",
    "location",
    "referrer-policy",
    "retry-after",
    "set-cookie",
    "vary",
    "www-authenticate",
    "x-content-type-options",
    "x-request-id",
)
_TIMEOUTS = Timeouts(connect_s=5, first_token_s=200, stall_s=60, total_s=600)
_PATH = re.compile(r"/[\x21-\x7e]*")


class ControlProxy:
    def __init__(self, socket: str, listener: str = "") -> None:
        """`listener`: `public` where the console has a listener of its own, and is not to be had here."""
        self._listener = listener
        # Shorter than what control keeps a connection for, so that none is taken up as it closes.
        self._client = Client(unix=socket, proxies={}, idle_s=10.0)

    async def close(self) -> None:
        await self._client.close()

    async def __call__(self, inbound: Inbound, body_owner: BodyOwner | None = None) -> None:
        """Pass a request on; Refused when control cannot be reached, or breaks before it answers."""
        body = await inbound.body(MAX_BODY, body_owner)
        headers = {n: v for n in _PASSED if (v := inbound.headers.get(n))}
        headers["x-headgate-peer"] = inbound.client
        if self._listener:
            headers["x-headgate-listener"] = self._listener
        headers["x-headgate-host"] = inbound.headers.get("host", "")
        if not _PATH.fullmatch(inbound.path):
            raise Refused(Failure("invalid", "The path has characters it must not have."))
        method = "GET" if inbound.method == "HEAD" else inbound.method
        url = f"http://control{inbound.path}" + (f"?{inbound.query}" if inbound.query else "")
        until = asyncio.get_running_loop().time() + WAIT_S
        while True:
            try:
                response = await self._client.send(method, url, headers, body, _TIMEOUTS)
                break
            except NotSent:
                if asyncio.get_running_loop().time() > until:
                    raise Refused(_away()) from None
                await asyncio.sleep(RETRY_S)
            except (Broken, TimedOut):
                raise Refused(_away()) from None
            except ValueError:
                raise Refused(
                    Failure("invalid", "The request has characters it must not have.")
                ) from None
        answer = [(n, v) for n in _RETURNED if (v := response.headers.get(n)) is not None]
        length = response.headers.get("content-length", "")
        try:
            if length.isdecimal() and int(length) <= MAX_BODY:  # the usual page, in one piece
                inbound.respond(response.status, answer, await response.read_all(MAX_BODY))
                return
            inbound.start(response.status, answer)
            if inbound.method == "HEAD":  # what follows is the body that nobody is to see
                inbound.end()
                return
            while data := await response.read():
                inbound.write(data)
                await inbound.drain()
            inbound.end()
        except (Broken, TimedOut):
            if not inbound.started:
                raise Refused(_away()) from None
            inbound.abort()  # half a page must not look whole
        finally:
            response.abort()


def _away() -> Failure:
    return Failure(
        "unavailable",
        "The pages and the console are starting or stopped; the API goes on without them.",
        code="control_unavailable",
        retry_after_s=2,
    )
