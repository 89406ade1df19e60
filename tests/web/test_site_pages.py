"""The pages of the catalog: what agents and people read, and what they paste."""

import ast
import base64
import hashlib
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import msgspec
import pytest

from headgate.catalog import building
from headgate.catalog import catalog as catalogs
from headgate.catalog.catalog import Catalog
from headgate.config import loading
from headgate.storage.figures import Measured
from headgate.web.site import guides, pages, prose, skill
from headgate.web.site.deployment import Page, Site
from headgate.web.site.hypertext import csp, negotiate
from headgate.web.site.pages import Pages, html
from programs import needs

BASE = "https://gate.example.com:8443/llm"
ENV = {"MINIMAX_API_KEY": "k-secret", "OPENROUTER_API_KEY": "k-secret"}
CATALOG = building.load(loading.load(None, ENV), ENV)
UPSTREAMS = {m.id: tuple(r.upstream.name for r in CATALOG.routes(m.id)) for m in CATALOG.models}
SITE = Site(base_url=BASE, on=date(2026, 11, 25), upstreams=UPSTREAMS)
# The guides are docs/ as they are written: tests/web/test_site_in_console.py looks at them.
PATHS = (
    *(p for p in pages.paths(CATALOG) if p not in guides.paths()),
    "/llms.txt",
    "/llms-full.txt",
)
# What is not made here, but is served at these paths.
ELSEWHERE = {
    "/openapi.json",
    "/docs/api.md",
    "/api_keys",
    "/docs/api",
    "/usage",
}  # control has them


def made(path: str, site: Site = SITE, catalog: Catalog = CATALOG) -> Page:
    found = pages.page(path, site, catalog)
    assert found is not None, path
    return found


def front(markdown: str) -> dict[str, object]:
    """The front matter; ours is one level of JSON's scalars, which are YAML's."""
    head = re.match(r"---\n(.*?)\n---\n", markdown, re.DOTALL)
    assert head is not None
    pairs = (line.split(": ", 1) for line in head[1].splitlines())
    return {name: json.loads(value) for name, value in pairs}


def blocks(markdown: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)\n```$", markdown, re.DOTALL | re.MULTILINE)


def strange(**changes: object) -> Catalog:
    """The catalog with one model changed."""
    first, *rest = CATALOG.models
    return Catalog((msgspec.structs.replace(first, **changes), *rest), {}, {})


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


# --- which pages there are -------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_every_page_is_made_in_both_forms(path: str) -> None:
    page = made(path)
    assert page.path == path
    assert page.title in page.markdown or path in (skill.SKILL, "/llms-full.txt")
    assert page.markdown.endswith("\n")
    assert f"<title>{page.title}" in html(page, SITE)


@pytest.mark.parametrize("model", [m.id for m in CATALOG.models])
def test_a_model_has_its_page_in_any_case_with_and_without_its_family(model: str) -> None:
    short = model.lower().removeprefix("minimax-")
    for path in (
        f"/models/{model}",
        f"/models/{model.lower()}.md",
        f"/models/{model.upper()}.md",
        f"/models/minimax/{short}.md",
    ):
        assert made(path) == made(f"/models/{model}.md")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/models/gpt-5.md",
        "/MODELS.md",
        "/models/",
        "/models/../docs.md",
        "/llms.txt.md",
        "/llms",
        "/models/MiniMax-M3.md.md",
        "/models/minimax-m3\n",
        "/models.md/",
        "/skills/minimax/SKILL.md/x",
    ],
)
def test_what_is_no_page_is_none(path: str) -> None:
    assert pages.page(path, SITE, CATALOG) is None


def test_an_alias_is_not_a_page() -> None:
    catalog = Catalog(CATALOG.models, {}, {"*": "MiniMax-M2"})
    assert pages.page("/models/gpt-5.md", SITE, catalog) is None


# --- what stands on them ---------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_left_to_be_filled_in(path: str) -> None:
    for text in (made(path).markdown, html(made(path), SITE)):
        assert not re.search(r"\{\{|%\{|YOUR_|\bNone\b|\bnan\b|TODO", text)


@pytest.mark.parametrize("path", PATHS)
def test_markdown_has_no_html(path: str) -> None:
    text = re.sub(r"^```.*?^```$", "", made(path).markdown, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"&(#\d+|#x[0-9a-f]+|[a-z]+);", text, re.IGNORECASE)
    assert not re.search(r"<[a-z/!]", text, re.IGNORECASE)


@pytest.mark.parametrize("path", PATHS)
def test_every_price_is_a_figure_of_the_catalog_to_the_last_digit(path: str) -> None:
    figures = {
        f
        for m in CATALOG.models
        for p in m.prices
        for f in (p.input, p.output, p.cache_read, p.cache_write)
    }
    text = re.sub(r"^10,000 tokens.*$", "", made(path).markdown, flags=re.MULTILINE)
    assert set(re.findall(r"\$([0-9][0-9.,]*[0-9])", text)) <= figures


def test_a_price_of_many_digits_is_not_rounded() -> None:
    price = msgspec.structs.replace(
        CATALOG.models[0].prices[0], input="0.123456789", up_to_input=None
    )
    catalog = strange(prices=(price,))
    for path in (
        "/models.md",
        "/models/minimax.md",
        "/models/MiniMax-M3.md",
        "/providers/minimax.md",
    ):
        assert "$0.123456789 " in made(path, catalog=catalog).markdown
    # 10 000 x 0.123456789 + 1000 x 1.20, per million
    assert "cost $0.00243456789." in made("/models/MiniMax-M3.md", catalog=catalog).markdown


@pytest.mark.parametrize("model", CATALOG.models, ids=lambda m: m.id)
def test_the_page_of_a_model_has_every_tier(model: catalogs.Model) -> None:
    text = made(f"/models/{model.id}.md").markdown
    for p in model.prices:
        row = f"| ${p.input} | ${p.cache_read} | ${p.cache_write or p.input} | ${p.output} |"
        assert row in text
        assert p.up_to_input is None or f"up to {p.up_to_input:,} tokens" in text
    head = front(text)
    assert Decimal(str(head["input_price"])) == Decimal(model.prices[0].input)
    assert head["model"] == model.id
    assert head["context_window"] == model.context_window
    assert str(head["url"]).startswith(BASE)


def test_prices_are_those_of_the_day() -> None:
    old = CATALOG.models[0].prices[0]
    new = msgspec.structs.replace(old, valid_from=date(2027, 1, 1), input="0.77")
    catalog = strange(prices=(old, new))

    def price(on: date) -> object:
        site = msgspec.structs.replace(SITE, on=on)
        return front(made("/models/MiniMax-M3.md", site, catalog).markdown)["input_price"]

    assert price(date(2026, 12, 31)) == "0.30"
    assert price(date(2027, 1, 1)) == "0.77"
    assert price(date(2020, 1, 1)) is None


@pytest.mark.parametrize("path", [p for p in PATHS if p.endswith(".md") and p != skill.SKILL])
def test_front_matter_names_the_page_itself(path: str) -> None:
    head = front(made(path).markdown)
    assert head["title"] == made(path).title
    assert head["url"] == BASE + path
    assert head["canonical"] == BASE + path.removesuffix(".md")


@pytest.mark.parametrize("path", PATHS)
def test_a_stand_in_for_the_models_is_told_on_every_page(path: str) -> None:
    local = msgspec.structs.replace(SITE, local=True)
    assert "small local model" in made(path, local).markdown
    assert "small local model" not in made(path).markdown


@pytest.mark.parametrize("path", PATHS)
def test_no_page_knows_a_key(path: str) -> None:
    assert "k-secret" not in made(path).markdown


def test_upstreams_that_may_not_be_shown_are_not() -> None:
    site = msgspec.structs.replace(SITE, upstreams={})
    for path in ("/models/MiniMax-M3.md", "/providers/minimax.md"):
        assert "openrouter |" in made(path).markdown
        assert "openrouter |" not in made(path, site).markdown.replace("`openrouter` |", "")


def test_measured_figures_stand_only_where_there_are_some() -> None:
    site = msgspec.structs.replace(
        SITE, measured={"minimax": Measured(12345, 0.0123, 843.2, 58.31)}
    )
    row = "| minimax | all | 12,345 | 843 ms | 58.3 | 1.23% |"
    assert row in made("/providers/minimax.md", site).markdown
    assert "First token" not in made("/providers/minimax.md").markdown


def test_the_table_of_errors_is_what_the_dialects_say() -> None:
    text = made("/docs.md").markdown
    assert (
        "| 429 `rate_limit_exceeded` | 429 `rate_limit_error` | 429 `RESOURCE_EXHAUSTED` |" in text
    )
    assert "| 401 `invalid_api_key` | 401 `authentication_error` |" in text


# --- links -----------------------------------------------------------------------------------


def links(markdown: str) -> Iterator[str]:
    yield from re.findall(r"\]\(([^)\s]+)\)", markdown)
    # Addresses in prose count as well, but not those in code, which are the API's.
    prose_only = re.sub(r"```.*?```|`[^`\n]*`|---\n.*?\n---\n", "", markdown, flags=re.DOTALL)
    yield from re.findall(rf"(?<!\()({re.escape(BASE)}/[^\s),;]*[^\s),;.])", prose_only)


@pytest.mark.parametrize("path", PATHS)
def test_every_link_to_this_site_leads_to_a_page(path: str) -> None:
    page = made(path)
    found = [link for link in links(page.markdown) if link.startswith(BASE)]
    assert found
    for link in found:
        to = link.removeprefix(BASE)
        if to not in ("/v1", *ELSEWHERE):
            made(to)


@pytest.mark.parametrize("path", PATHS)
def test_every_link_in_html_leads_to_a_page_under_any_host(path: str) -> None:
    tags = Tags(html(made(path), SITE)).found
    hrefs = [a["href"] or "" for tag, a in tags if tag == "a"]
    assert len(hrefs) > 5
    for href in hrefs:
        assert not href.startswith(BASE)
        if not href.startswith("https://"):
            assert href.startswith("/llm/")
            if href.removeprefix("/llm") not in ELSEWHERE:
                made(href.removeprefix("/llm"))


def test_the_map_has_every_page() -> None:
    for path in PATHS:
        for index in ("/sitemap.md", "/llms.txt"):
            assert f"({BASE}{path})" in made(index).markdown or path in ("/llms.txt", "/sitemap.md")
        if path not in ("/llms.txt", "/llms-full.txt", "/sitemap.md"):
            assert f"Source: {BASE}{path}\n" in made("/llms-full.txt").markdown


# --- snippets --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_every_snippet_parses(path: str) -> None:
    text = made(path).markdown
    for code in blocks(text, "python"):
        ast.parse(code)
    for code in blocks(text, "toml"):
        tomllib.loads(code)
    for code in blocks(text, "json"):
        json.loads(code)
    for code in blocks(text, "bash"):
        subprocess.run(["bash", "-n"], input=code, text=True, check=True, capture_output=True)
        for body in re.findall(r"-d '(.*?)'", code, re.DOTALL):
            json.loads(body)


def test_every_protocol_has_an_example_in_every_language() -> None:
    found = [(e.protocol, e.language) for e in prose.examples(BASE, "MiniMax-M2")]
    assert found == [(p, language) for p in prose.PROTOCOLS for language in prose.LANGUAGES]
    docs = made("/docs.md").markdown
    for e in prose.examples(BASE, "MiniMax-M3"):
        assert e.text in docs
        assert "MiniMax-M3" in e.text and BASE in e.text


def test_the_typescript_examples_parse(tmp_path: Path) -> None:
    """They use no types, so that Node reads them as well."""
    needs("node")
    for n, e in enumerate(prose.examples(BASE, "MiniMax-M3")):
        if e.language == "typescript":
            file = tmp_path / f"{n}.mjs"
            file.write_text(e.text)
            subprocess.run(["node", "--check", str(file)], check=True, capture_output=True)


# --- HTML ------------------------------------------------------------------------------------


def without_script(text: str) -> str:
    """The page without its own script, which has to be the one that the policy allows."""
    script = re.search(r"<script>(.*?)</script>\n</body>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in csp()
    return text.replace(script[0], "</body>")


@pytest.mark.parametrize("path", PATHS)
def test_html_has_one_script_no_style_attribute_and_nothing_from_elsewhere(path: str) -> None:
    text = without_script(html(made(path), SITE))
    for tag, attributes in Tags(text).found:
        assert tag not in ("script", "iframe", "img", "object", "form")
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        if tag == "link" and attributes["rel"] not in ("canonical", "alternate"):
            assert (attributes["href"] or "").startswith("data:")
    sheet = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert sheet is not None
    assert "url(" not in sheet[1].replace("url(data:", "") and "@import" not in sheet[1]
    digest = base64.b64encode(hashlib.sha256(sheet[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in csp()
    ids = [a["id"] for _, a in Tags(text).found if "id" in a]
    assert len(ids) == len(set(ids))


NASTY = "<script>alert(1)</script> | `x` [a](javascript:alert(1)) ![b](//evil) &lt; <!-- \n\n# h *b* _c_"


def test_mark_up_in_a_description_stays_text() -> None:
    catalog = strange(description=NASTY, display_name="</title><script>alert(2)</script>")
    for path in (
        "/models/MiniMax-M3.md",
        "/llms.txt",
        "/llms-full.txt",
        "/models/minimax.md",
        "/sitemap.md",
    ):
        page = made(path, catalog=catalog)
        text = without_script(html(page, SITE))
        assert "<script" not in text
        tags = Tags(text).found
        assert not any(tag in ("script", "img") for tag, _ in tags)
        assert not any("javascript" in (a.get("href") or "") for tag, a in tags if tag == "a")
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | `x` [a](javascript:alert(1))" in html(
        made("/models/MiniMax-M3.md", catalog=catalog), SITE
    )


def test_front_matter_cannot_be_left_by_a_name() -> None:
    catalog = strange(display_name='x"\n---\nstatus: "gone')
    assert front(made("/models/MiniMax-M3.md", catalog=catalog).markdown)["status"] == "active"


@pytest.mark.parametrize(
    "url",
    [
        "https://a.b/$(id)",
        "http://a b",
        "http://a/'",
        'http://a/"',
        "http://a/`x`",
        "javascript:1",
        "http://a/\n",
        "http://a/",
        "//a",
        "",
        "http://a/;x",
        "http://a/<b>",
        "http://u:p@a",
        "http://a?x=1",
        "http://a/\\",
        "http://a:99999999",
    ],
)
def test_a_base_url_that_could_end_a_shell_word_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        Site(base_url=url, on=SITE.on)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8787", "http://[::1]:8787", "https://a.b-c.example/x/y"]
)
def test_a_plain_base_url_is_taken(url: str) -> None:
    assert f"{url}/v1/chat/completions" in made("/docs.md", Site(base_url=url, on=SITE.on)).markdown


# --- negotiation -----------------------------------------------------------------------------

CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "html"),
        ("*/*", "html"),
        (CHROME, "html"),
        ("text/html", "html"),
        ("text/markdown", "markdown"),
        ("TEXT/Markdown", "markdown"),
        ("text/markdown, text/html, */*", "markdown"),
        ("text/html, text/markdown", "markdown"),
        ("text/html, text/markdown;q=0.9", "html"),
        ("text/html;q=0.8, text/markdown;q=0.9", "markdown"),
        ("text/markdown ; q=0.9 , text/html ;q=0.8", "markdown"),
        ("text/markdown;q=0.5, */*", "html"),
        ("text/markdown;q=0.5, */*;q=0.1", "markdown"),
        ("text/markdown;q=0", "html"),
        ("text/markdown;q=0, */*", "html"),
        ("text/html;q=0, */*", "markdown"),
        ("text/*, text/html;q=0.3", "markdown"),
        ("text/*;q=0.3, text/markdown;q=0.2", "html"),
        ("text/*", "html"),
        ("text/*;q=0, */*", "html"),
        ("text/plain", "html"),
        ("application/json", "html"),
        ("text/markdown;variant=GFM", "markdown"),
        ('text/markdown;x="a,b", text/html', "markdown"),
        ("text/markdown;q=1.5, text/html;q=0.1", "html"),
        ("text/markdown;q=banana, text/html;q=0.1", "html"),
        ("text/markdown;q=1.000, text/html;q=0.999", "markdown"),
        (",,;q=1,;,text/", "html"),
    ],
)
def test_the_form_is_the_one_that_is_preferred(accept: str, form: str) -> None:
    assert negotiate("/models", accept) == form


@pytest.mark.parametrize("path", ["/models.md", "/llms.txt", skill.SKILL, *skill.SKILL_INDEXES])
def test_a_path_with_an_ending_is_always_the_text_itself(path: str) -> None:
    assert negotiate(path, CHROME) == "markdown"


def test_an_answer_says_what_it_is_and_that_it_varies() -> None:
    kept = Pages(SITE, CATALOG)
    for path, accept, kind in [
        ("/models.md", CHROME, "text/markdown; charset=utf-8"),
        ("/models", CHROME, "text/html; charset=utf-8"),
        ("/models", "text/markdown", "text/markdown; charset=utf-8"),
        ("/llms.txt", CHROME, "text/plain; charset=utf-8"),
        (skill.SKILL_INDEXES[0], "*/*", "application/json"),
    ]:
        answer = kept.answer(path, accept)
        assert answer is not None
        headers = dict(answer[0])
        assert headers["content-type"] == kind
        assert headers["vary"] == "Accept, Cookie"
        assert headers["x-content-type-options"] == "nosniff"
        assert ("content-security-policy" in headers) == kind.startswith("text/html")
    assert kept.answer("/models", CHROME) == kept.answer("/models", "text/html")
    assert kept.answer("/nothing", "") is None
    assert kept.answer("/models/MINIMAX-m3", "text/markdown") == kept.answer(
        "/models/MiniMax-M3.md", ""
    )


# --- the skill -------------------------------------------------------------------------------


def skill_head(text: str) -> dict[str, str]:
    head = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert head is not None
    top = [line for line in head[1].splitlines() if not line.startswith(" ")]
    return {name: value for name, _, value in (line.partition(": ") for line in top)}


def test_the_skill_keeps_the_rules_of_the_format() -> None:
    """agentskills.io/specification: six keys, their lengths, 500 lines; npm skills-ref agrees."""
    text = made(skill.SKILL).markdown
    head = skill_head(text)
    known = {"name", "description", "license", "compatibility", "metadata:"}
    assert set(head) <= known
    assert head["name"] == "minimax"
    assert 1 <= len(json.loads(head["description"])) <= 1024
    assert not set("<>") & set(head["description"])
    assert len(head["compatibility"]) <= 500
    assert len(text.splitlines()) < 250
    assert len(text) / 4 < 5000  # tokens, about
    openclaw = re.search(r"^  openclaw: (.*)$", text, re.MULTILINE)
    assert openclaw is not None
    assert json.loads(openclaw[1])["requires"] == {"env": ["OPENAI_API_KEY"]}
    assert re.search(r"^  provider_page: \S+/providers/minimax.md$", text, re.MULTILINE)
    assert "## List models" in text and text.count("```typescript") >= 2
    assert "stream: true" not in text.rpartition("```typescript")[2]
    for model in CATALOG.models:
        assert f"| `{model.id}` |" in text


@pytest.mark.parametrize("path", skill.SKILL_INDEXES)
def test_the_index_has_the_digest_of_the_very_bytes(path: str) -> None:
    kept = Pages(SITE, CATALOG)
    answer = kept.answer(path, "*/*")
    assert answer is not None
    index = json.loads(answer[1])
    assert index["$schema"] == "https://schemas.agentskills.io/discovery/0.2.0/schema.json"
    for entry in index["skills"]:
        assert set(entry) == {"name", "type", "description", "url", "digest"}
        url = urljoin(BASE + path, entry["url"])
        assert url == BASE + skill.SKILL
        served = kept.answer(url.removeprefix(BASE), "*/*")
        assert served is not None
        assert entry["digest"] == f"sha256:{hashlib.sha256(served[1]).hexdigest()}"
        assert json.loads(skill_head(served[1].decode())["description"]) == entry["description"]
