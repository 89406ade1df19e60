"""The log, one request, a session: every row once, no one else's, and each word of it explained."""

import ast
import asyncio
import csv
import html
import io
import random
import re
import time
from collections.abc import Callable, Iterator
from datetime import date
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import get_args

import httpx2
import msgspec
import pytest

from consoles import Site, served, signed_in
from headgate import errors
from headgate.catalog import models as shipped
from headgate.chat import FinishReason, Usage
from headgate.dialects import fields, unreadable
from headgate.dialects.registry import DIALECTS
from headgate.dialects.responses import items, tools
from headgate.edge import record
from headgate.policy import pricing
from headgate.storage.figures import Where
from headgate.storage.rows import AttemptRecord, Basis, LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger
from headgate.web import time_range
from headgate.web.console import log_view, request_details, requests_page

T = 1_795_737_600.0  # 2026-11-27 00:00 UTC
EVIL = '"><script>alert(1)</script>'
ODD = "a/../b c?d#e%2f=1"
M3 = shipped.models()["MiniMax-M3"]
ON = date(2026, 11, 27)


def row(n: int, **fields: object) -> LedgerRow:
    plain = LedgerRow(
        request_id=f"req-{n:03}",
        key_id="K",
        dialect="openai",
        model="MiniMax-M3",
        upstream="custom",
        upstream_model="MiniMax-M3",
        stream=True,
        outcome="stop",
        basis="upstream",
        status=200,
        started_at=T + n,
        ended_at=T + n + 1.4,
        ttft_ms=400,
        input_tokens=1000,
        cached_tokens=250,
        output_tokens=100,
        cost_nano_usd=1_000_001,
        attempts=(AttemptRecord("custom", "MiniMax-M3", "stop", "", 1300),),
    )
    return msgspec.structs.replace(plain, **fields)


def write(data: Path, rows: list[LedgerRow]) -> None:
    ledger = Ledger(data)

    async def work() -> None:
        for each in rows:  # in their order
            await ledger.settle(each)

    asyncio.run(work())
    ledger.close()


SPECIAL = (
    row(
        900,
        account="blue",
        key_id="B",
        session=ODD,
        dialect="anthropic",
        outcome="stop",
        warnings=("temperature", "history: tool result moved to its call", EVIL),
        service_tier="priority",
        input_tokens=1003,
        cached_tokens=501,
        cache_write_tokens=100,
        output_tokens=77,
        reasoning_tokens=7,
        attempts=(
            AttemptRecord("other", "m", "rate_limit", "1002", 200),
            AttemptRecord("custom", "MiniMax-M3", "stop", "", 1000),
        ),
    ),
    row(
        901,
        account="blue",
        key_id="B",
        outcome="timeout",
        basis="none",
        status=504,
        input_tokens=0,
        cached_tokens=0,
        output_tokens=0,
        ttft_ms=None,
        cost_nano_usd=0,
        price_version="free",
    ),
    row(902, account="blue", key_id="B", cost_nano_usd=None),
    row(903, account="blue", key_id="B", price_version="2020-01-01.00000000", stream=False),
    row(
        904,
        account="blue",
        key_id="B",
        outcome="crashed",
        basis="recovered",
        status=0,
        cost_nano_usd=0,
        attempts=(),
        model="unheard-of",
        upstream="gone",
    ),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("requests")
    store = Store(data)
    for id in ("red", "blue"):
        store.create_account(id, id.title(), now_s=time.time())
    key = store.create_key(EVIL, now_s=time.time(), account="red")[0].id
    store.close()
    priced = SPECIAL[0]
    usage = Usage(
        priced.input_tokens, priced.output_tokens, priced.cached_tokens, priced.cache_write_tokens
    )
    charge = pricing.Tariff(M3.prices, "priority", ON).charge(usage)
    priced = msgspec.structs.replace(
        priced, cost_nano_usd=charge.nano, price_version=charge.version
    )
    write(
        data,
        [
            *(
                row(
                    n,
                    account=("red", "blue", "")[n % 3],
                    key_id=(key, "B", "C")[n % 3],
                    session=EVIL if n % 2 else "",
                    model=("MiniMax-M3", "MiniMax-M2.7")[n % 2],
                    outcome="timeout" if n % 10 == 0 else "stop",
                )
                for n in range(130)
            ),
            priced,
            *SPECIAL[1:],
        ],
    )
    with served(data, requests_page.RULES) as site:
        yield site


@pytest.fixture
def admin(site: Site) -> Iterator[httpx2.Client]:
    with signed_in(site) as client:
        yield client


def text(response: httpx2.Response) -> str:
    assert response.status_code == 200, response.text
    return response.text


def words(page: str) -> str:
    return html.unescape(" ".join(re.sub("<[^>]*>", " ", page).split()))


def ids(page: str) -> list[str]:
    return re.findall(r'<a href="/requests/([^"?]+)"', page)


def more(page: str) -> str:
    found = re.search(r'<tr class="more">.*?<a href="([^"]+)"', page, re.S)
    return html.unescape(found[1]) if found else ""


# --- the log -------------------------------------------------------------------------------------


@pytest.mark.parametrize("partial", [False, True], ids=["links", "htmx"])
def test_the_pages_have_every_row_once_newest_first(
    admin: httpx2.Client, site: Site, partial: bool
) -> None:
    path, seen = "/requests", list[str]()
    while path:
        headers = {"hx-request": "true"} if partial and seen else {}
        page = text(admin.get(path, headers=headers))
        assert ("<html" in page) != bool(headers)
        assert not headers or page.lstrip().startswith("<tr>")
        seen += ids(page)
        path = more(page)
    assert seen == [r.request_id for _, r in site.reports.requests(most=1000)]
    assert len(seen) == 135


def test_a_row_that_comes_meanwhile_moves_no_page(site: Site, admin: httpx2.Client) -> None:
    first = text(admin.get("/requests"))
    write(site.data, [row(990, account="blue", key_id="B", outcome="length")])
    assert more(first) and not {*ids(first)} & {*ids(text(admin.get(more(first))))}
    assert ids(text(admin.get("/requests")))[0] == "req-990"


@pytest.mark.parametrize(
    "filters",
    [
        {"account": "red"},
        {"account": "-"},
        {"key": "B"},
        {"model": "MiniMax-M2.7"},
        {"outcome": "timeout"},
        {"session": EVIL},
        {"upstream": "none"},
        {"account": "red", "model": "MiniMax-M3", "outcome": "stop"},
    ],
)
def test_a_filter_holds_on_every_page_and_in_the_file(
    site: Site, admin: httpx2.Client, filters: dict[str, str]
) -> None:
    where = Where(
        **{"key_id" if n == "key" else n: "" if v == "-" else v for n, v in filters.items()}
    )
    expected = [r.request_id for _, r in site.reports.requests(where, most=1000)]
    response, seen = admin.get("/requests", params=filters), list[str]()
    while True:
        page = text(response)
        seen += ids(page)
        if not more(page):
            break
        response = admin.get(more(page))
    assert seen == expected
    rest = text(admin.get("/requests.csv", params=filters))
    assert [r["request_id"] for r in csv.DictReader(io.StringIO(rest))] == expected


def test_a_span_narrows_the_log(admin: httpx2.Client) -> None:
    query = {"from": "2026-11-27T00:00:10", "to": "2026-11-27T00:00:12"}
    assert ids(text(admin.get("/requests", params=query))) == ["req-011", "req-010"]


def test_the_file_is_as_long_as_it_may_be(
    site: Site, admin: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_page, "MOST_IN_FILE", 25)
    monkeypatch.setattr(requests_page, "_BATCH", 10)
    rest = text(admin.get("/requests.csv"))
    rows = list(csv.DictReader(io.StringIO(rest)))
    assert [r["request_id"] for r in rows] == [
        r.request_id for _, r in site.reports.requests(most=25)
    ]
    assert {*rows[0]} == {*requests_page.TITLES}


def test_costs_in_the_file_are_exact_and_an_unknown_one_is_empty(admin: httpx2.Client) -> None:
    rest = text(admin.get("/requests.csv?key=B"))
    costs = {r["request_id"]: r["cost_usd"] for r in csv.DictReader(io.StringIO(rest))}
    assert (costs["req-001"], costs["req-902"], costs["req-901"]) == ("0.001000001", "", "0.00")


def test_an_id_is_looked_up(admin: httpx2.Client) -> None:
    response = admin.get("/requests?id=a/b%3F")
    assert (response.status_code, response.headers["location"]) == (303, "/requests/a%2Fb%3F")


@pytest.mark.parametrize(
    ("sort", "value"),
    [
        ("cost", lambda r: r.cost_nano_usd),
        ("ttft", lambda r: r.ttft_ms),
        ("total", lambda r: r.total_ms),
        ("input", lambda r: r.input_tokens),
        ("started", lambda r: r.started_at),
        ("outcome", lambda r: r.outcome),
    ],
)
def test_the_log_is_sorted_by_a_column_either_way_over_all_its_pages(
    site: Site, admin: httpx2.Client, sort: str, value: Callable[[LedgerRow], float | None]
) -> None:
    rows = {r.request_id: r for _, r in site.reports.requests(most=1000)}
    for sign in ("", "-"):
        path, seen = f"/requests?sort={sign}{sort}&columns=started,key,{sort}", list[str]()
        while path:
            page = text(admin.get(path))
            seen += ids(page)
            path = more(page)
        assert sorted(seen) == sorted(rows)
        values = [v for id in seen if (v := value(rows[id])) is not None]
        assert values == sorted(values, reverse=bool(sign))  # type: ignore[type-var]
        assert all(value(rows[id]) is None for id in seen[len(values) :])
    assert 'aria-sort="descending"' in page


def test_a_page_says_when_it_is_not_all_that_is_sorted_summed_up_or_searched(
    site: Site, admin: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = len(site.reports.requests(most=1000))
    assert f"Sorted: all {count} requests" in text(admin.get("/requests?sort=cost"))
    assert f"Of the {count} requests" in text(admin.get("/requests?figures=1"))
    monkeypatch.setattr(log_view, "MOST_SORTED", 70)
    page = text(admin.get("/requests?sort=cost"))
    assert "Sorted: the last 70 requests that the filters leave, not all." in page
    second = text(admin.get(more(page)))
    assert len(ids(page) + ids(second)) == 70 and not more(second)
    last = {r.request_id for _, r in site.reports.requests(most=70)}
    assert set(ids(page) + ids(second)) == last
    assert "Of the last 70 requests that the filters leave, not of all." in text(
        admin.get("/requests?figures=1")
    )
    assert "is looked for in" not in text(admin.get("/requests?text=a"))
    monkeypatch.setattr(requests_page, "MAX_SEARCHED", 70)
    assert "is looked for in the last 70 requests only" in text(admin.get("/requests?text=a"))


@pytest.mark.parametrize("sort", ["nothing", "tags", "--cost", "-"])
def test_an_order_that_is_none_is_refused(admin: httpx2.Client, sort: str) -> None:
    assert admin.get("/requests", params={"sort": sort}).status_code == 400
    assert admin.get("/requests", params={"sort": "cost", "page": "x"}).status_code == 400


def titles(page: str) -> list[str]:
    return [words(t) for t in re.findall(r"<th.*?</th>", page[: page.index("</thead>")], re.S)]


def test_columns_are_chosen_and_stay_on_the_next_page_and_in_every_link(
    admin: httpx2.Client,
) -> None:
    page = text(admin.get("/requests?column=key&column=cost&column=attempts&column=nonsense"))
    table = page[page.index('<table class="log">') :]
    assert titles(table) == ["Key", "Cost", "Attempts"]
    assert len(ids(table)) == 50
    assert "columns=key%2Ccost%2Cattempts" in more(page)
    partial = text(admin.get(more(page), headers={"hx-request": "true"}))
    assert partial.partition("</tr>")[0].count("<td") == 3
    for name in (c.name for c in log_view.columns(nodes=False)):
        one = text(admin.get(f"/requests?columns={name}"))
        assert len(titles(one[one.index('<table class="log">') :])) == 1
        assert len(ids(one)) == 50, name


def test_a_view_is_ones_own_and_has_filters_columns_and_order(site: Site) -> None:
    with signed_in(site) as mine, signed_in(site) as other:
        csrf = mine.csrf  # type: ignore[attr-defined]
        query = "outcome=timeout&columns=key,cost&sort=-cost&csrf=stolen&before=3"
        form = {"csrf": csrf, "name": EVIL, "query": query}
        saved = mine.post("/requests/views", data=form)
        assert saved.status_code == 303
        page = text(mine.get("/requests"))
        link = html.unescape(re.findall(r'<span class="view"><a href="([^"]+)"', page)[0])
        assert link == "/requests?outcome=timeout&columns=key%2Ccost&sort=-cost"
        seen = text(mine.get(link))
        assert set(ids(seen)) == {
            r.request_id for _, r in site.reports.requests(Where(outcome="timeout"), most=99)
        }
        assert 'class="view"' not in text(other.get("/requests"))
        gone = {"csrf": csrf, "name": EVIL}
        assert other.post("/requests/views/remove", data=gone).status_code == 403
        assert mine.post("/requests/views/remove", data=gone).status_code == 303
        assert mine.post("/requests/views/remove", data=gone).status_code == 404
        for n in range(50):
            assert mine.post("/requests/views", data={**form, "name": f"v{n}"}).status_code == 303
        refused = mine.post("/requests/views", data={**form, "name": "one more"})
        assert refused.status_code == 422 and "50 saved views" in refused.text


def test_the_tail_has_each_new_row_once_and_only_those_that_the_filters_leave(
    site: Site, admin: httpx2.Client
) -> None:
    page = text(admin.get("/requests?outcome=length&key=B"))
    found = re.search(r'data-tail="([^"]+)"', page)
    assert found is not None
    tail, headers = html.unescape(found[1]), {"hx-request": "true"}
    assert ids(text(admin.get(tail, headers=headers))) == []
    write(site.data, [row(980 + n, key_id="BC"[n % 2], outcome="length") for n in range(4)])
    fresh = text(admin.get(tail, headers=headers))
    assert ids(fresh) == ["req-982", "req-980"] and 'class="more"' not in fresh
    seq = re.findall(r'data-seq="(\d+)"', fresh)[0]
    later = re.sub(r"after=\d+", f"after={seq}", tail)
    assert ids(text(admin.get(later, headers=headers))) == []
    assert "data-tail" not in text(admin.get("/requests?sort=cost"))
    with signed_in(site, "viewer", "red") as client:
        assert ids(text(client.get(tail.replace("outcome=length&", ""), headers=headers))) == []


@pytest.mark.parametrize("before", ["x", "-1", "1" * 40, "１"])
def test_a_page_that_is_none_is_refused(admin: httpx2.Client, before: str) -> None:
    assert admin.get("/requests", params={"before": before}).status_code == 400


# --- whom one may see ----------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["member", "viewer"])
def test_others_see_their_accounts_requests_only(site: Site, role: str) -> None:
    red = [r.request_id for _, r in site.reports.requests(Where(account="red"), most=1000)]
    with signed_in(site, role, "red") as client:  # type: ignore[arg-type]
        for query in ("", "?account=blue", "?account=-"):
            page = text(client.get(f"/requests{query}"))
            assert ids(page) == red[:50]
            rest = text(client.get(f"/requests.csv{query}"))
            assert [r["request_id"] for r in csv.DictReader(io.StringIO(rest))] == red
        assert ids(text(client.get("/requests?key=B"))) == []
        assert client.get(f"/requests/{red[0]}").status_code == 200
        for foreign in ("req-001", "req-002", "req-900", "none"):
            assert client.get(f"/requests/{foreign}").status_code == 404
        assert client.get("/sessions/a%2F..%2Fb%20c%3Fd%23e%252f%3D1").status_code == 404


def test_a_session_that_two_accounts_named_alike_shows_ones_own_part(site: Site) -> None:
    mine = site.reports.requests(Where(account="red", session=EVIL), most=1000)
    path = time_range.of_session(EVIL)
    with signed_in(site, "viewer", "red") as client:
        page = text(client.get(path))
        assert ids(page) == [r.request_id for _, r in mine]
        assert f"Requests {len(mine)} " in words(page)
    with signed_in(site) as client:
        assert len(ids(text(client.get(path)))) == 50


def test_who_is_not_signed_in_sees_nothing(site: Site) -> None:
    with site.open() as client:
        for path in ("/requests", "/requests.csv", "/requests/req-001", "/sessions/x"):
            assert client.get(path).status_code == 303


def test_what_others_wrote_runs_nothing(admin: httpx2.Client) -> None:
    for path in (
        "/requests",
        "/requests/req-900",
        "/requests/req-003",
        time_range.of_session(EVIL),
        f"/requests?session={EVIL}&model={EVIL}&key={EVIL}",
    ):
        page = text(admin.get(path))
        assert "<script>" not in page and " style=" not in page
        assert "alert(1)" in page


# --- a session -----------------------------------------------------------------------------------


def test_a_session_adds_up_and_is_found_by_any_name(site: Site, admin: httpx2.Client) -> None:
    page = text(admin.get(time_range.of_session(ODD)))
    assert ids(page) == ["req-900"] and ODD in html.unescape(page)
    rows = site.reports.session(EVIL)
    page = text(admin.get(time_range.of_session(EVIL)))
    told = words(page)
    assert f"Requests {len(rows)} " in told
    assert f"Input tokens {sum(r.input_tokens for r in rows):,} " in told
    nano = sum(r.cost_nano_usd or 0 for r in rows)
    assert f'title="${pricing.usd(nano)}"' in page
    assert admin.get("/sessions/none").status_code == 404
    assert admin.get("/sessions/").status_code == 404


# --- one request ---------------------------------------------------------------------------------


def test_a_request_is_shown_whole(admin: httpx2.Client) -> None:
    told = words(text(admin.get("/requests/req-900")))
    for part in (
        "2026-11-27 00:15:00",
        "HTTP status 200",
        "400 ms",
        "1.4 s",
        "501 cached",
        "7 of thinking",
        "The client spoke Anthropic Messages, the upstream OpenAI Chat Completions.",
        request_details.WARNINGS["temperature"].text,
        "no explanation of it",
        "1002",
        request_details.OUTCOMES["rate_limit"],
        "1.5 times as much for the priority tier",
        "for up to 512,000 input tokens",
        request_details.BASES["upstream"],
        "Thinking is part of the output.",
    ):
        assert part in told, part


@pytest.mark.parametrize(
    "id, part",
    [
        ("901", "Nothing was relayed, so nothing is billed."),
        ("901", "Not billed."),
        ("902", "No price of this model is known"),
        ("903", "billed by the price 2020-01-01.00000000"),
        ("903", "gathered from a stream first"),
        ("904", "Nothing was sent to the client."),
        ("904", "it is not set up any more"),
        ("904", "No upstream's answer was recorded."),
    ],
)
def test_what_is_not_known_is_said(admin: httpx2.Client, id: str, part: str) -> None:
    assert part in words(text(admin.get(f"/requests/req-{id}")))


def test_the_lines_of_a_cost_add_up_to_it_to_the_nano_dollar() -> None:
    chance = random.Random(7)
    for _ in range(300):
        model = chance.choice(list(shipped.models().values()))
        input = chance.choice((0, 1, chance.randrange(10_000), chance.randrange(900_000)))
        cached = chance.randrange(input + 1)
        written = chance.randrange(input - cached + 1)
        usage = Usage(input, chance.randrange(9_999), cached, written)
        tier = chance.choice(("", "priority"))
        charge = pricing.Tariff(model.prices, tier, ON).charge(usage)
        priced = row(
            1,
            input_tokens=usage.input,
            cached_tokens=cached,
            cache_write_tokens=written,
            output_tokens=usage.output,
            cost_nano_usd=charge.nano,
            price_version=charge.version,
            service_tier=tier,
        )
        bill = requests_page.bill(model.prices, priced)
        assert bill is not None and charge.nano is not None
        total = sum((Fraction(i.amount) for i in bill.items), Fraction(bill.rounded or 0))
        assert total == Fraction(charge.nano, pricing.NANO)
        assert sum(i.tokens for i in bill.items) == usage.input + usage.output
        for item in bill.items:
            assert Fraction(item.amount) == item.tokens * Fraction(item.price) / 10**6
        wrong = msgspec.structs.replace(priced, cost_nano_usd=charge.nano + 1)
        assert requests_page.bill(model.prices, wrong) is None


def test_a_sum_that_was_rounded_says_by_how_much() -> None:
    price = msgspec.structs.replace(
        M3.prices[0], input="0.0005", output="0.0015", cache_read="", up_to_input=None
    )
    usage = Usage(1, 0)
    charge = pricing.Tariff((price,), "", ON).charge(usage)
    assert charge.nano == 1  # half up
    priced = row(
        1,
        input_tokens=1,
        cached_tokens=0,
        output_tokens=0,
        cost_nano_usd=1,
        price_version=charge.version,
    )
    bill = requests_page.bill((price,), priced)
    assert bill is not None
    assert (bill.items[0].amount, bill.rounded) == ("0.0000000005", "0.0000000005")


def test_attempts_stand_one_after_the_other_and_the_last_ends_at_the_end() -> None:
    first, last = requests_page.bars(
        row(
            1,
            ended_at=T + 2,
            ttft_ms=700,
            attempts=(
                AttemptRecord("a", "m", "timeout", "", 200),
                AttemptRecord("b", "m", "stop", "", 500),
            ),
        )
    )
    assert (first.at, first.width, first.first) == (0, 20, None)
    assert (last.at, last.width, last.first) == (50, 50, 70)
    assert requests_page.bars(row(1, attempts=())) == []
    (only,) = requests_page.bars(
        row(1, ended_at=T + 1, attempts=(AttemptRecord("a", "m", "stop"),))
    )
    assert only.at + only.width <= 101


# --- every word is explained ---------------------------------------------------------------------

# Words that are made of a part that is written down and one of a list.
LISTED = {"input.": items._SILENT, "tools.": tools._HINTS}
# Where warnings have words of the request in them; they are explained by their kind.
OF_KINDS = {
    f"dialects/{name}.py"
    for name in (
        "unknown",
        "unknown_chat",
        "unknown_fields",
        "unknown_parts",
        "unknown_responses",
        "fields",
        "hints",
        "limits",
        "gemini/contents",
        "gemini/mended",
        "gemini/parts",
        "gemini/request",
        "gemini/tools",
        "anthropic/content",
        "anthropic/messages",
        "anthropic/request",
        "anthropic/tools",
    )
} | {
    "policy/fit_media.py",
    "policy/turns.py",
    "policy/effort.py",
    "dialects/provider.py",
    "edge/pipeline/searches.py",
}
GATHERERS = ("warnings", "_warnings", "notes")


class Written(ast.NodeVisitor):
    """The words that a module puts among a request's warnings; `unclear`: what cannot be read."""

    def __init__(self, tree: ast.Module) -> None:
        self.words: set[str] = set()
        self.unclear: list[str] = []
        self._loops: dict[str, ast.expr] = {}
        self.visit(tree)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        # fit._known adds the word that its caller says, and so its callers are read.
        if not (node.name == "_known" and node.args.args[0].arg in GATHERERS):
            self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        if isinstance(node.target, ast.Name):
            self._loops[node.target.id] = node.iter
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        match node.func:
            case ast.Attribute(value=to, attr="append") if _name(to) in GATHERERS:
                self._add(node.args[0])
            case ast.Attribute(value=to, attr="extend" | "insert") if _name(to) in GATHERERS:
                self.unclear.append(ast.unparse(node))
            case ast.Attribute(attr="warn") if _name(node.func.value) != "log":
                for arg in node.args:
                    gathered = "notes" in ast.unparse(arg) or "warnings" in ast.unparse(arg)
                    if not (isinstance(arg, ast.Starred) and gathered):
                        self._add(arg)
            case ast.Name(id="_known") if _name(node.args[0]) in GATHERERS:
                self._add(node.args[2])
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if any(_name(t) in GATHERERS for t in node.targets) and isinstance(
            node.value, ast.Tuple | ast.List
        ):
            for each in node.value.elts:
                if not isinstance(each, ast.Starred):
                    self._add(each)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if _name(node.target) in GATHERERS:
            self.unclear.append(ast.unparse(node))
        self.generic_visit(node)

    def _add(self, word: ast.expr) -> None:
        match word:
            case ast.Constant(value=str(text)):
                self.words.add(text)
                return
            case ast.Name(id=name) if isinstance(self._loops.get(name), ast.Tuple):
                self.words |= {str(ast.literal_eval(e)) for e in self._loops[name].elts}  # type: ignore[attr-defined]
                return
            case (
                ast.JoinedStr(values=[ast.Constant(value=str(head)), _])
                | ast.BinOp(left=ast.Constant(value=str(head)))
            ) if head in LISTED:
                self.words |= {head + each for each in LISTED[head]}
                return
        self.unclear.append(ast.unparse(word))


def _name(node: ast.expr) -> str:
    return (
        node.id
        if isinstance(node, ast.Name)
        else node.attr
        if isinstance(node, ast.Attribute)
        else ""
    )


def written() -> dict[str, Written]:
    package = Path(str(files("headgate")))
    paths = [
        p
        for p in package.rglob("*.py")
        # Those of the settings are another list; the console writes none, and counts have no row.
        if p.parent.name not in ("config", "cli")
        and p.name != "count.py"
        and "web" not in p.relative_to(package).parts
    ]
    found = {str(p.relative_to(package)): Written(ast.parse(p.read_text())) for p in paths}
    return {path: w for path, w in found.items() if w.words or w.unclear}


def test_every_warning_that_the_code_can_write_is_explained() -> None:
    found = written()
    unclear = {path: w.unclear for path, w in found.items() if w.unclear and path not in OF_KINDS}
    assert not unclear, "teach this test to read these, or write the word out"
    words = set().union(*(w.words for w in found.values()))
    assert len(words) > 30  # or nothing was read
    assert not [w for w in words if request_details.warning(w) is request_details.UNEXPLAINED]
    # What the count of tokens says is in no row, but a client asks what it means.
    assert {*request_details.WARNINGS} - words == {
        "tokens (estimated)",
        "tokens (template assumed)",
    }


@pytest.mark.parametrize(
    "word",
    [
        unreadable.warning_of("PDF"),
        unreadable.kept_as_text("x block"),
        unreadable.skipped("x block"),
        fields.SURROGATES,
        "history: role x read as user",
        "responseModalities (x ignored)",
        "model (answered by gpt-5)",
        "model (retired 2026-11-18; successor MiniMax-M3.1-Flash)",
        "thinking (cannot be switched off; effort low)",
        "reasoning_effort (minimal sent as low)",
        "thinking.budget_tokens (sent as effort low)",
        "output_config.effort",
        "thinkingConfig.thinkingBudget (lowered to 2999 tokens)",
        "messages.tool_calls.custom",
        "tool_choice (x read as auto)",
        "tools.web_search",
        "web_search (2 made)",
    ],
)
def test_a_warning_with_words_of_the_request_is_explained_by_its_kind(word: str) -> None:
    assert request_details.warning(word) is not request_details.UNEXPLAINED


def test_a_warning_of_no_kind_is_not_explained() -> None:
    assert request_details.warning("12 ???") is request_details.UNEXPLAINED


def test_the_test_sees_words_that_are_not_written_out() -> None:
    source = (
        "warnings.append(x)\nnotes += [y]\nself.warnings = (*self.warnings, 'z')\nr.warn(f'a{b}')"
    )
    found = Written(ast.parse(source))
    assert found.words == {"z"} and found.unclear == ["x", "notes += [y]", "f'a{b}'"]


def test_every_outcome_basis_and_protocol_is_explained() -> None:
    outcomes = {*get_args(FinishReason), *get_args(errors.Kind), *record.ANSWERED}
    assert outcomes | {"crashed", "invalid_format", "shutdown"} == {*request_details.OUTCOMES}
    assert {*get_args(Basis)} == {*request_details.BASES}
    assert {*DIALECTS} == {*request_details.PROTOCOLS}
