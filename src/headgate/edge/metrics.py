"""What the edge counts, in Prometheus' form: the only place where a metric is declared.

Labels are bounded: dialects, catalog models, configured upstreams, kinds of failure.  Never keys,
never anything a client wrote.  Note: counting is done in plain lists here, and only
the page is made by prometheus_client, as its counters take a lock each and cost more than relaying
a chunk; one event loop counts, so nothing needs a lock.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from headgate.chat import Usage
from headgate.edge.metric_kinds import GAPS, SECONDS, Counts, Histograms, Merged
from headgate.errors import RULES, Kind
from headgate.policy.metrics_merge import Sample
from headgate.policy.plans import PlanWindow

_TOKENS = ("input", "cached", "output", "reasoning")

# Outcomes of a model's exchanges with a sample of 0 from the start; most others are the clients' own.
DECLARED = (
    "stop",
    "shutdown",
    "client_gone",
    *(kind for kind, rule in RULES.items() if rule.origin in ("gateway", "upstream", "operator")),
)

CHILDREN = ("edge", "node", "control", "local")  # that the supervisor replaces


class Metrics(Collector):
    def __init__(self) -> None:
        self.requests = Counts(
            "headgate_requests", "Exchanges by how they ended.", ("dialect", "model", "outcome")
        )
        self.tokens = Counts(
            "headgate_tokens",
            "Tokens by direction (input, cached, output, reasoning).",
            ("model", "upstream", "kind"),
        )
        self.upstream_errors = Counts(
            "headgate_upstream_errors", "Attempts that failed, by kind.", ("upstream", "kind")
        )
        self.attempts = Counts("headgate_upstream_attempts", "Requests sent to it.", ("upstream",))
        self.upstream_pauses = Counts(
            "headgate_upstream_pauses",
            "Times that a route or a key was paused, by the kind of its last failure: an alert for"
            " upstream_auth, upstream_quota and upstream_config.",
            ("upstream", "kind"),
        )
        self.ledger_faults = Counts(
            "headgate_ledger_faults",
            "Requests refused and rows kept because the disk took no writes.",
            (),
        )
        route = ("model", "upstream")
        self.first_token = Histograms(
            "headgate_first_token_seconds",
            "Request read to first byte of the reply.",
            route,
            SECONDS,
        )
        self.duration = Histograms(
            "headgate_exchange_seconds", "Request read to end of the reply.", route, SECONDS
        )
        self.gap = Histograms(
            "headgate_chunk_gap_seconds",
            "Time between two pieces of a streamed reply.",
            ("upstream",),
            GAPS,
        )
        self.unpriced = Counts(
            "headgate_unpriced", "Exchanges whose price is unknown: an alert.", ("model",)
        )
        self.disputed = Counts(
            "headgate_usage_disputed",
            "Replies whose upstream reported more tokens than their request allowed: an alert.",
            ("upstream",),
        )
        self.searches = Counts(
            "headgate_searches",
            "Web searches made for models, by how they ended.",
            ("provider", "outcome"),
        )
        self.cache_reads = Counts(
            "headgate_reasoning_cache_reads",
            "Requests that asked the cache of all nodes: hit, miss, or unavailable.",
            ("result",),
        )
        self.counts = Counts(
            "headgate_token_counts",
            "Counts of tokens by how they ended.",
            ("dialect", "model", "outcome"),
        )
        self.shed = Counts(
            "headgate_shed",
            "Requests refused for overload: in_flight, key_in_flight, late, body_bytes, key_body_bytes; or repeated.",
            ("reason",),
        )
        self.bad_keys = Counts(
            "headgate_bad_keys",
            "Credentials that were wrong: refused, or throttled after too many.",
            ("answer",),
        )
        self.retirements: Sequence[tuple[str, str, float]] = ()  # model, upstream, Unix seconds
        self.plans: Callable[[], Iterable[tuple[str, PlanWindow]]] = tuple
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self.open_streams = 0
        self.loop_lag_s = 0.0
        self.log_lines_dropped: Callable[[], int] = lambda: 0
        self.tls_handshakes: Mapping[str, int] = {}  # by outcome; empty: no listener speaks TLS
        self.child_exits: dict[str, int] = {name: 0 for name in CHILDREN}
        self._task_failures: Mapping[str, int] = {}
        self._keys_age_s: Callable[[], float] = lambda: 0.0
        self._routes: dict[tuple[str, str], RouteMetrics] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def declare(
        self, dialects: Iterable[str], models: Sequence[str], upstreams: Iterable[str]
    ) -> None:
        """Have samples of what alerts are about from the start: `rate` does not see a first one."""
        self.unpriced.declare([(model,) for model in models])
        for dialect in dialects:
            self.requests.declare([(dialect, "", outcome) for outcome in get_args(Kind)])
            self.requests.declare([(dialect, model, o) for model in models for o in DECLARED])
        kinds = get_args(Kind)
        self.upstream_errors.declare([(name, kind) for name in upstreams for kind in kinds])

    def watched(
        self,
        task_failures: Mapping[str, int],
        keys_age_s: Callable[[], float],
    ) -> None:
        """What the parts of the edge count themselves."""
        self._task_failures = task_failures
        self._keys_age_s = keys_age_s

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Show what `read` returns when the page is made."""
        self._gauges.append((name, help, read))

    def of(self, model: str, upstream: str) -> "RouteMetrics":
        """The children of one route."""
        found = self._routes.get((model, upstream))
        if found is None:
            found = self._routes[model, upstream] = RouteMetrics(self, model, upstream)
        return found

    def collect(self) -> Iterator[Metric]:
        for each in vars(self).values():
            if isinstance(each, Counts | Histograms):
                yield each.metric()
        yield GaugeMetricFamily(
            "headgate_open_streams", "Streams being relayed.", self.open_streams
        )
        yield GaugeMetricFamily(
            "headgate_loop_lag_seconds", "How late the event loop runs.", self.loop_lag_s
        )
        yield GaugeMetricFamily(
            "headgate_keys_age_seconds", "Since the keys were last checked.", self._keys_age_s()
        )
        yield CounterMetricFamily(
            "headgate_log_lines_dropped",
            "Lines of output that nobody read in time.",
            self.log_lines_dropped(),
        )
        failures = CounterMetricFamily(
            "headgate_task_failures", "Rounds of background tasks that failed.", labels=("task",)
        )
        for task, count in self._task_failures.items():
            failures.add_metric((task,), count)
        yield failures
        exits = CounterMetricFamily(
            "headgate_child_exits",
            "Child processes that ended and were replaced.",
            labels=("child",),
        )
        for child, count in self.child_exits.items():
            exits.add_metric((child,), count)
        yield exits
        if self.tls_handshakes:
            handshakes = CounterMetricFamily(
                "headgate_tls_handshakes",
                "TLS handshakes of clients: done, failed, left; plain_http and not_tls were none.",
                labels=("outcome",),
            )
            for outcome, count in self.tls_handshakes.items():
                handshakes.add_metric((outcome,), count)
            yield handshakes
        retires = GaugeMetricFamily(
            "headgate_model_retires_timestamp_seconds",
            "When a model ends at its vendor: an alert some weeks before.",
            labels=("model", "upstream"),
        )
        for model, upstream, at_s in self.retirements:
            retires.add_metric((model, upstream), at_s)
        yield retires
        yield from self._plans()
        # The node has their values, and adds them to a page.
        yield GaugeMetricFamily("headgate_database_up", "Whether `database` answers this node.")
        yield GaugeMetricFamily(
            "headgate_database_rows_waiting", "Rows that are here and not in `database` yet."
        )

        for name, help, read in self._gauges:
            yield GaugeMetricFamily(name, help, read())

    def _plans(self) -> Iterator[Metric]:
        """What is left of plans; `account` is the upstream, with the key's place in its pool."""
        left = GaugeMetricFamily(
            "headgate_plan_left_ratio",
            "What is left of a window of a plan, from 0 to 1.",
            labels=("account", "window"),
        )
        resets = GaugeMetricFamily(
            "headgate_plan_resets_timestamp_seconds",
            "When a window of a plan begins anew.",
            labels=("account", "window"),
        )
        for account, window in self.plans():
            if window.left is not None:
                left.add_metric((account, window.name), window.left)
            if window.resets_at_s is not None:
                resets.add_metric((account, window.name), window.resets_at_s)
        yield left
        yield resets

    def speed(self, model: str, upstream: str) -> tuple[float | None, float | None]:
        """Seconds to the first token and tokens a second, on average since the start; None: no reply."""
        first, whole = self.first_token.of(model, upstream), self.duration.of(model, upstream)
        tokens = self.tokens.value(model, upstream, "output")
        return first.mean(), (tokens / whole.total if whole.total and tokens else None)

    def samples(self) -> list[Sample]:
        """All samples of this process, for the other edges' pages."""
        return [
            Sample(each.name, each.labels, each.value)
            for family in self._registry.collect()
            for each in family.samples
        ]

    def page(self, others: Sequence[Sequence[Sample]] = ()) -> bytes:
        """The page of this edge and of `others`, whose samples are added up."""
        if not others:
            return generate_latest(self._registry)
        return generate_latest(Merged(self._registry.collect(), others))


class RouteMetrics:
    def __init__(self, metrics: Metrics, model: str, upstream: str) -> None:
        self.first_token = metrics.first_token.of(model, upstream)
        self.duration = metrics.duration.of(model, upstream)
        self.gap = metrics.gap.of(upstream)
        self._tokens = metrics.tokens
        self._labels = [(model, upstream, kind) for kind in _TOKENS]

    def spent(self, usage: Usage) -> None:
        input, cached, output, reasoning = self._labels
        add = self._tokens.add_to
        if usage.input > 0:
            add(input, usage.input)
        if usage.cached > 0:
            add(cached, usage.cached)
        if usage.output > 0:
            add(output, usage.output)
        if usage.reasoning > 0:
            add(reasoning, usage.reasoning)
