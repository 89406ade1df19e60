"""Configuration: what an operator may set, its defaults, and where each value came from.

The only place that reads headgate.toml and the environment.  A value is looked for on the command
line, then in the environment (`HEADGATE_` and the key in capitals, `_` for the dot), then in the
file, then here.  Secrets are named, not written: `key = "env:NAME"` or `"file:/path"`.

Note: with no upstream in the file, the environment's keys make them, and with no key either
the small local model answers.
"""

import functools
import ipaddress
import re
import tomllib
from collections.abc import Mapping
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct, structs

from headgate import near_names

_HOST_PORT = r"(\[[0-9a-fA-F:]+\]|[0-9A-Za-z.-]+):[0-9]{1,5}"
Seconds = Annotated[float, Meta(gt=0, le=86400)]
Dollars = Annotated[str, Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,12})?$")]
OwnDollars = Annotated[str, Meta(pattern=r"^([0-9]{1,9}(\.[0-9]{1,12})?)?$")]
EPOCH_DAY = date(1970, 1, 1).toordinal()
LogLevel = Literal["debug", "info", "warning", "error", "off"]


class ConfigError(Exception):
    """What is wrong, where, and what to write instead; holds no secret."""


RENAMED = {"share": "weight"}  # old names of settings, which are refused with the new one


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds an upstream may take."""

    connect: Seconds = 10.0
    first_token: Seconds = 60.0
    stall: Seconds = 120.0  # between two pieces of a reply
    total: Seconds = 600.0
    pace: Seconds = 15.0  # for a turn at an upstream that is paced; then 429, or another route


class Retry(Struct, frozen=True, forbid_unknown_fields=True):
    attempts: Annotated[int, Meta(ge=1, le=10)] = 2  # of one request, the first included


class Fidelity(Struct, frozen=True, forbid_unknown_fields=True):
    """What is done about replies that are not quite what was asked for."""

    salvage: bool = True  # calls that the model wrote into its text become calls
    coerce: bool = False  # arguments of the wrong type are put right where that is clear
    repair: bool = True  # a structured reply that is not valid is asked for once more


class Retention(Struct, frozen=True, forbid_unknown_fields=True):
    """For how long the ledger keeps single requests; sums, sessions and balances it keeps forever."""

    requests_days: Annotated[int, Meta(ge=0, le=36500)] = 0  # whole days, UTC; 0 = keep forever


class Overload(Struct, frozen=True, forbid_unknown_fields=True):
    """How much the gateway takes on at a time; what comes above it is refused at once with 503.

    Each edge has an equal part of each bound.
    """

    # Requests that are being answered. 0: 1000 for each edge.
    in_flight: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    # Bytes of the bodies of all requests in flight. 0: for each edge a sixteenth of its part of the
    # machine's memory, from 64 to 256 MiB.
    body_bytes_in_flight: Annotated[int, Meta(ge=0, le=1 << 40)] = 0
    # Requests in flight of one key, whatever is free. 0: as many as leave room for other keys.
    in_flight_per_key: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    # Bytes of the bodies of one key. 0: a quarter of those of all. One body of any size is taken.
    body_bytes_per_key: Annotated[int, Meta(ge=0, le=1 << 40)] = 0


class Price(Struct, frozen=True, forbid_unknown_fields=True):
    """US dollars per million tokens, as text that is read as an exact decimal: "0.30"."""

    input: Dollars
    output: Dollars
    cache_read: OwnDollars = ""  # "": as input
    cache_write: OwnDollars = ""  # "": as input
    up_to_input: Annotated[int, Meta(ge=1, le=1 << 40)] | None = None  # tokens; None: any size
    valid_from: date = date(1970, 1, 1)
    priority_factor: Dollars = "1"


class UpstreamPrice(Price, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What tokens of one model cost at one upstream, or of every model there."""

    model: Annotated[str, Meta(max_length=128)] = ""  # its id here; "": every model


class Upstream(Struct, frozen=True, forbid_unknown_fields=True):
    """One account at one provider; see catalog/upstreams.toml for the presets."""

    preset: str = "openai"
    base_url: str = ""  # "": the preset's
    key: str = ""  # "env:NAME", "file:/path"; "": the variable that the preset names
    # A pool: more keys, each an account of its own. One that is used up is paused and the next is
    # tried; a conversation stays with one key, where its prompt cache is warm.
    keys: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    dialect: Literal["", "openai", "responses", "anthropic", "gemini"] = ""
    capabilities: dict[
        str, Any
    ] = {}  # Any: checked against dialects/capabilities.py by the catalog
    allow_http: bool = False  # plain http to a private address; loopback needs no leave
    # What it takes from each key a minute, of each model: requests wait for their turn, up to
    # timeouts.pace. None: what the provider publishes, if the preset knows it; 0: no pacing.
    rpm: Annotated[int, Meta(ge=0)] | None = None
    tpm: Annotated[int, Meta(ge=0)] | None = None
    # Serves only the models whose `routes` name it; else it is also a route of every shipped model.
    only_named: bool = False
    # Whether requests of a gateway key or account that has a key of its own here are sent with that:
    # "yes"; "no"; "only": those without one are refused, and the gateway needs no key.
    own_keys: Literal["yes", "no", "only"] = "yes"
    # Which of its keys is asked first: "spread", each conversation keeps one of them; "in_order", always
    # the first that is not paused, as for plans that are used up before keys that are paid by the token.
    key_order: Literal["spread", "in_order"] = "spread"
    # Where its data are, for callers who say where theirs may go: "own" is this operator's machines.
    # "": what the preset says, and "own" for addresses of this machine and of private networks.
    region: Annotated[str, Meta(pattern=r"^[a-z0-9-]{0,32}$")] = ""
    free: bool = False  # costs nobody anything
    # What tokens cost here; a price of one model comes before one of every model. (): as the models say.
    prices: Annotated[tuple[UpstreamPrice, ...], Meta(max_length=256)] = ()

    def __repr__(self) -> str:
        return f"Upstream({self.preset!r}, {self.base_url!r})"


class RouteTo(Struct, frozen=True, forbid_unknown_fields=True):
    upstream: str
    model: str = ""  # the upstream's own name; "": as the preset says
    weight: Annotated[int, Meta(ge=0, le=1000)] = 0  # of the load, among routes that have one
    prices: tuple[Price, ...] = ()  # what tokens cost here; (): what the model costs
    free: bool = False  # costs nobody anything here
    # Which model answers, where the upstream's name does not show it; "": the gateway judges by the name.
    serves: Annotated[str, Meta(max_length=256)] = ""
    capabilities: dict[str, Any] = {}  # Any: as an upstream's; of this route only


class Model(Struct, frozen=True, forbid_unknown_fields=True):
    """Where one model's requests go, in this order; what is given here overrides the catalog.

    A name that is in no catalog makes a model of your own; it needs `routes`.
    """

    routes: tuple[RouteTo, ...] = ()
    context_window: Annotated[int, Meta(ge=1, le=1 << 40)] | None = None  # tokens
    max_output: Annotated[int, Meta(ge=1, le=1 << 40)] | None = None  # tokens
    # Tokens, where an upstream must be sent a number.
    default_max_output: Annotated[int, Meta(ge=1, le=1 << 40)] | None = None
    display_name: Annotated[str, Meta(max_length=128)] = ""
    description: Annotated[str, Meta(max_length=1024)] = ""
    prices: tuple[Price, ...] = ()
    free: bool = False  # costs nobody anything, but on routes with prices of their own
    input: tuple[Literal["text", "image", "video"], ...] | None = None
    capabilities: dict[str, Any] = {}  # Any: as an upstream's; of every route of this model
    aliases: tuple[Annotated[str, Meta(min_length=1, max_length=128)], ...] = ()
    # Of reasoning, sent where neither the request nor its key names one; "": nothing is sent.
    effort: Literal["", "minimal", "low", "medium", "high", "xhigh", "max"] = ""
    vendor: Annotated[str, Meta(max_length=64)] = ""  # `owned_by` in lists; "": "custom"
    released: date = date(2026, 1, 1)


class Preset(Struct, frozen=True, forbid_unknown_fields=True):
    """A name for a model with preferences among its routes and an effort, as clients may name it."""

    model: str
    routing: Annotated[str, Meta(max_length=512)] = ""  # "sort=price; only=a,b; regions=own"
    effort: Literal["", "minimal", "low", "medium", "high", "xhigh", "max"] = ""
    description: Annotated[str, Meta(max_length=1024)] = ""


class Oidc(Struct, frozen=True, forbid_unknown_fields=True):
    """The identity provider by which people sign in to the console; "" as the issuer: none."""

    issuer: str = ""  # https, exactly as the provider writes it; http on this machine only
    client_id: str = ""
    client_secret: str = ""  # "env:NAME", "file:/path"; "": a public client, which has none
    scopes: str = "openid profile email"  # with spaces between; some providers want `groups` too
    groups_claim: str = "groups"  # of the ID token, or of userinfo; "a.b": `b` inside `a`
    roles: dict[str, Literal["admin", "member", "viewer"]] = {}  # by group; the highest one counts
    accounts: dict[str, str] = {}  # by group; the first one here that fits counts
    # Of who is in none of the groups above; "": they are refused.
    default_role: Literal["", "member", "viewer"] = ""

    def __repr__(self) -> str:
        return f"Oidc({self.issuer!r})"


class Search(Struct, frozen=True, forbid_unknown_fields=True):
    """The search engine behind the web search that agents ask the gateway for; see docs/search.md."""

    provider: Literal["", "searxng", "minimax", "brave", "tavily"] = ""  # "": no web search
    url: str = ""  # "": the provider's own; SearXNG has none
    key: str = ""  # "env:NAME", "file:/path"; SearXNG needs none
    results: Annotated[int, Meta(ge=1, le=20)] = 5  # of one search, as the model reads them
    searches: Annotated[int, Meta(ge=1, le=32)] = 8  # in one reply; a client may ask for fewer
    timeout_s: Seconds = 10.0  # of one search

    def __repr__(self) -> str:
        return f"Search({self.provider!r}, {self.url!r})"


class Responses(Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept for clients of Responses that name an earlier one; see docs/responses.md."""

    store: bool = False
    keep_s: Annotated[float, Meta(ge=60, le=30 * 86400)] = 3600.0  # after its last use
    per_key: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    max_mb: Annotated[int, Meta(ge=1, le=65536)] = 256  # of all keys together, in the node's memory


class Tls(Struct, frozen=True, forbid_unknown_fields=True):
    """TLS of the gateway's own, for clients and for `admin.listen`; without a certificate: plain HTTP."""

    cert: str = ""  # path of a PEM file: the certificate, and behind it those of its issuers
    key: str = ""  # path of a PEM file: the certificate's private key, without a password
    # Path of a PEM file: who signs clients' certificates. With it a client must show one, except for
    # /livez and /readyz; "": clients need none.
    client_ca: str = ""


class Admin(Struct, frozen=True, forbid_unknown_fields=True):
    """The listener of the console and the admin API."""

    # "HOST:PORT": the console and the admin API are there only; "": where the API is.
    listen: Annotated[str, Meta(pattern=rf"^({_HOST_PORT})?$")] = ""
    public_url: str = ""  # as browsers reach that listener; "": where it listens


class Cors(Struct, frozen=True, forbid_unknown_fields=True):
    """Which web pages may call the API from a browser."""

    # Like "https://app.example.com"; "https://*.example.com": all names below it; "*": every page.
    origins: Annotated[tuple[str, ...], Meta(max_length=64)] = ()


class PublicPages(Struct, frozen=True, forbid_unknown_fields=True):
    """What the catalog's pages show to people who have not signed in."""

    upstreams: bool = False  # the names of upstreams, and which models each serves
    figures: bool = False  # times to the first token and speeds that were measured here
    errors: bool = False  # with `figures`: shares of requests that failed


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8787  # 0: any free one
    public_url: str = ""  # as clients reach it, for the pages; "": where it listens
    data: str = ""  # directory of keys and ledger; "": the user's data directory
    # postgresql://USER:PASSWORD@HOST/NAME, or env:NAME, file:/path: what all nodes share; "": nothing.
    # Needs the extra `postgres`.
    database: str = ""
    # redis://USER:PASSWORD@HOST:PORT/DATABASE (rediss: TLS), or env:NAME, file:/path: the reasoning cache of
    # all nodes, in Redis or Valkey; "": each machine has its own.
    cache: str = ""
    pepper_file: str = ""  # what a new data directory's pepper is copied of; "": a random one
    log: LogLevel = "info"
    # Seconds after which an upstream that was not heard of is asked for its list of models; 0: never.
    upstream_check_s: Annotated[float, Meta(ge=0, le=86400)] = 300.0
    keepalive_s: Seconds = 10.0  # silence after which a stream is kept alive
    # Processes that relay, each on a core of its own; "auto": as many as there are usable cores.
    edges: Annotated[int, Meta(ge=1, le=256)] | Literal["auto"] = 1
    drain_s: Seconds = 30.0  # how long running requests may go on after SIGTERM
    # After SIGTERM: how long /readyz is 503 already while requests are still accepted.
    drain_delay_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    # Who may read /metrics: a management key; "open": everybody; "HOST:PORT": whoever reaches that.
    metrics: Annotated[str, Meta(pattern=rf"^(key|open|{_HOST_PORT})$")] = "key"
    body_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 32 << 20  # of one request
    connections: Annotated[int, Meta(ge=0)] = (
        0  # of clients; 0: what the limit of open files allows
    )
    connections_per_peer: Annotated[int, Meta(ge=0)] = 0  # of one address; 0: half of `connections`
    trusted_proxies: tuple[str, ...] = ()  # networks whose X-Forwarded-For names the client
    # What these proxies set; auto: X-Forwarded-For, or Forwarded (RFC 7239) in requests without it.
    forwarded_header: Literal["auto", "x-forwarded-for", "forwarded"] = "auto"
    memory: bool = True  # keep the reasoning of recent turns for clients that return none
    tokenizer: str = ""  # path of a tokenizer.json of the models, for counting; an extra
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    fidelity: Fidelity = Fidelity()
    retention: Retention = Retention()
    overload: Overload = Overload()
    tls: Tls = Tls()
    admin: Admin = Admin()
    cors: Cors = Cors()
    pages: PublicPages = PublicPages()
    oidc: Oidc = Oidc()
    search: Search = Search()
    responses: Responses = Responses()
    upstreams: dict[str, Upstream] = {}
    models: dict[str, Model] = {}
    presets: dict[str, Preset] = {}  # by the name that clients use
    key_aliases: dict[str, dict[str, str]] = {}  # by a key's id: its own, before everybody's
    aliases: dict[str, str] = {}  # a client's name for a model, `*` allowed: the catalog's name
    default_aliases: bool = (
        True  # answer the names that agents choose by themselves: claude-*, gpt-*
    )
    # Send requests for a model that its vendor has retired to the successor that the vendor names.
    retired_to_successor: bool = False
    # Which name a reply has in `model`: the one of the catalog that was requested, or the one of the
    # model that answers, where a route leads to another model.
    reply_model: Literal["requested", "served"] = "requested"
    notes: tuple[str, ...] = ()  # what the operator should hear of, not set by anybody
    origins: dict[str, str] = {}  # of each value that is no default: file, env, option


AddressName = Literal["api", "admin", "metrics"]


class Address(Struct, frozen=True):
    """One address to listen on."""

    name: AddressName
    host: str
    port: int  # 0: any free one
    setting: str  # that moves it elsewhere


# What the environment may set: (path in Settings, variable).  Tables of tables are the file's.
_SCALARS = (
    "host",
    "port",
    "public_url",
    "data",
    "database",
    "cache",
    "pepper_file",
    "log",
    "upstream_check_s",
    "keepalive_s",
    "edges",
    "drain_s",
    "drain_delay_s",
    "metrics",
    "body_bytes",
    "connections",
    "connections_per_peer",
    "trusted_proxies",
    "forwarded_header",
    "memory",
    "tokenizer",
    "default_aliases",
    "retired_to_successor",
    "reply_model",
)
VARIABLES: dict[tuple[str, ...], str] = {
    **{(name,): f"HEADGATE_{name.upper()}" for name in _SCALARS},
    **{
        (table, name): f"HEADGATE_{table}_{name}".upper()
        for table, kind in (
            ("timeouts", Timeouts),
            ("retry", Retry),
            ("fidelity", Fidelity),
            ("retention", Retention),
            ("overload", Overload),
            ("tls", Tls),
            ("admin", Admin),
            ("cors", Cors),
            ("pages", PublicPages),
            ("search", Search),
            ("responses", Responses),
        )
        for name in kind.__struct_fields__
    },
}
_LISTS = (
    ("trusted_proxies",),
    ("cors", "origins"),
)  # a variable has their values with commas between
_OWN = ("notes", "origins")  # of the struct, not of the file
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
    for name in _OWN:
        if name in tree:
            raise ConfigError(f"{path}: unknown key `{name}`.")
    origins = {key: "file" for key in _leaves(tree)}
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
        raise ConfigError(_explained(str(error), tree, path or "", origins)) from None
    _check_networks("trusted_proxies", settings.trusted_proxies)
    notes: list[str] = []
    upstreams = dict(settings.upstreams) or _from_environment(env)
    upstreams = {name: _resolved(name, u, env, notes) for name, u in upstreams.items()}
    oidc = _provider(settings.oidc, env, notes)
    search = _search(settings.search, env, notes)
    _check_origins(settings.cors.origins)
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


def addresses(settings: Settings) -> list[Address]:
    """Where the settings ask to listen, the API's address first."""
    out = [Address("api", settings.host, settings.port, "--port")]
    if settings.admin.listen:
        out.append(Address("admin", *host_and_port(settings.admin.listen), "`admin.listen`"))
    if settings.metrics not in ("key", "open"):
        out.append(Address("metrics", *host_and_port(settings.metrics), "`metrics`"))
    return out


def check_model_name(name: str) -> None:
    """ConfigError for a name that cannot be in an address, a header or a table."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}", name):
        raise ConfigError(
            f"`models.{name[:64]}`: a model's name has letters, digits and `.`, `_`, `:`, `/`, `@`, `+`,"
            " `-`, at most 128, and begins with a letter or a digit."
        )


def base_url(host: str, port: int, scheme: str = "http") -> str:
    """Return the address by which this machine reaches a listener on the host."""
    # Listening on "::" is IPv6 only, so not 127.0.0.1
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://{f'[{shown}]' if ':' in shown else shown}:{port}"


def own_url(settings: Settings, port: int | None = None) -> str:
    """Return the gateway's address: on this machine, or, with TLS, by the name in its certificate.

    `port`: the one that the system chose, for settings with port 0.
    """
    port = settings.port if port is None else port
    if settings.tls.cert:
        return settings.public_url.rstrip("/") or base_url(settings.host, port, "https")
    return base_url(settings.host, port)


def console_url(settings: Settings, base: str) -> str:
    """Return the address at which browsers reach the console; `base`: that of the API."""
    if not settings.admin.listen:
        return base
    scheme = "https" if settings.tls.cert else "http"
    url = settings.admin.public_url.rstrip("/")
    return url or base_url(*host_and_port(settings.admin.listen), scheme)


def host_and_port(text: str) -> tuple[str, int]:
    """Return the parts of a setting that is `HOST:PORT`."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def with_local_url(settings: Settings, url: str) -> Settings:
    """The settings with the local model's address, which is known only once it runs."""
    upstreams = {
        name: structs.replace(u, base_url=url) if u.preset == "local" else u
        for name, u in settings.upstreams.items()
    }
    return structs.replace(settings, upstreams=upstreams)


def schema() -> dict[str, Any]:  # Any: a JSON Schema
    """JSON Schema of headgate.toml, for editors."""
    out = msgspec.json.schema(Settings)
    for name in _OWN:
        out["$defs"]["Settings"]["properties"].pop(name, None)
    for table, fields in descriptions().items():
        properties = out["$defs"].get(table, {}).get("properties", {})
        for name, words in fields.items():
            if name in properties:
                properties[name]["description"] = words
    return out


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
    for key, value in _leaves({k: v for k, v in tree.items() if k not in _OWN}).items():
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
        _leaves({k: v for k, v in msgspec.to_builtins(s).items() if k not in _OWN})
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


def _read(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}.") from None


def _leaves(tree: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        here = f"{place}{key}"
        if isinstance(value, dict) and value:
            out |= _leaves(value, f"{here}.")
        else:
            out[here] = value
    return out


def _set(tree: dict[str, Any], place: tuple[str, ...], value: str | list[str]) -> None:
    *tables, name = place
    for table in tables:
        tree = tree.setdefault(table, {})
        if not isinstance(tree, dict):
            return  # the file has no table there, which is what will be complained of
    tree[name] = value


def _listed(text: str) -> list[str]:
    return [part for item in text.split(",") if (part := item.strip())]


def _check_networks(where: str, networks: tuple[str, ...]) -> None:
    for text in networks:
        try:
            ipaddress.ip_network(text)
        except ValueError:
            raise ConfigError(
                f"`{where}` has `{text[:64]}`, which is not a network;"
                " write it as `10.0.0.0/8`, with no bits set behind the `/8`, or as one address."
            ) from None


_ORIGIN = re.compile(
    r"https?://(\*\.)?([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?"
)


def _check_origins(origins: tuple[str, ...]) -> None:
    """ConfigError for what is no origin (RFC 6454, 7): a scheme, a host and perhaps a port."""
    for text in origins:
        if text != "*" and not _ORIGIN.fullmatch(text):
            raise ConfigError(
                f"`cors.origins` has `{text[:64]}`, which is not an origin; write `https://app.example.com`,"
                " without a path or a slash at the end, or `*`."
            )


def _path(where: str, text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # `~name/` of nobody here
        raise ConfigError(f"`{where}` names the home of a user who is not here.") from None


def _explained(message: str, tree: Mapping[str, Any], path: str, origins: Mapping[str, str]) -> str:
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
    return tuple(f for f in kind.__struct_fields__ if f not in _OWN)


def _found(tree: Any, at: str) -> object:
    for name in at.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


# --- upstreams -------------------------------------------------------------------------------


def _from_environment(env: Mapping[str, str]) -> dict[str, Upstream]:
    out: dict[str, Upstream] = {}
    if url := env.get("HEADGATE_UPSTREAM_URL"):
        preset = env.get("HEADGATE_UPSTREAM_PRESET") or "custom"
        said = env.get("HEADGATE_UPSTREAM_DIALECT") or ("openai" if preset == "custom" else "")
        fields = {
            "preset": preset,
            "base_url": url,
            "key": "env:HEADGATE_UPSTREAM_KEY" if env.get("HEADGATE_UPSTREAM_KEY") else "",
            "dialect": said,
            "allow_http": True,
        }
        try:
            out["custom"] = msgspec.convert(fields, Upstream)
        except msgspec.ValidationError:
            raise ConfigError(
                f"HEADGATE_UPSTREAM_DIALECT is `{said[:40]}`; use openai, anthropic or gemini."
            ) from None
    for name, preset, variable in _KEYS:
        if env.get(variable):
            out[name] = Upstream(preset=preset, key=f"env:{variable}")
    return out or {"local": Upstream(preset="local")}


def _resolved(name: str, upstream: Upstream, env: Mapping[str, str], notes: list[str]) -> Upstream:
    """The upstream with its key read and its address checked."""
    where = f"upstreams.{name}"
    if upstream.base_url:
        _check_url(f"{where}.base_url", upstream.base_url, upstream.allow_http)
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


def check_stored_upstream(name: str, upstream: Upstream) -> None:
    """ConfigError for an upstream that may not be stored: only a key itself, never the name of one.

    Note: `env:` and `file:` are for headgate.toml; here they would let a page read files of the machine.
    """
    where = f"upstreams.{name}"
    if upstream.base_url:
        _check_url(f"{where}.base_url", upstream.base_url, upstream.allow_http)
    if upstream.keys:
        raise ConfigError(f"`{where}.keys`: a pool of keys is for headgate.toml.")
    if upstream.key.startswith(("env:", "file:")):
        raise ConfigError(
            f"`{where}.key`: `env:` and `file:` are for headgate.toml; enter the key itself."
        )
    check_key(f"`{where}.key`", upstream.key)


def check_upstream_name(name: str) -> None:
    """ConfigError for a name that cannot be in an address, a header or a metric."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ConfigError(
            f"`upstreams.{name[:64]}`: an upstream's name has letters, digits and `.`, `_`, `-`, at most"
            " 64, and begins with a letter or a digit."
        )


def stands_in(settings: Settings) -> bool:
    """Return whether the embedded model answers only because no upstream is configured."""
    return (
        not any(key.split(".")[0] == "upstreams" for key in settings.origins)
        and bool(settings.upstreams)
        and all(u.preset == "local" for u in settings.upstreams.values())
    )


def configured(settings: Settings) -> tuple[str, ...]:
    """Return the names of the upstreams without the embedded model that only stands in."""
    return () if stands_in(settings) else tuple(settings.upstreams)


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
            said = getattr(error, "strerror", None) or "not text"
            raise ConfigError(f"`{where}` names the file {rest}: {said}.") from None
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
    _check_url("oidc.issuer", oidc.issuer, False)
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
        _check_url("search.url", search.url, True)
    elif search.provider == "searxng":
        raise ConfigError("`search.url` is missing: the address of your SearXNG, https://...")
    key = _secret("search.key", search.key, env, notes)
    check_key("`search.key`", key)
    if not key and search.provider != "searxng":
        raise ConfigError(f"`search.key` is missing: {search.provider} answers nobody without one.")
    return structs.replace(search, key=key)


def is_private(url: str) -> bool:
    """Whether the URL's host is this machine or an address of a private network."""
    try:
        host = urlsplit(url).hostname or ""
        if host == "localhost" or (host and "." not in host and ":" not in host):
            return True
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or any(address in network for network in _PRIVATE)


def on_this_machine(url: str) -> bool:
    """Whether the URL's host is a loopback address, or localhost."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_key(where: str, key: str) -> None:
    """An upstream's key goes into a header: visible ASCII only."""
    if any(not "!" <= c <= "~" for c in key):
        raise ConfigError(f"{where} has characters that no API key has.")


# Plain http is for these only; Python's `is_private` has ranges of other purposes as well.
_PRIVATE = tuple(
    ipaddress.ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
# No upstream lives here: "this machine" by accident, the metadata services of clouds, and IPv4 in
# IPv6's clothes (mapped, NAT64, 6to4), which says less plainly where the requests go.
_NOWHERE = tuple(
    ipaddress.ip_network(n)
    for n in (
        "0.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/3",
        "::/128",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "fe80::/10",
        "ff00::/8",
    )
)


def _check_url(where: str, url: str, allow_http: bool) -> None:
    """https, or http to this machine; to a private network only where `allow_http` says so.

    Plain http would show the key and every prompt on its way.
    """
    if any(not "!" <= c <= "~" for c in url):
        raise ConfigError(f"`{where}` has characters that no URL has.")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        raise ConfigError(f"`{where}` is not a URL.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"`{where}` must begin with https:// (or http:// on this machine).")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(f"`{where}` must be an address only: no user, query or fragment.")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if parts.scheme == "https" or host == "localhost":
            return
        # A name inside a private network, such as a container's; never a number, which the
        # resolver may take for any address (`http://2130706433/` is 127.0.0.1).
        private = "." not in host and not re.fullmatch("0x[0-9a-f]*|[0-9]+", host)
    else:
        if any(address in network for network in _NOWHERE):
            raise ConfigError(f"`{where}` is an address where no upstream can be.")
        if parts.scheme == "https" or address.is_loopback:
            return
        private = any(address in network for network in _PRIVATE)
    if not (private and allow_http):
        raise ConfigError(
            f"`{where}` is plain http to another machine, which would show the key and every prompt."
            " Use https, or, on a private network, set `allow_http = true`."
        )
