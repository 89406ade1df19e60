"""This module writes the models as JSON, in the shape of models.dev."""

import json
from datetime import date

from headgate.catalog import cards, price_history
from headgate.catalog.catalog import Catalog
from headgate.catalog.models import Model, Price, prices_on
from headgate.web.site import prose
from headgate.web.site.deployment import JSON, Page, Site


def lifecycle_of(model: Model, on: date) -> str:
    if model.retirement is None:
        return "active"
    return "retired" if model.retirement.ends <= on else "deprecated"


def models_json(path: str, site: Site, catalog: Catalog) -> Page:
    """The models in the shape of models.dev's api.json (read 2026-11): providers, then models.

    Prices are numbers of US dollars for a million tokens there; the exact decimals are on the pages.
    """
    models = {m.id: _model_json(m, site, catalog) for m in catalog.models}
    provider = {
        "id": "headgate",
        "name": "Headgate",
        "env": ["HEADGATE_API_KEY"],
        "npm": "@ai-sdk/openai-compatible",
        "api": f"{site.base_url}/v1",
        "doc": f"{site.base_url}/docs",
        "models": models,
    }
    body = json.dumps({"headgate": provider}, indent=1) + "\n"
    return Page(path, "Models as JSON", "The models in models.dev's shape.", body, JSON)


def _model_json(model: Model, site: Site, catalog: Catalog) -> dict[str, object]:
    routes = catalog.routes(model.id)
    table = routes[0].prices if routes else model.prices  # as /v1/models has it
    tiers = prices_on(table, site.on)
    parameters = cards.parameters(routes)
    out: dict[str, object] = {
        "id": model.id,
        "name": model.display_name,
        "attachment": "image" in model.input,
        "reasoning": "reasoning" in parameters,
        "temperature": "temperature" in parameters,
        "tool_call": "tools" in parameters,
        "release_date": str(model.released),
        "last_updated": str(max((p.valid_from for p in tiers), default=model.released)),
        "modalities": {"input": list(model.input), "output": ["text"]},
        "limit": {"context": model.context_window, "output": model.max_output},
        "supported_parameters": list(parameters),
        "status": lifecycle_of(model, site.on),
    }
    if tiers:
        out["cost"] = _cost(tiers[0])
        out["price_history"] = [
            {
                "from": str(s.begins) if s.begins else None,
                "until": str(s.ends) if s.ends else None,
                "tiers": [{**_cost(p), "up_to_input": p.up_to_input} for p in s.tiers],
            }
            for s in price_history.spans(table)
        ]
    about = prose.facts_of(model.id)
    out["open_weights"] = bool(about.weights)
    if about.weights:
        out["weights"] = about.weights
    if about.licence:
        out["license"] = about.licence
    if model.retirement is not None:
        out["retires"] = str(model.retirement.ends)
        out["successor"] = model.retirement.successor
    return out


def _cost(price: Price) -> dict[str, object]:
    return {
        "input": float(price.input),
        "output": float(price.output),
        "cache_read": float(price.cache_read or price.input),
        "cache_write": float(price.cache_write or price.input),
    }
