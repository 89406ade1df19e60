"""What the edge counts, in Prometheus' form: the only place where a metric is declared.

Labels are bounded: dialects, catalog models, configured upstreams, kinds of failure.  Never keys,
never anything a client wrote.  What will surprise: looking a labelled child up costs more than
counting with it, so an exchange asks once for all of its own (`Metrics.of`).
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from headgate.chat import Usage

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_GAPS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOKENS = ("input", "cached", "output", "reasoning")


class Metrics:
    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        ProcessCollector(registry=r)
        self.requests = Counter(
            "headgate_requests", "Exchanges by how they ended.",
            ["dialect", "model", "outcome"], registry=r,
        )  # fmt: skip
        self.tokens = Counter(
            "headgate_tokens", "Tokens by direction (input, cached, output, reasoning).",
            ["model", "upstream", "kind"], registry=r,
        )  # fmt: skip
        self.first_token = Histogram(
            "headgate_first_token_seconds", "Request read to first byte of the reply.",
            ["model", "upstream"], buckets=_SECONDS, registry=r,
        )  # fmt: skip
        self.duration = Histogram(
            "headgate_exchange_seconds", "Request read to end of the reply.",
            ["model", "upstream"], buckets=_SECONDS, registry=r,
        )  # fmt: skip
        self.gap = Histogram(
            "headgate_chunk_gap_seconds", "Time between two pieces of a streamed reply.",
            ["upstream"], buckets=_GAPS, registry=r,
        )  # fmt: skip
        self.upstream_errors = Counter(
            "headgate_upstream_errors", "Attempts that failed, by kind.",
            ["upstream", "kind"], registry=r,
        )  # fmt: skip
        self.ledger_faults = Counter(
            "headgate_ledger_faults", "Rows that the disk did not take at once.", registry=r
        )
        self.open_streams = Gauge("headgate_open_streams", "Streams being relayed.", registry=r)
        self.loop_lag = Gauge(
            "headgate_loop_lag_seconds", "How late the event loop runs.", registry=r
        )
        self._routes: dict[tuple[str, str], RouteMetrics] = {}
        self._outcomes: dict[tuple[str, str, str], Counter] = {}

    def of(self, model: str, upstream: str) -> "RouteMetrics":
        """The children of one route."""
        found = self._routes.get((model, upstream))
        if found is None:
            found = self._routes[model, upstream] = RouteMetrics(self, model, upstream)
        return found

    def ended(self, dialect: str, model: str, outcome: str) -> None:
        """Count an exchange."""
        child = self._outcomes.get((dialect, model, outcome))
        if child is None:
            child = self.requests.labels(dialect, model, outcome)
            self._outcomes[dialect, model, outcome] = child
        child.inc()

    def page(self) -> bytes:
        return generate_latest(self.registry)


class RouteMetrics:
    def __init__(self, metrics: Metrics, model: str, upstream: str) -> None:
        self.first_token = metrics.first_token.labels(model, upstream)
        self.duration = metrics.duration.labels(model, upstream)
        self.gap = metrics.gap.labels(upstream)
        self._tokens = [metrics.tokens.labels(model, upstream, kind) for kind in _TOKENS]

    def spent(self, usage: Usage) -> None:
        counts = (usage.input, usage.cached, usage.output, usage.reasoning)
        for child, count in zip(self._tokens, counts, strict=True):
            if count > 0:
                child.inc(count)
