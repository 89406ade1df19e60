"""The ledger's columns are declared once, and a database of an older version gets their names."""

import json
from datetime import datetime
from importlib.resources import files
from pathlib import Path

import apsw
import msgspec
import pytest
from click.testing import CliRunner

from headgate.cli import requests
from headgate.storage.figures import Where
from headgate.storage.rows import COLUMNS, IntentRecord, csv_cells, shown
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger
from headgate.storage.sqlite.reports import UsageReader
from headgate.web.api import figures

# architecture: the outside contract
NAMES = (
    "request_id, key_id, account, session, user, tags, dialect, model, upstream, upstream_model, stream,"
    " outcome, basis, status, started_at, ended_at, ttft_ms, input_tokens, cached_tokens,"
    " cache_write_tokens, output_tokens, reasoning_tokens, cost_nano_usd, price_version, service_tier,"
    " attempts, warnings"
)
T = 1_800_000_000.0


def older(data: Path) -> None:
    """A database of schema 8 with a row, an intent and a key."""
    data.mkdir()
    (data / "pepper").write_bytes(bytes(32))
    db = apsw.Connection(str(data / "headgate.db"))
    for number in range(1, 9):
        schema = files("headgate.storage.sqlite").joinpath("schema", f"{number:03}.sql")
        db.execute(schema.read_text("utf-8"))
    db.execute("pragma user_version = 8")
    db.execute(
        "insert into keys (id, name, mac, created_s, on_hang_up, family)"
        " values ('k2', 'team', zeroblob(32), 1, 'drain', 'k1')"
    )
    db.execute(
        "insert into ledger values (null, 'a', 'acme', 'k2', 's', 'openai', 'M', 'up', 'um', 1, 'stop',"
        " 'upstream', 200, ?, 300, 1234, 50, 10, 5, 20, 7, 99, 'v', '', '[]', '[\"seed\"]')",
        (T + 0.1,),
    )
    mark = {
        "id": "b",
        "account": "acme",
        "key": "k2",
        "session": "s",
        "dialect": "openai",
        "model": "M",
        "upstream": "up",
        "upstream_model": "um",
        "stream": True,
        "began_s": T,
        "input": 3,
        "output": 4,
        "cost_nano": None,
        "price_version": "v",
        "service_tier": "",
    }
    db.execute("insert into open_mark values ('b', 'gone', ?)", (json.dumps(mark),))
    db.execute(
        "insert into changes values (null, 1, 'ada', 'cli', 'key.create', 'k2', 'acme', '{}')"
    )
    db.close()


def test_an_older_database_gets_the_names_and_keeps_every_value(tmp_path: Path) -> None:
    older(tmp_path / "data")
    store = Store(tmp_path / "data")
    (key,) = store.keys()
    assert (key.on_disconnect, key.rotation_group, key.owner) == ("drain", "k1", "k1")
    store.close()
    ledger = Ledger(tmp_path / "data")
    assert ledger.recover() == 1
    ledger.close()
    reader = UsageReader(tmp_path / "data")
    assert reader.audit() == []
    row = reader.generation("a")
    assert row is not None
    assert (row.key_id, row.account, row.user, row.tags) == ("k2", "acme", "", ())
    assert (row.started_at, row.total_ms, row.ttft_ms, row.warnings) == (
        T + 0.1,
        1234,
        300,
        ("seed",),
    )
    assert (row.input_tokens, row.output_tokens, row.cost_nano_usd) == (50, 20, 99)
    lost = reader.generation("b")
    assert lost is not None
    assert (lost.outcome, lost.key_id, lost.stream, lost.started_at) == ("crashed", "k2", True, T)
    assert (lost.input_tokens, lost.output_tokens, lost.cost_nano_usd) == (3, 4, None)
    assert reader.usage("account")[0].stream_ms == 934
    reader.close()


def test_the_table_has_the_columns_of_the_row(tmp_path: Path) -> None:
    Store(tmp_path).close()
    db = apsw.Connection(str(tmp_path / "headgate.db"))
    columns = [name for _, name, *_ in db.execute("pragma table_info(ledger)")]
    db.close()
    assert columns == ["seq", *COLUMNS]
    assert ", ".join(COLUMNS) == NAMES
    assert {*IntentRecord.__struct_fields__} < {*COLUMNS}


def test_the_admin_api_has_the_columns_of_the_row() -> None:
    fields = figures.Exchange.__struct_fields__
    assert fields == ("seq", *COLUMNS, "cost_usd", "node")
    schema = msgspec.json.schema(figures.Exchange)["$defs"]["Exchange"]
    # A moment has a field's type of its own; openapi.py gives those their format.
    assert figures.Exchange.__annotations__["started_at"] is datetime
    assert schema["required"] == list(fields)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    older(tmp_path / "data")
    Store(tmp_path / "data").close()
    monkeypatch.setenv("HEADGATE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_requests_are_printed_as_json_and_csv_with_these_names(data: Path) -> None:
    printed = CliRunner().invoke(requests.command, ["--json"]).stdout.splitlines()
    (one,) = [json.loads(line) for line in printed]
    assert [*one] == [*COLUMNS, "cost_usd", "node"]
    assert (one["started_at"], one["cost_usd"]) == ("2027-01-15T08:00:00.100Z", "0.000000099")
    lines = CliRunner().invoke(requests.command, ["--csv", "--all"]).stdout.splitlines()
    assert lines[0].split(",") == [*COLUMNS, "cost_usd", "key_name", "node"]
    assert lines[1].startswith("a,k2,acme,s,")
    none = CliRunner().invoke(requests.command, ["--user", "nobody", "--upstream", "nope", "--all"])
    assert (none.exit_code, none.stdout) == (0, "")
    assert none.stderr == "No request matches: --upstream nope --user nobody\n"
    assert CliRunner().invoke(requests.command, ["--all", "--follow"]).exit_code == 2


def test_the_newest_hundred_are_shown_and_all_only_when_asked(data: Path) -> None:
    db = apsw.Connection(str(data / "headgate.db"))
    names = ", ".join(f'"{c}"' for c in COLUMNS)
    others = ", ".join(f'"{c}"' for c in COLUMNS[1:])
    db.execute(
        f"insert into ledger ({names}) with recursive n (i) as (select 1 union all select i + 1 from n"
        f" where i < 120) select 'r' || i, {others} from ledger, n where request_id = 'a'"
    )
    db.close()
    newest = CliRunner().invoke(requests.command).stdout.splitlines()
    assert (len(newest), newest[-1].split("\t")[1]) == (101, "r120")
    assert len(CliRunner().invoke(requests.command, ["--all"]).stdout.splitlines()) == 122
    reader = UsageReader(data)
    row = reader.requests(Where(user=""), most=1)[0][1]
    assert len(csv_cells(row)) == len(shown(row)) == len(COLUMNS) + 1
    reader.close()
