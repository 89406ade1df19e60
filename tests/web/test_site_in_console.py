"""One brand: the catalog's pages within the console for who is signed in; and the files for agents."""

import asyncio
import json
import re
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from consoles import Site, served, signed_in
from headgate.config import PublicPages
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.ledger import Ledger
from headgate.web.api import openapi, reference_page
from headgate.web.console import requests_page
from headgate.web.site import guides


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    rules = (*openapi.RULES, *reference_page.RULES)
    with served(tmp_path_factory.mktemp("site") / "data", rules) as running:
        yield running


PAGES = ("/models", "/models/MiniMax-M3", "/models/minimax", "/providers/minimax", "/docs")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_stays_in_the_console_for_who_is_signed_in(site: Site, path: str) -> None:
    with signed_in(site) as admin, site.open() as stranger:
        inside, outside = admin.get(path).text, stranger.get(path).text
    assert '<aside class="nav">' in inside and 'href="/static/site.css"' in inside
    assert '<aside class="nav">' not in outside
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", outside)
    assert heading is not None and heading[0] in inside


def test_pages_and_console_have_one_mark(site: Site) -> None:
    with site.open() as stranger:
        page = stranger.get("/models").text
        mark = stranger.get("/static/mark.svg").text
    assert "#1f7ae0" in mark
    assert "#0f766e" not in page and "#1f7ae0" in page


def test_agents_get_markdown_also_when_they_are_signed_in(site: Site) -> None:
    with signed_in(site) as admin:
        assert admin.get("/models.md").text.startswith("---\n")
        markdown = admin.get("/models", headers={"accept": "text/markdown"})
    assert markdown.text.startswith("---\n")
    assert "Cookie" in markdown.headers["vary"]


def test_every_page_has_a_markdown_twin_the_reference_too(site: Site) -> None:
    with site.open() as stranger:
        sitemap = stranger.get("/sitemap.xml").text
        locations = re.findall(r"<loc>(.*?)</loc>", sitemap)
        assert len(locations) > 10
        for location in locations:
            path = location.removeprefix(site.url)
            twin = stranger.get(path if path.endswith(".md") else f"{path}.md")
            assert twin.status_code == 200, path
            assert twin.headers["content-type"].startswith("text/markdown"), path
        reference = stranger.get("/docs/api.md").text
        by_header = stranger.get("/docs/api", headers={"accept": "text/markdown"}).text
    assert reference == by_header
    assert "### POST /v1/chat/completions" in reference and "### GET /admin/v1/keys" in reference


def test_the_files_for_crawlers_and_agents(site: Site) -> None:
    with site.open() as stranger:
        robots = stranger.get("/robots.txt").text
        llms = stranger.get("/llms.txt").text
        models = json.loads(stranger.get("/models.json").text)
        sitemap = stranger.get("/sitemap.xml")
    assert f"Sitemap: {site.url}/sitemap.xml" in robots and "Disallow: /admin/" in robots
    ElementTree.fromstring(sitemap.text)
    assert "xml" in sitemap.headers["content-type"]
    assert "\\" not in llms and f"{site.url}/openapi.json" in llms
    provider = models["headgate"]
    assert provider["api"] == f"{site.url}/v1"
    assert set(provider["models"]) == {m.id for m in site.console_context.catalog.models}
    m3 = provider["models"]["MiniMax-M3"]
    assert m3["limit"]["context"] == 1_000_000 and m3["tool_call"] is True
    assert m3["modalities"]["output"] == ["text"] and "image" in m3["modalities"]["input"]
    price = next(m for m in site.console_context.catalog.models if m.id == "MiniMax-M3").prices
    assert m3["cost"]["input"] in {float(p.input) for p in price}


ROWS = [
    LedgerRow(
        request_id=f"{n:024x}",
        key_id="k",
        dialect="openai",
        model="MiniMax-M2",
        upstream="custom",
        outcome="upstream" if n == 3 else "stop",
        basis="upstream",
        started_at=time.time() - 60,
        ended_at=time.time() - 58,
        ttft_ms=500,
        output_tokens=150,
        cost_nano_usd=1,
    )
    for n in range(4)
]


@pytest.mark.parametrize(
    ("settings", "names", "speed", "errors"),
    [
        (PublicPages(), False, False, False),
        (PublicPages(figures=True), False, True, False),
        (PublicPages(figures=True, errors=True), False, True, True),
        (PublicPages(upstreams=True), True, False, False),
        (PublicPages(upstreams=True, figures=True, errors=True), True, True, True),
        (PublicPages(errors=True), False, False, False),
    ],
)
def test_strangers_see_of_upstreams_what_the_operator_allows_and_who_is_signed_in_all(
    tmp_path: Path, settings: PublicPages, names: bool, speed: bool, errors: bool
) -> None:
    with served(tmp_path / "data", requests_page.RULES) as site:
        site.console_context.settings = msgspec.structs.replace(
            site.console_context.settings, pages=settings
        )
        ledger = Ledger(tmp_path / "data")

        async def settle() -> None:
            for row in ROWS:
                await ledger.settle(row)

        asyncio.run(settle())
        ledger.close()
        with site.open() as stranger, signed_in(site) as admin:
            for path in ("/models/MiniMax-M2.md", "/providers/minimax.md"):
                page = stranger.get(path).text
                assert ("| custom |" in page) == names, path
                assert ("500 ms" in page) == (speed and (names or "models" in path)), path
                assert ("25.00%" in page) == (errors and (names or "models" in path)), path
                inside = admin.get(path)
                assert "| custom |" in inside.text and "25.00%" in inside.text
                assert inside.headers["cache-control"] == "private, no-store"
                links = re.findall(r"\[([\d.%]+)\]\((\S+/requests)(\?\S+)\)", inside.text)
                assert {words for words, *_ in links} == {"4", "25.00%"}
                for words, place, query in links:
                    rows = admin.get(f"{place.removeprefix(site.url)}.csv{query}").text
                    assert len(rows.splitlines()) == {"4": 5, "25.00%": 2}[words], query
                shown = admin.get(path.removesuffix(".md"), headers={"accept": "text/html"}).text
                assert 'href="/requests?span=custom&amp;from=' in shown
                with signed_in(site, "member", "red") as member:
                    assert "/requests?" not in member.get(path).text
                assert "/requests?" not in page
            assert "127.0.0.1:9" not in stranger.get("/models/MiniMax-M2.md").text.replace(
                site.url, ""
            )
            whole = stranger.get("/llms-full.txt").text
            assert ("25.00%" in whole) == (errors and speed) and ("| custom |" in whole) == names


def test_the_guides_are_served_and_so_are_their_twins(site: Site) -> None:
    with site.open() as stranger:
        overview = stranger.get("/docs/guides").text
        for name in guides.names():
            path = guides.path_of(name).removesuffix(".md")
            assert stranger.get(path).headers["content-type"].startswith("text/html")
            twin = stranger.get(f"{path}.md").text
            assert twin.startswith("---\ntitle: ") and "](img/" not in twin and "](../" not in twin
        assert 'href="/docs/troubleshooting"' in overview
        assert "/docs/troubleshooting.md" in stranger.get("/llms.txt").text
        for nowhere in ("/docs/releasing", "/docs/../SECURITY", "/docs/nothing.md", "/docs/img"):
            assert stranger.get(nowhere).status_code == 404, nowhere
        model = stranger.get("/models/MiniMax-M2.7.md").text
    assert "Non-commercial" in model and "huggingface.co/MiniMaxAI/MiniMax-M2.7" in model
