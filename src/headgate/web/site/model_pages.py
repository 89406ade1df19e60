"""This module writes the pages of the models: all of them, the family, each one, and their upstreams."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal

from headgate.catalog import cards
from headgate.catalog.catalog import Catalog
from headgate.catalog.models import Model
from headgate.web.site import comparison, prose
from headgate.web.site.deployment import SOURCES, Page, Site, head
from headgate.web.site.model_prices import (
    BILLING,
    PER_MILLION,
    number_of,
    price_history_of,
    price_of,
    price_table,
    sample_cost,
    tiers_of,
)
from headgate.web.site.models_json import lifecycle_of


def link_of(model: Model, site: Site) -> str:
    return f"[{model.id}]({site.base_url}/models/{model.id}.md)"


def _overview(site: Site, models: Sequence[Model]) -> str:
    rows = (
        (
            link_of(m, site),
            f"{m.context_window:,}",
            f"{m.max_output:,}",
            ", ".join(m.input),
            price_of(m, site.on, "input"),
            price_of(m, site.on, "cache_read"),
            price_of(m, site.on, "output"),
            _status(m, site.on),
        )
        for m in models
    )
    titles = (
        "Model",
        "Context",
        "Max output",
        "Input",
        "Input price",
        "Cached input",
        "Output price",
        "Status",
    )
    return prose.table(titles, rows, (1, 2, 4, 5, 6))


def _status(model: Model, on: date) -> str:
    """What is known of a model's end at its vendor, wherever this gateway sends its requests."""
    if (end := model.retirement) is not None:
        return f"{'retired' if end.ends <= on else 'retires'} {end.ends} at {prose.plain(model.vendor)}, then {prose.plain(end.successor)}"
    return "legacy" if model.legacy else "active"


def _ending(model: Model, site: Site) -> str:
    """The sentence about a model's end on its page."""
    if (end := model.retirement) is None:
        return "legacy; no date is known" if model.legacy else "active"
    verb = "ended" if end.ends <= site.on else "ends"
    closed = f"; closed to new users on {end.closed}" if end.closed else ""
    return (
        f"{verb} on {end.ends} at {prose.plain(model.vendor)}'s own API{closed}. Successor:"
        f" [{end.successor}]({site.base_url}/models/{end.successor}.md). Other upstreams may serve it on."
    )


def _weights(about: prose.Facts) -> str:
    return (
        f"[{about.weights.removeprefix('https://')}]({about.weights})"
        if about.weights
        else "no address is known here"
    )


def _licence(about: prose.Facts) -> str:
    """Return the licence of the weights with its source; the hosted model has the terms of who serves it."""
    if not about.licence:
        return "unknown; see the vendor's model card" if about.weights else "unknown"
    return f"{prose.plain(about.licence)} ([source]({about.licence_source}))"


def _efforts(model: Model, catalog: Catalog) -> str:
    words = cards.efforts(model, catalog.routes(model.id))
    if not words:
        return "none: thinking has no degrees"
    absent = model.effort or model.default_effort
    return ", ".join(words) + (f"; {absent} where a request names none" if absent else "")


def models_page(path: str, site: Site, catalog: Catalog) -> Page:
    title = "Models"
    about = "Every model of this gateway with context, limits and exact prices."
    top = head(path, title, site, modality="text", variant_count=len(catalog.models))
    body = f"""{top}
{_overview(site, catalog.models)}

{PER_MILLION}

- [MiniMax, the family]({site.base_url}/models/minimax.md): which model when, prices in full
- [Upstreams side by side]({site.base_url}/providers/minimax.md)
- [How to point a client here]({site.base_url}/docs.md)
"""
    return Page(path, title, about, body)


def family_page(path: str, site: Site, catalog: Catalog) -> Page:
    title = "MiniMax text models"
    models = [m for m in catalog.models if not m.own]
    cheapest = [Decimal(p.input) for m in models for p in tiers_of(m, site.on)]
    top = head(
        path,
        title,
        site,
        model="minimax",
        provider="minimax",
        modality="text",
        variant_count=len(models),
        currency="USD",
        billing_unit="1M tokens",
        price_from=str(min(cheapest)) if cheapest else None,
        prices_on=site.on,
    )
    use = prose.table(
        ("Model", "Use when", "Released"),
        (
            (
                link_of(m, site),
                prose.plain(prose.facts_of(m.id).use_when or m.description),
                str(m.released),
            )
            for m in models
        ),
    )
    prices = price_table(*models, on=site.on)
    limits = prose.table(
        ("Model", "Requests a minute", "Tokens a minute"),
        ((m.id, number_of(m.rpm), number_of(m.tpm)) for m in models),
        (1, 2),
    )
    body = prose.fill(
        prose.text("family.md"),
        head=top,
        use=use,
        overview=_overview(site, models),
        per_million=PER_MILLION,
        prices=prices,
        billing=BILLING,
        limits=limits,
        endpoints=_endpoints(site),
        default=link_of(catalog.models[0], site),
        base=site.base_url,
        sources=prose.bullets(SOURCES),
    )
    return Page(path, title, "Which MiniMax model when, with exact prices and limits.", body)


def _endpoints(site: Site) -> str:
    base = site.base_url
    rows = (
        (prose.PROTOCOLS["openai"], f"`POST {base}/v1/chat/completions`"),
        (prose.PROTOCOLS["responses"], f"`POST {base}/v1/responses`"),
        (prose.PROTOCOLS["anthropic"], f"`POST {base}/v1/messages`"),
        (prose.PROTOCOLS["gemini"], f"`POST {base}/v1beta/models/{{model}}:generateContent`"),
        ("List of models", f"`GET {base}/v1/models`"),
    )
    return prose.table(("Protocol", "Endpoint"), rows)


def model_page(path: str, site: Site, catalog: Catalog) -> Page:
    model = next(m for m in catalog.models if path == f"/models/{m.id}.md")
    about = prose.facts_of(model.id)
    tiers = tiers_of(model, site.on)
    top = head(
        path,
        model.display_name,
        site,
        model=model.id,
        provider=model.vendor,
        modality=", ".join(model.input),
        variant_id=model.id.lower().removeprefix("minimax-"),
        sdk_model_id=model.id,
        status=lifecycle_of(model, site.on),
        released=model.released,
        context_window=model.context_window,
        max_output=model.max_output,
        currency="USD",
        billing_unit="1M tokens",
        prices_on=site.on,
        input_price=tiers[0].input if tiers else None,
        output_price=tiers[0].output if tiers else None,
        weights=about.weights or None,
        licence=about.licence or None,
        retires=model.retirement.ends if model.retirement else None,
        successor=model.retirement.successor if model.retirement else None,
    )
    spec = prose.table(
        ("Property", "Value"),
        (
            (
                "Name in requests",
                ", ".join(f"`{n}`" for n in (model.id, *model.aliases)) + ", in any case",
            ),
            ("Released", str(model.released)),
            ("Context", f"{model.context_window:,} tokens, input and output together"),
            ("Max output", f"{model.max_output:,} tokens"),
            (
                "Default max output",
                f"{model.default_max_output:,} tokens at most",
            ),
            ("Input", ", ".join(model.input)),
            ("Output", "text, thinking, tool calls"),
            ("Effort of thinking", _efforts(model, catalog)),
            ("Parameters", ", ".join(f"`{p}`" for p in cards.parameters(catalog.routes(model.id)))),
            ("Status", _ending(model, site)),
            *([] if model.own else [("Weights", _weights(about)), ("Licence", _licence(about))]),
            *(
                []
                if model.own
                else [
                    (
                        "Rate limit at MiniMax",
                        f"{number_of(model.rpm)} requests, {number_of(model.tpm)} tokens a minute",
                    )
                ]
            ),
        ),
    )
    shown = prose.examples(site.base_url, model.id)
    requests = "\n\n".join(
        f"### {name}\n\n"
        + "\n\n".join(
            prose.code(e)
            for e in shown
            if e.protocol == protocol and (e.language == "bash" or protocol == "openai")
        )
        for protocol, name in prose.PROTOCOLS.items()
    )
    others = prose.bullets(link_of(m, site) for m in catalog.models if m.id != model.id)
    use_when = f"**Use when:** {prose.plain(about.use_when)}\n\n" if about.use_when else ""
    body = prose.fill(
        prose.text("model.md"),
        head=top,
        description=prose.plain(model.description),
        use_when=use_when,
        prices=price_table(model, on=site.on),
        history=price_history_of(model, site, catalog),
        cost=sample_cost(model, site.on),
        billing=BILLING,
        spec=spec,
        where=comparison.where(model, site, catalog),
        requests=requests,
        others=others,
        base=site.base_url,
        sources=prose.bullets(("The operator of this gateway.",) if model.own else SOURCES),
    )
    return Page(path, model.display_name, model.description or model.display_name, body)


def providers_page(path: str, site: Site, catalog: Catalog) -> Page:
    shipped = [m for m in catalog.models if not m.own]
    return comparison.providers(path, site, catalog, _overview(site, shipped))
