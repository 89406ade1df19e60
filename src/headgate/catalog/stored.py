"""The upstreams and models kept in the database, joined with those of the file and those that are shipped.

They come from the console, the admin API and `headgate models add`.  A table in headgate.toml hides a
stored one of the same name, and a stored model never replaces a shipped one.  The first stored upstream
takes the place of the embedded model that stands in where none is configured.  Note: what does not fit
the file any more, as a model whose upstream was taken out, is left out and reported; it must not keep
the gateway from starting.
"""

from collections.abc import Mapping
from typing import Protocol, TypeVar

import msgspec
from msgspec import Struct

from headgate import config
from headgate.catalog import sealed_keys
from headgate.catalog.building import load
from headgate.catalog.catalog import Catalog
from headgate.catalog.detection import Detected
from headgate.catalog.models import models
from headgate.config import ConfigError, Settings, addresses, checks

S = TypeVar("S", config.Model, config.Upstream)


class Stored(Struct, frozen=True):
    """What the database has: the fields of each as JSON, by name; keys of upstreams are sealed."""

    models: dict[str, str] = {}
    upstreams: dict[str, str] = {}
    secret: bytes = b""  # opens the keys

    def __repr__(self) -> str:
        return f"Stored({tuple(self.upstreams)}, {tuple(self.models)})"


class StoredSource(Protocol):
    """The part of the store that has them."""

    def own_models(self) -> dict[str, str]: ...

    def own_upstreams(self) -> dict[str, str]: ...

    def derived(self, purpose: str) -> bytes: ...


class Joined(Struct, frozen=True):
    """The settings and the catalog with what is stored, and what is wrong with what is left out."""

    settings: Settings
    catalog: Catalog
    faults: dict[str, str]  # by model
    upstream_faults: dict[str, str] = {}  # by upstream


class _Found(Struct, frozen=True):
    """What is stored and can be read."""

    upstreams: dict[str, config.Upstream] = {}
    models: dict[str, config.Model] = {}

    def into(self, settings: Settings) -> Settings:
        own = {} if self.upstreams and addresses.stands_in(settings) else settings.upstreams
        return msgspec.structs.replace(
            settings,
            upstreams={**own, **self.upstreams},
            models={**settings.models, **self.models},
        )


def read(source: StoredSource) -> Stored:
    """Return what the database has now."""
    return Stored(source.own_models(), source.own_upstreams(), source.derived(sealed_keys.PURPOSE))


def joined(
    settings: Settings,
    env: Mapping[str, str],
    stored: Stored,
    detected: Mapping[str, Detected] = {},
) -> Joined:
    """Return everything together; ConfigError only for what the file itself has wrong.

    `detected`: what upstreams answered that they are, by name.
    """
    faults: dict[str, str] = {}
    upstream_faults: dict[str, str] = {}
    found = _Found()
    for name, text in stored.upstreams.items():
        try:
            if name in settings.upstreams and not addresses.stands_in(settings):
                raise ConfigError(f"`upstreams.{name}` is in the settings too, which count.")
            found.upstreams[name] = opened_upstream(name, text, stored.secret)
        except ConfigError as error:
            upstream_faults[name] = str(error)
    for id, text in stored.models.items():
        try:
            model = decoded(id, text)
            if id in settings.models:
                raise ConfigError(f"`models.{id}` is in headgate.toml too, which counts.")
            found.models[id] = model
        except ConfigError as error:
            faults[id] = str(error)
    try:
        together = found.into(settings)
        return Joined(together, load(together, env, detected), faults, upstream_faults)
    except ConfigError:
        load(settings, env)  # whatever is wrong with the file is reported as ever
    good = _Found()
    for name, upstream in found.upstreams.items():
        _add(good.upstreams, name, upstream, upstream_faults, good, settings, env)
    for id, model in found.models.items():
        _add(good.models, id, model, faults, good, settings, env)
    together = good.into(settings)
    return Joined(together, load(together, env, detected), faults, upstream_faults)


def _add(
    to: dict[str, S],
    name: str,
    value: S,
    faults: dict[str, str],
    good: _Found,
    settings: Settings,
    env: Mapping[str, str],
) -> None:
    """Put one more into `good`, of which `to` is a part, or note what is wrong with it."""
    to[name] = value
    try:
        load(good.into(settings), env)
    except ConfigError as error:
        del to[name]
        faults[name] = str(error)


def decoded(id: str, text: str | bytes) -> config.Model:
    """Return a stored model; ConfigError names the field that is wrong."""
    checks.check_model_name(id)
    if id in models():
        raise ConfigError(f"`models.{id}` is a shipped model; change it in headgate.toml.")
    return _decoded(f"models.{id}", text, config.Model)


def decoded_upstream(name: str, text: str | bytes) -> config.Upstream:
    """Return an upstream with its key in clear, as it was entered; ConfigError names the field."""
    checks.check_upstream_name(name)
    upstream = _decoded(f"upstreams.{name}", text, config.Upstream)
    if upstream.preset == "local":
        raise ConfigError(f"`upstreams.{name}.preset`: the embedded model is no upstream to add.")
    checks.check_stored_upstream(name, upstream)
    return upstream


def _decoded(place: str, text: str | bytes, kind: type[S]) -> S:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        what, _, at = str(error).partition(" - at ")
        at = at.strip("`").removeprefix("$")
        raise ConfigError(f"`{place}{at}`: {what}.") from None


def encoded(model: config.Model) -> str:
    """Return what is stored of a model: the fields that differ from the defaults."""
    return _encoded(model, config.Model())


def encoded_upstream(name: str, upstream: config.Upstream, secret: bytes) -> str:
    """Return what is stored of an upstream: as `encoded`, with its key sealed."""
    if upstream.key:
        sealed = sealed_keys.seal(secret, name, upstream.key)
        upstream = msgspec.structs.replace(upstream, key=sealed)
    return _encoded(upstream, config.Upstream())


def _encoded(value: S, usual: S) -> str:
    usually = msgspec.to_builtins(usual)
    fields = msgspec.to_builtins(value)
    return msgspec.json.encode({k: v for k, v in fields.items() if v != usually[k]}).decode()


def opened_upstream(name: str, text: str, secret: bytes) -> config.Upstream:
    """Return a stored upstream with its key in clear."""
    sealed = _decoded(f"upstreams.{name}", text, config.Upstream)
    key = sealed_keys.opened(secret, name, sealed.key) if sealed.key else ""
    upstream = msgspec.structs.replace(sealed, key=key)
    checks.check_stored_upstream(name, upstream)
    return upstream
