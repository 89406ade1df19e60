"""Day budgets in a real process whose clock is moved: over midnight, over a change of summer time, back.

The clock is Debian's `faketime` (package faketime); its offset is read from a file each time that the
process asks, so that the clock jumps while it runs.  Monotonic time is left alone.

Note: under faketime 0.9.10 Python's time.sleep fails (EINVAL: it sleeps by absolute monotonic
time), so that these gateways are killed, and the next one starts when nothing of the last is left.
"""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx2
import pytest
from test_gateway import messages

from gateway import Gateway, kill, start
from headgate.catalog import counting
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import ANTHROPIC
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.reports import UsageReader
from played import PlayedUpstream
from programs import path_of

COST = 20 * 300 + 100 * 30 + 35 * 1200  # of one reply (played.USAGE, M2)


def preload() -> str:
    """Where faketime's library is, as it says itself."""
    told = subprocess.run(
        [path_of("faketime"), "-f", "+0", "env"], capture_output=True, text=True, check=True
    )
    library = re.search(r"^LD_PRELOAD=(.+)$", told.stdout, re.M)
    assert library is not None, told.stdout
    return library[1]


class Clock:
    def __init__(self, directory: Path) -> None:
        self.file = directory / "clock"
        self.env = {
            "LD_PRELOAD": preload(),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, at: datetime) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{at.timestamp() - time.time():+.3f}\n")
        fresh.replace(self.file)


class Ask:
    """One request of the key's, and the status of its answer."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.url, self.headers = url, headers

    def __call__(self) -> int:
        body = messages("hello", max_tokens=150)
        url = f"{self.url}/v1/messages"
        return httpx2.post(url, json=body, headers=self.headers).status_code


def reserved() -> int:
    """Nano-dollars of such a request: its input's upper bound at 0.375, 150 out at 1.20."""
    sent = json.dumps(messages("hello", max_tokens=150)).encode()
    return (
        counting.input_bound(ANTHROPIC.decode_request(sent, RequestTarget()), 204_800) * 375
        + 180_000
    )


Run = tuple[Clock, Callable[[str, datetime], tuple[Gateway, Ask]]]


@pytest.fixture
def run(upstream: PlayedUpstream, tmp_path: Path) -> Iterator[Run]:
    """A function that starts the gateway at some time, with a key that has a budget for one reply a day."""
    clock, running, made = Clock(tmp_path), [], {}

    def at(zone: str, moment: datetime) -> tuple[Gateway, Ask]:
        clock.set(moment)
        if not made:
            probe = Store(tmp_path / "data")
            # Room for the most that one may cost beside nothing, but not beside what one did cost.
            made["key"] = probe.create_key(
                "daily",
                now_s=moment.timestamp(),
                budget_nano=reserved() + COST // 2,
                budget_period="day",
                budget_zone=zone,
            )[1]
            probe.close()
        gate = start(
            tmp_path / "data",
            HEADGATE_UPSTREAM_URL=upstream.url("openai"),
            HEADGATE_UPSTREAM_KEY="x",
            **clock.env,
        )
        gate.upstream = upstream
        running.append(gate)
        return gate, Ask(gate.url, {"x-api-key": made["key"]})

    yield clock, at
    for gate in running:
        kill(gate)
    books = UsageReader(tmp_path / "data")
    assert (books.audit(), books.intents()) == ([], 0)
    books.close()


def test_a_day_of_25_hours_is_one_day_and_is_reset_once_also_by_a_new_process(run: Run) -> None:
    clock, at = run
    zone = ZoneInfo("Europe/Berlin")
    gate, ask = at("Europe/Berlin", datetime(2027, 10, 30, 23, 50, tzinfo=zone))
    assert [ask(), ask()] == [200, 402]
    clock.set(datetime(2027, 10, 31, 0, 0, 1, tzinfo=zone))
    assert [ask(), ask()] == [200, 402]
    clock.set(datetime(2027, 10, 31, 2, 59, 59, tzinfo=zone))  # then it is two o'clock again
    assert ask() == 402
    clock.set(datetime(2027, 10, 31, 2, 0, 1, tzinfo=zone, fold=1))
    assert ask() == 402
    clock.set(datetime(2027, 10, 30, 23, 0, tzinfo=zone))  # put back over midnight
    assert ask() == 402
    kill(gate)
    _, ask = at("Europe/Berlin", datetime(2027, 10, 31, 23, 50, tzinfo=zone))
    assert ask() == 402  # the ledger knows
    clock.set(datetime(2027, 11, 1, 0, 0, 1, tzinfo=zone))
    assert [ask(), ask()] == [200, 402]


def test_a_midnight_that_comes_twice_resets_once(run: Run) -> None:
    clock, at = run
    zone = ZoneInfo("America/Havana")  # at one o'clock it is midnight again
    _, ask = at("America/Havana", datetime(2027, 11, 6, 23, 59, tzinfo=zone))
    assert [ask(), ask()] == [200, 402]
    clock.set(datetime(2027, 11, 7, 0, 0, 1, tzinfo=zone))
    assert [ask(), ask()] == [200, 402]
    clock.set(datetime(2027, 11, 7, 0, 0, 1, tzinfo=zone, fold=1))
    assert ask() == 402
    clock.set(datetime(2027, 11, 8, 0, 0, 1, tzinfo=zone))
    assert [ask(), ask()] == [200, 402]


def test_a_reply_that_runs_past_midnight_is_charged_to_the_day_it_began_in(run: Run) -> None:
    clock, at = run
    zone = ZoneInfo("Europe/Berlin")
    gate, ask = at("Europe/Berlin", datetime(2027, 3, 27, 23, 50, tzinfo=zone))
    clock.set(datetime(2027, 3, 27, 23, 59, 50, tzinfo=zone))  # a start may take some seconds
    body = messages("held", max_tokens=150, stream=True)
    with httpx2.stream("POST", f"{gate.url}/v1/messages", json=body, headers=ask.headers) as reply:
        assert reply.status_code == 200
        assert gate.upstream is not None
        held = gate.upstream.last
        assert ask() == 429  # it holds what is left
        clock.set(datetime(2027, 3, 28, 0, 0, 1, tzinfo=zone))
        assert gate.upstream is not None
        gate.upstream.release(held)
        reply.read()
    assert [ask(), ask()] == [200, 402]  # of the new day, all was left
    clock.set(datetime(2027, 3, 28, 23, 59, 58, tzinfo=zone))  # of 23 hours
    assert ask() == 402
    clock.set(datetime(2027, 3, 29, 0, 0, 1, tzinfo=zone))
    assert [ask(), ask()] == [200, 402]
