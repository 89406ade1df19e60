"""How many files this process may open, and how many connections that allows.

Note: a connection may need a second descriptor, for its request's own connection to an upstream or to
control.  So at most half of the descriptors are for clients, and accepting or dialling never fails
for want of one.
"""

import sys

OWN = 128  # databases, logs, pipes, listeners, look-ups of names, the reserve for health checks
MAX_CONNECTIONS = 10_000  # whatever the system allows: each takes some kilobytes
MIN_CONNECTIONS = 16
_UNLIMITED = 1 << 20  # Linux refuses more by default (fs.nr_open)
_OTHERWISE = 8192  # where the system has no such limit, as on Windows


def raise_limit() -> int:
    """Raise the limit of open files as far as this user may; returns what it is then."""
    if sys.platform == "win32":
        return _OTHERWISE
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _UNLIMITED if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    for most in (wanted, 65536, 10240):  # macOS takes no more than the last, whatever `hard` says
        if most <= soft or most > wanted:
            continue
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError):
            continue
        return most
    return soft


def most_connections(descriptors: int) -> int:
    """How many clients' connections may be open with this limit of open files."""
    return max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, (descriptors - OWN) // 2))
