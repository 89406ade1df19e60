"""Settings from the file and the environment: the only place that reads them."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import structs

from headgate.config import OWN, VARIABLES, ConfigError, Oidc, Search, Settings, Upstream
from headgate.config.checks import (
    check_key,
    check_networks,
    check_origins,
    check_url,
    on_this_machine,
)
from headgate.config.explain import explained, leaves

_LISTS = (
    ("trusted_proxies",),
    ("cors", "origins"),
)  # a variable has their values with commas between


# Keys in the environment that make an upstream: (name of it, preset, variable), in this order.
_KEYS = (
    ("minimax", "minimax", "MINIMAX_API_KEY"),
    ("runapi", "runapi", "RUNAPI_TOKEN"),
    ("openrouter", "openrouter", "OPENROUTER_API_KEY"),
)


def load(path: str | None, env: Mapping[str, str], **overrides: object) -> Settings:
    """The settings of this run; ConfigError says what is wrong and where.

    `path` None reads HEADGATE_CONFIG, then nothing.  `overrides` are fields of Settings from the
    command line.
    """
    path = path or env.get("HEADGATE_CONFIG") or None
    tree = _read(path) if path else {}
    for name in OWN:
        if name in tree:
            raise ConfigError(f"{path}: unknown key `{name}`.")
    origins = {key: "file" for key in leaves(tree)}
    for place, variable in VARIABLES.items():
        if value := env.get(variable, ""):
            _set(tree, place, _listed(value) if place in _LISTS else value)
            origins[".".join(place)] = "env"
    for name, given in overrides.items():
        tree[name] = given
        origins[name] = "option"
    try:
        settings = msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(explained(str(error), tree, path or "", origins)) from None
    check_networks("trusted_proxies", settings.trusted_proxies)
    notes: list[str] = []
    upstreams = dict(settings.upstreams) or _from_environment(env)
    upstreams = {name: _resolved(name, u, env, notes) for name, u in upstreams.items()}
    oidc = _provider(settings.oidc, env, notes)
    search = _search(settings.search, env, notes)
    check_origins(settings.cors.origins)
    database = _database(settings.database, env, notes, origins)
    cache = _cache(settings.cache, env, notes, origins)
    if not settings.tls.cert and settings.host not in ("127.0.0.1", "::1", "localhost"):
        notes.append(
            f"listening on {settings.host}: put TLS in front or set `[tls]`; keys travel in clear otherwise."
        )
    if settings.tls.cert and not settings.public_url:
        notes.append(
            "set `public_url` to https and the name in the certificate: pages and `headgate connect` show"
            " this machine's address otherwise, which the certificate may not name."
        )
    data = settings.data or env.get("XDG_DATA_HOME", "") or str(Path.home() / ".local" / "share")
    if not settings.data:
        data = str(Path(data) / "headgate")
    return structs.replace(
        settings,
        data=str(_path("data", data)),
        database=database,
        cache=cache,
        pepper_file=str(_path("pepper_file", settings.pepper_file)) if settings.pepper_file else "",
        upstreams=upstreams,
        oidc=oidc,
        search=search,
        notes=tuple(notes),
        origins=origins,
    )


def _read(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}.") from None


def _set(tree: dict[str, Any], place: tuple[str, ...], value: str | list[str]) -> None:
    *tables, name = place
    for table in tables:
        tree = tree.setdefault(table, {})
        if not isinstance(tree, dict):
            return  # the file has no table there, which is what will be complained of
    tree[name] = value


def _listed(text: str) -> list[str]:
    return [part for item in text.split(",") if (part := item.strip())]


def _path(where: str, text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # `~name/` of nobody here
        raise ConfigError(f"`{where}` names the home of a user who is not here.") from None


def _from_environment(env: Mapping[str, str]) -> dict[str, Upstream]:
    out: dict[str, Upstream] = {}
    if url := env.get("HEADGATE_UPSTREAM_URL"):
        preset = env.get("HEADGATE_UPSTREAM_PRESET") or "custom"
        stated = env.get("HEADGATE_UPSTREAM_DIALECT") or ("openai" if preset == "custom" else "")
        fields = {
            "preset": preset,
            "base_url": url,
            "key": "env:HEADGATE_UPSTREAM_KEY" if env.get("HEADGATE_UPSTREAM_KEY") else "",
            "dialect": stated,
            "allow_http": True,
        }
        try:
            out["custom"] = msgspec.convert(fields, Upstream)
        except msgspec.ValidationError:
            raise ConfigError(
                f"HEADGATE_UPSTREAM_DIALECT is `{stated[:40]}`; use openai, anthropic or gemini."
            ) from None
    for name, preset, variable in _KEYS:
        if env.get(variable):
            out[name] = Upstream(preset=preset, key=f"env:{variable}")
    return out or {"local": Upstream(preset="local")}


def _resolved(name: str, upstream: Upstream, env: Mapping[str, str], notes: list[str]) -> Upstream:
    """The upstream with its key read and its address checked."""
    where = f"upstreams.{name}"
    if upstream.base_url:
        check_url(f"{where}.base_url", upstream.base_url, upstream.allow_http)
    key = _secret(f"{where}.key", upstream.key, env, notes)
    check_key(f"`{where}.key`", key)
    keys = []
    for n, text in enumerate(upstream.keys):
        if not text:
            raise ConfigError(
                f"`{where}.keys[{n}]` is empty: name a key, `env:NAME` or `file:/path`."
            )
        each = _secret(f"{where}.keys[{n}]", text, env, notes)
        check_key(f"`{where}.keys[{n}]`", each)
        if each == key or each in keys:
            raise ConfigError(f"`{where}.keys[{n}]` is a key that the pool has already.")
        keys.append(each)
    return structs.replace(upstream, key=key, keys=tuple(keys))


def _database(
    text: str, env: Mapping[str, str], notes: list[str], origins: Mapping[str, str]
) -> str:
    """Return the address of the ledger of all nodes; it may have a password, and is never shown."""
    url = _secret("database", text, env, notes if origins.get("database") == "file" else [])
    if url and not re.match(r"postgres(ql)?://.", url):
        raise ConfigError("`database` is an address like postgresql://USER:PASSWORD@HOST/NAME.")
    return url


def _cache(text: str, env: Mapping[str, str], notes: list[str], origins: Mapping[str, str]) -> str:
    """Return the address of the cache of all nodes; it may have a password, and is never shown."""
    url = _secret("cache", text, env, notes if origins.get("cache") == "file" else [])
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("redis", "rediss", "valkey", "valkeys") and bool(parts.hostname)
        number = re.fullmatch(r"/?([0-9]{1,5})?", parts.path) is not None
        good = known and number and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(
            "`cache` is an address like redis://USER:PASSWORD@HOST:6379/0; rediss:// is with TLS."
        )
    return url


def _secret(where: str, text: str, env: Mapping[str, str], notes: list[str]) -> str:
    """What `env:NAME` or `file:/path` names; any other text is the secret itself."""
    kind, colon, rest = text.partition(":")
    secret = text
    if colon and kind == "env":
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", rest):  # it may be the secret: not shown
            raise ConfigError(f"`{where}`: after `env:` comes the name of a variable.")
        secret = env.get(rest, "")
        if not secret:
            raise ConfigError(f"`{where}` names the variable {rest}, which is not set.")
    elif colon and kind == "file":
        try:
            secret = _path(where, rest).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            stated = getattr(error, "strerror", None) or "not text"
            raise ConfigError(f"`{where}` names the file {rest}: {stated}.") from None
        if not secret:
            raise ConfigError(f"`{where}` names the file {rest}, which is empty.")
    elif secret:
        notes.append(
            f"`{where}` stands in the file itself; `env:NAME` or `file:/path` keeps it out."
        )
    return secret


def _provider(oidc: Oidc, env: Mapping[str, str], notes: list[str]) -> Oidc:
    """The identity provider with its secret read and its address checked."""
    if not oidc.issuer:
        if oidc.client_id or oidc.client_secret:
            raise ConfigError("`oidc.issuer` is missing: the provider's address, https://...")
        return oidc
    if oidc.issuer.lower().startswith("http://") and not on_this_machine(oidc.issuer):
        # OpenID Connect Core 1.0, 3.1.3.7: TLS is what vouches for the ID token here.
        raise ConfigError("`oidc.issuer` is plain http to another machine. Use https.")
    check_url("oidc.issuer", oidc.issuer, False)
    if not oidc.client_id:
        raise ConfigError("`oidc.client_id` is missing: what the provider calls this gateway.")
    if "openid" not in oidc.scopes.split():
        raise ConfigError("`oidc.scopes` must have `openid` among them.")
    secret = _secret("oidc.client_secret", oidc.client_secret, env, notes)
    return structs.replace(oidc, client_secret=secret)


def _search(search: Search, env: Mapping[str, str], notes: list[str]) -> Search:
    """The search provider with its key read and its address checked."""
    if not search.provider:
        if search.url or search.key:
            raise ConfigError(
                "`search.provider` is missing: one of searxng, minimax, brave, tavily."
            )
        return search
    if search.url:
        check_url("search.url", search.url, True)
    elif search.provider == "searxng":
        raise ConfigError("`search.url` is missing: the address of your SearXNG, https://...")
    key = _secret("search.key", search.key, env, notes)
    check_key("`search.key`", key)
    if not key and search.provider != "searxng":
        raise ConfigError(f"`search.key` is missing: {search.provider} answers nobody without one.")
    return structs.replace(search, key=key)
