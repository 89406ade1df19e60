"""`reconcile`: bills as providers write them, and what of them is not what the ledger says."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headgate.cli import reconcile
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def row(id: str, began: str, **fields: object) -> LedgerRow:
    plain: dict[str, object] = {
        "model": "MiniMax-M2",
        "upstream": "minimax",
        "input_tokens": 1000,
        "cached_tokens": 400,
        "output_tokens": 50,
        "cost_nano_usd": 1_000_000,
        "basis": "upstream",
        "outcome": "stop",
    }
    return LedgerRow(
        request_id=id,
        key_id="k",
        dialect="openai",
        started_at=at(began),
        ended_at=at(began),
        **{**plain, **fields},
    )  # type: ignore[arg-type]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two days: M2 twice and M3 once on the first, M2 once (late in the evening) on the second."""
    directory = tmp_path / "data"
    monkeypatch.setenv("HEADGATE_DATA", str(directory))
    Store(directory).close()
    ledger = Ledger(directory)

    async def write() -> None:
        await ledger.settle(row("a", "2026-11-01 10:00"))
        await ledger.settle(row("b", "2026-11-01 10:30"))
        await ledger.settle(
            row("c", "2026-11-01 12:00", model="MiniMax-M3", cost_nano_usd=5_000_000)
        )
        await ledger.settle(row("d", "2026-11-02 23:10"))
        await ledger.settle(
            row(
                "e",
                "2026-11-02 05:00",
                model="MiniMax-M3",
                input_tokens=0,
                cached_tokens=0,
                output_tokens=0,
                cost_nano_usd=0,
                basis="none",
                outcome="upstream",
            )
        )

    asyncio.run(write())
    ledger.close()
    return tmp_path


AGREES = """\
Date,Model,Input Tokens,cached-tokens,output_tokens,cost_usd
2026-11-01,minimax/minimax-m2,2000,800,100,0.002
2026-11-01,MiniMax-M3,1000,400,50,0.005
2026-11-02,MiniMax-M2,1000,400,50,0.001
"""


def run(data: Path, bill: str, *options: str) -> Result:
    file = data / "bill"
    file.write_text(bill)
    return CliRunner().invoke(reconcile.command, [str(file), *options])


def lines_of(*records: dict[str, object]) -> str:
    return "".join(json.dumps(r) + "\n" for r in records)


def test_a_bill_that_agrees_ends_with_0(data: Path) -> None:
    result = run(data, AGREES)
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "The bill and the ledger agree, 2026-11-01 to 2026-11-02: input, cached, output, cost.\n"
    )
    assert run(data, AGREES, "--json").stdout == "[]\n"


def test_a_byte_order_mark_and_quotes_are_read(data: Path) -> None:
    quoted = "\ufeff" + AGREES.replace("minimax/minimax-m2", '"MiniMax-M2"')
    assert run(data, quoted).exit_code == 0


def test_a_difference_is_told_with_its_day_model_and_size(data: Path) -> None:
    result = run(data, AGREES.replace("2000,800,100,0.002", "2500,800,100,0.0025"))
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "day\tmodel\twhat\tledger\tbill\tdifference\tshare",
        "2026-11-01\tMiniMax-M2\tinput\t2,000\t2,500\t+500\t20.00% !",
        "2026-11-01\tMiniMax-M2\tcost\t0.002\t0.0025\t+0.0005\t20.00% !",
    ]
    assert "2 figures" in result.stderr


def test_a_difference_within_the_tolerance_is_told_and_ends_with_0(data: Path) -> None:
    bill = AGREES.replace("2000,800", "2010,800")
    told = run(data, bill, "--json")
    assert told.exit_code == 0
    (one,) = json.loads(told.stdout)
    assert (one["figure"], one["difference"], one["over"]) == ("input", 10, False)
    assert run(data, bill, "--tolerance", "0.4%").exit_code == 1
    assert run(data, bill, "--tolerance", "10").exit_code == 2


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ("2026-11-01,MiniMax-M3,1000,400,50,0.005\n", ("MiniMax-M3", "2026-11-01", -1000)),
        ("2026-11-01,minimax/minimax-m2,2000,800,100,0.002\n", ("MiniMax-M2", "2026-11-01", -2000)),
    ],
)
def test_what_the_bill_does_not_have_is_a_difference(
    data: Path, without: str, said: tuple[str, str, int]
) -> None:
    result = run(data, AGREES.replace(without, ""), "--json")
    assert result.exit_code == 1
    first = json.loads(result.stdout)[0]
    assert (first["model"], first["day"], first["difference"]) == said


def test_what_the_ledger_does_not_have_is_a_difference(data: Path) -> None:
    result = run(data, AGREES + "2026-11-02,some-other-model,7,0,1,0.5\n")
    assert result.exit_code == 1
    assert "2026-11-02\tsome-other-model\tcost\t0.00\t0.50\t+0.50\t100.00% !" in result.stdout


def test_only_the_days_of_the_bill_are_compared(data: Path) -> None:
    assert run(data, "day,model,input\n2026-11-02,MiniMax-M2,1000\n").exit_code == 0


def test_times_and_json_lines_are_added_up_by_day(data: Path) -> None:
    bill = lines_of(
        {
            "time": "2026-11-01T10:00:01Z",
            "model": "MiniMax-M2",
            "prompt_tokens": 1000,
            "cost": 0.001,
        },
        {
            "time": "2026-11-01T11:30:01+01:00",
            "model": "MiniMax-M2",
            "prompt_tokens": 1000,
            "cost": 1e-3,
        },
        {
            "time": at("2026-11-01 12:00"),
            "model": "MiniMax-M3",
            "prompt_tokens": "1000",
            "cost": "0.005",
        },
        {
            "time": int(at("2026-11-02 23:10") * 1000),
            "model": "MiniMax-M2",
            "prompt_tokens": 1000,
            "cost": 0.001,
        },
    )
    assert run(data, bill).exit_code == 0, run(data, bill).output


def test_a_zone_moves_the_days_of_both(data: Path) -> None:
    bill = AGREES.replace("2026-11-02", "2026-11-03")
    assert run(data, bill).exit_code == 1
    assert run(data, bill, "--zone", "Asia/Shanghai").exit_code == 0
    assert run(data, bill, "--zone", "Nowhere/Land").exit_code == 2


def test_input_without_the_cache_is_put_together(data: Path) -> None:
    bill = "day,model,uncached_input,cached,output\n2026-11-02,MiniMax-M2,600,400,50\n"
    assert run(data, bill).exit_code == 0


def test_minimaxs_own_records_are_understood(data: Path) -> None:
    hour = int(at("2026-11-01 10:00"))
    common = {
        "created_at": hour,
        "model": "MiniMax-M2",
        "status": "SUCCESS",
        "mail": "x",
        "consume_time": "2026-11-01 18:00-19:00",
        "ymd": "",
    }
    text = {
        "method": "chatcompletion-v2(Text API)",
        "consume_input_token": "1200",
        "consume_output_token": "100",
        "consume_token": "1300",
        "consume_cash": "0.0015",
    }
    read = {
        "method": "cache-read(Text API)",
        "consume_input_token": "800",
        "consume_output_token": "0",
        "consume_token": "800",
        "consume_cash": "0.0005",
    }
    three = {"created_at": hour + 7200, "model": "MiniMax-M3-512k", "status": "SUCCESS"}
    records = [
        {**common, **text},
        {**common, **read},
        {**common, **text, "status": "FAILED"},
        {
            **three,
            **text,
            "consume_input_token": "600",
            "consume_output_token": "50",
            "consume_cash": "0.005",
        },
        {**three, **read, "consume_input_token": "400", "consume_cash": "0.0000"},
        {
            "created_at": hour,
            "model": "subscribe",
            "method": "code_plan_purchase",
            "consume_cash": "29",
        },
    ]
    for bill in (lines_of(*records), lines_of({"charge_records": records, "total_cnt": 6})):
        result = run(data, bill, "--provider", "minimax")
        assert result.exit_code == 0, result.output
        assert "2026-11-01 to 2026-11-01" in result.stdout


def test_an_unknown_column_is_refused_with_the_known_names(data: Path) -> None:
    result = run(data, AGREES.replace("cached-tokens", "surcharge"))
    assert result.exit_code == 2
    assert "`surcharge`" in result.stderr
    assert "uncached_input" in result.stderr and "cost_usd" in result.stderr


@pytest.mark.parametrize(
    ("bill", "said"),
    [
        ("", "nothing in it"),
        ("day,model,input\n", "nothing in it"),
        ("day,model,input\n2026-11-01,MiniMax-M2,many\n", "line 2: input is `many`"),
        ("day,model,input\n2026-11-01,MiniMax-M2,-1\n", "line 2: input is `-1`"),
        ("day,model,input\n2026-11-01,MiniMax-M2,1.5\n", "line 2: input is `1.5`"),
        ("day,model,cost\n2026-11-01,MiniMax-M2,NaN\n", "line 2: cost is `NaN`"),
        ("day,model,input\nyesterday,MiniMax-M2,1\n", "line 2: `yesterday` is no day"),
        ("day,model,input\n2026-13-01,MiniMax-M2,1\n", "line 2: `2026-13-01` is no day"),
        ("day,model,input\n2026-11-01,MiniMax-M2,1,2\n", "line 2: more fields"),
        ("day,input\n2026-11-01,1\n", "which model"),
        ('{"day": "2026-11-01"', "line 1:"),
        ("[1, 2]\n", "line 1: an object"),
    ],
)
def test_a_bill_that_cannot_be_read_ends_with_2_and_says_where(
    data: Path, bill: str, said: str
) -> None:
    result = run(data, bill)
    assert result.exit_code == 2
    assert said in result.stderr


def test_one_upstream_only_when_asked(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIMAX_API_KEY", "x")
    assert run(data, AGREES, "--upstream", "minimax").exit_code == 0
    assert run(data, AGREES, "--upstream", "nowhere").exit_code == 2


def test_disputed_requests_are_named_beside_what_differs(data: Path) -> None:
    assert "disputed" not in run(data, AGREES).output

    async def write(ledger: Ledger) -> None:
        await ledger.settle(row("f", "2026-11-02 09:00", basis="disputed", upstream="other"))
        await ledger.settle(row("g", "2026-11-05 09:00", basis="disputed"))

    ledger = Ledger(data / "data")
    asyncio.run(write(ledger))
    ledger.close()
    result = run(data, AGREES)
    assert result.exit_code == 1 and "Note: 1 requests of these days are disputed" in result.output
    config = "[upstreams.minimax]\npreset = 'minimax'\nkey = 'x'\n"
    (data / "headgate.toml").write_text(config)
    result = run(data, AGREES, "--upstream", "minimax", "--config", str(data / "headgate.toml"))
    assert "disputed" not in result.output
