"""The models that are kept in the database, joined with those of the file and those that are shipped.

They come from the console, the admin API and `headgate models add`.  A model in headgate.toml hides a
stored one of the same name, and a stored one never replaces a shipped one.  Note: a stored model that
does not fit the file any more, as when its upstream was taken out, is left out and reported; it must
not keep the gateway from starting.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from headgate import config
from headgate.catalog.catalog import Catalog, load
from headgate.catalog.detection import Detected
from headgate.catalog.models import models
from headgate.config import ConfigError, Settings


class Joined(Struct, frozen=True):
    """The settings and the catalog with the stored models, and what is wrong with those left out."""

    settings: Settings
    catalog: Catalog
    faults: dict[str, str]  # by model


def joined(
    settings: Settings,
    env: Mapping[str, str],
    stored: Mapping[str, str],
    detected: Mapping[str, Detected] = {},
) -> Joined:
    """Return everything together; ConfigError only for what the file itself has wrong.

    `stored` has the fields of each model as JSON, by its id, and `detected` what upstreams are.
    """
    faults: dict[str, str] = {}
    found: dict[str, config.Model] = {}
    for id, text in stored.items():
        try:
            model = decoded(id, text)
            if id in settings.models:
                raise ConfigError(f"`models.{id}` is in headgate.toml too, which counts.")
            found[id] = model
        except ConfigError as error:
            faults[id] = str(error)
    try:
        return _with(settings, env, found, faults, detected)
    except ConfigError:
        base = load(settings, env, detected)  # whatever is wrong with the file is reported as ever
    good: dict[str, config.Model] = {}
    for id, model in found.items():
        try:
            load(_settings(settings, {**good, id: model}), env)
            good[id] = model
        except ConfigError as error:
            faults[id] = str(error)
    return _with(settings, env, good, faults, detected) if good else Joined(settings, base, faults)


def _settings(settings: Settings, found: Mapping[str, config.Model]) -> Settings:
    return msgspec.structs.replace(settings, models={**settings.models, **found})


def _with(
    settings: Settings,
    env: Mapping[str, str],
    found: Mapping[str, config.Model],
    faults: dict[str, str],
    detected: Mapping[str, Detected],
) -> Joined:
    together = _settings(settings, found) if found else settings
    return Joined(together, load(together, env, detected), faults)


def decoded(id: str, text: str | bytes) -> config.Model:
    """Return a stored model; ConfigError names the field that is wrong."""
    config.check_model_name(id)
    if id in models():
        raise ConfigError(f"`models.{id}` is a shipped model; change it in headgate.toml.")
    try:
        return msgspec.json.decode(text, type=config.Model)
    except msgspec.MsgspecError as error:
        what, _, at = str(error).partition(" - at ")
        place = at.strip("`").removeprefix("$")
        raise ConfigError(f"`models.{id}{place}`: {what}.") from None


def encoded(model: config.Model) -> str:
    """Return what is stored of a model: the fields that differ from the defaults."""
    usual = msgspec.to_builtins(config.Model())
    fields = msgspec.to_builtins(model)
    return msgspec.json.encode({k: v for k, v in fields.items() if v != usual[k]}).decode()
