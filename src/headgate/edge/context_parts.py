"""The parts of an edge's context: what belongs together of what every exchange shares."""

from dataclasses import dataclass

from headgate.edge.counter import Counter
from headgate.edge.key_reports import KeyReports
from headgate.edge.log import Log
from headgate.edge.management import Management
from headgate.edge.metrics import Metrics
from headgate.edge.own_keys import OwnKeyRoutes
from headgate.edge.reads import Reads
from headgate.edge.refusals import Refusals
from headgate.edge.replay import ReplayStore
from headgate.edge.shared_reasoning import SharedReasoning
from headgate.edge.stored_responses import ResponseStore
from headgate.edge.upstream_health import UpstreamHealth
from headgate.edge.web_search import SearchProvider
from headgate.net.client import Client
from headgate.net.client_errors import Timeouts
from headgate.reasoning.cache import ReasoningCache
from headgate.reasoning.sealing import Sealer
from headgate.storage.interface import Keys
from headgate.storage.sqlite.ledger import Ledger


@dataclass(slots=True)
class Outbound:
    """What an exchange needs to ask an upstream."""

    client: Client
    counter: Counter  # of tokens
    timeouts: Timeouts
    search: SearchProvider | None  # of the web
    health: UpstreamHealth
    own_keys: OwnKeyRoutes  # routes with the upstream keys of owners
    mask_secret: bytes  # for what is masked before it leaves


@dataclass(slots=True)
class Reasoning:
    """What keeps a model's thoughts across turns; without a cache only what clients return."""

    sealer: Sealer
    cache: ReasoningCache | None
    shared: SharedReasoning | None  # with other machines


@dataclass(slots=True)
class Storage:
    """The database of keys, the ledger, and what is read and kept beside them."""

    store: Keys
    ledger: Ledger
    reads: Reads  # in threads
    management: Management
    key_reports: KeyReports
    replays: ReplayStore
    responses: ResponseStore | None  # of Responses, where the operator has them stored


@dataclass(slots=True)
class Reporting:
    """Where what happens is counted and written down."""

    metrics: Metrics
    log: Log
    refusals: Refusals
