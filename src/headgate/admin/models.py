"""Operations on models of the operator's own: put, remove."""

from collections.abc import Mapping

import msgspec

from headgate.admin.operator import Operator
from headgate.catalog import stored
from headgate.catalog.stored import Joined
from headgate.config import ConfigError, Settings


def put(
    operator: Operator,
    settings: Settings,
    environ: Mapping[str, str],
    id: str,
    fields: dict[str, object],
    *,
    now_s: float,
) -> Joined:
    """Store a model with these fields of `[models.NAME]`; ConfigError names the field that is wrong.

    Returns the settings and the catalog with it.
    """
    model = stored.decoded(id, msgspec.json.encode(fields))
    kept = stored.read(operator.store)
    kept.models[id] = stored.encoded(model)
    both = stored.joined(settings, environ, kept)
    if fault := both.faults.get(id):
        raise ConfigError(fault)
    operator.store.put_own_model(id, kept.models[id], now_s=now_s)
    routes = [f"{r.upstream}/{r.model or id}" for r in model.routes]
    operator.record("model.put", id, routes=routes)
    return both


def remove(operator: Operator, id: str) -> bool:
    """Remove a stored model; False when there is none of this name."""
    if not operator.store.remove_own_model(id):
        return False
    operator.record("model.remove", id)
    return True
