"""Upstreams side by side: what each preset is, what it can do, and what this gateway saw of it.

The only place that says a route's `Capabilities` in words for people.  The facts are upstreams.toml's
and the operator's; the addresses shown are the presets', never those of the settings, which may be
inside somebody's network.
"""

from urllib.parse import urlencode

import msgspec

from headgate.catalog.building import capabilities_of
from headgate.catalog.catalog import Catalog
from headgate.catalog.models import Model, models
from headgate.catalog.presets import presets
from headgate.catalog.routes import Preset
from headgate.dialects.capabilities import Capabilities
from headgate.storage.figures import Measured
from headgate.web.site import prose
from headgate.web.site.deployment import SOURCES, Page, Site, head

# Presets for a kind of server: nobody knows what is behind them.
_ANY_SERVER = ("openai", "anthropic", "custom")
_TITLES = (
    "Input",
    "Tools",
    "Forced tool",
    "Thinking off",
    "Effort",
    "Stop sequences",
    "JSON schema",
    "Seed",
    "`top_k`",
    "Priority tier",
)


def _can(c: Capabilities) -> tuple[str, ...]:
    """What an upstream does itself; the gateway makes up for the rest where it can (policy/fit.py)."""
    forced = c.tools and {"required", "named"} <= set(c.tool_choice)
    return (
        ", ".join(c.input),
        "yes" if c.tools else "no",
        "yes" if forced else "emulated" if c.tools else "no",
        "yes" if c.thinking_off or c.thinking_default == "off" else "hidden only",
        f"{c.efforts[0]} to {c.efforts[-1]}" if c.efforts else "no",
        "yes" if c.stop else "emulated",
        "yes" if c.response_format else "emulated",
        "yes" if c.seed else "ignored",
        "yes" if c.top_k else "ignored",
        "yes" if c.service_tier else "ignored",
    )


_EMULATED = """*emulated*: the gateway does it itself. *hidden only*: the model thinks, and it is not shown. *ignored*: dropped, and
named in the reply's `x-headgate-warnings`."""


def where(model: Model, site: Site, catalog: Catalog) -> str:
    """The routes of a model, with what was measured of each as far as it may be shown."""
    names = site.upstreams.get(model.id, ())
    routes = [r for r in catalog.routes(model.id) if r.upstream.name in names or not site.named]
    if not routes:
        return "No upstream of this gateway has it at present."
    titles: tuple[str, ...] = ("Route", *_TITLES)
    if site.named:
        titles = ("Upstream", "What it is", *_TITLES)
        rows = [
            (prose.plain(r.upstream.name), prose.plain(r.upstream.label), *_can(r.capabilities))
            for r in routes
        ]
    else:
        rows = [(f"{n}", *_can(r.capabilities)) for n, r in enumerate(routes, 1)]
    text = f"{prose.table(titles, rows)}\n\n{_EMULATED}"
    return text + _measured_here(model, site, [r.upstream.name for r in routes])


def _measured_here(model: Model, site: Site, upstreams: list[str]) -> str:
    """What this gateway measured of the model, by route or, where names are not shown, of all routes."""
    shown = upstreams if site.named else [""]
    found = [(name, m) for name in shown if (m := site.routes.get((model.id, name))) is not None]
    if not found:
        return ""
    titles = ["Upstream"] if site.named else ["Routes"]
    titles += [title for title in _MEASURED if site.errors or title not in _MEASURED_INSIDE]
    rows = []
    for name, m in found:
        cells = dict(zip(_MEASURED, _figures(m, site, model=model.id, upstream=name), strict=True))
        row = [prose.plain(name) if site.named else "all"]
        rows.append(row + [cells[t] for t in titles[1:]])
    table = prose.table(titles, rows, range(1, len(titles)))
    return f"\n\n### Measured here\n\n{table}\n\nMeans of this gateway's own traffic in the last 24 hours."


_MEASURED = ("Requests", "First token", "Tokens a second", "Errors")
_MEASURED_INSIDE = ("Requests", "Errors")  # shown where shares of errors may be


def _shipped(catalog: Catalog) -> list[Model]:
    """The models that presets know; the operator's own are no preset's."""
    return [m for m in catalog.models if not m.own]


def _named(preset: Preset, model: Model) -> str:
    """The preset's own name for a model, "" when it has none."""
    if preset.only_named and model.id not in preset.names:
        return ""
    return preset.names.get(model.id) or preset.names.get("*") or preset.prefix + model.id


def _offer(name: str, preset: Preset, catalog: Catalog) -> tuple[str, str, str, str]:
    """Return base address, dialect, key, models of a preset."""
    address = f"`{preset.base_url}`" if preset.base_url else "this machine"
    key = f"`{preset.env}`" if preset.env else "none"
    named = sum(bool(_named(preset, m)) for m in _shipped(catalog))
    models = "all" if named == len(_shipped(catalog)) else f"{named} of {len(_shipped(catalog))}"
    if name in _ANY_SERVER:
        address, key, models = "your own", "your own", "what it has"
    elif "*" in preset.names:
        models = "one in place of all"
    return address, preset.dialect, key, models


def providers(path: str, site: Site, catalog: Catalog, prices: str) -> Page:
    title = "Upstreams for MiniMax models"
    known = presets()
    overview = prose.table(
        ("Preset", "What it is", "Base address", "Dialect", "Key", "Models"),
        (
            (f"`{name}`", prose.plain(p.label), *_offer(name, p, catalog))
            for name, p in known.items()
        ),
    )
    # Models that presets treat like each other share a table.
    apart = [m for m in _shipped(catalog) if any(m.id in p.models for p in known.values())]
    rest = [m for m in _shipped(catalog) if m not in apart]
    tables = [(m.id, m) for m in apart] + ([("All other models", rest[0])] if rest else [])
    capabilities = "\n\n".join(
        f"### {heading}\n\n"
        + prose.table(
            ("Preset", *_TITLES),
            (
                (f"`{name}`", *_can(_capabilities(p, m.id)))
                for name, p in known.items()
                if _named(p, m)
            ),
        )
        for heading, m in tables
    )
    vendors = {k: p for k, p in known.items() if k not in _ANY_SERVER and "*" not in p.names}
    names = prose.table(
        ("Model", *(f"`{name}`" for name in vendors)),
        (
            (m.id, *(f"`{n}`" if (n := _named(p, m)) else "none" for p in vendors.values()))
            for m in _shipped(catalog)
        ),
    )
    top = head(path, title, site, provider="minimax", modality="text", variant_count=len(known))
    body = prose.fill(
        prose.text("providers.md"),
        head=top,
        overview=overview,
        ours=_ours(site, catalog),
        prices=prices,
        emulated=_EMULATED,
        capabilities=capabilities,
        names=names,
        base=site.base_url,
        sources=prose.bullets(SOURCES[:1]),
    )
    return Page(path, title, "Providers of MiniMax's models side by side.", body)


def _capabilities(preset: Preset, model_id: str) -> Capabilities:
    return msgspec.convert(
        capabilities_of(preset, preset.dialect, models()[model_id]), Capabilities
    )


def _ours(site: Site, catalog: Catalog) -> str:
    if not site.named:
        return "Which upstreams this gateway uses is shown to who is signed in."
    serving: dict[str, list[str]] = {}
    for m in catalog.models:
        for name in site.upstreams.get(m.id, ()):
            serving.setdefault(name, []).append(m.id)
    if not serving:
        return "No upstream is set up."
    shown = [t for t in _MEASURED if site.errors or t not in _MEASURED_INSIDE]
    titles, rows = ["Upstream", "Models"], []
    if site.measured:
        titles += shown
    for name, ids in serving.items():
        all_of_them = len(ids) == len(catalog.models)
        row = [prose.plain(name), "all" if all_of_them else ", ".join(ids)]
        if site.measured:
            cells = dict(
                zip(_MEASURED, _figures(site.measured.get(name), site, upstream=name), strict=True)
            )
            row += [cells[title] for title in shown]
        rows.append(row)
    note = "\n\nMeasured by this gateway on its own traffic." if site.measured else ""
    return prose.table(titles, rows, (2, 3, 4, 5)) + note


def _figures(m: Measured | None, site: Site, **filters: str) -> list[str]:
    """The cells of what was measured; its counts lead to their requests where the reader sees them all."""
    if m is None:
        return ["0", "unknown", "unknown", "unknown"]
    requests, errors = f"{m.requests:,}", f"{m.error_rate:.2%}"
    if site.log:
        query = urlencode({**site.log, **{k: v for k, v in filters.items() if v}})
        log = f"{site.base_url}/requests?{query}"
        requests = f"[{requests}]({log})"
        errors = f"[{errors}]({log}&errors=upstream)" if m.error_rate else errors
    return [
        requests,
        "unknown" if m.first_token_ms is None else f"{m.first_token_ms:,.0f} ms",
        "unknown" if m.tokens_per_s is None else f"{m.tokens_per_s:,.1f}",
        errors,
    ]
