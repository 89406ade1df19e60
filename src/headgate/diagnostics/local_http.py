"""Small requests of the doctor, with bounds on time and size."""

from collections.abc import Mapping

from headgate.net.client import Client
from headgate.net.client_errors import Timeouts

QUICK = Timeouts(connect_s=3.0, first_token_s=5.0, stall_s=5.0, total_s=8.0)
_PAGE_BYTES = 4 << 20


async def get(
    client: Client, url: str, timeouts: Timeouts, more: Mapping[str, str] = {}
) -> tuple[int, dict[str, str], bytes]:
    response = await client.send("GET", url, {"user-agent": "headgate", **more}, b"", timeouts)
    return response.status, response.headers, await response.read_all(_PAGE_BYTES)
