"""This machine's clock is compared with that of a server."""

import email.utils
import time
from urllib.parse import urlsplit

from headgate.diagnostics.findings import Finding
from headgate.diagnostics.local_http import QUICK, get
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut
from headgate.net.dial import NotSent

SKEW_S = (5.0, 60.0)  # the second: sign-ins, budgets' days and TLS begin to go wrong


async def clock_findings(client: Client, host: str) -> Finding:
    """Compare with the host's Date, which has whole seconds; no key is sent."""
    name = urlsplit(host).netloc
    began = time.time()
    try:
        _, headers, _ = await get(client, host + "/", QUICK)
    except (NotSent, Broken, TimedOut) as error:
        why = f" ({error})" if isinstance(error, NotSent) else ""
        return Finding(
            "clock",
            "fail",
            f"{name} could not be reached{why}",
            "Check DNS, the firewall, HTTPS_PROXY and the machine's certificates.",
        )
    return judge_clock(name, headers.get("date", ""), (began + time.time()) / 2)


def judge_clock(host: str, date: str, now_s: float) -> Finding:
    """Compare our clock with the Date header of a host."""
    try:
        theirs = email.utils.parsedate_to_datetime(date).timestamp() + 0.5
    except ValueError:
        return Finding("clock", "warn", f"{host} tells no time")
    skew = now_s - theirs
    stated = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {host}"
    if abs(skew) > SKEW_S[0]:
        do = "Set the clock and keep it right: timedatectl set-ntp true (or chrony)."
        return Finding("clock", "fail" if abs(skew) > SKEW_S[1] else "warn", stated, do)
    return Finding("clock", "ok", f"as {host} has it")
