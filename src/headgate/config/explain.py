"""What settings exist and what is in force: the schema, `config show`, and hints for misspelt names."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from headgate import near_names
from headgate.config import (
    OWN,
    RENAMED,
    VARIABLES,
    Admin,
    Cors,
    Fidelity,
    Model,
    Oidc,
    Overload,
    Preset,
    PublicPages,
    Responses,
    Retry,
    RouteTo,
    Search,
    Settings,
    Timeouts,
    Tls,
    Upstream,
)
from headgate.config.descriptions import descriptions


def schema() -> dict[str, Any]:  # Any: a JSON Schema
    """Return JSON Schema of headgate.toml, for editors."""
    out = msgspec.json.schema(Settings)
    for name in OWN:
        out["$defs"]["Settings"]["properties"].pop(name, None)
    for table, fields in descriptions().items():
        properties = out["$defs"].get(table, {}).get("properties", {})
        for name, words in fields.items():
            if name in properties:
                properties[name]["description"] = words
    return out


def unknown_variables(env: Mapping[str, str]) -> list[str]:
    """A note for each HEADGATE_ variable of the environment that means nothing to the gateway."""
    known = {*VARIABLES.values(), *_OTHER_VARIABLES}
    out = []
    for name in sorted(env):
        if name.startswith("HEADGATE_") and name not in known:
            near = near_names.nearest(name, known)
            hint = f" Did you mean {near[0]}?" if near else ""
            out.append(f"the variable {name} is not known and has no effect.{hint}")
    return out


# What is no setting: who serves what to whom, read by `load`, the CLI and the extras.
_OTHER_VARIABLES = (
    "HEADGATE_CONFIG",
    "HEADGATE_API_KEY",
    "HEADGATE_ADMIN_KEY",
    "HEADGATE_BASE_URL",
    "HEADGATE_UPSTREAM_URL",
    "HEADGATE_UPSTREAM_KEY",
    "HEADGATE_UPSTREAM_PRESET",
    "HEADGATE_UPSTREAM_DIALECT",
    "HEADGATE_COMPLETE",
)


def show(settings: Settings) -> list[tuple[str, str, str]]:
    """(key, value, origin) of everything that is in force; secrets are masked."""
    tree = msgspec.to_builtins(settings)
    rows = []
    for key, value in leaves({k: v for k, v in tree.items() if k not in OWN}).items():
        if key in ("oidc.client_secret", "search.key", "database", "cache") or (
            key.startswith("upstreams.") and key.endswith(".key")
        ):
            value = "********" if value else ""
        elif key.startswith("upstreams.") and key.endswith(".keys"):
            value = ", ".join("********" for _ in value)
        origin = settings.origins.get(key, "default")
        if key.startswith("upstreams.") and origin == "default":
            origin = "file" if "upstreams" in {o.split(".")[0] for o in settings.origins} else "env"
        rows.append((key, value if isinstance(value, str) else repr(value), origin))
    return rows


def changes(old: Settings, new: Settings) -> list[str]:
    """What differs between two configurations, a line for each key; secrets are masked."""
    before, after = [
        leaves({k: v for k, v in msgspec.to_builtins(s).items() if k not in OWN})
        for s in (old, new)
    ]
    shown = [{key: value for key, value, _ in show(s)} for s in (old, new)]
    out = []
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) == after.get(key):
            continue
        was, now = shown[0].get(key, "not set"), shown[1].get(key, "not set")
        out.append(f"{key}: another value" if was == now else f"{key}: {was} -> {now}")
    return out


def leaves(tree: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        here = f"{place}{key}"
        if isinstance(value, dict) and value:
            out |= leaves(value, f"{here}.")
        else:
            out[here] = value
    return out


def explained(message: str, tree: Mapping[str, Any], path: str, origins: Mapping[str, str]) -> str:
    """msgspec's words with the key's whole name, and the nearest known one for an unknown one."""
    text, _, at = message.partition(" - at ")
    at = at.strip("`").removeprefix("$").removeprefix(".")
    match origins.get(at):
        case "env":
            where = VARIABLES[tuple(at.split("."))]
        case "option":
            where = "the command line"
        case _:
            where = path
    at = _named(at, tree)
    if "unknown field" not in text:
        value = _found(tree, at)
        secret = "key" in at or "secret" in at
        shown = f" (got `{value}`)" if isinstance(value, str | int | float) and not secret else ""
        return f"{where}: `{at or 'the file'}`: {text}{shown}."
    name = text.rsplit("`", 2)[1]
    if new := RENAMED.get(name):
        return f"{where}: `{f'{at}.' if at else ''}{name}` is called `{new}` now."
    hint = near_names.hint(name, _known(at))
    return f"{where}: unknown key `{f'{at}.' if at else ''}{name}`.{hint}"


def _named(at: str, tree: Mapping[str, Any]) -> str:
    """The address with the name for which msgspec has only `[...]`: the first that does not fit."""
    table, dots, rest = at.partition("[...]")
    kinds: dict[str, Any] = {
        "upstreams": Upstream,
        "models": Model,
        "presets": Preset,
        "aliases": str,
    }
    if not dots or table not in kinds:
        return at
    for name, value in tree[table].items():
        try:
            msgspec.convert(value, kinds[table], strict=False)
        except msgspec.ValidationError:
            return f"{table}.{name}{rest}"
    return at


def _known(at: str) -> tuple[str, ...]:
    table = at.split(".")[0].split("[")[0]
    kinds: dict[str, type[Struct]] = {
        "timeouts": Timeouts,
        "retry": Retry,
        "fidelity": Fidelity,
        "overload": Overload,
        "tls": Tls,
        "admin": Admin,
        "cors": Cors,
        "pages": PublicPages,
        "oidc": Oidc,
        "search": Search,
        "responses": Responses,
        "upstreams": Upstream,
        "presets": Preset,
    }
    if table == "models":
        kind: type[Struct] = RouteTo if at.endswith("]") else Model
    else:
        kind = kinds.get(table, Settings)
    return tuple(f for f in kind.__struct_fields__ if f not in OWN)


def _found(tree: Any, at: str) -> object:
    for name in at.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
