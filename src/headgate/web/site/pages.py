"""This module renders the catalog as pages: for agents as markdown, for people as HTML of the same text.

The only place that writes them.  They are made of the catalog, the presets, the dialects' own error
tables and `Site`, which is what one deployment adds; the prose is package data in `text/`.  Formats:
front matter as YAML, llms.txt as llmstxt.org, SKILL.md as agentskills.io/specification,
the index of skills as agent-skills discovery 0.2.0 (npm `skills` 1.5 checks the digest over the very
bytes that are served), all read 2026-11.  Site and page are defined in site.py, markdown is
put together in prose.py, HTML in hypertext.py.

Note:
- markdown links are whole URLs, for whoever reads a copy elsewhere; in HTML those to this site
  become paths without `.md`, so that one can walk about under any name of the host;
- prices are the catalog's own digits, never a float, never rounded;
- rendering HTML takes some ten milliseconds: `Pages` does it once per page and keeps the bytes.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from html import escape
from typing import Literal

from headgate.catalog import cards, price_history
from headgate.catalog.catalog import Catalog
from headgate.catalog.models import Model, Price, prices_on
from headgate.storage.figures import Measured
from headgate.web.site import comparison, guides, hypertext, prose
from headgate.web.site.deployment import JSON, PLAIN, SOURCES, Page, Site, head, note
from headgate.web.site.hypertext import Form, csp, negotiate

__all__ = ["Form", "Measured", "Page", "Pages", "Site", "csp", "html", "negotiate", "page", "paths"]

SKILL = "/skills/minimax/SKILL.md"
# The second is where installers looked before version 0.2.0 of the discovery, and still do.
SKILL_INDEXES = ("/.well-known/agent-skills/index.json", "/.well-known/skills/index.json")
_NAVIGATION = (
    ("/models.md", "Models"),
    ("/models/minimax.md", "MiniMax"),
    ("/providers/minimax.md", "Upstreams"),
    ("/docs.md", "Docs"),
    (SKILL, "Skill"),
    ("/docs/api", "API"),
    ("/usage", "Console"),
)
# What crawlers have no use for: the console's pages, and the protocols.
_CLOSED = (
    "/v1/",
    "/v1beta/",
    "/admin/",
    "/usage",
    "/requests",
    "/sessions",
    "/api_keys",
    "/playground",
    "/upstreams",
    "/accounts",
    "/people",
    "/changes",
    "/profile",
    "/start",
    "/own_models",
    "/sign-in",
    "/setup",
)
_SKILL_SCHEMA = "https://schemas.agentskills.io/discovery/0.2.0/schema.json"
_MODEL = re.compile(r"/models/(minimax/)?([A-Za-z0-9._:/@+-]{1,128})\.md", re.IGNORECASE)


def page(path: str, site: Site, catalog: Catalog) -> Page | None:
    """Return the page at a path, with `.md` or without; None when there is none.

    Only the id of a model may be in any case, and short as in `/models/minimax/m2.7`.
    """
    name = _name(path, catalog)
    if name is None:
        return None
    made = _PAGES.get(name) or _FILES.get(name) or (_guide if name in guides.paths() else _model)
    return made(name, site, catalog)


def _name(path: str, catalog: Catalog) -> str | None:
    """The path that the page itself goes by."""
    if path in _FILES:
        return path
    name = path.removesuffix(".md") + ".md"
    if name in _PAGES or name in guides.paths():
        return name
    if found := _MODEL.fullmatch(name):
        wanted = f"{'minimax-' if found[1] else ''}{found[2]}".lower()
        return next((f"/models/{m.id}.md" for m in catalog.models if m.id.lower() == wanted), None)
    return None


def html(page: Page, site: Site) -> str:
    """Return the page for people: the same text, no script, nothing loaded from elsewhere."""
    return hypertext.document(
        f"```json\n{page.markdown}```" if page.media_type == JSON else _body(page),
        title=page.title,
        description=page.description,
        path=page.path,
        base_url=site.base_url,
        version=site.version,
        navigation=_NAVIGATION,
        here="/models/minimax.md" if _is_of_a_model(page.path) else page.path,
    )


def _is_of_a_model(path: str) -> bool:
    return path not in _PAGES and path not in _FILES and path not in guides.paths()


def _body(page: Page) -> str:
    """Without the front matter, which is for machines."""
    return re.sub(r"\A---\n.*?\n---\n+", "", page.markdown, flags=re.DOTALL)


def paths(catalog: Catalog) -> tuple[str, ...]:
    """Every page for readers, each by its own path."""
    return (*_PAGES, *guides.paths(), *(f"/models/{m.id}.md" for m in catalog.models))


class Pages:
    """The pages as bytes, each rendered when it is first asked for."""

    def __init__(self, site: Site, catalog: Catalog) -> None:
        self._site, self._catalog = site, catalog
        self._made: dict[tuple[str, Form], tuple[list[tuple[str, str]], bytes]] = {}

    def answer(self, path: str, accept: str) -> tuple[list[tuple[str, str]], bytes] | None:
        """Headers and body for a GET of `path`, or None when it is no page."""
        name = _name(path, self._catalog)
        if name is None:
            return None
        form = negotiate(path, accept)
        if (name, form) not in self._made:
            found = page(name, self._site, self._catalog)
            assert found is not None
            self._made[name, form] = _answer(found, form, self._site)
        return self._made[name, form]

    def shown(self, path: str, accept: str) -> tuple[str, str] | None:
        """Title and HTML of a page for readers, to be shown in the console; None: it is no such page."""
        name = _name(path, self._catalog)
        if name is None or name in _FILES or negotiate(path, accept) != "html":
            return None
        found = page(name, self._site, self._catalog)
        assert found is not None
        return found.title, hypertext.body(_body(found), self._site.base_url)


def _answer(page: Page, form: Form, site: Site) -> tuple[list[tuple[str, str]], bytes]:
    # Who is signed in gets the page within the console.
    headers = [("vary", "Accept, Cookie"), ("x-content-type-options", "nosniff")]
    headers.append(("cache-control", "public, max-age=60"))
    if form == "markdown":
        return [("content-type", page.media_type), *headers], page.markdown.encode()
    twin = f'<{site.base_url}{page.path}>; rel="alternate"; type="text/markdown"'
    headers += [("link", twin), ("content-security-policy", csp())]
    return [("content-type", "text/html; charset=utf-8"), *headers], html(page, site).encode()


# --- pieces ----------------------------------------------------------------------------------


def _link(model: Model, site: Site) -> str:
    return f"[{model.id}]({site.base_url}/models/{model.id}.md)"


def _tiers(model: Model, on: date) -> tuple[Price, ...]:
    return prices_on(model.prices, on)


def _lifecycle(model: Model, on: date) -> str:
    if model.retirement is None:
        return "active"
    return "retired" if model.retirement.ends <= on else "deprecated"


def _span(model: Model, on: date, which: Literal["input", "output", "cache_read"]) -> str:
    """A price for a table of models: of each tier, the same one once."""
    prices = [f"${getattr(p, which) or p.input}" for p in _tiers(model, on)]
    return " / ".join(dict.fromkeys(prices)) or "unknown"


def _dollars(amount: Decimal) -> str:
    whole, _, places = f"{amount:f}".partition(".")
    return f"${whole}.{places.rstrip('0').ljust(2, '0')}"


# --- models ----------------------------------------------------------------------------------


def _overview(site: Site, models: Sequence[Model]) -> str:
    rows = (
        (
            _link(m, site),
            f"{m.context_window:,}",
            f"{m.max_output:,}",
            ", ".join(m.input),
            _span(m, site.on, "input"),
            _span(m, site.on, "cache_read"),
            _span(m, site.on, "output"),
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


_PER_MILLION = (
    "US dollars per million tokens, exactly as billed. Two prices are two tiers by the size of the"
    " input; the model's page has the limit."
)


def _models(path: str, site: Site, catalog: Catalog) -> Page:
    title = "Models"
    about = "Every model of this gateway with context, limits and exact prices."
    top = head(path, title, site, modality="text", variant_count=len(catalog.models))
    body = f"""{top}
{_overview(site, catalog.models)}

{_PER_MILLION}

- [MiniMax, the family]({site.base_url}/models/minimax.md): which model when, prices in full
- [Upstreams side by side]({site.base_url}/providers/minimax.md)
- [How to point a client here]({site.base_url}/docs.md)
"""
    return Page(path, title, about, body)


def _family(path: str, site: Site, catalog: Catalog) -> Page:
    title = "MiniMax text models"
    models = [m for m in catalog.models if not m.own]
    cheapest = [Decimal(p.input) for m in models for p in _tiers(m, site.on)]
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
            (_link(m, site), prose.plain(_facts(m).use_when or m.description), str(m.released))
            for m in models
        ),
    )
    prices = _prices(*models, on=site.on)
    limits = prose.table(
        ("Model", "Requests a minute", "Tokens a minute"),
        ((m.id, _number(m.rpm), _number(m.tpm)) for m in models),
        (1, 2),
    )
    body = prose.fill(
        prose.text("family.md"),
        head=top,
        use=use,
        overview=_overview(site, models),
        per_million=_PER_MILLION,
        prices=prices,
        billing=_BILLING,
        limits=limits,
        endpoints=_endpoints(site),
        default=_link(catalog.models[0], site),
        base=site.base_url,
        sources=prose.bullets(SOURCES),
    )
    return Page(path, title, "Which MiniMax model when, with exact prices and limits.", body)


_BILLING = """The whole request is billed at the tier that its input falls into. Cached input and cache writes are parts of the
input. What an upstream charges nothing for, as a request it refused, costs nothing here."""


def _facts(model: Model) -> prose.Facts:
    return prose.facts().get(model.id, prose.Facts())


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _prices(*models: Model, on: date) -> str:
    """Every tier of the prices that hold on a day; the model is named when there are several."""
    rows = [
        (
            m.id,
            _size(p, m),
            f"${p.input}",
            f"${p.cache_read or p.input}",
            f"${p.cache_write or p.input}",
            f"${p.output}",
            f"x {p.priority_factor}",
            str(p.valid_from) if p.valid_from != price_history.BEGINNING else "always",
        )
        for m in models
        for p in _tiers(m, on)
    ]
    titles = (
        "Model",
        "Input size",
        "Input",
        "Cached input",
        "Cache write",
        "Output",
        "Priority factor",
        "Valid from",
    )
    first = 0 if len(models) > 1 else 1
    numbers = [n - first for n in (2, 3, 4, 5, 6)]
    return prose.table(titles[first:], [row[first:] for row in rows], numbers)


def _history(model: Model, site: Site, catalog: Catalog) -> str:
    """Each price of the model with the days on which it held; those of routes that have others."""
    routes = catalog.routes(model.id)
    if not model.prices and routes and all(r.free for r in routes):
        return "Not billed."
    parts = [_spans(model.prices, site.on)]
    names = site.upstreams.get(model.id, ())
    for number, route in enumerate(routes, 1):
        if route.free or tuple(route.prices) == tuple(model.prices):
            continue
        if site.named and route.upstream.name not in names:
            continue
        name = prose.plain(route.upstream.name) if site.named else f"route {number}"
        parts.append(f"### Prices at {name}\n\n{_spans(route.prices, site.on)}")
    return "\n\n".join(parts)


def _spans(prices: Sequence[Price], on: date) -> str:
    """A table of prices over time, the newest first."""
    spans = reversed(price_history.spans(prices))
    rows = [
        (
            "the beginning" if s.begins is None else str(s.begins),
            _last_day(s, on),
            _tier(p, s.tiers),
            f"${p.input}",
            f"${p.cache_read or p.input}",
            f"${p.cache_write or p.input}",
            f"${p.output}",
        )
        for s in spans
        for p in s.tiers
    ]
    titles = ("From", "Until", "Input size", "Input", "Cached input", "Cache write", "Output")
    return prose.table(titles, rows, (3, 4, 5, 6)) if rows else "No price is known."


def _last_day(span: price_history.PriceSpan, on: date) -> str:
    if span.begins is not None and span.begins > on:
        return "announced" if span.ends is None else f"{span.ends}, announced"
    return "now" if span.ends is None else str(span.ends)


def _tier(price: Price, tiers: Sequence[Price]) -> str:
    if price.up_to_input is not None:
        return f"up to {price.up_to_input:,} tokens"
    return "more" if len(tiers) > 1 else "any"


def _size(price: Price, model: Model) -> str:
    if price.up_to_input is not None:
        return f"up to {price.up_to_input:,} tokens"
    several = sum(p.valid_from == price.valid_from for p in model.prices) > 1
    return "more" if several else "any"


def _sample_cost(model: Model, on: date) -> str:
    """10 000 tokens in and 1000 out are below the limit of any tier there is."""
    tiers = _tiers(model, on)
    if not tiers:
        return ""
    cost = (Decimal(tiers[0].input) * 10_000 + Decimal(tiers[0].output) * 1_000) / 1_000_000
    return f"\n10,000 tokens of fresh input and 1,000 of output cost {_dollars(cost)}.\n"


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


def _model(path: str, site: Site, catalog: Catalog) -> Page:
    model = next(m for m in catalog.models if path == f"/models/{m.id}.md")
    about = _facts(model)
    tiers = _tiers(model, site.on)
    top = head(
        path,
        model.display_name,
        site,
        model=model.id,
        provider=model.vendor,
        modality=", ".join(model.input),
        variant_id=model.id.lower().removeprefix("minimax-"),
        sdk_model_id=model.id,
        status=_lifecycle(model, site.on),
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
                        f"{_number(model.rpm)} requests, {_number(model.tpm)} tokens a minute",
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
    others = prose.bullets(_link(m, site) for m in catalog.models if m.id != model.id)
    use_when = f"**Use when:** {prose.plain(about.use_when)}\n\n" if about.use_when else ""
    body = prose.fill(
        prose.text("model.md"),
        head=top,
        description=prose.plain(model.description),
        use_when=use_when,
        prices=_prices(model, on=site.on),
        history=_history(model, site, catalog),
        cost=_sample_cost(model, site.on),
        billing=_BILLING,
        spec=spec,
        where=comparison.where(model, site, catalog),
        requests=requests,
        others=others,
        base=site.base_url,
        sources=prose.bullets(("The operator of this gateway.",) if model.own else SOURCES),
    )
    return Page(path, model.display_name, model.description or model.display_name, body)


def _providers(path: str, site: Site, catalog: Catalog) -> Page:
    shipped = [m for m in catalog.models if not m.own]
    return comparison.providers(path, site, catalog, _overview(site, shipped))


# --- docs, skill, maps -----------------------------------------------------------------------


def _docs(path: str, site: Site, catalog: Catalog) -> Page:
    title = "Using this gateway"
    default = catalog.models[0]
    lasting = [m for m in catalog.models[1:] if not (m.own or m.legacy or m.retirement)]
    agent = next(iter(lasting), default)
    shown = prose.examples(site.base_url, default.id)
    requests = "\n\n".join(
        f"### {name}\n\n" + "\n\n".join(prose.code(e) for e in shown if e.protocol == protocol)
        for protocol, name in prose.PROTOCOLS.items()
    )
    body = prose.fill(
        prose.text("docs.md"),
        base=site.base_url,
        note=note(site),
        examples=requests,
        errors=prose.errors(),
        agent=agent.id,
        agent_context=str(agent.context_window),
    )
    front = prose.front(
        title=title,
        url=site.base_url + path,
        canonical=site.base_url + path.removesuffix(".md"),
        locale="en",
        version=site.version,
    )
    return Page(path, title, "Clients, protocols, examples, errors, headers.", f"{front}\n{body}")


def _guide(path: str, site: Site, catalog: Catalog) -> Page:
    title, about, body = guides.read(path, site.base_url)
    text = f"{head(path, title, site)}\n{body}\n\n[All guides]({site.base_url}/docs/guides.md)\n"
    return Page(path, title, about, text)


_SKILL_ABOUT = (
    "Calls MiniMax text models (MiniMax-M3, M3.1-Flash, M2.7, M2.5, M2.1, M2) through a Headgate gateway. Use when"
    " code or an agent should talk to MiniMax by the OpenAI, Anthropic or Gemini SDK, when someone sets"
    " OPENAI_BASE_URL, ANTHROPIC_BASE_URL or GOOGLE_GEMINI_BASE_URL to such a gateway, or runs Claude"
    " Code, Codex or Gemini CLI on MiniMax. Not for video (Hailuo), speech, music or images."
)


def _skill(path: str, site: Site, catalog: Catalog) -> Page:
    """Return a skill that is valid by npm skills-ref. Note: OpenClaw shows the skill once the variables it requires are set."""
    base, default = site.base_url, catalog.models[0].id
    variables = {
        "OPENAI_API_KEY": "Key of this gateway, for OpenAI's SDKs.",
        "OPENAI_BASE_URL": f"{base}/v1",
        "ANTHROPIC_API_KEY": "Key of this gateway, for Anthropic's SDKs.",
        "ANTHROPIC_BASE_URL": base,
        "GEMINI_API_KEY": "Key of this gateway, for Google's SDKs.",
        "GOOGLE_GEMINI_BASE_URL": base,
        "RUNAPI_TOKEN": "Key of runapi.ai, used only there.",
    }
    openclaw = {
        "homepage": f"{base}/models/minimax",
        "primaryEnv": "OPENAI_API_KEY",
        "requires": {"env": ["OPENAI_API_KEY"]},
        "envVars": [
            {"name": name, "required": False, "description": about}
            for name, about in variables.items()
        ],
    }
    shown = {f"{e.protocol}_{e.language}": prose.code(e) for e in prose.examples(base, default)}
    models = prose.table(
        ("Model", "Use when"),
        ((f"`{m.id}`", prose.plain(_facts(m).use_when or m.description)) for m in catalog.models),
    )
    body = prose.fill(
        prose.text("skill.md"),
        base=base,
        version=site.version,
        note=note(site),
        models=models,
        model=default,
        description=json.dumps(_SKILL_ABOUT),
        openclaw=json.dumps(openclaw),
        **shown,
    )
    return Page(path, "MiniMax skill", _SKILL_ABOUT, body)


def _skill_index(path: str, site: Site, catalog: Catalog) -> Page:
    skill = _skill(SKILL, site, catalog)
    entry = {
        "name": "minimax",
        "type": "skill-md",
        "description": skill.description,
        # Relative to the index, as RFC 3986 has it: right under every host and prefix.
        "url": f"../..{SKILL}",
        "digest": f"sha256:{hashlib.sha256(skill.markdown.encode()).hexdigest()}",
    }
    body = json.dumps({"$schema": _SKILL_SCHEMA, "skills": [entry]}, indent=2) + "\n"
    return Page(path, "Skills", "Index of skills.", body, JSON)


def _map(site: Site, catalog: Catalog) -> list[tuple[str, list[Page]]]:
    def made(*paths: str) -> list[Page]:
        return [p for path in paths if (p := page(path, site, catalog)) is not None]

    return [
        ("Start here", made("/docs.md", SKILL)),
        ("Models", made("/models.md", "/models/minimax.md", "/providers/minimax.md")),
        ("Each model", made(*(f"/models/{m.id}.md" for m in catalog.models))),
        ("Guides", made(*guides.paths())),
    ]


def _entries(pages: Iterable[Page], site: Site) -> str:
    return prose.bullets(
        f"[{prose.plain(p.title)}]({site.base_url}{p.path}): {prose.plain(p.description)}"
        for p in pages
    )


def _plain_entries(pages: Iterable[Page], site: Site) -> str:
    """As `_entries`, for files that are read as they are: without a backslash before punctuation."""
    return prose.bullets(
        f"[{_flat(p.title)}]({site.base_url}{p.path}): {_flat(p.description)}" for p in pages
    )


def _flat(text: str) -> str:
    """The text without what markdown could take for a link or a tag."""
    return " ".join(re.sub(r"[\[\]<>\\`]", "", text).split())


def _llms(path: str, site: Site, catalog: Catalog) -> Page:
    title = "Headgate"
    sections = "\n\n".join(
        f"## {name}\n\n{_plain_entries(pages, site)}" for name, pages in _map(site, catalog)
    )
    body = f"""# {title}

> MiniMax's text models at {site.base_url}, through the OpenAI, Anthropic and Gemini protocols.
{note(site)}
Base URL for OpenAI SDKs: `{site.base_url}/v1`. For Anthropic and Google SDKs: `{site.base_url}`. A key is needed for
requests, not for these pages.

{sections}

## Optional

- [Everything in one file]({site.base_url}/llms-full.txt)
- [API description]({site.base_url}/openapi.json): OpenAPI 3.1 of the protocols and of the admin API
- [API reference]({site.base_url}/docs/api.md)
- [Models as JSON]({site.base_url}/models.json): in the shape of models.dev
- [Sitemap]({site.base_url}/sitemap.md)
- [Index of skills]({site.base_url}{SKILL_INDEXES[0]})
"""
    return Page(path, title, "What this gateway offers, for agents.", body, PLAIN)


def _llms_full(path: str, site: Site, catalog: Catalog) -> Page:
    parts = [_llms("/llms.txt", site, catalog).markdown]
    for name, pages in _map(site, catalog):
        if name == "Guides":  # for who runs the gateway; each is a page of its own
            continue
        parts += (f"Source: {site.base_url}{p.path}\n\n{_body(p)}" for p in pages)
    body = "\n---\n\n".join(parts)
    return Page(path, "Headgate, in full", "All pages in one file.", body, PLAIN)


def _sitemap(path: str, site: Site, catalog: Catalog) -> Page:
    title = "Sitemap"
    sections = "\n\n".join(
        f"## {name}\n\n{_entries(pages, site)}" for name, pages in _map(site, catalog)
    )
    body = f"""{head(path, title, site)}
{sections}

## For agents

- [llms.txt]({site.base_url}/llms.txt)
- [llms-full.txt]({site.base_url}/llms-full.txt)
- [Index of skills]({site.base_url}{SKILL_INDEXES[0]})
"""
    return Page(path, title, "Every page of this gateway.", body)


def _robots(path: str, site: Site, catalog: Catalog) -> Page:
    """Crawlers may read the pages; the console and the API are not for them."""
    closed = "".join(f"Disallow: {p}\n" for p in _CLOSED)
    body = f"User-agent: *\n{closed}Allow: /\n\nSitemap: {site.base_url}/sitemap.xml\n"
    return Page(path, "Robots", "What crawlers may read.", body, PLAIN)


def _sitemap_xml(path: str, site: Site, catalog: Catalog) -> Page:
    """The pages as sitemaps.org has them (protocol 0.9, read 2026-11)."""
    locations = [p.removesuffix(".md") for p in paths(catalog)]
    urls = "".join(
        f"  <url><loc>{escape(site.base_url + p)}</loc></url>\n" for p in (*locations, "/docs/api")
    )
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{urls}</urlset>\n'
    )
    return Page(path, "Sitemap", "The pages, for crawlers.", body, "application/xml")


def _models_json(path: str, site: Site, catalog: Catalog) -> Page:
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
        "status": _lifecycle(model, site.on),
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
    about = _facts(model)
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


_PAGES = {
    "/models.md": _models,
    "/models/minimax.md": _family,
    "/providers/minimax.md": _providers,
    "/docs.md": _docs,
    "/sitemap.md": _sitemap,
    SKILL: _skill,
}
# What has an ending of its own, and no place in the map's lists.
_FILES = {
    "/models.json": _models_json,
    "/robots.txt": _robots,
    "/sitemap.xml": _sitemap_xml,
    "/llms.txt": _llms,
    "/llms-full.txt": _llms_full,
    **dict.fromkeys(SKILL_INDEXES, _skill_index),
}
