"""How the metrics of several edges become one page: sums, but where a sum says nothing."""

from collections.abc import Callable, Iterable

import msgspec

# A sum of these would be of no use: they are states, or the same for all processes.
_LARGEST = (
    "headgate_loop_lag_seconds",
    "headgate_keys_age_seconds",
    "headgate_overloaded",
    "headgate_child_exits_total",
    "headgate_model_retires_timestamp_seconds",
    "headgate_tls_certificate_expires_seconds",
    "headgate_plan_resets_timestamp_seconds",
)
_SMALLEST = ("headgate_plan_left_ratio", "process_start_time_seconds", "process_max_fds")
_LASTING = ("_total", "_bucket", "_count", "_sum")  # how the names of what only grows end


class Sample(msgspec.Struct, array_like=True, frozen=True):
    """Holds one line of a page of metrics."""

    name: str
    labels: dict[str, str]
    value: float


def rule_of(name: str) -> Callable[[float, float], float]:
    """How two processes' values of a sample become one."""
    if name in _LARGEST:
        return max
    if name in _SMALLEST:
        return min
    return _sum


def lasting(samples: Iterable[Sample]) -> list[Sample]:
    """What stays of a process that has ended: what it has counted."""
    return [each for each in samples if each.name.endswith(_LASTING) and each.name not in _LARGEST]


def added(kept: Iterable[Sample], more: Iterable[Sample]) -> list[Sample]:
    """What several processes that have ended have counted together."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], Sample] = {}
    for each in (*kept, *more):
        key = (each.name, tuple(sorted(each.labels.items())))
        before = found.get(key)
        value = each.value if before is None else before.value + each.value
        found[key] = Sample(each.name, each.labels, value)
    return list(found.values())


def _sum(one: float, other: float) -> float:
    return one + other
