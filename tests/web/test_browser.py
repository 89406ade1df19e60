"""A stranger's first minutes with the console, in a real browser before a real gateway.

Chromium is Debian's; without it these tests are skipped, but not in CI.  Nothing of a page may break
its own policy: every report and every dialog ends a test.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from browsing import chromium, drawn, fits, profile
from gateway import Gateway, start, stop
from played import PlayedUpstream
from programs import needs, node_modules
from waiting import PATIENCE_S

PASSWORD = "correct horse battery"
XSS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "{{ 7*7 }}${7*7}",
    "javascript:alert(1)//",
)
PAGES = (
    "/start",
    "/usage",
    "/requests",
    "/api_keys",
    "/playground",
    "/upstreams",
    "/accounts",
    "/people",
    "/changes",
    "/profile",
    "/docs/api",
    "/own_models",
    "/models",
    "/models/MiniMax-M3",
    "/docs",
)
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def gate(upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = start(
        tmp_path_factory.mktemp("browser") / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="upstream-secret",
    )
    yield running
    assert stop(running) == 0


@pytest.fixture(scope="module")
def context(browser: Browser, gate: Gateway) -> Iterator[BrowserContext]:
    """Signed in as the first admin, by the link that the gateway printed."""
    made = profile(browser, viewport={"width": 1280, "height": 900})
    made.grant_permissions(["clipboard-read", "clipboard-write"])
    page = made.new_page()
    link = re.search(r"http\S+/setup/\S+", gate.printed)
    assert link is not None
    page.goto(link[0])
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create admin account").click()
    page.wait_for_url("**/start")
    page.close()
    yield made
    made.close()


@pytest.fixture
def open_page(context: BrowserContext, gate: Gateway) -> Iterator[Open]:
    """Opens pages, and fails when one of them says or does what it must not."""
    wrong: list[str] = []
    pages: list[Page] = []

    def opened(path: str) -> Page:
        page = context.new_page()
        page.on("dialog", lambda d: (wrong.append(f"dialog: {d.message}"), d.accept()))
        page.on("pageerror", lambda e: wrong.append(f"error: {e}"))
        # That a form was refused is an error of Chromium's console, and none of the page's.
        page.on(
            "console",
            lambda m: (
                wrong.append(m.text) if m.type == "error" and "of 422 (" not in m.text else None
            ),
        )
        page.goto(gate.url + path)
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert not wrong


def sessions(gate: Gateway, page: Page) -> str:
    """The `Cookie` header of this browser."""
    return "; ".join(f"{c['name']}={c['value']}" for c in page.context.cookies(gate.url))


def _tables(page: Page) -> int:
    return page.locator("main table:not(.u-legend)").count()  # a chart's legend is one as well


def make_key(page: Page, name: str) -> str:
    """A new key by the form; its text."""
    page.goto(page.url.split("/api_keys")[0] + "/api_keys?new=1")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Create key").click()
    return page.locator(".secret").first.inner_text().strip()


def test_a_stranger_makes_a_key_runs_the_snippet_and_sees_the_request_and_its_cost(
    open_page: Open, gate: Gateway
) -> None:
    needs("curl")
    page = open_page("/api_keys")
    key = make_key(page, "first key")
    assert key.startswith("hg_live_")
    snippets = page.locator("pre").all_inner_texts()
    curl = next(s for s in snippets if "curl" in s and "/v1/chat/completions" in s)
    assert gate.url in curl and key in "\n".join(snippets)
    ran = subprocess.run(
        ["bash", "-c", curl],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )
    assert "Hello, W" in ran.stdout, ran.stdout + ran.stderr
    python = next(s for s in snippets if "from openai import" in s)
    code = python[python.index("from openai import") :] if "export" in python else python
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        env={
            "PATH": os.environ["PATH"],
            "OPENAI_API_KEY": key,
            "OPENAI_BASE_URL": f"{gate.url}/v1",
        },
    )
    assert "Hello" in ran.stdout, ran.stdout + ran.stderr
    page.reload()
    assert key not in page.content(), "a key is shown once"

    log = open_page("/requests")
    expect(log.locator("main td").filter(has_text="first key").first).to_be_visible()
    log.locator('main a[href^="/requests/"]').first.click()
    log.wait_for_url("**/requests/*")
    expect(log.locator("main")).to_contain_text("$0.0")
    usage = open_page("/usage")
    expect(usage.locator("main")).to_contain_text("MiniMax")
    expect(usage.locator("main")).to_contain_text("$0.0")


def test_the_button_sends_a_request_with_the_new_key(open_page: Open) -> None:
    page = open_page("/api_keys")
    make_key(page, "by the button")
    page.get_by_role("button", name=re.compile("test request", re.I)).click()
    page.get_by_text("Hello, Wörld").first.wait_for()


def test_what_people_write_stays_text(open_page: Open, gate: Gateway) -> None:
    page = open_page("/api_keys")
    for text in XSS:
        key = make_key(page, text)
        body = {
            "model": "MiniMax-M2",
            "messages": [{"role": "user", "content": f"hello {text}"}],
            "metadata": {"session_id": text},
        }
        headers = {"x-session-id": "s-" + re.sub(r"[^ -~]", "", text)}
        sent = gate.post("/v1/chat/completions", body, authorization=f"Bearer {key}", **headers)
        assert sent.status_code == 200
    for path in ("/api_keys", "/requests", "/usage?by=key", "/usage?by=session", "/changes"):
        page.goto(gate.url + path)
        drawn(page)
        assert page.locator("main img[src=x]").count() == 0
        assert page.locator("main svg[onload]").count() == 0
        assert page.evaluate("document.querySelectorAll('main script').length") == 0


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    modules = node_modules(Path(__file__).parent / "js", tmp_path_factory.mktemp("axe"))
    return (modules / "axe-core/axe.min.js").read_text()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_accessible_in_both_themes_fits_a_phone_and_clips_nothing(
    path: str, open_page: Open, axe: str
) -> None:
    page = open_page(path)
    drawn(page)
    # Run by the debugger, as the page's own policy lets no script in.
    page.evaluate(axe)
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]  # one of the two
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        serious = [
            (theme, v["id"], [n["html"][:120] for n in v["nodes"]][:3])
            for v in found["violations"]
            if v["impact"] in ("serious", "critical")
        ]
        assert not serious
    # At the width of a desk no table of these pages needs to be scrolled.
    fits(page, 1280)
    clipped = page.evaluate(CLIPPED)
    assert not clipped
    fits(page, 390)


# Regions that scroll sideways, with what they are called and how much is out of sight.
CLIPPED = """[...document.querySelectorAll("main .scroll")]
  .filter((e) => !e.closest("details:not([open])") && e.scrollWidth > e.clientWidth + 1)
  .map((e) => [e.getAttribute("aria-label"), e.scrollWidth - e.clientWidth])"""


def test_a_page_that_only_shows_needs_no_script(
    browser: Browser, context: BrowserContext, gate: Gateway, open_page: Open
) -> None:
    told = open_page("/usage")
    plain = profile(browser, java_script_enabled=False)
    plain.add_cookies(context.cookies())  # type: ignore[arg-type]  # what it gave out
    page = plain.new_page()
    for path in ("/usage", "/requests", "/api_keys", "/upstreams", "/changes"):
        told.goto(gate.url + path)
        drawn(told)
        page.goto(gate.url + path)
        assert page.locator("main h1").inner_text() == told.locator("main h1").inner_text()
        assert _tables(page) == _tables(told) - told.locator("#figures table").count()
    plain.close()


def test_the_language_can_be_chosen_and_stays(open_page: Open) -> None:
    page = open_page("/usage")
    page.get_by_role("button", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    page.goto(page.url.replace("/usage", "/requests"))
    expect(page.locator("h1")).to_have_text("请求记录")
    page.get_by_role("button", name="English").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_the_theme_can_be_chosen_and_stays(open_page: Open) -> None:
    page = open_page("/usage")
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Light or dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Light or dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")


def test_signing_out_ends_the_session_for_whoever_has_its_cookie(
    browser: Browser, gate: Gateway, context: BrowserContext
) -> None:
    own = profile(browser)
    page = own.new_page()
    page.goto(gate.url + "/sign-in")
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/usage")
    cookie = sessions(gate, page)
    assert gate.get("/usage", cookie=cookie, accept="text/html").status_code == 200
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in?*")
    assert gate.get("/usage", cookie=cookie, accept="text/html").status_code == 303
    own.close()


# --- the log ---------------------------------------------------------------------------------------

ASK = {"model": "MiniMax-M2", "messages": [{"role": "user", "content": "hello"}]}


def test_new_rows_come_by_themselves_while_live_and_times_can_be_local(
    open_page: Open, gate: Gateway
) -> None:
    gate.post("/v1/chat/completions", ASK)
    page = open_page("/requests")
    rows = page.locator("table.log tbody tr:not(.more)")
    live = page.get_by_role("button", name="Live")
    live.click()
    expect(live).to_have_attribute("aria-pressed", "true")
    before = rows.count()
    id = gate.post("/v1/chat/completions", ASK).headers["x-request-id"]
    expect(page.locator(f'table.log a[href="/requests/{id}"]')).to_have_count(1)
    expect(rows).to_have_count(before + 1)
    live.click()
    expect(live).to_have_attribute("aria-pressed", "false")
    time = page.locator("table.log time").first
    shown = time.inner_text()
    page.evaluate("Intl.DateTimeFormat().resolvedOptions().timeZone")
    page.get_by_role("button", name="Local time").click()
    expect(page.locator("[data-zone]").first).to_have_text("(local)")
    page.reload()
    expect(page.locator("[data-zone]").first).to_have_text("(local)")
    page.get_by_role("button", name="UTC").click()
    expect(page.locator("[data-zone]").first).to_have_text("(UTC)")
    expect(time).to_have_text(shown)


def test_the_log_is_sorted_and_summed_up_and_a_view_saved_by_keyboard_only(
    open_page: Open, gate: Gateway
) -> None:
    gate.post("/v1/chat/completions", ASK)
    page = open_page("/requests")
    expect(page.locator("#figures th").filter(has_text="p99")).to_be_visible()
    tab_to(page, "thead a", "Cost")
    page.keyboard.press("Enter")
    page.wait_for_url("**sort=-cost*")
    expect(page.locator('th[aria-sort="descending"]')).to_contain_text("Cost")
    tab_to(page, "details.views summary", "Saved views")
    page.keyboard.press("Enter")
    tab_to(page, "details.views input", "")
    page.keyboard.type("dear ones")
    page.keyboard.press("Enter")
    expect(page.locator("[role=status]")).to_be_visible()
    page.locator("details.views summary").click()
    expect(page.locator(".view a")).to_have_attribute("href", re.compile("sort=-cost"))


def tab_to(page: Page, selector: str, text: str) -> None:
    """Press Tab until an element has the focus, which must be seen on each on the way."""
    script = """([selector, text]) => { const e = document.activeElement;
      const seen = e === document.body || e.matches("[type=hidden]") ||
        getComputedStyle(e).outlineStyle !== "none" || getComputedStyle(e).boxShadow !== "none";
      return [e.matches(selector) && e.textContent.includes(text), seen, e.outerHTML.slice(0, 80)]; }"""
    for _ in range(120):
        page.keyboard.press("Tab")
        found, seen, html = page.evaluate(script, [selector, text])
        assert seen, f"the focus is not seen on {html}"
        if found:
            return
    raise AssertionError(f"no Tab leads to {selector}")


def test_a_mistake_in_a_form_is_shown_at_its_field(open_page: Open) -> None:
    page = open_page("/accounts")
    page.locator("details.new").evaluate("panel => { panel.open = true; }")
    page.locator('[name="id"]').fill("fine")
    page.locator('[name="budget_usd"]').fill("much")
    page.get_by_role("button", name="Create account").click()
    field = page.locator('[name="budget_usd"]')
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(page.locator("#refused")).to_contain_text("much")


def test_code_of_the_docs_can_be_copied(open_page: Open) -> None:
    page = open_page("/docs")
    page.locator(".copy-code").first.click()
    expect(page.locator(".copy-code").first).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("main pre").first.inner_text().rstrip("\n")
