"""`make screenshots`: every page of the console over a month of made-up traffic; writes docs/img.

The rows are drawn with a fixed seed and written by the ledger itself; the gateway, the browser and the
requests that the playground sends are real, the upstream is the tests' played one.
"""

import asyncio
import math
import random
import re
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from gateway import start, stop  # noqa: E402
from headgate.catalog import models as shipped  # noqa: E402
from headgate.chat import Usage  # noqa: E402
from headgate.policy import pricing  # noqa: E402
from headgate.storage.rows import AttemptRecord, LedgerRow  # noqa: E402
from headgate.storage.sqlite.database import Store  # noqa: E402
from headgate.storage.sqlite.ledger import Ledger  # noqa: E402
from played import PlayedUpstream  # noqa: E402

OUT = ROOT / "docs" / "img"
DAYS = 30
MODELS = (("MiniMax-M3", 5), ("MiniMax-M2.7", 4), ("MiniMax-M2.5", 2), ("MiniMax-M2", 1))
KEYS = (
    ("ci-agents", "platform"),
    ("web-app", "product"),
    ("notebooks", "research"),
    ("ada", "research"),
)
WARNINGS = (
    (),
    (),
    (),
    ("top_k",),
    ("system-merged",),
    ("tool-result-order",),
    ("reasoning-remembered",),
)
PAGES = {
    "usage": "/usage?span=30d&by=model",
    "requests": "/requests",
    "keys": "/api_keys",
    "playground": "/playground",
    "upstreams": "/upstreams",
    "accounts": "/accounts",
    "account": "/accounts/research",
    "people": "/people",
    "profile": "/profile",
    "changes": "/changes",
    "api": "/docs/api",
    "models": "/models",
    "model": "/models/MiniMax-M3",
    "start": "/start",
    "own-models": "/own_models",
}
SHAPES = {"light": (1280, 860, "light"), "dark": (1280, 860, "dark"), "phone": (390, 844, "light")}


def fill(data: Path) -> None:
    """Write accounts, keys and their ledger."""
    draw, now_s = random.Random(7), time.time()
    store = Store(data)
    for id, name in (("platform", "Platform"), ("product", "Product"), ("research", "Research")):
        store.create_account(
            id, name, now_s=now_s - 40 * 86400, budget_nano=400 * 10**9, budget_period="month"
        )
    keys = [
        store.create_key(
            name,
            now_s=now_s - (35 - n) * 86400,
            account=account,
            rpm=600,
            budget_nano=200 * 10**9,
            budget_period="month",
        )[0]
        for n, (name, account) in enumerate(KEYS)
    ]
    store.close()
    prices = {m.id: m.prices for m in shipped.models().values()}
    rows = []
    for n in range(4000):
        began_s = now_s - (DAYS * 86400 - 3600) * (1 - (n / 4000) ** 0.8)
        hour = (began_s / 3600) % 24
        if draw.random() > 0.35 + 0.65 * math.exp(-(((hour - 14) / 5) ** 2)):
            continue
        key = draw.choices(keys, (6, 4, 2, 2))[0]
        model = draw.choices([m for m, _ in MODELS], [w for _, w in MODELS])[0]
        input = int(draw.lognormvariate(9, 1.1))
        usage = Usage(
            input=input,
            output=int(draw.lognormvariate(6.3, 0.9)),
            cached=int(input * draw.choice((0, 0, 0.5, 0.8, 0.93))),
        )
        failed = draw.random() < 0.02
        charge = pricing.Tariff(prices[model], "", _day(began_s)).charge(usage)
        first = int(draw.lognormvariate(6.4, 0.4))
        rows.append(
            LedgerRow(
                request_id=f"{n:024x}",
                account=key.account,
                key_id=key.id,
                session=f"agent-{n // 12:04d}" if key.name == "ci-agents" else "",
                dialect=draw.choice(("anthropic", "openai", "openai", "responses", "gemini")),
                model=model,
                upstream="minimax",
                upstream_model=model,
                stream=True,
                outcome="overloaded" if failed else "stop" if draw.random() < 0.6 else "tool_calls",
                basis="none" if failed else "upstream",
                status=503 if failed else 200,
                started_at=began_s,
                ended_at=began_s + (first + usage.output * 12) / 1000,
                ttft_ms=None if failed else first,
                input_tokens=0 if failed else usage.input,
                cached_tokens=0 if failed else usage.cached,
                output_tokens=0 if failed else usage.output,
                cost_nano_usd=0 if failed else charge.nano,
                price_version=charge.version,
                attempts=(
                    AttemptRecord(
                        "minimax",
                        model,
                        "overloaded" if failed else "stop",
                        "",
                        first + usage.output * 12,
                    ),
                ),
                warnings=() if failed else draw.choice(WARNINGS),
            )
        )
    ledger = Ledger(data)

    async def write() -> None:
        for i in range(0, len(rows), 200):
            await asyncio.gather(*map(ledger.settle, rows[i : i + 200]))

    asyncio.run(write())
    ledger.close()


def _day(seconds: float) -> date:
    return datetime.fromtimestamp(seconds, UTC).date()


def play(page: Page) -> None:
    """A conversation, so that the playground shows something."""
    page.get_by_label("Message").first.fill("think about the weather in Zürich")
    page.keyboard.press("Control+Enter")
    page.get_by_text("Hello, Wörld").first.wait_for()
    page.wait_for_timeout(800)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, PlayedUpstream().running() as upstream:
        data = Path(place) / "data"
        fill(data)
        config = Path(place) / "headgate.toml"
        config.write_text(
            f'[upstreams.minimax]\npreset = "minimax"\nbase_url = "{upstream.url("openai")}"\n'
            'key = "env:MINIMAX_API_KEY"\n'
        )
        gate = start(data, "--config", str(config), MINIMAX_API_KEY="sk-played")
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
                )
                context = browser.new_context()
                page = context.new_page()
                link = re.search(r"http\S+/setup/\S+", gate.printed)
                assert link is not None
                page.goto(link[0])
                page.get_by_label("Name").fill("ada")
                page.get_by_label("Password").fill("correct horse battery")
                page.get_by_role("button", name="Create admin account").click()
                page.wait_for_url("**/start")
                page.goto(gate.url + "/requests")
                first = page.locator('main a[href^="/requests/"]').first.get_attribute("href")
                page.goto(gate.url + "/api_keys")
                key = page.locator('main a[href^="/api_keys/"]').first.get_attribute("href")
                stranger = browser.new_context().new_page()
                details = {**PAGES, "request": first, "key": key}
                for name, path in {**details, "home": "/", "sign-in": "/sign-in"}.items():
                    if name not in details:
                        page = stranger
                    for shape, (width, height, scheme) in SHAPES.items():
                        page.set_viewport_size({"width": width, "height": height})
                        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                        page.goto(f"{gate.url}{path}")
                        page.wait_for_load_state("networkidle")
                        if name == "playground":
                            play(page)
                        page.wait_for_timeout(300)
                        page.screenshot(path=OUT / f"{name}-{shape}.png")
                browser.close()
        finally:
            stop(gate)
    print(f"wrote {len(list(OUT.glob('*.png')))} pictures to {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
