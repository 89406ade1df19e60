"""What the edge counts, in Prometheus' form: the only place where a metric is declared.

Labels are bounded: dialects, catalog models, configured upstreams, kinds of failure.  Never keys,
never anything a client wrote.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_GAPS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        r = self.registry
        self.requests = Counter(
            "headgate_requests",
            "Exchanges by how they ended.",
            ["dialect", "model", "outcome"],
            registry=r,
        )
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
            "headgate_upstream_errors",
            "Attempts that failed, by kind.",
            ["upstream", "kind"],
            registry=r,
        )
        self.open_streams = Gauge("headgate_open_streams", "Streams being relayed.", registry=r)
        self.loop_lag = Gauge(
            "headgate_loop_lag_seconds", "How late the event loop runs.", registry=r
        )

    def page(self) -> bytes:
        return generate_latest(self.registry)
