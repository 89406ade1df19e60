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
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from headgate import config
from headgate.config import ConfigError, Settings
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import ModelCard

DialectName = Literal["openai", "responses", "anthropic", "gemini"]
Auth = Literal["bearer", "x-api-key", "none"]
_PREFIXES = ("models/", "minimax/", "minimaxai/")
_MAX_NAME_CHARS = 256  # longer than any name; looking for prefixes costs its square
_NEAR = (
    0.75  # of difflib's ratio: a digit or a few letters of a name; a third of it is another name
)


class Price(Struct, frozen=True, forbid_unknown_fields=True):
    """USD per million tokens as decimal strings; the first tier that the input fits holds."""

    valid_from: date
    input: str
    output: str
    cache_read: str = ""  # "": as input
    cache_write: str = ""  # "": as input
    up_to_input: int | None = None  # tokens; None: any
    priority_factor: str = "1"


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    display_name: str
    released: date
    created: int  # Unix seconds
    context_window: int  # tokens, input and output together
    max_output: int  # tokens
    default_max_output: int  # tokens, where an upstream must be told a number
    prices: tuple[Price, ...]
    description: str = ""
    input: tuple[Literal["text", "image", "video"], ...] = ("text",)
    rpm: int | None = None  # requests a minute of a pay-as-you-go account at MiniMax
    tpm: int | None = None  # tokens a minute, input and output, of such an account
    id: str = ""


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
    headers: dict[str, str] = {}
    capabilities: dict[str, Any] = {}  # Any: converted to Capabilities, per model
    models: dict[str, dict[str, Any]] = {}


class UpstreamKey(Struct, frozen=True):
    """One key of an upstream's pool; `secret` appears in no message, page or log.

    `account` names what the provider counts and refuses by. Two upstreams with the same key at the
    same origin share it.
    """

    secret: str = ""
    account: str = ""
    number: int = 0  # its place in the pool, from 1; 0: the upstream has no pool

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
    keys: tuple[UpstreamKey, ...] = (UpstreamKey(),)  # at least one, which may be empty

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
    share: int = 0  # of the load; see policy/routing.py
    rpm: int | None = None  # requests a minute that the upstream takes; None: nobody knows
    tpm: int | None = None  # tokens a minute
    key: UpstreamKey = UpstreamKey()
    pool: "tuple[Route, ...]" = ()  # the same route by each key, where the upstream has several

    @property
    def place(self) -> str:
        return f"{self.upstream.name}/{self.name}"

    @property
    def served_by(self) -> str:
        """The upstream and its model, and which key of a pool: for headers, warnings and messages."""
        number = self.key.number
        return f"{self.place};key={number}" if number else self.place

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
def models() -> dict[str, Model]:
    tree = _data("models.toml")
    return {k: msgspec.convert({**v, "id": k}, Model) for k, v in tree.items()}


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
    ) -> None:
        """`defaults` None: a name that an agent chooses by itself is as unknown as any other."""
        self.models = models
        self._defaults = defaults
        self._kind = _KindOfName(defaults) if defaults else None
        self._routes = routes
        self._by_name = {m.id.lower(): m for m in models}
        everybodys = {k.lower(): v for k, v in aliases.items()}
        self._everybodys = everybodys
        self._own = {
            key: {**(own := {k.lower(): v for k, v in theirs.items()}), **_but(everybodys, own)}
            for key, theirs in key_aliases.items()
        }
        self._answers = {
            kind: self._answering(kind, ()) for kind in (defaults.kinds if defaults else ())
        }
        self._cards = tuple(
            ModelCard(
                m.id, m.display_name, m.created, m.context_window, m.max_output, m.input, True, m.description
            )
            for m in models
        )  # fmt: skip

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
        cards = {c.id.lower(): c for c in self._cards}
        return tuple(
            msgspec.structs.replace(card, id=alias, display_name=f"{card.display_name} as {alias}")
            for alias, to in aliases.items()
            if "*" not in alias and alias not in cards and (card := cards.get(to.lower()))
        )

    def cards(self) -> tuple[ModelCard, ...]:
        return self._cards

    def routes(self, model_id: str) -> tuple[Route, ...]:
        """The routes of a model, to be tried in this order."""
        return self._routes.get(model_id, ())


def _but(aliases: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    return {alias: to for alias, to in aliases.items() if alias not in own}


def load(settings: Settings, env: Mapping[str, str]) -> Catalog:
    """The catalog as configured; ConfigError when the settings do not fit it.

    `env` is asked for the key that a preset names, where the settings have none.
    """
    known = models()
    accounts: dict[tuple[str, str], str] = {}
    upstreams = {name: _upstream(name, u, env, accounts) for name, u in settings.upstreams.items()}
    for name in settings.models:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.4)
            hint = f" Did you mean `{near[0]}`?" if near else f" Known: {', '.join(known)}."
            raise ConfigError(f"`models.{name}`: no such model.{hint}")
    offered: list[Model] = []
    routes: dict[str, tuple[Route, ...]] = {}
    for id, model in known.items():
        own = settings.models.get(id, config.Model())
        model = msgspec.structs.replace(
            model,
            context_window=own.context_window or model.context_window,
            max_output=own.max_output or model.max_output,
        )
        wanted = own.routes or tuple(config.RouteTo(name) for name in upstreams)
        found = []
        for n, to in enumerate(wanted):
            if to.upstream not in upstreams:
                raise ConfigError(
                    f"`models.{id}.routes[{n}].upstream`: no upstream `{to.upstream}`."
                    f" Known: {', '.join(upstreams)}."
                )
            route = _route(model, upstreams[to.upstream], settings.upstreams[to.upstream], to)
            if route is not None:
                found.append(route)
        offered.append(model)
        routes[id] = tuple(found)
    for alias, to_id in settings.aliases.items():
        if to_id not in known:
            raise ConfigError(f"`aliases.{alias}`: no such model `{to_id}`.")
    for key, theirs in settings.key_aliases.items():
        for alias, to_id in theirs.items():
            if to_id not in known:
                raise ConfigError(f"`key_aliases.{key}.{alias}`: no such model `{to_id}`.")
    return Catalog(
        tuple(offered),
        routes,
        settings.aliases,
        settings.key_aliases,
        default_aliases() if settings.default_aliases else None,
    )


def _preset(name: str, preset: str) -> Preset:
    if preset not in presets():
        near = difflib.get_close_matches(preset, presets(), 1, 0.4)
        hint = f" Did you mean `{near[0]}`?" if near else f" Known: {', '.join(presets())}."
        raise ConfigError(f"`upstreams.{name}.preset`: no preset `{preset}`.{hint}")
    return presets()[preset]


def _upstream(
    name: str, own: config.Upstream, env: Mapping[str, str], accounts: dict[tuple[str, str], str]
) -> Upstream:
    """`accounts`: of the upstreams before this one, by origin and secret."""
    preset = _preset(name, own.preset)
    # The preset's own variable is for the preset's own address, not for any other.
    secrets = [own.key, *own.keys] if own.key else [*own.keys]
    if not secrets:
        secrets = ["" if own.base_url else env.get(preset.env, "")]
        config.check_key(preset.env, secrets[0])
    base_url = own.base_url or preset.base_url
    if not base_url and own.preset != "local":  # whose address is known only once it runs
        raise ConfigError(f"`upstreams.{name}.base_url` is missing: the preset has none.")
    if not secrets[0] and preset.env and not own.base_url:
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
    return Upstream(
        name, preset.label, base_url, dialect, auth, preset.headers, preset.free, tuple(keys)
    )


def _route(
    model: Model, upstream: Upstream, own: config.Upstream, to: config.RouteTo
) -> Route | None:
    """None when the preset does not have this model."""
    preset = _preset(upstream.name, own.preset)
    name = to.model
    if not name:
        if preset.only_named and model.id not in preset.names:
            return None
        name = preset.names.get(model.id) or preset.names.get("*") or preset.prefix + model.id
    fields: dict[str, Any] = {**preset.capabilities, **preset.models.get(model.id, {})}
    if upstream.dialect == "anthropic" and preset.dialect != "anthropic":
        fields["reasoning_form"] = "blocks"  # the only form that this wire has
        fields.pop("reasoning_split", None)
    fields |= own.capabilities
    try:
        capabilities = msgspec.convert(fields, Capabilities)
    except msgspec.ValidationError as error:
        near = ", ".join(Capabilities.__struct_fields__)
        raise ConfigError(
            f"`upstreams.{upstream.name}.capabilities`: {error}. Known: {near}."
        ) from None
    rpm, tpm = (model.rpm, model.tpm) if preset.paced else (None, None)
    rpm = (own.rpm or None) if own.rpm is not None else rpm
    tpm = (own.tpm or None) if own.tpm is not None else tpm
    keys = upstream.keys
    route = Route(model, upstream, name, capabilities, to.share, rpm, tpm, keys[0])
    if len(keys) == 1:
        return route
    pool = tuple(msgspec.structs.replace(route, key=key) for key in keys)
    return msgspec.structs.replace(route, pool=pool)
