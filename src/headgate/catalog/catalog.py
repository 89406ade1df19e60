"""Models and the routes to them: the catalog's data joined with the operator's settings.

The only place that reads models.toml, upstreams.toml and aliases.toml.  A client's name for a model
is looked up here: any case, `minimax/`, `MiniMaxAI/` and `models/` in front, the operator's aliases,
and last the names that agents choose by themselves.
"""

import difflib
import fnmatch
import re
import tomllib
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from functools import cache
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from headgate import config, near_names
from headgate.catalog import cards, operators
from headgate.catalog.detection import Detected
from headgate.catalog.models import DialectName, Model, Price, Retirement, models
from headgate.config import ConfigError, Settings
from headgate.dialects import provider
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import ModelCard

__all__ = [
    "Capabilities",
    "Catalog",
    "Model",
    "Preset",
    "Price",
    "Route",
    "load",
    "models",
    "presets",
]

Auth = Literal["bearer", "x-api-key", "none"]
_PREFIXES = ("models/", "minimax/", "minimaxai/")
_MAX_NAME_CHARS = 256  # longer than any name; looking for prefixes costs its square
_NEAR = (
    0.75  # of difflib's ratio: a digit or a few letters of a name; a third of it is another name
)


class Preset(Struct, frozen=True, forbid_unknown_fields=True):
    label: str
    base_url: str
    dialect: DialectName
    auth: Auth = "bearer"
    env: str = ""  # the variable that holds the key, when the settings name none
    prefix: str = ""  # before the catalog's name of a model
    names: dict[str, str] = {}  # the catalog's name: the upstream's; "*" for all others
    free: bool = False  # costs nobody anything
    paced: bool = False  # the models' rpm and tpm hold for an account here
    only_named: bool = False  # it has no other models
    asks: bool = False  # the server is asked what it is (catalog/detection.py)
    region: str = ""  # where its data are; "own": the operator's machines
    quota: str = ""  # path beside its origin that says what is left of a plan; "": it has none
    headers: dict[str, str] = {}
    capabilities: dict[str, Any] = {}  # Any: converted to Capabilities, per model
    models: dict[str, dict[str, Any]] = {}
    # By dialect and model, where the upstream is asked in that dialect.
    dialects: dict[DialectName, dict[str, dict[str, Any]]] = {}


class UpstreamKey(Struct, frozen=True):
    """One key of an upstream's pool; `secret` appears in no message, page or log.

    `account` names what the provider counts and refuses by. Two upstreams with the same key at the
    same origin share it.
    """

    secret: str = ""
    account: str = ""
    number: int = 0  # its place in the pool, from 1; 0: the upstream has no pool
    owner: Literal["", "key", "account"] = ""  # whose it is; "": the gateway's

    def __repr__(self) -> str:
        return f"UpstreamKey({self.account!r})"


class Upstream(Struct, frozen=True):
    """An upstream as configured."""

    name: str
    label: str
    base_url: str
    dialect: DialectName
    auth: Auth
    headers: dict[str, str] = {}
    free: bool = False
    region: str = ""  # where its data are; "": not known
    keys: tuple[UpstreamKey, ...] = (UpstreamKey(),)  # at least one, which may be empty
    own_keys: Literal["yes", "no", "only"] = "yes"  # of the owners of gateway keys
    key_order: Literal["spread", "in_order"] = "spread"

    @property
    def key(self) -> str:
        """The secret of the first key; "": none."""
        return self.keys[0].secret

    def __repr__(self) -> str:
        return f"Upstream({self.name!r})"


class Route(Struct, frozen=True):
    """One model on one upstream, under that upstream's own name, by one of its keys."""

    model: Model
    upstream: Upstream
    name: str
    capabilities: Capabilities
    weight: int = 0  # of the load; see policy/routing.py
    rpm: int | None = None  # requests a minute that the upstream takes; None: nobody knows
    tpm: int | None = None  # tokens a minute
    key: UpstreamKey = UpstreamKey()
    pool: "tuple[Route, ...]" = ()  # the same route by each key, where the upstream has several
    served: Model | None = None  # the model that answers, where the catalog knows it
    other: str = ""  # the name of the model that answers, where it is not the one above
    prices: tuple[Price, ...] = ()  # what tokens cost here
    free: bool = False
    retirement: Retirement | None = None  # of the model that answers, at this upstream
    successor: "Route | None" = None  # the same upstream with the model that follows

    @property
    def sizes(self) -> Model:
        """The model whose context window and output hold here."""
        return self.served or self.model

    @property
    def simple(self) -> bool:
        """Whether there is nothing to choose among keys, but for those of owners."""
        return not self.pool and self.upstream.own_keys != "only"

    @property
    def id(self) -> str:
        """The upstream's name and its name of the model, whichever key is used."""
        return f"{self.upstream.name}/{self.name}"

    @property
    def served_by(self) -> str:
        """The upstream and its model, and which key of a pool: for headers, warnings and messages."""
        key = self.key
        return f"{self.id};key={key.number or 'own'}" if key.number or key.owner else self.id

    def by_own_key(
        self, secret: str, fingerprint: str, owner: Literal["key", "account"]
    ) -> "Route":
        """Return the same route by a key of the owner of the request's gateway key."""
        account = f"{self.upstream.name}#own-{fingerprint}"
        key = UpstreamKey(secret, account, owner=owner)
        return msgspec.structs.replace(self, key=key, pool=())

    @property
    def account_model(self) -> str:
        """What rate limits of one model are counted by."""
        return f"{self.key.account}\n{self.name}"


class DefaultAliases(Struct, frozen=True):
    """The names that agents choose by themselves, and the models that answer each kind of name."""

    kinds: dict[str, tuple[str, ...]]  # by kind: model ids, the preferred one first
    patterns: dict[str, str]  # a pattern in lower case: a kind; the first that fits holds
    prefixes: tuple[str, ...]  # vendors' names that may stand in front
    listed: tuple[str, ...]  # whole names for Anthropic's list of models


class _KindOfName:
    """Finds the kind of a name with one regular expression, as it runs for each request."""

    def __init__(self, aliases: DefaultAliases) -> None:
        self._kinds = tuple(aliases.patterns.values())
        prefixes = "|".join(re.escape(p) for p in aliases.prefixes)
        # `translate` makes no groups of its own from Python 3.11 on.
        patterns = "|".join(f"({fnmatch.translate(p)})" for p in aliases.patterns)
        self._match = re.compile(f"(?:{prefixes})?(?:{patterns})").match

    def __call__(self, name: str) -> str | None:
        """Return the kind of a name in lower case, or None for a name that no agent chooses."""
        found = self._match(name)
        return self._kinds[(found.lastindex or 0) - 1] if found else None


@cache
def default_aliases() -> DefaultAliases:
    tree = _data("aliases.toml")
    return msgspec.convert(
        {
            "kinds": tree["kinds"],
            "patterns": tree["patterns"],
            "prefixes": tree["vendors"]["prefixes"],
            "listed": tree["listed"]["names"],
        },
        DefaultAliases,
    )


@cache
def presets() -> dict[str, Preset]:
    return msgspec.convert(_data("upstreams.toml"), dict[str, Preset])


def _data(name: str) -> dict[str, Any]:
    return tomllib.loads(files("headgate.catalog").joinpath(name).read_text("utf-8"))


class Catalog:
    """The models that this gateway offers, and how each is reached."""

    def __init__(
        self,
        models: tuple[Model, ...],
        routes: Mapping[str, tuple[Route, ...]],
        aliases: Mapping[str, str],
        key_aliases: Mapping[str, Mapping[str, str]] = {},
        defaults: DefaultAliases | None = None,
        presets: Mapping[str, config.Preset] = {},
    ) -> None:
        """`defaults` None: a name that an agent chooses by itself is as unknown as any other."""
        self.models = models
        self.presets = {name.lower(): preset for name, preset in presets.items()}
        self._preset_names = {name.lower(): name for name in presets}
        self._defaults = defaults
        self._kind = _KindOfName(defaults) if defaults else None
        self._routes = routes
        self._by_name = {name: m for m in models for name in m.names()}
        everybodys = {k.lower(): v for k, v in aliases.items()}
        self._everybodys = everybodys
        self._own = {
            key: {**(own := {k.lower(): v for k, v in theirs.items()}), **_but(everybodys, own)}
            for key, theirs in key_aliases.items()
        }
        self._answers = {
            kind: self._answering(kind, ()) for kind in (defaults.kinds if defaults else ())
        }
        self._cards: tuple[date, tuple[ModelCard, ...]] | None = None
        # The models that take each kind of media on some route, for messages to callers.
        self.takers: dict[str, tuple[str, ...]] = {
            kind: tuple(
                m.id
                for m in models
                if any(kind in r.capabilities.input for r in routes.get(m.id, ()))
            )
            for kind in ("image", "video")
        }
        # Models of which some route ends, or has ended.
        self.retiring = frozenset(
            m.id for m in models if any(r.retirement for r in routes.get(m.id, ()))
        )

    def find(self, name: str, key_id: str = "", allowed: Collection[str] = ()) -> Model | None:
        """The model a client named, or None; a key's own aliases come before everybody's.

        An alias of just this name comes first, then the model's own name, then a pattern: so
        `"*" = "MiniMax-M2"` is for the names that are nobody's.  Default aliases come last, and
        choose among the models that are `allowed` (empty: all).
        """
        if len(name) > _MAX_NAME_CHARS:
            return None
        aliases = self._own.get(key_id, self._everybodys)
        names = [name.strip().lower()]
        while prefix := next((p for p in _PREFIXES if names[-1].startswith(p)), None):
            names.append(names[-1].removeprefix(prefix))
        for n in names:
            if n in self.presets:
                return self._by_name[self.presets[n].model.lower()]
            if n in aliases:
                return self._by_name[aliases[n].lower()]
        if names[-1] in self._by_name:
            return self._by_name[names[-1]]
        for n in names:
            for pattern, to in aliases.items():
                if fnmatch.fnmatchcase(n, pattern):
                    return self._by_name[to.lower()]
        if self._kind and (kind := self._kind(names[-1])):
            return self._answering(kind, allowed) if allowed else self._answers[kind]
        return None

    def _answering(self, kind: str, allowed: Collection[str]) -> Model | None:
        """The first model of the kind that is allowed and has a route, else the first that is there."""
        assert self._defaults is not None
        ids = [i for i in self._defaults.kinds[kind] if i.lower() in self._by_name]
        ids = [i for i in ids if not allowed or i in allowed] or ids
        found = next((i for i in ids if self._routes.get(i)), ids[0] if ids else None)
        return self._by_name[found.lower()] if found else None

    def default_aliases(self) -> dict[str, str]:
        """The patterns of names that agents choose by themselves: the ids that answer them."""
        found = self._defaults.patterns if self._defaults else {}
        return {p: model.id for p, kind in found.items() if (model := self._answers[kind])}

    def near(self, name: str) -> list[str]:
        """Up to three ids that the name may have meant; none unless it is really near."""
        short = name.strip().lower().rpartition("/")[2][:128]
        close = difflib.get_close_matches(short, self._by_name, 3, _NEAR)
        return [self._by_name[n].id for n in close]

    def hint(self, name: str) -> str:
        """A sentence for a name that is unknown: what it may have meant, or what there is."""
        if near := self.near(name):
            return f"Did you mean {', '.join(near)}?"
        return f"The models here: {', '.join(m.id for m in self.models)}."

    def alias_cards(self, key_id: str = "", allowed: Collection[str] = ()) -> tuple[ModelCard, ...]:
        """Aliases that are whole names, as models: Claude Code lists only ids with `claude` in them."""
        aliases = dict(self._own.get(key_id, self._everybodys))
        for name in self._defaults.listed if self._defaults else ():
            if name not in aliases and (model := self.find(name, key_id, allowed)):
                aliases[name] = model.id
        cards = {c.id.lower(): c for c in self.cards()}
        return tuple(
            msgspec.structs.replace(card, id=alias, display_name=f"{card.display_name} as {alias}")
            for alias, to in aliases.items()
            if "*" not in alias and alias not in cards and (card := cards.get(to.lower()))
        )

    def cards(self) -> tuple[ModelCard, ...]:
        """Return the models with the prices of today (UTC), as lists of models show them."""
        on = datetime.now(UTC).date()
        if self._cards is None or self._cards[0] != on:
            found = tuple(cards.card(m, self.routes(m.id), on) for m in self.models)
            self._cards = on, found + self._preset_cards(found)
        return self._cards[1]

    def _preset_cards(self, found: tuple[ModelCard, ...]) -> tuple[ModelCard, ...]:
        by_id = {c.id.lower(): c for c in found}
        return tuple(
            msgspec.structs.replace(
                by_id[self._by_name[preset.model.lower()].id.lower()],
                id=self._preset_names[name],
                display_name=self._preset_names[name],
                description=preset.description
                or f"{preset.model} with preferences of this gateway.",
                default_effort=preset.effort
                or by_id[self._by_name[preset.model.lower()].id.lower()].default_effort,
            )
            for name, preset in self.presets.items()
        )

    def preset(self, name: str) -> config.Preset | None:
        """The preset that a client named, or None."""
        return self.presets.get(name.strip().lower()) if self.presets else None

    def routes(self, model_id: str) -> tuple[Route, ...]:
        """The routes of a model, to be tried in this order."""
        return self._routes.get(model_id, ())


def _but(aliases: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    return {alias: to for alias, to in aliases.items() if alias not in own}


def load(
    settings: Settings, env: Mapping[str, str], detected: Mapping[str, Detected] = {}
) -> Catalog:
    """The catalog as configured; ConfigError when the settings do not fit it.

    `env` is asked for the key that a preset names, where the settings have none.  `detected` has the
    upstreams that said themselves what they are, by name.
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
        config.check_model_name(name)
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
    """`accounts`: of the upstreams before this one, by origin and secret."""
    # The preset's own variable is for the preset's own address, not for any other.
    secrets = [own.key, *own.keys] if own.key else [*own.keys]
    if not secrets:
        secrets = ["" if own.base_url else env.get(preset.env, "")]
        config.check_key(preset.env, secrets[0])
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
    region = own.region or preset.region or ("own" if config.is_private(base_url) else "")
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
