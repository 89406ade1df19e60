"""Operations on models of the operator's own: put, remove."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime

import msgspec

from headgate import config
from headgate.admin.operator import Operator
from headgate.catalog import price_history, stored
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
    old = kept.models.get(id)
    before = msgspec.json.decode(old, type=config.Model).prices if old else ()
    today = datetime.fromtimestamp(now_s, UTC).date()
    model = msgspec.structs.replace(
        model, prices=price_history.changed(before, model.prices, today)
    )
    kept.models[id] = stored.encoded(model)
    both = stored.joined(settings, environ, kept)
    if fault := both.faults.get(id):
        raise ConfigError(fault)
    operator.store.put_own_model(id, kept.models[id], now_s=now_s)
    routes = [f"{r.upstream}/{r.model or id}" for r in model.routes]
    operator.record("model.put", id, routes=routes, **price_change(before, model.prices, today))
    return both


def price_change(
    before: Sequence[config.Price], after: Sequence[config.Price], on: date
) -> dict[str, object]:
    """Return a change of the prices in force as an entry of the audit log has it; {} where there is none."""
    old, new = ([_stated(p) for p in price_history.in_force(each, on)] for each in (before, after))
    return {} if old == new else {"prices": {"from": old, "to": new}}


def _stated(price: config.Price) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(price)
    return {k: v for k, v in fields.items() if v not in ("", None) and k != "valid_from"}


def remove(operator: Operator, id: str) -> bool:
    """Remove a stored model; False when there is none of this name."""
    if not operator.store.remove_own_model(id):
        return False
    operator.record("model.remove", id)
    return True
