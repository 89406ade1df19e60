"""The cheap check of an upstream: whether it answers at all, asked without a token.

It asks for the upstream's list of models and looks at the status only. Any answer shows that the
upstream is there, also a 404; a 401 shows that it refuses the key, and a 5xx that it is not well.
"""

import contextlib
import time

from headgate.catalog.routes import Route
from headgate.dialects.registry import FACTS
from headgate.edge import upstream as upstreams
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut, Timeouts
from headgate.net.dial import NotSent
from headgate.policy.upstream_state import UpstreamCheck

TIMEOUTS = Timeouts(connect_s=5.0, first_token_s=10.0, stall_s=10.0, total_s=15.0)
_PAGE_BYTES = 1 << 20  # of a list of models; what is longer is not read


async def check(client: Client, route: Route) -> UpstreamCheck:
    """Ask the upstream of this route for its models; never raises."""
    own = route.upstream
    url = own.base_url.rstrip("/") + FACTS[own.dialect].models_path
    reason = ""
    try:
        response = await client.send("GET", url, upstreams.headers(route), b"", TIMEOUTS)
        if response.status == 401 and route.key.secret:  # else only owners' keys are sent there
            reason = "key refused"
        elif response.status >= 500:
            reason = f"status {response.status}"
        with contextlib.suppress(Broken, TimedOut):  # its head was enough
            await response.read_all(_PAGE_BYTES)
    except NotSent:
        reason = "not reachable"
    except TimedOut:
        reason = "no answer in time"
    except Broken:
        reason = "connection broken"
    return UpstreamCheck(time.monotonic(), not reason, reason)
