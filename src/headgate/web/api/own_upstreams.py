"""Upstreams over the admin API: their settings shown, and those of the operator's own added and changed.

Note: an upstream of headgate.toml or of the environment cannot be changed here, as the file counts.  A
key is encrypted before it is stored and is never shown; it must be entered again when the address
changes, so that nobody can have it sent to an address of theirs.
"""

import os
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET

from headgate import config
from headgate.admin import models as operations
from headgate.catalog import price_history, stored
from headgate.catalog.presets import presets
from headgate.config import ConfigError, addresses
from headgate.web.api import figures, shapes
from headgate.web.context import Problem, RequestContext


def show_upstream(visit: RequestContext) -> figures.UpstreamSettings:
    """Show the settings of one upstream; never its key."""
    return shown(visit, visit.path["name"])


def make_upstream(visit: RequestContext, body: shapes.NewUpstream) -> figures.UpstreamSettings:
    """Add an upstream.

    A running gateway sends requests to it within a second. Its key is encrypted and never shown.
    """
    if body.id in visit.console_context.store.own_upstreams():
        raise Problem(409, f"There is an upstream `{body.id}` already.", "$.id")
    put(visit, body.id, {k: v for k, v in msgspec.to_builtins(body).items() if k != "id"})
    return shown(visit, body.id)


def change_upstream(
    visit: RequestContext, body: shapes.UpstreamChanges
) -> figures.UpstreamSettings:
    """Change an upstream that was added here.

    What is left out stays; a new address needs the key once more.
    """
    name = visit.path["name"]
    changes = {k: v for k, v in msgspec.to_builtins(body).items() if v is not UNSET}
    change(visit, name, changes)
    return shown(visit, name)


def remove_upstream(visit: RequestContext) -> figures.Removed:
    """Remove an upstream that was added here.

    Its requests stay in the ledger and in the reports.
    """
    name = visit.path["name"]
    remove(visit, name)
    return figures.Removed(id=name)


def put(visit: RequestContext, name: str, fields: dict[str, object]) -> None:
    """Store an upstream with these fields; Problem names the field that is wrong."""
    console_context = visit.console_context
    if name in addresses.configured(console_context.settings):
        raise Problem(
            409,
            f"`upstreams.{name}` is in headgate.toml or the environment; change it there.",
            "$.id",
        )
    kept, now_s = stored.read(console_context.store), time.time()
    today = datetime.fromtimestamp(now_s, UTC).date()
    try:
        upstream = stored.decoded_upstream(name, msgspec.json.encode(fields))
        old = kept.upstreams.get(name)
        before = msgspec.json.decode(old, type=config.Upstream).prices if old else ()
        prices = price_history.changed_at_upstream(before, upstream.prices, today)
        upstream = msgspec.structs.replace(upstream, prices=prices)
        kept.upstreams[name] = stored.encoded_upstream(name, upstream, kept.secret)
        if fault := stored.joined(console_context.settings, os.environ, kept).upstream_faults.get(
            name
        ):
            raise ConfigError(fault)
    except ConfigError as error:
        raise Problem(422, str(error), _field(str(error), name)) from None
    console_context.store.put_own_upstream(name, kept.upstreams[name], now_s=now_s)
    visit.record(
        "upstream.put",
        name,
        preset=upstream.preset,
        host=_host(upstream),
        key=bool(upstream.key),
        **_price_changes(before, prices, today),
    )


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
    return operations.price_change(undated[0], undated[1], on)


def change(visit: RequestContext, name: str, changes: dict[str, object]) -> None:
    """Store an upstream with some of its fields replaced; Problem when it is not one that is stored."""
    kept = stored.read(visit.console_context.store)
    text = kept.upstreams.get(name)
    if text is None:
        raise _not_stored(visit, name)
    try:
        old = stored.opened_upstream(name, text, kept.secret)
    except ConfigError as error:  # the pepper was replaced: a new key makes it good again
        if not changes.get("key"):
            raise Problem(422, str(error), "$.key") from None
        old = msgspec.structs.replace(msgspec.json.decode(text, type=config.Upstream), key="")
    fields = {**msgspec.to_builtins(old), **changes}
    address = ("preset", "base_url")
    moved = any(fields[f] != getattr(old, f) for f in address)
    if moved and old.key and "key" not in changes:
        raise Problem(
            422, "The address changes: enter the key again, as it is sent there.", "$.key"
        )
    put(visit, name, fields)


def remove(visit: RequestContext, name: str) -> None:
    if not visit.console_context.store.remove_own_upstream(name):
        raise _not_stored(visit, name)
    visit.record("upstream.remove", name)


def shown(visit: RequestContext, name: str) -> figures.UpstreamSettings:
    """Return the settings of an upstream as they are answered; Problem 404 when there is none."""
    console_context = visit.console_context
    both, text = console_context.joined, console_context.store.own_upstreams().get(name)
    found, source, fault = both.settings.upstreams.get(name), "file", ""
    if text is not None and name not in addresses.configured(console_context.settings):
        source, fault = "stored", both.upstream_faults.get(name, "")
        found = msgspec.json.decode(text, type=config.Upstream)
    if found is None:
        raise Problem(404, f"There is no upstream `{name[:64]}`.")
    fields = msgspec.to_builtins(found)
    for hidden in ("key", "keys"):
        del fields[hidden]
    return msgspec.convert(
        {
            **fields,
            "id": name,
            "source": source,
            "has_key": bool(found.key or found.keys),
            "base_url": found.base_url or presets()[found.preset].base_url,
            "left_out": fault,
        },
        figures.UpstreamSettings,
    )


def _host(upstream: config.Upstream) -> str:
    return urlsplit(upstream.base_url or presets()[upstream.preset].base_url).netloc


def _field(text: str, name: str) -> str:
    """The field of the body that an error of the settings names."""
    place = text.split("`")[1] if "`" in text else ""
    rest = place.removeprefix(f"upstreams.{name}")
    return "$.id" if rest in ("", place) else f"${rest}"


def _not_stored(visit: RequestContext, name: str) -> Problem:
    if name not in visit.console_context.upstreams:
        return Problem(404, f"There is no upstream `{name[:64]}`.")
    return Problem(409, f"`{name[:64]}` is in headgate.toml or the environment; change it there.")
