"""Each figure of the console is the ledger's, over random ledgers: page, file and command line agree."""

import asyncio
import csv
import html
import io
import json
import re
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlencode

from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consoles import served, signed_in
from headgate.cli import usage as usage_command
from headgate.money import rounded
from headgate.storage.figures import FINE
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.ledger import Ledger
from headgate.web.console import requests_page, usage_page
from headgate.web.formats import Html, cost, duration, ms

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "model": st.sampled_from(("MiniMax-M3", "MiniMax-M2")),
            "upstream": st.sampled_from(("one", "two")),
            "session": st.sampled_from(("", "s1", "s2")),
            "outcome": st.sampled_from(
                ("stop", "tool_calls", "client_gone", "upstream", "timeout")
            ),
            "input_tokens": st.integers(0, 10**6),
            "output_tokens": st.integers(0, 10**5),
            "cost_nano_usd": st.one_of(st.none(), st.integers(0, 10**12)),
            "ttft_ms": st.one_of(st.none(), st.integers(0, 5000)),
            "took_s": st.integers(5, 90),
            "ago_s": st.integers(0, 2 * 86400),
        }
    ),
    min_size=1,
    max_size=25,
)


def links_of(page: str) -> list[tuple[str, str]]:
    """The links to the log with the count that each is on; that of unknown costs is in its title."""
    out = []
    for mark, text in re.findall(r'<a ([^>]*href="/requests\?[^>]*)>([^<]*)</a>', page):
        link = re.search(r'href="([^"]*)"', mark)
        title = re.search(r'title="([\d,]+) without', mark)
        words = re.match(r"([\d,]+) without", text)
        shown = title[1] if title else words[1] if words else text.strip()
        assert link is not None
        if "button" not in mark:
            out.append((html.unescape(link[1]), shown))
    return out


def lines_of(page: str) -> list[list[str]]:
    """The cells of the table of usage; an amount or a time as its title has it, exactly."""
    body = page[page.index("<tbody>") : page.index("</tfoot>")]
    out = []
    for line in re.findall(r"<tr[^>]*>(.*?)</tr>", body, re.S):
        cells = []
        for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.S):
            exact = re.search(r'<span title="([^"]*)"', cell)
            text = exact[1] if exact else " ".join(re.sub("<[^>]*>", " ", cell).split())
            cells.append(html.unescape(text))
        out.append(cells)
    return out


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=ROWS, by=st.sampled_from(("model", "upstream", "session", "key", "day")))
def test_every_figure_is_the_ledgers(drawn: list[dict[str, object]], by: str) -> None:
    now_s = time.time() - 10
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        with served(data, (*usage_page.RULES, *requests_page.RULES)) as site:
            rows = [
                LedgerRow(
                    **{
                        "request_id": f"r{n}",
                        "key_id": "k1",
                        "dialect": "openai",
                        "basis": "upstream",
                        "started_at": (at_s := now_s - 100 - float(str(row.pop("ago_s")))),
                        "ended_at": at_s + float(str(row.pop("took_s"))),
                        **row,
                    }  # type: ignore[arg-type]  # as drawn
                )
                for n, row in enumerate(map(dict, drawn))
            ]
            ledger = Ledger(data)

            async def settle() -> None:
                await asyncio.gather(*map(ledger.settle, rows))

            asyncio.run(settle())
            assert ledger.close() == 0
            with signed_in(site) as admin:
                *_, total = lines_of(
                    admin.get(f"/usage?{urlencode({'span': '7d', 'by': by})}").text
                )
                file = list(
                    csv.DictReader(
                        io.StringIO(
                            admin.get(f"/usage.csv?{urlencode({'span': '7d', 'by': by})}").text
                        )
                    )
                )
                log = list(csv.DictReader(io.StringIO(admin.get("/requests.csv?errors=1").text)))
                page = admin.get(f"/usage?{urlencode({'span': '7d', 'by': by})}").text
                counts = {
                    link: (shown, admin.get(link.replace("/requests?", "/requests.csv?")).text)
                    for link, shown in links_of(page)
                }
            told = CliRunner().invoke(
                usage_command.command, ["--by", by, "--json", "--data", str(data)]
            )
    assert counts, "every count leads to its rows"
    for link, (shown, text) in counts.items():
        found = sum(1 for _ in csv.DictReader(io.StringIO(text)))
        unpriced = [r for r in csv.DictReader(io.StringIO(text)) if not r["cost_nano_usd"]]
        assert shown in (f"{found:,}", f"{found:,} failed"), (link, shown, found)
        if "unpriced=1" in link:
            assert len(unpriced) == found
    sums = json.loads(told.stdout)
    errors = [r for r in rows if r.outcome not in FINE]
    assert {r["request_id"] for r in log} == {r.request_id for r in errors}
    money = sum(r.cost_nano_usd or 0 for r in rows)
    timed = [r for r in rows if r.ttft_ms is not None]
    assert total[2:4] == [f"{len(rows):,}", total[3]]
    assert total[3].split()[0] == str(len(errors))
    assert total[4] == f"{sum(r.input_tokens for r in rows):,}"
    assert total[6] == f"{sum(r.output_tokens for r in rows):,}"
    assert total[1] in (rounded(money), exact(money))
    for figures in (sums, file):
        assert sum(int(s["requests"]) for s in figures) == len(rows)
        assert sum(int(s["cost_nano_usd"]) for s in figures) == money
        assert sum(int(s["input_tokens"]) for s in figures) == sum(r.input_tokens for r in rows)
    assert sorted(str(s["cost_usd"]) for s in sums) == sorted(s["cost_usd"] for s in file)
    wrong = sum(int(s["errors"]) for s in file)
    assert wrong == len([r for r in errors if by != "session" or r.session])
    if timed and by != "session":
        mean = sum(r.ttft_ms or 0 for r in timed) / len(timed)
        assert total[7] in (duration(mean), f"{mean:,.0f} ms")


def exact(nano: int) -> str:
    found = cost(nano)
    title = re.search('title="([^"]*)"', found)
    return title[1] if title else found


@given(st.integers(0, 10**15))
def test_an_amount_for_people_is_near_and_its_title_is_exact(nano: int) -> None:
    shown = rounded(nano)
    assert exact(nano) == shown or Fraction(exact(nano)[1:]) * 10**9 == nano
    if shown.startswith("$"):
        places = len(shown.partition(".")[2])
        assert (
            abs(float(shown[1:].replace(",", "")) * 10**9 - nano)
            <= 10**9 / 10**places / 2 + nano / 1e12
        )


def test_times_are_rounded_for_people() -> None:
    assert [duration(v) for v in (0.4, 999, 1000, 1234, 9949, 9950, 75_000, 120_000)] == [
        "0 ms",
        "999 ms",
        "1.0 s",
        "1.2 s",
        "9.9 s",
        "10 s",
        "75 s",
        "2 min",
    ]
    assert isinstance(ms(1234), Html)
    assert ms(12) == "12 ms"


def test_amounts_are_rounded_half_up_without_floats() -> None:
    shown = [
        0,
        1,
        99_999,
        100_000,
        149_999,
        150_000,
        999_949_999,
        999_950_000,
        1_005_000_000,
        3_674_999_999,
        1_234_567_890_123,
    ]
    assert [rounded(v) for v in shown] == [
        "$0",
        "< $0.0001",
        "< $0.0001",
        "$0.0001",
        "$0.0001",
        "$0.0002",
        "$0.9999",
        "$1.00",
        "$1.01",
        "$3.67",
        "$1,234.57",
    ]
