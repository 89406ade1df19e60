"""What is left of a plan, asked of the vendor's quota address: it costs no tokens.

The address is `quota` of the preset, beside the origin of the upstream's base URL.  MiniMax does not document it,
so whatever it answers is a finding and never an error.
"""

from urllib.parse import urlsplit

from headgate.catalog.routes import Route
from headgate.edge import upstream as upstreams
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut, Timeouts
from headgate.net.dial import NotSent
from headgate.policy import plans
from headgate.policy.plans import PlanWindow

TIMEOUTS = Timeouts(connect_s=5.0, first_token_s=10.0, stall_s=10.0, total_s=15.0)
_PAGE_BYTES = 256 << 10  # of a quota answer, which has about 1 kB


async def ask(
    client: Client, route: Route, path: str, now_s: float
) -> tuple[tuple[PlanWindow, ...], str]:
    """Return the windows of the route's key, or why they are not known; never raises."""
    parts = urlsplit(route.upstream.base_url)
    url = f"{parts.scheme}://{parts.netloc}{path}"
    headers = {
        "accept": "application/json",
        "user-agent": "headgate",
        "authorization": f"Bearer {route.key.secret}",
    }
    try:
        response = await client.send("GET", url, headers, b"", TIMEOUTS)
        page = await response.read_all(_PAGE_BYTES)
    except (NotSent, Broken, TimedOut) as error:
        return (), upstreams.failure_of(error).upstream_code or "no answer"
    if response.status != 200:
        return (), f"status {response.status}"
    try:
        return plans.from_quota(page, now_s), ""
    except ValueError as error:
        return (), str(error)
