"""The figures over the log are the ledger's: percentiles, parts of the cost and outcomes, over random rows."""

import asyncio
import html
import math
import re
import tempfile
import time
from collections import Counter
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consoles import served, signed_in
from headgate.catalog import models as shipped
from headgate.chat import Usage
from headgate.money import rounded
from headgate.policy import pricing
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.ledger import Ledger
from headgate.web.console import requests_page
from headgate.web.console.request_figures import figures_of, percentiles
from headgate.web.formats import usd

MODELS = shipped.models()
TODAY = datetime.now(UTC).date()


@st.composite
def rows(draw: st.DrawFn) -> LedgerRow:
    """A row as the gateway writes it: billed by the catalog, or by a price that is not known any more."""
    model = draw(st.sampled_from(("MiniMax-M3", "MiniMax-M2", "MiniMax-M2.7")))
    input = draw(st.integers(0, 900_000))
    cached = draw(st.integers(0, input))
    written = draw(st.integers(0, input - cached))
    output = draw(st.integers(0, 99_999))
    tier = draw(st.sampled_from(("", "priority")))
    usage = Usage(input, output, cached, written)
    charge = pricing.Tariff(MODELS[model].prices, tier, TODAY).charge(usage)
    how = draw(st.sampled_from(("billed", "billed", "billed", "free", "unpriced", "gone")))
    nano, version = {
        "billed": (charge.nano, charge.version),
        "free": (0, "free"),
        "unpriced": (None, ""),
        "gone": (draw(st.integers(0, 10**12)), "2020-01-01.00000000"),
    }[how]
    started = time.time() - draw(st.integers(100, 9000))
    total_ms = draw(st.integers(0, 300_000))
    return LedgerRow(
        request_id=f"r{draw(st.integers(0, 10**12))}",
        key_id="k1",
        dialect="openai",
        model=model,
        upstream="custom",
        outcome=draw(st.sampled_from(("stop", "tool_calls", "timeout", "upstream"))),
        basis="upstream",
        started_at=started,
        ended_at=started + total_ms / 1000,
        ttft_ms=draw(st.one_of(st.none(), st.integers(0, total_ms))),
        input_tokens=input,
        cached_tokens=cached,
        cache_write_tokens=written,
        output_tokens=output,
        cost_nano_usd=nano,
        price_version=version,
        service_tier=tier,
    )


LEDGERS = st.lists(rows(), max_size=30, unique_by=lambda r: r.request_id)


@settings(max_examples=60, deadline=None)
@given(LEDGERS)
def test_the_parts_add_up_to_what_was_billed_and_each_is_tokens_times_price(
    ledger: list[LedgerRow],
) -> None:
    found = figures_of(ledger, lambda row: MODELS[row.model].prices)
    cost = found.cost
    assert cost.total == sum(r.cost_nano_usd or 0 for r in ledger)
    assert cost.input + cost.cached + cost.cache_write + cost.output + cost.other == cost.total
    assert cost.unpriced == sum(r.cost_nano_usd is None for r in ledger)
    gone = [r for r in ledger if r.price_version.startswith("2020") and r.cost_nano_usd]
    assert cost.unsplit == len(gone)
    # By the bill of each request, which its own page shows: another computation of the same.
    sums: Counter[str] = Counter()
    saved = Fraction()
    for row in ledger:
        bill = requests_page.bill(MODELS[row.model].prices, row)
        for item in bill.items if bill else ():
            sums[item.title] += Fraction(item.amount) * pricing.NANO  # type: ignore[assignment]
        if bill:
            fresh = Fraction(bill.price.input) * Fraction(bill.factor or "1")
            cached = Fraction(bill.price.cache_read or bill.price.input) * Fraction(
                bill.factor or "1"
            )
            saved += row.cached_tokens * (fresh - cached) * 1000
    for title, part in (
        ("Input", cost.input),
        ("Input, cached", cost.cached),
        ("Input, written to the cache", cost.cache_write),
        ("Output", cost.output),
    ):
        assert abs(sums[title] - part) <= Fraction(1, 2), title
    assert abs(saved - cost.saved) <= Fraction(1, 2)
    assert dict(found.outcomes) == dict(Counter(r.outcome for r in ledger))
    assert sum(n for _, n in found.outcomes) == found.requests == len(ledger)


@given(st.lists(st.integers(0, 10**6), min_size=1))
def test_a_percentile_is_the_least_value_with_so_many_at_or_below_it(values: list[int]) -> None:
    for part, value in zip((50, 95, 99), percentiles(values).values_ms, strict=True):
        assert value in values
        assert sum(v <= value for v in values) * 100 >= part * len(values)
        below = [v for v in values if v < value]
        assert not below or len(below) * 100 < part * len(values)


def test_of_nothing_there_is_no_percentile() -> None:
    assert percentiles([]).values_ms == ()
    assert percentiles([7]).values_ms == (7, 7, 7)


def cells(page: str) -> dict[str, list[str]]:
    """The rows of the panel's tables by their titles; an amount or a time as its title has it, exactly."""
    panel = page[page.index('id="figures"') :]
    out = {}
    for line in re.findall(r"<tr[^>]*>(.*?)</tr>", panel, re.S):
        title = re.search(r'<th scope="row"[^>]*>([^<]*)', line)
        found = []
        for cell in re.findall(r"<td[^>]*>(.*?)</td>", line, re.S):
            given = re.search(r'<span title="([^"]*)"', cell)
            found.append(html.unescape(given[1] if given else cell.strip()))
        if title:
            name = title[1].strip()
            out["Sum" if name in out else name] = found  # both tables have a total
    return out


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(ledger=st.lists(rows(), min_size=1, max_size=20, unique_by=lambda r: r.request_id))
def test_every_figure_of_the_panel_is_the_ledgers_and_every_count_leads_to_its_rows(
    ledger: list[LedgerRow],
) -> None:
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        with served(data, requests_page.RULES) as site:
            written = Ledger(data)

            async def settle(written: Ledger = written) -> None:
                await asyncio.gather(*map(written.settle, ledger))

            asyncio.run(settle())
            assert written.close() == 0
            with signed_in(site) as admin:
                page = admin.get("/requests?figures=1", headers={"hx-request": "true"}).text
                shown = cells(page)
                links = re.findall(r'<a href="(/requests\?[^"]*)">(\S+) ([\d,]+)</a>', page)
                counts = {}
                for link, outcome, count in links:
                    log = admin.get(html.unescape(link)).text
                    assert parse_qs(urlsplit(html.unescape(link)).query)["outcome"] == [outcome]
                    counts[outcome] = int(count)
                    assert len(re.findall('class="time"', log)) == int(count)
    assert counts == dict(Counter(r.outcome for r in ledger))
    known = sum(r.cost_nano_usd or 0 for r in ledger)
    assert shown["Sum"][-1] in (rounded(known), usd(known))
    for title, times in (
        ("First token", sorted(r.ttft_ms for r in ledger if r.ttft_ms is not None)),
        ("Total", sorted(r.total_ms for r in ledger)),
    ):
        assert int(shown[title][-1].replace(",", "")) == len(times)
        if times:
            wanted = [times[math.ceil(len(times) * p / 100) - 1] for p in (50, 95, 99)]
            assert [int(v.split()[0].replace(",", "")) for v in shown[title][:3]] == wanted


def test_a_price_of_one_day_is_not_that_of_another() -> None:
    """Rows of before a change of price are taken apart by the price that held then."""
    row = LedgerRow(
        request_id="r",
        key_id="k",
        dialect="openai",
        model="MiniMax-M3",
        outcome="stop",
        basis="upstream",
        started_at=0,
        ended_at=1,
        input_tokens=1000,
        cost_nano_usd=1000 * 9000,
        price_version="",
    )
    old, new = (
        shipped.Price(date(2026, month, 1), input=price, output="1")
        for month, price in ((1, "9"), (6, "3"))
    )
    row = msgspec.structs.replace(row, price_version=pricing.version(old))
    cost = figures_of([row], lambda _: (new, old)).cost
    assert (cost.input, cost.other, cost.unsplit) == (9_000_000, 0, 0)
