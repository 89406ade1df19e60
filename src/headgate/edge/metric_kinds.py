"""The kinds of metric that the edge counts with: counters, histograms, and those of all edges together."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from headgate.policy import metrics_merge
from headgate.policy.metrics_merge import Sample

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
GAPS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Counts:
    """Counts events by their labels."""

    def __init__(self, name: str, help: str, labels: Sequence[str]) -> None:
        self._head = (name, help, labels)
        # An alert on a counter that begins with its first fault misses that one.
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def declare(self, labels: Iterable[tuple[str, ...]]) -> None:
        """Have samples of 0 for these from the start."""
        for each in labels:
            self._values.setdefault(each, 0.0)

    def add(self, *labels: str) -> None:
        self._values[labels] = self._values.get(labels, 0) + 1

    def value(self, *labels: str) -> float:
        return self._values.get(labels, 0.0)

    def add_to(self, labels: tuple[str, ...], by: float) -> None:
        self._values[labels] = self._values.get(labels, 0) + by

    def metric(self) -> Metric:
        name, help, labels = self._head
        out = CounterMetricFamily(name, help, labels=labels)
        for key, value in self._values.items():
            out.add_metric(key, value)
        return out


class Histogram:
    """One child of a histogram: how many values were at most each bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    @property
    def total(self) -> float:
        return self._sum

    def mean(self) -> float | None:
        count = sum(self._counts)
        return self._sum / count if count else None

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def reported(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative buckets and the sum, as the text format wants them."""
        total, buckets = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets, self._sum


class Histograms:
    def __init__(
        self, name: str, help: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self._head = (name, help, labels)
        self._bounds = tuple(map(float, bounds))
        self._children: dict[tuple[str, ...], Histogram] = {}

    def of(self, *labels: str) -> Histogram:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = Histogram(self._bounds)
        return child

    def metric(self) -> Metric:
        name, help, labels = self._head
        out = HistogramMetricFamily(name, help, labels=labels)
        for key, child in self._children.items():
            buckets, total = child.reported()
            out.add_metric(key, buckets, total)
        return out


class Merged:
    """The families of one process with the samples of several."""

    def __init__(self, families: Iterable[Metric], others: Sequence[Sequence[Sample]]) -> None:
        self._families = families
        self._others = others

    def collect(self) -> Iterator[Metric]:
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for samples in self._others:
            for each in samples:
                labels = tuple(sorted(each.labels.items()))
                values = found.setdefault(each.name, {})
                merge = metrics_merge.rule_of(each.name)
                values[labels] = (
                    merge(values[labels], each.value) if labels in values else each.value
                )
        for family in self._families:
            out = Metric(family.name, family.documentation, family.type)
            names: dict[str, None] = {}
            for mine in family.samples:
                names[mine.name] = None
                value, labels = mine.value, tuple(sorted(mine.labels.items()))
                theirs = found.get(mine.name, {})
                if labels in theirs:
                    value = metrics_merge.rule_of(mine.name)(value, theirs.pop(labels))
                out.add_sample(mine.name, mine.labels, value)
            for name in _sample_names(family, names):
                for labels, value in found.get(name, {}).items():
                    out.add_sample(name, dict(labels), value)
            yield out


def _sample_names(family: Metric, seen: Iterable[str]) -> list[str]:
    """The names of a family's samples, also where this process has none yet."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
    named = [family.name + suffix for suffix in suffixes.get(family.type, ("",))]
    return list(dict.fromkeys((*seen, *named)))
