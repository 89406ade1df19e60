"""Models that end at an upstream, as lines of the log."""

from datetime import UTC, date, datetime

from headgate.catalog.advice import retirement_text, retirements
from headgate.catalog.catalog import Catalog
from headgate.config import Settings
from headgate.edge.log import Log, LogLine
from headgate.edge.log import now as log_now


def log_retirements(catalog: Catalog, settings: Settings, log: Log) -> None:
    """Log each day which models end at which upstream, before they do and after."""
    today = datetime.now(UTC).date()
    for route, _ in retirements(catalog, today):
        text = retirement_text(route, settings, today)
        line = LogLine(
            log_now(),
            "warning",
            "model_retires",
            model=route.model.id,
            upstream=route.upstream.name,
            where=text,
        )
        log.write(line)


def retirement_times(catalog: Catalog) -> list[tuple[str, str, float]]:
    """Return each model and upstream where it ends, and when: Unix seconds."""
    return [
        (m.id, r.upstream.name, _midnight_s(r.retirement.ends))
        for m in catalog.models
        for r in catalog.routes(m.id)
        if r.retirement is not None
    ]


def _midnight_s(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
