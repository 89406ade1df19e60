"""Where the gateway of a data directory listens, whatever `serve --port` was given.

The only place of the commands that asks its supervisor for that, over the socket in the data directory.
"""

import contextlib
from typing import Any

import msgspec

from headgate.config import Settings
from headgate.supervisor.commands import NotServed, ask


def reported_by(data: str) -> dict[str, Any]:
    """Return what the supervisor says of its processes and addresses; nothing where none answers.  Any: JSON."""
    with contextlib.suppress(NotServed):
        return ask(data, "processes")
    return {}


def as_served(settings: Settings, reported: dict[str, Any] | None = None) -> Settings:
    """Return the settings with the API's host and port of the gateway that runs, if one does."""
    reported = reported_by(settings.data) if reported is None else reported
    for each in reported.get("addresses", ()):
        name, _, address = str(each).partition(" ")
        host, _, port = address.rpartition(":")
        if name == "api" and port.isdecimal():
            return msgspec.structs.replace(settings, host=host, port=int(port))
    return settings
