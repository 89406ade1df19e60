"""Configuration: what an operator may set, its defaults, and where each value came from.

The only place that reads headgate.toml and the environment.  A value is looked for on the command
line, then in the environment (`HEADGATE_` and the key in capitals, `_` for the dot), then in the
file, then here.  Secrets are named, not written: `key = "env:NAME"` or `"file:/path"`.

Note: with no upstream in the file, the environment's keys make them, and with no key either
the small local model answers.
"""

from datetime import date
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

_HOST_PORT = r"(\[[0-9a-fA-F:]+\]|[0-9A-Za-z.-]+):[0-9]{1,5}"
Seconds = Annotated[float, Meta(gt=0, le=86400)]
Dollars = Annotated[str, Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,12})?$")]
OwnDollars = Annotated[str, Meta(pattern=r"^([0-9]{1,9}(\.[0-9]{1,12})?)?$")]
EPOCH_DAY = date(1970, 1, 1).toordinal()
LogLevel = Literal["debug", "info", "warning", "error", "off"]


class ConfigError(Exception):
    """What is wrong, where, and what to write instead; holds no secret."""


# Old names of settings, which are refused with the new one.
RENAMED = {"share": "weight", "salvage": "tool_call_recovery"}


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

    tool_call_recovery: bool = True  # calls that the model wrote into its text become calls
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
    """Sets one account at one provider; catalog/upstreams.toml has the presets."""

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
    """Sets where the console and the admin API listen."""

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
OWN = ("notes", "origins")  # of the struct, not of the file
