"""What a route consists of: its model's upstream, that upstream's keys, and what it can do."""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from headgate.catalog.models import DialectName, Model, Price, Retirement
from headgate.dialects.capabilities import Capabilities

Auth = Literal["bearer", "x-api-key", "none"]


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
    """Holds one key of an upstream's pool; `secret` appears in no message, page or log.

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
    """Holds the settings of one upstream."""

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
        """Return the secret of the first key; "": none."""
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
        """Return the upstream and its model, and which key of a pool: for headers, warnings and messages."""
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
