"""What each setting means: settings.toml, the only place for it."""

import functools
import tomllib
from importlib.resources import files


@functools.cache
def descriptions() -> dict[str, dict[str, str]]:
    """What each setting means, by its struct and its name: settings.toml, the only place for it."""
    text = files("headgate").joinpath("settings.toml").read_text("utf-8")
    found: dict[str, dict[str, str]] = tomllib.loads(text)
    return found


def description(key: str) -> str:
    """What the setting means, by its whole name: `timeouts.stall`, `upstreams.minimax.rpm`."""
    names = key.split(".")
    structs_of = {**TABLES, **NAMED_TABLES}
    if len(names) == 1 or names[0] not in structs_of:
        return descriptions()["Settings"].get(names[0], "")
    return descriptions()[structs_of[names[0]]].get(names[-1], "")


TABLES = {
    "timeouts": "Timeouts",
    "retry": "Retry",
    "fidelity": "Fidelity",
    "retention": "Retention",
    "overload": "Overload",
    "tls": "Tls",
    "admin": "Admin",
    "cors": "Cors",
    "pages": "PublicPages",
    "oidc": "Oidc",
    "search": "Search",
    "responses": "Responses",
}
NAMED_TABLES = {"upstreams": "Upstream", "models": "Model", "presets": "Preset"}
