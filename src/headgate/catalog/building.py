"""Routes from the operator's settings and the shipped data."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from headgate import config, near_names
from headgate.catalog import operators
from headgate.catalog.catalog import Catalog
from headgate.catalog.detection import Detected
from headgate.catalog.models import DialectName, Model, Retirement, models
from headgate.catalog.presets import default_aliases, presets
from headgate.catalog.routes import Preset, Route, Upstream, UpstreamKey
from headgate.config import ConfigError, Settings, checks
from headgate.dialects import provider
from headgate.dialects.capabilities import Capabilities


def load(
    settings: Settings, env: Mapping[str, str], detected: Mapping[str, Detected] = {}
) -> Catalog:
    """Return the catalog as configured; ConfigError when the settings do not fit it.

    `env` is asked for the key that a preset names, where the settings have none.  `detected` has the
    upstreams that answered what they are, by name.
    """
    known = operators.joined(settings)
    accounts: dict[tuple[str, str], str] = {}
    kinds = {
        name: _preset(name, u.preset, detected.get(name)) for name, u in settings.upstreams.items()
    }
    upstreams = {
        name: _upstream(name, u, kinds[name], env, accounts)
        for name, u in settings.upstreams.items()
    }
    names = {name: m for m in known.values() for name in m.names()}
    routes: dict[str, tuple[Route, ...]] = {}
    for id, model in known.items():
        own = settings.models.get(id, config.Model())
        wanted = own.routes or tuple(
            config.RouteTo(name)
            for name, upstream in settings.upstreams.items()
            if not (model.own or upstream.only_named)
        )
        found = []
        for n, to in enumerate(wanted):
            if to.upstream not in upstreams:
                raise ConfigError(
                    f"`models.{id}.routes[{n}].upstream`: no upstream `{to.upstream}`."
                    f" Known: {', '.join(upstreams)}."
                )
            where = f"models.{id}.routes[{n}]"
            upstream, preset = upstreams[to.upstream], kinds[to.upstream]
            route = _route(
                model, upstream, settings.upstreams[to.upstream], preset, own, to, names, where
            )
            if route is not None:
                found.append(route)
        routes[id] = tuple(found)
    for alias, to_id in settings.aliases.items():
        if to_id not in known:
            raise ConfigError(f"`aliases.{alias}`: no such model `{to_id}`.")
    for key, theirs in settings.key_aliases.items():
        for alias, to_id in theirs.items():
            if to_id not in known:
                raise ConfigError(f"`key_aliases.{key}.{alias}`: no such model `{to_id}`.")
    return Catalog(
        tuple(known.values()),
        routes,
        settings.aliases,
        settings.key_aliases,
        default_aliases() if settings.default_aliases else None,
        _checked_presets(settings, names),
    )


def _checked_presets(settings: Settings, names: Mapping[str, Model]) -> Mapping[str, config.Preset]:
    """The presets by name; ConfigError for one that cannot be."""
    for name, preset in settings.presets.items():
        checks.check_model_name(name)
        if preset.model.lower() not in names:
            raise ConfigError(f"`presets.{name}.model`: no such model `{preset.model[:64]}`.")
        try:
            provider.parsed(preset.routing)
        except ValueError as error:
            raise ConfigError(f"`presets.{name}.routing`: {error}.") from None
        if name.lower() in names:
            raise ConfigError(f"`presets.{name}`: a model has this name already.")
    return settings.presets


def _preset(name: str, preset: str, detected: Detected | None) -> Preset:
    if preset not in presets():
        hint = near_names.hint(preset, presets())
        raise ConfigError(f"`upstreams.{name}.preset`: no preset `{preset}`.{hint}")
    own = presets()[preset]
    if detected is None or not own.asks:
        return own
    # Its names are the server's own; a model that it does not list is asked for as ever.
    return msgspec.structs.replace(
        presets()[detected.kind],
        label=detected.text,
        prefix="",
        names=detected.names,
        region=own.region,
    )


def _upstream(
    name: str,
    own: config.Upstream,
    preset: Preset,
    env: Mapping[str, str],
    accounts: dict[tuple[str, str], str],
) -> Upstream:
    """`accounts` are of the upstreams before this one, by origin and secret."""
    # The preset's own variable is for the preset's own address, not for any other.
    secrets = [own.key, *own.keys] if own.key else [*own.keys]
    if not secrets:
        secrets = ["" if own.base_url else env.get(preset.env, "")]
        checks.check_key(preset.env, secrets[0])
    base_url = own.base_url or preset.base_url
    if not base_url and own.preset != "local":  # whose address is known only once it runs
        raise ConfigError(f"`upstreams.{name}.base_url` is missing: the preset has none.")
    if not secrets[0] and preset.env and not own.base_url and own.own_keys != "only":
        raise ConfigError(
            f"`upstreams.{name}.key` is missing: set it to `env:NAME`, or set {preset.env}."
        )
    dialect = own.dialect or preset.dialect
    auth = preset.auth if own.dialect in ("", preset.dialect) else "bearer"
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(base_url)) if base_url else name
    keys = []
    for number, secret in enumerate(secrets, 1):
        account = f"{name}#{number}" if len(secrets) > 1 else name
        if secret:  # without one, an upstream is an account of its own
            account = accounts.setdefault((origin, secret), account)
        keys.append(UpstreamKey(secret, account, number if len(secrets) > 1 else 0))
    region = own.region or preset.region or ("own" if checks.is_private(base_url) else "")
    if own.preset == "local":
        region = "own"
    return Upstream(
        name,
        preset.label,
        base_url,
        dialect,
        auth,
        preset.headers,
        preset.free or own.free,
        region,
        tuple(keys),
        own.own_keys,
        own.key_order,
    )


def _route(
    model: Model,
    upstream: Upstream,
    own: config.Upstream,
    preset: Preset,
    settings: config.Model,
    to: config.RouteTo,
    names: Mapping[str, Model],
    where: str,
) -> Route | None:
    """Return the route; None when the preset does not have this model.

    `names` has every model by each of its names, `where` is the route's place in the settings.
    """
    name = to.model
    if not name:
        if preset.only_named and not model.own and model.id not in preset.names:
            return None
        name = preset.names.get(model.id) or preset.names.get("*", "")
        name = name or (model.id if model.own else preset.prefix + model.id)
    served, other = _served(model, name, preset, to.serves, names)
    at_vendor = served is not None and served.retirement and own.preset in served.retirement.at
    route = _built(model, upstream, own, preset, settings, to, name, served, other, where)
    if not at_vendor:
        return route
    assert served is not None
    retirement = served.retirement
    assert retirement is not None
    return _each_key(route, retirement, _successor(route, own, preset, retirement, where))


def _served(
    model: Model, name: str, preset: Preset, serves: str, names: Mapping[str, Model]
) -> tuple[Model | None, str]:
    """Return the model behind an upstream's name, if it is known, and its name if it is another.

    A name that is in the catalog is that model; one that is not is taken for the model itself when
    its version is part of it ("prod-m3"), or when the model is the operator's own.  `serves`
    decides before all that.
    """
    if serves:
        found = names.get(serves.lower())
        return found, "" if found is model else (found.id if found else serves)
    if name in (preset.names.get(model.id), preset.names.get("*")):
        return model, ""
    short = name.lower().rpartition("/")[2].partition(":")[0]
    if found := names.get(name.lower()) or names.get(short):
        return found, "" if found is model else found.id
    part = re.escape(model.id.lower().removeprefix("minimax-"))
    if model.own or re.search(rf"(?<![a-z0-9.]){part}(?![a-z0-9.])", short):
        return model, ""
    return None, name


def _built(
    model: Model,
    upstream: Upstream,
    own: config.Upstream,
    preset: Preset,
    settings: config.Model,
    to: config.RouteTo,
    name: str,
    served: Model | None,
    other: str,
    where: str,
) -> Route:
    fields = capabilities_of(preset, upstream.dialect, served)
    fields |= own.capabilities
    if served is model:
        if settings.input is not None:
            fields["input"] = settings.input
        fields |= settings.capabilities
    fields |= to.capabilities
    try:
        capabilities = msgspec.convert(fields, Capabilities)
    except msgspec.ValidationError as error:
        near = ", ".join(Capabilities.__struct_fields__)
        place = _place_of(str(error), upstream.name, own, model.id, settings, where)
        raise ConfigError(f"`{place}`: {error}. Known: {near}.") from None
    paced = served if preset.paced else None
    rpm = (own.rpm or None) if own.rpm is not None else (paced.rpm if paced else None)
    tpm = (own.tpm or None) if own.tpm is not None else (paced.tpm if paced else None)
    here = operators.upstream_prices(own, model)
    prices = operators.prices(to.prices) or here or (served or model).prices
    free = upstream.free or to.free or (settings.free and not (to.prices or here))
    route = Route(
        model,
        upstream,
        name,
        capabilities,
        to.weight,
        rpm,
        tpm,
        upstream.keys[0],
        served=served,
        other=other,
        prices=prices,
        free=free,
    )
    return _each_key(route)


def capabilities_of(preset: Preset, dialect: DialectName, served: Model | None) -> dict[str, Any]:
    """What the model and the preset say together, before the operator's own."""
    fields: dict[str, Any] = {}
    if served is not None:
        fields |= {"input": served.input, "efforts": served.efforts}
        fields["default_effort"] = served.default_effort
    fields |= preset.capabilities
    if served is not None:
        fields |= preset.models.get(served.id, {})
        fields |= preset.dialects.get(dialect, {}).get(served.id, {})
    if not fields.get("efforts"):
        fields["default_effort"] = ""
    if dialect == "anthropic" and preset.dialect != "anthropic":
        fields["reasoning_form"] = "blocks"  # the only form that this wire has
        fields.pop("reasoning_split", None)
    return fields


def _place_of(
    error: str, name: str, own: config.Upstream, id: str, settings: config.Model, where: str
) -> str:
    """Return where the capability that is wrong stands."""
    for field in (*settings.capabilities, *own.capabilities):
        if f"`{field}`" in error or f"$.{field}" in error:
            if field in settings.capabilities:
                return f"models.{id}.capabilities"
            return f"upstreams.{name}.capabilities"
    return f"{where}.capabilities"


def _successor(
    route: Route, own: config.Upstream, preset: Preset, retirement: Retirement, where: str
) -> Route | None:
    """Return the route to the model that follows, at the same upstream."""
    model = models()[retirement.successor]
    name = preset.names.get(model.id) or preset.prefix + model.id
    to = config.RouteTo(route.upstream.name, weight=route.weight)
    return _built(
        route.model, route.upstream, own, preset, config.Model(), to, name, model, model.id, where
    )


def _each_key(
    route: Route, retirement: Retirement | None = None, successor: Route | None = None
) -> Route:
    """Return the route with its pool: the same by each key of the upstream."""
    replace = msgspec.structs.replace
    route = replace(route, retirement=retirement, successor=successor, pool=())
    keys = route.upstream.keys
    if len(keys) == 1:
        return route
    return replace(route, pool=tuple(replace(route, key=key, successor=None) for key in keys))
