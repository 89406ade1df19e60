"""Upstreams over the admin API: their settings shown, and those of the operator's own added and changed."""

import os
import time

import msgspec
from msgspec import UNSET

from headgate import config
from headgate.admin import upstreams as operations
from headgate.catalog.presets import presets
from headgate.config import addresses
from headgate.web.api import catalog_shapes, upstream_figures
from headgate.web.context import Problem, RequestContext


def show_upstream(visit: RequestContext) -> upstream_figures.UpstreamSettings:
    """Show the settings of one upstream; never its key."""
    return shown(visit, visit.path["name"])


def make_upstream(
    visit: RequestContext, body: catalog_shapes.NewUpstream
) -> upstream_figures.UpstreamSettings:
    """Add an upstream.

    A running gateway sends requests to it within a second. Its key is encrypted and never shown.
    """
    if body.id in visit.console_context.store.own_upstreams():
        raise Problem(409, f"There is an upstream `{body.id}` already.", "$.id")
    fields = {k: v for k, v in msgspec.to_builtins(body).items() if k != "id"}
    operations.put(
        visit.operator,
        visit.console_context.settings,
        os.environ,
        body.id,
        fields,
        now_s=time.time(),
    )
    return shown(visit, body.id)


def change_upstream(
    visit: RequestContext, body: catalog_shapes.UpstreamChanges
) -> upstream_figures.UpstreamSettings:
    """Change an upstream that was added here.

    What is left out stays; a new address needs the key once more.
    """
    name = visit.path["name"]
    changes = {k: v for k, v in msgspec.to_builtins(body).items() if v is not UNSET}
    operations.change(
        visit.operator, visit.console_context.settings, os.environ, name, changes, now_s=time.time()
    )
    return shown(visit, name)


def remove_upstream(visit: RequestContext) -> upstream_figures.Removed:
    """Remove an upstream that was added here.

    Its requests stay in the ledger and in the reports.
    """
    name = visit.path["name"]
    operations.remove(visit.operator, visit.console_context.settings, name)
    return upstream_figures.Removed(id=name)


def shown(visit: RequestContext, name: str) -> upstream_figures.UpstreamSettings:
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
        upstream_figures.UpstreamSettings,
    )
