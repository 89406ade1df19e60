"""Operations on upstreams of the operator's own: put, change, remove.

Note: an upstream of headgate.toml or of the environment cannot be changed here, as the file counts.  A
key is encrypted before it is stored and is never shown; it must be entered again when the address
changes, so that nobody can have it sent to an address of theirs.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from urllib.parse import urlsplit

import msgspec

from headgate import config
from headgate.admin.models import price_change
from headgate.admin.operator import Operator, Refused
from headgate.catalog import price_history, stored
from headgate.catalog.presets import presets
from headgate.config import ConfigError, Settings, addresses

_IN_FILE = "`{upstream}` is in headgate.toml or the environment; change it there."


def put(
    operator: Operator,
    settings: Settings,
    environ: Mapping[str, str],
    name: str,
    fields: Mapping[str, object],
    *,
    now_s: float,
) -> None:
    """Store an upstream with these fields of `[upstreams.NAME]`, in place of the one before."""
    if name in addresses.configured(settings):
        raise Refused("conflict", _IN_FILE, "id", upstream=name)
    kept, today = stored.read(operator.store), datetime.fromtimestamp(now_s, UTC).date()
    try:
        upstream = stored.decoded_upstream(name, msgspec.json.encode(fields))
        old = kept.upstreams.get(name)
        before = msgspec.json.decode(old, type=config.Upstream).prices if old else ()
        prices = price_history.changed_at_upstream(before, upstream.prices, today)
        upstream = msgspec.structs.replace(upstream, prices=prices)
        kept.upstreams[name] = stored.encoded_upstream(name, upstream, kept.secret)
        if fault := stored.joined(settings, environ, kept).upstream_faults.get(name):
            raise ConfigError(fault)
    except ConfigError as error:
        raise Refused("invalid", "{fault}", _field(str(error), name), fault=str(error)) from None
    operator.store.put_own_upstream(name, kept.upstreams[name], now_s=now_s)
    operator.record(
        "upstream.put",
        name,
        preset=upstream.preset,
        host=urlsplit(upstream.base_url or presets()[upstream.preset].base_url).netloc,
        key=bool(upstream.key),
        **_price_changes(before, prices, today),
    )


def change(
    operator: Operator,
    settings: Settings,
    environ: Mapping[str, str],
    name: str,
    changes: Mapping[str, object],
    *,
    now_s: float,
) -> None:
    """Store an upstream with some of its fields replaced; a new address needs the key once more."""
    kept = stored.read(operator.store)
    text = kept.upstreams.get(name)
    if text is None:
        raise _not_stored(settings, name)
    try:
        old = stored.opened_upstream(name, text, kept.secret)
    except ConfigError as error:  # the pepper was replaced: a new key makes it good again
        if not changes.get("key"):
            raise Refused("invalid", "{fault}", "key", fault=str(error)) from None
        old = msgspec.structs.replace(msgspec.json.decode(text, type=config.Upstream), key="")
    fields = {**msgspec.to_builtins(old), **changes}
    moved = any(fields[f] != getattr(old, f) for f in ("preset", "base_url"))
    if moved and old.key and "key" not in changes:
        why = "The address changes: enter the key again, as it is sent there."
        raise Refused("invalid", why, "key")
    put(operator, settings, environ, name, fields, now_s=now_s)


def remove(operator: Operator, settings: Settings, name: str) -> None:
    """Remove a stored upstream; its requests stay in the ledger and in the reports."""
    if not operator.store.remove_own_upstream(name):
        raise _not_stored(settings, name)
    operator.record("upstream.remove", name)


def _not_stored(settings: Settings, name: str) -> Refused:
    if name in addresses.configured(settings):
        return Refused("conflict", _IN_FILE, upstream=name)
    return Refused("absent", "There is no upstream `{upstream}`.", upstream=name[:64])


def _field(text: str, name: str) -> str:
    """The field of the body that an error of the settings names."""
    place = text.split("`")[1] if "`" in text else ""
    rest = place.removeprefix(f"upstreams.{name}")
    return "id" if rest in ("", place) else rest.removeprefix(".")


def _price_changes(
    before: Sequence[config.UpstreamPrice], after: Sequence[config.UpstreamPrice], on: date
) -> dict[str, object]:
    """The changes of prices for the audit log, of all models together."""
    models = dict.fromkeys(p.model for p in (*before, *after))
    old, new = (
        [p for m in models for p in price_history.in_force([p for p in each if p.model == m], on)]
        for each in (before, after)
    )
    # Each is in force by itself: the days are no part of what is compared.
    undated = [
        [msgspec.structs.replace(p, valid_from=price_history.BEGINNING) for p in each]
        for each in (old, new)
    ]
    return price_change(undated[0], undated[1], on)
