"""The books: exact sums and pages of the log, whatever is asked for, without reading all rows."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import apsw
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.edge.record import ANSWERED
from headgate.errors import STATUS
from headgate.storage.figures import (
    FINE,
    UPSTREAMS_FAULT,
    By,
    Column,
    Measured,
    Only,
    Order,
    RequestFacts,
    Spent,
    Where,
)
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger
from headgate.storage.sqlite.reports import NEAR, UsageReader

HOUR = 3600
DAY = 24 * HOUR
T = 1_800_000_000.0  # 2027-01-15 08:00 UTC, a whole hour
END = T + 100 * DAY


def row(id: str, **fields: object) -> LedgerRow:
    plain = LedgerRow(
        request_id=id,
        key_id="K1",
        dialect="openai",
        model="M",
        upstream="up",
        outcome="stop",
        basis="upstream",
        started_at=T,
        ended_at=T,
        input_tokens=10,
        output_tokens=2,
        cost_nano_usd=5,
    )
    return msgspec.structs.replace(plain, **fields)


def write(data: Path, rows: list[LedgerRow]) -> None:
    ledger = Ledger(data)

    async def work() -> None:
        await asyncio.gather(*map(ledger.settle, rows))

    asyncio.run(work())
    ledger.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    Store(tmp_path / "data").close()
    return tmp_path / "data"


# --- what is added up ----------------------------------------------------------------------------


def test_an_answer_and_a_client_that_left_are_no_errors() -> None:
    assert {*FINE} == {*ANSWERED, "client_gone"}
    assert {*UPSTREAMS_FAULT} < {*STATUS}


def test_errors_and_times_are_added_up_by_account_and_hour(data: Path) -> None:
    write(
        data,
        [
            row("a", account="red", key_id="K1", ttft_ms=100, ended_at=T + 1.1),
            row("b", account="red", key_id="K2", outcome="timeout", ended_at=T + 9),
            row("c", account="blue", key_id="K3", outcome="client_gone", started_at=T + HOUR),
            row(
                "d",
                account="blue",
                key_id="K3",
                ttft_ms=300,
                started_at=T + HOUR,
                ended_at=T + HOUR + 0.3,
            ),
        ],
    )
    books = UsageReader(data)
    blue = Spent("blue", 2, 0, 20, 0, 0, 4, 0, 10, 0, 300, 1, 0)
    red = Spent("red", 2, 0, 20, 0, 0, 4, 0, 10, 1, 100, 1, 1000)
    assert books.usage("account") == [blue, red]
    assert [(s.name, s.errors) for s in books.usage("hour")] == [
        ("2027-01-15T08:00Z", 1),
        ("2027-01-15T09:00Z", 0),
    ]
    assert books.usage("account", where=Where(account="red")) == [red]
    assert [s.name for s in books.usage("key", where=Where(account="red"))] == ["K1", "K2"]
    assert [s.requests for s in books.usage("day", where=Where(outcome="timeout"))] == [1]
    books.close()


def test_a_series_has_the_start_of_each_step_and_the_names_of_its_split(data: Path) -> None:
    write(data, [row("a"), row("b", model="N"), row("c", started_at=T + 20 * HOUR)])
    books = UsageReader(data)
    found = books.series("model", 0, END, step="day")
    assert [(start, s.name, s.requests) for start, s in found] == [
        (1799971200, "M", 1),
        (1799971200, "N", 1),
        (1800057600, "M", 1),
    ]
    hours = books.series(None, T, T + HOUR, step="hour")
    assert [(start, s.name, s.requests) for start, s in hours] == [(int(T), "", 2)]
    books.close()


def test_an_upstream_is_measured_by_its_own_errors_only(data: Path) -> None:
    write(
        data,
        [
            row("a", ttft_ms=100, ended_at=T + 1.1, output_tokens=50),
            row("b", outcome="timeout"),
            row("c", outcome="invalid"),
            row("d", outcome="client_gone"),
            row("e", upstream="mute", outcome="upstream", output_tokens=0),
            row("f", started_at=T - DAY, outcome="timeout"),
            row("g", upstream="", outcome="crashed"),
        ],
    )
    books = UsageReader(data)
    assert books.measured(T) == {
        "mute": Measured(1, 1.0, None, None),
        "up": Measured(4, 0.25, 100.0, 56.0),
    }
    books.close()


def test_the_names_of_every_column_are_known(data: Path) -> None:
    write(data, [row("a", account="red"), row("b", outcome="timeout", model="N", key_id="K0")])
    books = UsageReader(data)
    found = {column: books.names(column) for column in get_args(Column)}
    assert found == {
        "model": ["M", "N"],
        "upstream": ["up"],
        "outcome": ["stop", "timeout"],
        "account": ["", "red"],
        "key": ["K0", "K1"],
    }
    books.close()


# --- against a list ------------------------------------------------------------------------------


def one_of(*values: str) -> st.SearchStrategy[str]:
    return st.sampled_from(values)


moments = st.one_of(
    st.integers(0, 50 * HOUR).map(lambda n: T + n / 4),
    st.integers(0, 50).map(lambda n: T + n * HOUR),
)
rows_of = st.lists(
    st.fixed_dictionaries(
        {
            "account": one_of("", "red", "blue"),
            "key_id": one_of("K1", "K2", "K3"),
            "model": one_of("M", "N"),
            "upstream": one_of("u", "v"),
            "session": one_of("", "s", "t"),
            "outcome": one_of("stop", "timeout", "client_gone"),
            "started_at": moments,
            "user": one_of("", "ann"),
            "ttft_ms": st.one_of(st.none(), st.integers(0, 500)),
            "total_ms": st.integers(0, 900),
            "cost_nano_usd": st.one_of(st.none(), st.integers(0, 99)),
            "input_tokens": st.integers(0, 9),
            "output_tokens": st.integers(0, 9),
        }
    ),
    max_size=40,
)
wheres = st.builds(
    Where,
    account=st.one_of(st.none(), one_of("", "red", "nobody")),
    key_id=st.one_of(st.none(), one_of("K1", "K2")),
    model=st.one_of(st.none(), one_of("M")),
    upstream=st.one_of(st.none(), one_of("u")),
    session=st.one_of(st.none(), st.none(), one_of("", "s")),
    user=st.one_of(st.none(), st.none(), one_of("", "ann")),
    outcome=st.one_of(st.none(), one_of("timeout", "stop")),
)
spans = st.one_of(st.just((0.0, END)), st.tuples(moments, moments))


def meant(row: LedgerRow, where: Where, since_s: float, until_s: float) -> bool:
    said = all(getattr(row, c) == v for c, v in where.stated().items())
    return said and since_s <= row.started_at < until_s


def named(row: LedgerRow, by: By) -> str:
    at = datetime.fromtimestamp(row.started_at, UTC)
    match by:
        case "day":
            return f"{at:%Y-%m-%d}"
        case "hour":
            return f"{at:%Y-%m-%dT%H:00Z}"
        case _:
            return str(getattr(row, {"key": "key_id"}.get(by, by)))


def summed(name: str, rows: list[LedgerRow], by: By, where: Where) -> Spent:
    money = (
        len(rows),
        sum(r.cost_nano_usd is None for r in rows),
        sum(r.input_tokens for r in rows),
        0,
        0,
        sum(r.output_tokens for r in rows),
        0,
        sum(r.cost_nano_usd or 0 for r in rows),
    )
    if by == "session" or where.session is not None:
        return Spent(name, *money)
    timed = [(r.ttft_ms, r.total_ms) for r in rows if r.ttft_ms is not None]
    return Spent(
        name,
        *money,
        errors=sum(r.outcome == "timeout" for r in rows),
        ttft_ms=sum(first for first, _ in timed),
        first_tokens=len(timed),
        stream_ms=sum(max(0, total - first) for first, total in timed),
    )


def money(s: Spent) -> tuple[object, ...]:
    return msgspec.structs.astuple(s)[:9]


@settings(max_examples=60, deadline=None)
@given(fields=rows_of, asked=st.lists(st.tuples(wheres, spans), min_size=1, max_size=8))
def test_sums_and_pages_are_what_a_list_of_the_rows_says(
    fields: list[dict[str, Any]],
    asked: list[tuple[Where, tuple[float, float]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    data = tmp_path_factory.mktemp("list")
    Store(data).close()
    rows = [
        row(f"a{n}", ended_at=each["started_at"] + each.pop("total_ms") / 1000, **each)
        for n, each in enumerate(fields)
    ]
    write(data, rows)
    books = UsageReader(data)
    written = [r for _, r in books.requests(most=100)][::-1]
    assert sorted(r.request_id for r in written) == sorted(r.request_id for r in rows)
    for where, (since, until) in asked:
        mine = [r for r in written if meant(r, where, since, until)]
        for by in get_args(By):
            groups = {
                name: [r for r in mine if named(r, by) == name]
                for name in {named(r, by) for r in mine}
            }
            wanted = sorted((summed(n, g, by, where) for n, g in groups.items()), key=str)
            found = sorted(books.usage(by, since, until, where=where), key=str)
            split = books.series(by, since, until, step="day", where=where)
            if by != "session" and where.session is None:
                assert found == wanted
            # What is not kept by session is read from the rows, with their times.
            assert sorted(map(money, found)) == sorted(map(money, wanted))
            assert sum(s.requests for _, s in split) == len(mine)
        pages: list[LedgerRow] = []
        before: int | None = None
        while page := books.requests(where, before=before, since_s=since, until_s=until, most=3):
            assert len(page) <= 3
            pages += [r for _, r in page]
            before = page[-1][0]
        assert pages == mine[::-1]
    assert books.audit() == []
    books.close()


def test_a_page_is_the_same_when_only_the_sums_say_where_its_rows_are(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.storage.sqlite.reports.NEAR", 0)
    outcomes = ("stop", "stop", "stop", "timeout", "stop")
    rows = [
        row(
            f"a{n}",
            key_id=f"K{n % 7}",
            outcome=outcomes[n % 5],
            started_at=T + n * 400 % (9 * HOUR),
        )
        for n in range(500)
    ]
    for n in range(0, 500, 50):
        write(data, rows[n : n + 50])
    books = UsageReader(data)
    written = books.requests(most=1000)
    for key, outcome, (since, until) in itertools.product(
        (None, "K3"), (None, "timeout", "none"), ((0, END), (T + 500, T + 5 * HOUR + 7))
    ):
        where = Where(key_id=key, outcome=outcome)
        wanted = [(n, r) for n, r in written if meant(r, where, since, until)]
        for before in (None, 499, 250, 1):
            below = [(n, r) for n, r in wanted if before is None or n < before]
            for most in (1, 5, 50):
                found = books.requests(
                    where, before=before, since_s=since, until_s=until, most=most
                )
                assert found == below[:most]
    books.close()


# --- from older schemas --------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_the_sums_of_an_older_schema_are_made_anew_from_its_rows(
    tmp_path: Path, version: int
) -> None:
    (tmp_path / "pepper").write_bytes(bytes(32))
    old = apsw.Connection(str(tmp_path / "headgate.db"))
    for number in range(1, version + 1):
        schema = files("headgate.storage.sqlite").joinpath("schema", f"{number:03}.sql")
        old.execute(schema.read_text("utf-8"))
    old.execute(f"pragma user_version = {version}")
    old.execute("insert into keys (id, name, mac, created_s) values ('k', 'team', zeroblob(32), 1)")
    old.execute(
        "insert into ledger with recursive n (value) as"
        " (select 1 union all select value + 1 from n where value < 200) select null, 'id' || value, '', 'k' || value % 3, 's' || value % 5,"
        " 'openai', 'M' || value % 2, 'up', 'm', 1, iif(value % 7, 'stop', 'timeout'), 'upstream',"
        " 200, 1800000000.0 + value * 100, iif(value % 2, value, null), 2 * value, 10, 5, 1, 4, 2,"
        " iif(value % 9, value, null), 'v', '', '[]', '[]' from n"
    )
    old.close()
    store = Store(tmp_path)
    assert [(k.name, k.account) for k in store.keys()] == [("team", "")]  # noqa: SIM118
    store.close()
    write(tmp_path, [row("new", account="red")])
    books = UsageReader(tmp_path)
    assert books.audit() == []
    (old_, red) = sorted(books.usage("account"), key=lambda s: s.name)
    assert (old_.requests, old_.errors, old_.first_tokens) == (200, 28, 100)
    assert old_.ttft_ms == old_.stream_ms == sum(range(1, 200, 2))
    assert (red.requests, red.errors) == (1, 0)
    assert books.names("outcome") == ["stop", "timeout"]
    assert len(books.requests(Where(outcome="timeout"))) == 28
    books.close()


# --- a million rows ------------------------------------------------------------------------------

MILLION = 10**6
RARE = 100_000  # one row in so many is of `rare`
_MANY = """
insert into ledger
with recursive n (i) as (select 1 union all select i + 1 from n where i < ?)
select null, 'id' || i, 'key' || (i * 7919 % 20) || '-' || (i % 3), 'team-' || (i * 7919 % 20),
    's' || (i / 37), 'user' || (i % 11), '[]', 'openai', iif(i % 100000 = 5, 'rare', 'M' || (i * 31 % 3)), 'u' || (i * 17 % 2),
    'm', 1, case when i % 10000 = 0 then 'timeout' when i % 3 = 0 then 'tool_calls' else 'stop' end,
    'upstream', 200, 1800000000.0 + i * 3.6, 1800000002.0 + i * 3.6, 300, 1000, 500, 0, 100, 10, 12345, 'v', '', '[]',
    '[]' from n
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UsageReader]:
    data = tmp_path_factory.mktemp("million")
    Store(data).close()
    db = apsw.Connection(str(data / "headgate.db"))
    db.execute("pragma synchronous = off")
    db.execute(_MANY, (MILLION,))
    db.close()
    books = UsageReader(data)
    yield books
    books.close()


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UsageReader]:
    """Some thousand rows with values of all kinds, also none; the last ones are not the largest."""
    data = tmp_path_factory.mktemp("varied")
    Store(data).close()
    db = apsw.Connection(str(data / "headgate.db"))
    same = "1800000002.0 + i * 3.6, 300, 1000, 500, 0, 100, 10, 12345, 'v', '', '[]',\n    '[]'"
    different = (
        "1800000000.0 + i * 3.6 + (i * 17 % 301) / 10.0, iif(i % 5, i * 31 % 97, null), i * 7919 % 1009,"
        " 0, 0, 100, 10, 12345, 'v', '',"
        """ iif(i % 3, '[]', '[{"upstream":"u","model":"m","outcome":"stop"}]'), '[]'"""
    )
    assert same in _MANY
    db.execute(_MANY.replace(same, different), (6000,))
    db.close()
    books = UsageReader(data)
    yield books
    books.close()


VALUES: dict[Order, Callable[[LedgerRow], Any]] = {
    "input": lambda r: r.input_tokens,
    "ttft": lambda r: r.ttft_ms,
    "total": lambda r: r.total_ms,
    "model": lambda r: r.model,
    "session": lambda r: r.session,
    "attempts": lambda r: len(r.attempts),
    "started": lambda r: r.started_at,
}


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("order", VALUES)
def test_the_last_rows_are_put_in_order_over_all_pages(
    varied: UsageReader, order: Order, descending: bool
) -> None:
    value, where = VALUES[order], Where(upstream="u1")
    last = varied.requests(where, most=300)
    known = [pair for pair in last if value(pair[1]) is not None]
    wanted = sorted(known, key=lambda pair: value(pair[1]), reverse=descending)
    wanted += [pair for pair in last if value(pair[1]) is None]
    pages = []
    for skip in (0, 100, 200, 300):
        found, count = varied.requests_in_order(
            order, where, descending=descending, skip=skip, most=100, of=300
        )
        assert count == 300
        pages += found
    assert pages == wanted


def test_the_order_is_that_of_the_names_that_are_shown(varied: UsageReader) -> None:
    ids = sorted({r.key_id for _, r in varied.requests(most=200)})
    names = {id: f"{len(ids) - n:03}" for n, id in enumerate(ids)}
    found, _ = varied.requests_in_order("key", descending=False, most=200, of=200, names=names)
    shown = [names[r.key_id] for _, r in found]
    assert shown == sorted(shown) and len(set(shown)) > 10


def test_figures_are_made_of_the_same_rows_as_the_log(varied: UsageReader) -> None:
    for where in (Where(model="M1"), Where(outcome="tool_calls"), Where()):
        facts = varied.request_facts(where, most=700)
        rows = [row for _, row in varied.requests(where, most=700)]
        assert facts and [msgspec.structs.astuple(f) for f in facts] == [
            tuple(getattr(r, name) for name in RequestFacts.__struct_fields__) for r in rows
        ]
        assert [f.total_ms for f in facts] == [r.total_ms for r in rows]


def test_only_those_are_found_that_are_meant_however_far_back(tmp_path: Path) -> None:
    """Of the kinds that are rare the sums of hours say where to look, as many rows are before them."""
    old = [
        row("lost", outcome="timeout", cost_nano_usd=None),
        row("ours", outcome="internal", cost_nano_usd=0),
    ]
    Store(tmp_path).close()
    write(tmp_path, old)
    db = apsw.Connection(str(tmp_path / "headgate.db"))
    db.execute(_MANY.replace("'timeout'", "'stop'"), (2 * NEAR,))
    db.close()
    books = UsageReader(tmp_path)
    kinds: tuple[tuple[tuple[Only, ...], set[str]], ...] = (
        (("errors",), {"lost", "ours"}),
        (("upstream_errors",), {"lost"}),
        (("unpriced",), {"lost"}),
        (("errors", "unpriced"), {"lost"}),
    )
    for only, ids in kinds:
        assert {r.request_id for _, r in books.requests(only=only)} == ids, only
        assert {r.request_id for _, r in books.requests_after(0, only=only)} == ids
        assert len(books.request_facts(most=9, only=only)) == len(ids)
    books.close()


class Asked:
    """The statements that were run on the books' connection, and their plans."""

    def __init__(self, books: UsageReader) -> None:
        self._db = books._db
        self.statements: list[tuple[str, Any]] = []

    def __enter__(self) -> "Asked":
        def heard(_: object, sql: str, values: Any) -> bool:
            self.statements.append((sql, values))
            return True

        self._db.exec_trace = heard
        return self

    def __exit__(self, *_: object) -> None:
        self._db.exec_trace = None

    def plans(self) -> list[str]:
        return [
            str(line[3])
            for sql, values in self.statements
            for line in self._db.execute(f"explain query plan {sql}", values)
        ]


WHERES = [
    Where(),
    *(
        Where(account=account, **{column: value})
        for account in (None, "team-3", "nobody")
        for column, values in {
            "key_id": ("key3-1", "nobody"),
            "model": ("M1", "rare", "none"),
            "upstream": ("u1", "none"),
            "session": ("s7", "none"),
            "outcome": ("stop", "timeout", "none"),
        }.items()
        for value in values
    ),
    Where(account="team-3"),
    Where(account="nobody"),
    Where(model="M1", outcome="timeout"),
]


@pytest.mark.parametrize("where", WHERES, ids=lambda w: "+".join(w.stated()) or "all")
def test_no_page_of_the_log_reads_a_million_rows(many: UsageReader, where: Where) -> None:
    for more in ({}, {"before": MILLION // 2}, {"since_s": T + 10 * DAY}, {"until_s": T + DAY}):
        with Asked(many) as asked:
            found = many.requests(where, **more)
        assert all(meant(r, where, 0, END) for _, r in found)
        plans = asked.plans()
        assert any(plan.startswith("SEARCH ledger USING") for plan in plans)
        assert not [plan for plan in plans if plan.startswith("SCAN ledger")]
        read = [
            v["high"] - v["low"]
            for sql, v in asked.statements
            if "indexed by ledger_log" in sql and where.stated()
        ]
        assert sum(read) < MILLION / 20


def test_the_rare_ones_are_found_all(many: UsageReader) -> None:
    found = [n for n, _ in many.requests(Where(model="rare"))]
    assert found == list(range(MILLION - RARE + 5, 0, -RARE))
    assert [n for n, _ in many.requests(Where(model="rare"), before=RARE + 5)] == [5]


def test_no_sum_reads_a_million_rows(many: UsageReader) -> None:
    since, until = T + 77.5, T + 30 * DAY + 7
    with Asked(many) as asked:
        for by, where in itertools.product(
            get_args(By), (Where(), Where(account="team-3"), Where(session="s7"))
        ):
            many.usage(by, since, until, where=where)
            many.series(by, since, until, step="hour", where=where)
        many.measured(T)
        for column in get_args(Column):
            many.names(column)
    plans = asked.plans()
    assert not [plan for plan in plans if plan.startswith("SCAN ledger")]
    assert [plan for plan in plans if plan.startswith("SEARCH by_hour USING PRIMARY KEY (hour>?")]


def test_what_was_spent_since_several_moments_is_what_usage_says_of_each(tmp_path: Path) -> None:
    from many import fill

    fill(tmp_path, keys=30, rows=3000, now_s=1_790_000_123.0)
    books = UsageReader(tmp_path)
    moments = [0.0, 1_789_000_000.0, 1_789_003_600.0, 1_789_500_001.5, 1_789_990_000.0, 1.8e9]
    found = books.spent(("key", m) for m in moments)
    for moment in moments:
        said = {s.name: s.cost_nano_usd for s in books.usage("key", moment)}
        assert found["key", moment] == {n: c for n, c in said.items() if c}, moment
    assert books.spent([]) == {}
    assert books.audit() == []
    books.close()


def test_the_sums_are_read_once_however_many_moments_and_keys_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headgate.node.admission import Admissions
    from many import fill

    reads: list[object] = []
    at_start = set()
    read = UsageReader._all
    monkeypatch.setattr(UsageReader, "_all", lambda self, *a: reads.append(a) or read(self, *a))
    for keys in (20, 200):
        fill(tmp_path / str(keys), keys=keys, rows=2000)
        store, books = Store(tmp_path / str(keys)), UsageReader(tmp_path / str(keys))
        reads.clear()
        admissions = Admissions(books)
        admissions.load(store.keys(), store.accounts())
        at_start.add(len(reads))
        store.change_key(store.keys()[0].id, now_s=time.time(), budget_nano=5)
        admissions.load(store.keys(), store.accounts())
        assert len(reads) <= 2 * max(at_start)
        reads.clear()
        admissions.load(store.keys(), store.accounts())
        assert not reads  # nothing has changed
        books.close()
        store.close()
    assert len(at_start) == 1 and max(at_start) <= 4
