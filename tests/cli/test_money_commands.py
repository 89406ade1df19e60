"""`usage`, `audit` and `backup`: what they print, and how they end."""

import asyncio
import json
import time
from pathlib import Path

import apsw
import click
import msgspec
import pytest
from click.testing import CliRunner, Result

from headgate.cli import accounts, audit, backup, key_usage, keys, requests, usage
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger
from headgate.storage.sqlite.reports import UsageReader

DAY_S = 86400.0


def row(id: str, key: str, ago_s: float, **fields: object) -> LedgerRow:
    plain: dict[str, object] = {
        "model": "MiniMax-M2.7",
        "upstream": "minimax",
        "session": "s1",
        "input_tokens": 1000,
        "cached_tokens": 400,
        "output_tokens": 50,
        "reasoning_tokens": 20,
        "cost_nano_usd": 1_234_000_001,
    }
    return LedgerRow(
        request_id=id,
        key_id=key,
        dialect="openai",
        outcome="stop",
        basis="upstream",
        started_at=time.time() - ago_s,
        ended_at=time.time() - ago_s,
        **{**plain, **fields},  # type: ignore[arg-type]
    )


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "data"
    monkeypatch.setenv("HEADGATE_DATA", str(directory))
    with_key = Store(directory)
    key, _ = with_key.create_key("team-a", now_s=1.0)
    with_key.close()
    ledger = Ledger(directory)

    async def write() -> None:
        await ledger.settle(row("a", key.id, 60))
        await ledger.settle(row("b", "gone", 60, cost_nano_usd=None, model="MiniMax-M3"))
        await ledger.settle(row("c", key.id, 30 * DAY_S, session="=1+1", upstream="other"))

    asyncio.run(write())
    ledger.close()
    return directory


def run(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def printed(command: click.Command, *arguments: str) -> list[dict[str, object]]:
    result = run(command, *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


def test_usage_for_programs_has_money_exactly_and_in_dollars(data: Path) -> None:
    (one, other) = printed(usage.command, "--by", "model")
    assert one == {
        "model": "MiniMax-M2.7",
        "requests": 2,
        "errors": 0,
        "error_rate": 0.0,
        "unpriced": 0,
        "input_tokens": 2000,
        "cached_tokens": 800,
        "cache_write_tokens": 0,
        "output_tokens": 100,
        "reasoning_tokens": 40,
        "cost_usd": "2.468000002",
        "cost_nano_usd": 2_468_000_002,
        "ttft_mean_ms": None,
        "output_tokens_per_s": None,
    }
    assert (other["model"], other["unpriced"], other["cost_nano_usd"]) == ("MiniMax-M3", 1, 0)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("session", {"s1", "=1+1"}),
        ("upstream", {"minimax", "other"}),
        ("model", {"MiniMax-M2.7", "MiniMax-M3"}),
    ],
)
def test_usage_is_by_what_was_asked(data: Path, by: str, names: set[str]) -> None:
    assert {line[by] for line in printed(usage.command, "--by", by)} == names


def test_usage_since_leaves_out_what_is_older(data: Path) -> None:
    assert sum(int(str(line["requests"])) for line in printed(usage.command)) == 3
    since = printed(usage.command, "--since", "7d")
    assert sum(int(str(line["requests"])) for line in since) == 2
    assert printed(usage.command, "--since", "1s") == []


def test_usage_for_people_names_the_keys_and_adds_up(data: Path) -> None:
    printed_ = run(usage.command, "--by", "key").stdout.splitlines()
    titles, *lines = [line.split("\t") for line in printed_]
    assert titles[:4] == ["key", "requests", "input", "cached"]
    assert lines[0][0].endswith(" (team-a)")
    assert lines[0][1:] == ["2", "2,000", "800", "0", "100", "40", "2.468000002", "", ""]
    assert lines[1] == ["gone", "1", "1,000", "400", "0", "50", "20", "0.00", "1", ""]
    assert lines[2] == ["total", "3", "3,000", "1,200", "0", "150", "60", "2.468000002", "1", ""]


def test_the_usage_of_keys_has_what_is_left_of_a_budget(data: Path) -> None:
    store = Store(data)
    (key,) = store.keys()
    store.close()
    (row,) = printed(key_usage.command)
    assert (row["id"], row["requests"], row["cost_usd"]) == (key.id, 2, "2.468000002")
    assert (row["budget_usd"], row["budget_left_usd"]) == (None, None)
    assert run(keys.command, "change", key.id, "--budget-usd", "3").exit_code == 0
    (row,) = printed(key_usage.command, key.id)
    assert (row["budget_usd"], row["budget_left_usd"]) == ("3.00", "0.531999998")
    assert run(keys.command, "change", key.id, "--budget-usd", "2").exit_code == 0
    titles, cells = run(key_usage.command, "--since", "7d").stdout.splitlines()
    assert titles.split("\t")[-2:] == ["budget (USD)", "left (USD)"]
    assert cells.split("\t")[-2:] == ["2.00", "0.00"]
    assert run(key_usage.command, "nobody").exit_code == 1


def test_usage_of_nothing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_DATA", str(tmp_path / "new"))
    result = run(usage.command)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Nothing was used" in result.stderr


def test_csv_has_titles_and_runs_in_no_spreadsheet(data: Path) -> None:
    lines = run(usage.command, "--by", "session", "--csv").stdout.splitlines()
    assert lines[0] == (
        "session,name,requests,errors,error_rate,unpriced,input_tokens,cached_tokens,"
        "cache_write_tokens,output_tokens,reasoning_tokens,cost_usd,cost_nano_usd,ttft_mean_ms,"
        "output_tokens_per_s"
    )
    assert "'=1+1,'=1+1,1,0,0.0,0,1000,400,0,50,20,1.234000001,1234000001,," in lines
    assert run(usage.command, "--csv", "--json").exit_code == 2


def test_usage_refuses_what_it_cannot_group_by(data: Path) -> None:
    assert run(usage.command, "--by", "colour").exit_code == 2
    assert run(usage.command, "--since", "yesterday").exit_code == 2


def test_an_audit_of_sound_books_ends_with_0(data: Path) -> None:
    result = run(audit.command)
    assert (result.exit_code, result.stdout) == (0, "Ledger OK: 3 requests verified.\n")
    assert printed(audit.command) == []


def test_an_audit_of_books_that_differ_ends_with_1_and_says_where(data: Path) -> None:
    db = apsw.Connection(str(data / "headgate.db"))
    db.execute("update balance set spent_nano_usd = spent_nano_usd + 1 where key_id = 'gone'")
    db.close()
    result = run(audit.command)
    assert result.exit_code == 1
    titles, line = result.stdout.splitlines()
    assert titles == "where\trows say\tstored"
    assert line == "balance account -, key_id gone\tspent_nano_usd 0\tspent_nano_usd 1"
    assert "does not add up" in result.stderr
    as_json = run(audit.command, "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)[0]["where"] == "balance account -, key_id gone"


def test_pruning_deletes_what_is_older_than_was_said_and_the_books_still_add_up(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(audit.command, "--prune").exit_code == 2  # nothing says how old
    monkeypatch.setenv("HEADGATE_RETENTION_REQUESTS_DAYS", "7")
    before = printed(usage.command)
    result = run(audit.command, "--prune")
    assert (result.exit_code, result.stdout) == (0, "Ledger OK: 3 requests verified.\n")
    assert result.stderr == "Deleted 0 requests older than 7 days.\n"  # the last one stays
    ledger = Ledger(data)
    asyncio.run(ledger.settle(row("d", "gone", 60)))
    ledger.close()
    assert run(audit.command, "--prune").stderr == "Deleted 1 requests older than 7 days.\n"
    books = UsageReader(data)
    assert books.generation("c") is None
    books.close()
    assert len(printed(usage.command)) == len(before)


@pytest.mark.parametrize("all_", [(), ("--all",)])
def test_requests_can_be_of_one_upstream_or_without_an_answer(
    data: Path, all_: tuple[str, ...]
) -> None:
    ledger = Ledger(data)

    async def fail() -> None:
        await ledger.settle(msgspec.structs.replace(row("d", "gone", 30), outcome="overloaded"))
        await ledger.settle(msgspec.structs.replace(row("e", "gone", 20), outcome="client_gone"))

    asyncio.run(fail())
    ledger.close()

    def listed(*options: str) -> str:
        lines = run(requests.command, "--json", *options, *all_).stdout.splitlines()
        return "".join(json.loads(line)["request_id"] for line in lines)

    assert listed() == "abcde"
    assert listed("--upstream", "other") == "c"
    assert listed("--errors") == "d"
    assert listed("--errors", "--upstream", "other") == ""


def test_accounts_are_made_listed_changed_and_closed(data: Path) -> None:
    made = run(accounts.command, "create", "red", "--name", "Team Red", "--budget-usd", "12.50")
    assert (made.exit_code, made.stdout.split(".")[0]) == (0, "Made red")
    key = json.loads(run(keys.command, "create", "k", "--account", "red", "--json").stdout)
    assert key["account"] == "red"
    (listed,) = printed(accounts.command, "list")
    assert listed["budget_usd"] == "12.50" and listed["keys"] == 1 and listed["state"] == "open"
    changed = run(
        accounts.command, "change", "red", "--budget-usd", "3", "--budget-period", "month"
    )
    assert changed.stdout == "Changed red: Team Red, 3.00 USD a month (UTC).\n"
    assert run(accounts.command, "close", "red").stdout == "Closed red.\n"
    again = run(accounts.command, "close", "red")
    assert again.exit_code == 1 and "no open account has the id `red`" in again.stderr
    states = {k["name"]: k["state"] for k in printed(keys.command, "list")}
    assert states == {"team-a": "open", "k": "closed"}
    moved = run(keys.command, "change", str(key["id"]), "--account", "none", "--json")
    assert json.loads(moved.stdout)["account"] == ""


def test_what_is_no_account_is_refused(data: Path) -> None:
    no_such = run(keys.command, "create", "k", "--account", "nobody")
    assert no_such.exit_code == 1 and "`nobody` does not exist" in no_such.stderr
    assert run(accounts.command, "create", "Red Team").exit_code == 1
    assert run(accounts.command, "create", "red", "--budget-period", "day").exit_code == 2
    assert run(accounts.command, "change", "red", "--name", "x").exit_code == 1
    assert run(accounts.command, "change", "red").exit_code == 2
    assert "No accounts yet" in run(accounts.command, "list").stderr


def test_usage_can_be_of_one_account_key_or_model(data: Path) -> None:
    (one,) = printed(usage.command, "--by", "account", "--key", "gone")
    assert (one["account"], one["requests"]) == ("", 1)
    assert printed(usage.command, "--account", "nobody") == []
    assert [
        m["model"] for m in printed(usage.command, "--by", "model", "--model", "MiniMax-M3")
    ] == ["MiniMax-M3"]


def test_a_backup_with_the_pepper_beside_it_is_a_whole_installation(
    data: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "restored"
    copy.mkdir()
    result = run(backup.command, str(copy / "headgate.db"))
    assert result.exit_code == 0
    assert result.stdout == f"Wrote {copy / 'headgate.db'}.\n"
    assert "pepper" in result.stderr
    assert (copy / "headgate.db").stat().st_mode & 0o777 == 0o600
    (copy / "pepper").write_bytes((data / "pepper").read_bytes())
    restored = Store(copy)
    assert [k.name for k in restored.keys()] == ["team-a"]  # noqa: SIM118
    restored.close()
    books = UsageReader(copy)
    assert books.audit() == []
    assert sum(b.requests for b in books.balances()) == 3
    books.close()


def test_a_backup_replaces_nothing_and_leaves_nothing_half_done(data: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    result = run(backup.command, str(there))
    assert result.exit_code == 1 and "exists already" in result.stderr
    assert there.read_text() == "mine"
    result = run(backup.command, str(tmp_path / "no" / "such" / "place"))
    assert result.exit_code == 1 and "No such file" in result.stderr
    assert sorted(f.name for f in tmp_path.iterdir()) == ["data", "there"]


def test_a_backup_says_its_size_to_programs(data: Path, tmp_path: Path) -> None:
    result = run(backup.command, str(tmp_path / "b"), "--json")
    assert json.loads(result.stdout) == {
        "file": str(tmp_path / "b"),
        "bytes": (tmp_path / "b").stat().st_size,
    }
