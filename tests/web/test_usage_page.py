"""Usage: its figures are the books', narrowed to whom one may see, on the screen and in the file."""

import asyncio
import csv
import html
import io
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import msgspec
import pytest

from consoles import Site, served, signed_in
from headgate.money import rounded
from headgate.policy import pricing
from headgate.storage import usage_table
from headgate.storage.figures import Where
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger
from headgate.web import formats, time_range
from headgate.web.console import requests_page, usage_page
from headgate.web.context import Problem

DAY = 86400
T = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
SPAN = {"span": "custom", "from": "2026-11-20", "to": "2026-11-22"}
EVIL = "<script>alert(1)</script>"
FORMULA = '=HYPERLINK("http://evil")'


def row(n: int, **fields: object) -> LedgerRow:
    plain = LedgerRow(
        request_id=f"req-{n}",
        key_id="K",
        dialect="openai",
        model="MiniMax-M3",
        upstream="main",
        outcome="stop",
        basis="upstream",
        status=200,
        started_at=T + n * 1000,
        ended_at=T + n * 1000 + 1.4,
        ttft_ms=400,
        input_tokens=1000,
        cached_tokens=250,
        output_tokens=100,
        cost_nano_usd=1_000_001,
        price_version="v",
    )
    return msgspec.structs.replace(plain, **fields)


def write(data: Path, rows: list[LedgerRow]) -> None:
    ledger = Ledger(data)

    async def work() -> None:
        await asyncio.gather(*map(ledger.settle, rows))

    asyncio.run(work())
    ledger.close()


class Place(msgspec.Struct):
    site: Site
    keys: dict[str, str]  # name: id


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    data = tmp_path_factory.mktemp("usage")
    store = Store(data)
    now_s = time.time()
    for id, name in (("red", "Red team"), ("blue", "Blue team")):
        store.create_account(id, name, now_s=now_s)
    names = {EVIL: "red", FORMULA: "blue", "plain": ""}
    keys = {
        name: store.create_key(name, now_s=now_s, account=account)[0].id
        for name, account in names.items()
    }
    store.close()
    rows = []
    for n in range(150):
        name = list(names)[n % 3]
        more: dict[str, object] = {"key_id": keys[name], "account": names[name]}
        more["model"] = ("MiniMax-M3", "MiniMax-M2.7")[n % 2]
        more["session"] = ("", EVIL, "=1+1", "a/b?c#d")[n % 4]
        if n % 10 == 9:
            more |= {
                "outcome": "timeout",
                "basis": "none",
                "input_tokens": 0,
                "cached_tokens": 0,
                "output_tokens": 0,
                "ttft_ms": None,
                "cost_nano_usd": 0,
            }
        if n % 50 == 7:
            more["cost_nano_usd"] = None
        rows.append(row(n, **more))
    write(data, rows)
    with served(data, (*usage_page.RULES, *requests_page.RULES)) as site:
        yield Place(site, keys)


@pytest.fixture
def admin(place: Place) -> Iterator[httpx2.Client]:
    with signed_in(place.site) as client:
        yield client


def text(response: httpx2.Response) -> str:
    assert response.status_code == 200, response.text
    return response.text


def table(response: httpx2.Response) -> list[dict[str, str]]:
    """A file: its rows by column; the first line has the columns' names."""
    return list(csv.DictReader(io.StringIO(text(response))))


def usage(client: httpx2.Client, path: str = "/usage", **query: str) -> httpx2.Response:
    return client.get(f"{path}?{urlencode({**SPAN, **query})}")


def cells(page: str) -> list[list[str]]:
    """What the table says, tags aside, the total last."""
    body = page[page.index("<tbody>") : page.index("</tfoot>")]
    return [
        [
            html.unescape(" ".join(re.sub("<[^>]*>", " ", cell).split()))
            for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.S)
        ]
        for line in re.findall(r"<tr[^>]*>(.*?)</tr>", body, re.S)
    ]


# --- sums ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", usage_page.BYS)
def test_the_file_has_the_screens_lines_and_adds_up_to_the_books(
    place: Place, admin: httpx2.Client, by: str
) -> None:
    lines = cells(text(usage(admin, by=by)))
    rows = table(usage(admin, "/usage.csv", by=by))
    assert list(rows[0]) == [by, "name", *usage_table.COLUMNS]
    *shown, total = lines
    assert len(shown) == len(rows)
    for line, of_file in zip(shown, rows, strict=True):
        assert line[2] == f"{int(of_file['requests']):,}"
        assert line[4] == f"{int(of_file['input_tokens']):,}"
    books = usage_page.added("", place.site.reports.usage("model", T, T + 3 * DAY))
    sums = {c: sum(int(r[c]) for r in rows) for c in ("requests", "input_tokens", "output_tokens")}
    assert sums == {
        "requests": books.requests,
        "input_tokens": books.input_tokens,
        "output_tokens": books.output_tokens,
    }
    assert sum(round(float(r["cost_usd"]) * pricing.NANO) for r in rows) == books.cost_nano_usd
    assert total[2] == f"{books.requests:,}"
    assert books.unpriced == sum(int(r["unpriced"]) for r in rows) == 3


def test_the_chart_has_the_numbers_of_the_table(admin: httpx2.Client) -> None:
    for by in ("model", "key", "day", "hour", "session"):
        page = text(usage(admin, by=by))
        found = re.search(r'data-chart="([^"]*)"', page)
        assert found is not None
        chart = json.loads(html.unescape(found[1]))
        curves = chart["curves"]
        total = cells(page)[-1]
        assert f"{sum(sum(c['values']) for c in curves['requests']):,}" == total[2]
        assert total[3].split()[0] == str(sum(sum(c["values"]) for c in curves["errors"]))
        assert all(
            len(c["values"]) == len(chart["starts"]) for some in curves.values() for c in some
        )
        assert chart["starts"][0] == T


def test_lines_that_do_not_fit_are_one_line_more_and_nothing_is_lost(
    admin: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage_page, "MOST", 2)
    for by, word in (("key", "others"), ("session", "others"), ("hour", "earlier")):
        *lines, total = cells(text(usage(admin, by=by)))
        assert len(lines) == 3 and lines[-1][0] == word
        assert sum(int(line[2].replace(",", "")) for line in lines) == int(total[2])
    curves = _curves(admin, by="key")["requests"]
    assert [c["name"] for c in curves].count("others") == 1 and len(curves) == 3


def _curves(client: httpx2.Client, **query: str) -> dict[str, list[dict[str, object]]]:
    found = re.search(r'data-chart="([^"]*)"', text(usage(client, **query)))
    assert found is not None
    curves: dict[str, list[dict[str, object]]] = json.loads(html.unescape(found[1]))["curves"]
    return curves


def test_every_filter_narrows_the_table_and_the_file(place: Place, admin: httpx2.Client) -> None:
    for filters in (
        {"account": "red"},
        {"account": "-"},
        {"key": place.keys["plain"]},
        {"model": "MiniMax-M2.7"},
        {"upstream": "none"},
        {"account": "blue", "model": "MiniMax-M3"},
    ):
        where = Where(
            **{
                **{"key_id" if n == "key" else n: v for n, v in filters.items()},
                **({"account": ""} if filters.get("account") == "-" else {}),
            }
        )
        expected = sum(s.requests for s in place.site.reports.usage("model", where=where))
        rows = table(usage(admin, "/usage.csv", **filters))
        assert sum(int(r["requests"]) for r in rows) == expected
        page = text(usage(admin, **filters))
        assert (
            not rows if "no requests in this time" in page else cells(page)[-1][2] == str(expected)
        )


# --- ways on -------------------------------------------------------------------------------------


def test_every_line_leads_to_its_requests(place: Place, admin: httpx2.Client) -> None:
    for by in usage_page.BYS:
        page = text(usage(admin, by=by))
        body = page[page.index("<tbody>") : page.index("</tbody>")]
        for line in re.findall(r"<tr>(.*?)</tr>", body, re.S):
            paths = [html.unescape(p) for p in re.findall(r'href="([^"]+)"', line)]
            number = re.search(r'<a href="(/requests[^"]*)">([\d,]+)</a>', line)
            assert number is not None, line
            query = html.unescape(number[1])
            rows = table(admin.get(query.replace("/requests?", "/requests.csv?")))
            assert len(rows) == int(number[2].replace(",", "")), query
            if "(no session)" in line:
                continue
            into = next(p for p in paths if not p.startswith("/requests"))
            assert into.startswith("/sessions/" if by == "session" else "/usage?")
            assert admin.get(into).status_code == 200, into


def test_a_span_of_words_goes_on_moving_and_a_file_names_both_ends(admin: httpx2.Client) -> None:
    page = html.unescape(text(admin.get("/usage?span=30d&by=upstream")))
    assert 'href="/usage?span=30d&upstream=main&by=model"' in page
    assert re.search(
        r'href="/usage.csv\?span=custom&from=20\d\d-[^"&]+&to=20[^"&]+&by=upstream"', page
    )


# --- whom one may see ----------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["member", "viewer"])
def test_others_see_their_accounts_figures_only(place: Place, role: str) -> None:
    red = sum(s.requests for s in place.site.reports.usage("model", where=Where(account="red")))
    with signed_in(place.site, role, "red") as client:  # type: ignore[arg-type]
        for query in ({}, {"account": "blue"}, {"account": "-"}, {"by": "account"}):
            page = text(usage(client, **query))
            assert cells(page)[-1][2] == str(red)
            assert FORMULA not in html.unescape(page) and "Blue team" not in page
            rows = table(usage(client, "/usage.csv", **query))
            assert sum(int(r["requests"]) for r in rows) == red
        assert "no requests in this time" in text(usage(client, key=place.keys["plain"]))
        page = html.unescape(text(usage(client)))
        assert place.keys["plain"] not in page


def test_who_is_not_signed_in_sees_nothing(place: Place) -> None:
    with place.site.open() as client:
        assert client.get("/usage").status_code == 303
        assert client.get("/usage.csv").status_code == 303


def test_names_are_shown_with_their_ids_and_run_nothing(place: Place, admin: httpx2.Client) -> None:
    page = text(usage(admin, by="key"))
    assert html.escape(EVIL) in page and EVIL not in page
    assert f"{place.keys[EVIL]}</code>" in page
    rows = table(usage(admin, "/usage.csv", by="key"))
    assert {r["name"] for r in rows} == {EVIL, f"'{FORMULA}", "plain"}
    rows = table(usage(admin, "/usage.csv", by="session"))
    assert "'=1+1" in {r["session"] for r in rows}


# --- spans ---------------------------------------------------------------------------------------


def read(**query: str) -> time_range.TimeRange:
    named = {name.removesuffix("_"): value for name, value in query.items()}
    return time_range.read(named, NOW, "7d", scoped=False).span


NOW = datetime(2026, 3, 15, 12, 30, 5, tzinfo=UTC).timestamp() + 0.5


def ends(span: time_range.TimeRange) -> tuple[str, str]:
    return time_range.iso(span.since_s), time_range.iso(span.until_s)


def test_a_span_ends_now_and_its_other_end_is_as_long_before() -> None:
    for name, days in (("24h", 1), ("7d", 7), ("30d", 30)):
        span = read(span=name)
        assert span.until_s > NOW
        assert span.length_s == days * DAY
        before = span.before()
        assert (before.length_s, before.until_s) == (span.length_s, span.since_s)


def test_a_month_is_set_against_as_much_of_the_month_before() -> None:
    span = read(span="month")
    assert ends(span) == ("2026-03-01T00:00", "2026-03-15T12:30:06")
    assert ends(span.before()) == ("2026-02-01T00:00", "2026-02-15T12:30:06")
    long = time_range.read({"span": "month"}, NOW + 15 * DAY, "7d", scoped=False).span
    assert ends(long.before()) == ("2026-02-01T00:00", "2026-03-01T00:00")


def test_times_are_utc_and_a_day_as_the_end_is_in_it() -> None:
    assert ends(read(from_="2026-01-01", to="2026-01-02")) == (
        "2026-01-01T00:00",
        "2026-01-03T00:00",
    )
    assert ends(read(from_="2026-01-01T10:00+02:00", to="2026-01-01T09:00:30Z")) == (
        "2026-01-01T08:00",
        "2026-01-01T09:00:30",
    )


def test_a_link_gives_the_span_back() -> None:
    span = read(from_="2026-01-01T08:00:01", to="2026-01-02T00:00")
    asked = time_range.ReportQuery(span, account="-", session="a&b=c/ü")
    for fixed in (True, False):
        address = httpx2.URL(asked.link("/x", fixed=fixed))
        assert time_range.read(dict(address.params), NOW, "24h", scoped=False) == asked
    assert time_range.read(dict(address.params), NOW, "24h", scoped=True).account == ""


@pytest.mark.parametrize(
    "query",
    [
        {"span": "year"},
        {"from": "yesterday"},
        {"from": "2026-01-02", "to": "2026-01-01T00:00"},
        {"to": "9999-12-31"},
        {"from": "0001-01-01T00:00+23:59"},
        {"from": "2026-13-01"},
        {"from": "\0"},
    ],
)
def test_a_span_that_is_none_is_refused(query: dict[str, str], admin: httpx2.Client) -> None:
    try:
        time_range.read(query, NOW, "7d", scoped=False)
    except Problem as problem:
        assert problem.status == 400
    for path in ("/usage", "/usage.csv", "/requests", "/requests.csv"):
        assert admin.get(path, params=query).status_code in (200, 400)


def test_a_span_that_no_chart_has_room_for_is_refused(admin: httpx2.Client) -> None:
    assert admin.get("/usage?from=2020-01-01&to=2026-01-01").status_code == 400
    assert admin.get("/usage?from=2026-01-01&to=2026-06-01&by=hour").status_code == 400
    assert admin.get("/usage?from=2026-01-01&to=2026-06-01&by=day").status_code == 200


# --- figures -------------------------------------------------------------------------------------


def test_figures_are_rounded_to_what_can_be_read() -> None:
    assert [formats.short(v) for v in (0, 9999, 12_345, 1_234_567, 123_456_789, 5e9)] == [
        "0",
        "9,999",
        "12.35 k",
        "1.235 M",
        "123.5 M",
        "5.000 G",
    ]
    assert [rounded(v) for v in (0, 1, 100_000, 1_500_000_000, 1_234_000_000_000)] == [
        "$0",
        "< $0.0001",
        "$0.0001",
        "$1.50",
        "$1,234.00",
    ]
    assert [formats.rate(v) for v in (0, 0.0123, 0.5)] == ["0.0 %", "1.2 %", "50.0 %"]


def test_a_change_is_told_against_the_span_before(admin: httpx2.Client) -> None:
    """The 21st has rows from 87,000 s on: the 20th has 87 of them, the 21st the other 63."""
    page = text(admin.get("/usage?span=custom&from=2026-11-21&to=2026-11-21"))
    card = re.search(r"<small>Requests</small>.*?</div>", page, re.S)
    assert card is not None
    assert "63" in card[0] and "▼ 28 %" in card[0] and "before: 87" in card[0]
    nothing = text(admin.get("/usage?span=custom&from=2026-11-20&to=2026-11-20"))
    assert "▲" not in nothing and "▼" not in nothing


def test_without_scripts_the_page_has_a_form_and_every_number(admin: httpx2.Client) -> None:
    page = text(usage(admin))
    assert "<script>" not in page and " style=" not in page and " onclick" not in page
    assert '<form class="filters" method="get" action="/usage"' in page
    assert re.search(r'<section class="panel usage" id="usage-chart" hidden', page)
