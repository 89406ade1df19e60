"""Refusals are told in the caller's protocol, cost little, and share their lines in the log."""

import io
from typing import Any, cast

import msgspec
import pytest

from headgate.dialects.contract import Dialect, RequestTarget
from headgate.dialects.registry import ANTHROPIC, GEMINI, OPENAI, RESPONSES
from headgate.edge.log import Log
from headgate.edge.metrics import Metrics
from headgate.edge.refusals import COALESCE_S, FLOOD, MAX_KINDS, Refusals
from headgate.errors import Failure
from headgate.net.heads import Head
from headgate.net.inbound import Inbound

LIMITED = Failure("rate_limit", "Please try again in 3s.", retry_after_s=2.5)


class Played:
    """What a refusal needs of an Inbound."""

    client, extra = "192.0.2.1", b""

    def __init__(self, head: Head) -> None:
        self.head, self.headers = head, head.headers
        self.status, self.block, self.body, self.ended = 0, b"", b"", False

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        self.status, self.block, self.body, self.ended = status, headers, body, True

    def start(self, status: int, headers: object) -> None:
        self.status = status

    def write(self, data: bytes) -> None:
        self.body += data

    def end(self) -> None:
        self.ended = True


def made() -> tuple[Refusals, io.BytesIO, Log]:
    out = io.BytesIO()
    log = Log("info", cast(Any, out))
    return Refusals(Metrics(), log), out, log


def head(**headers: str) -> Head:
    return Head("POST", "/v1/messages", "", headers, "1.1")


def refuse(
    refusals: Refusals, dialect: Dialect, head: Head, failure: Failure = LIMITED, key: str = "k"
) -> Played:
    inbound = Played(head)
    refusals.answer(
        cast(Inbound, inbound), dialect, failure, key, (), RequestTarget(headers=head.headers)
    )
    assert inbound.ended
    return inbound


def lines(out: io.BytesIO, log: Log) -> list[dict[str, Any]]:
    log.flush()
    return [msgspec.json.decode(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("dialect", [OPENAI, RESPONSES, ANTHROPIC, GEMINI], ids=lambda d: d.name)
def test_each_refusal_has_an_id_of_its_own_and_the_wait_as_whole_seconds(dialect: Dialect) -> None:
    refusals, _, _ = made()
    answers = [refuse(refusals, dialect, head()) for _ in range(3)]
    ids = {a.block.split(b"x-request-id: ")[1].split(b"\r\n")[0] for a in answers}
    assert len(ids) == 3 and all(len(i) == 24 for i in ids)
    for answer in answers:
        assert (answer.status, b"retry-after: 3\r\n" in answer.block) == (429, True)
        assert b"0123456789abcdef" not in answer.block + answer.body
        assert b"try again in 3s" in answer.body


def test_codex_is_refused_in_a_stream_whose_words_it_reads() -> None:
    refusals, _, _ = made()
    answer = refuse(refusals, RESPONSES, head(originator="codex_cli_rs"))
    assert answer.status == 200
    assert b"response.failed" in answer.body and b"try again in 3s" in answer.body


def test_the_first_refusal_of_a_kind_has_a_line_and_the_others_share_one() -> None:
    refusals, out, log = made()
    for _ in range(20):
        refuse(refusals, OPENAI, head())
    refuse(refusals, OPENAI, head(), key="other")
    refusals.flush()
    assert [(x["event"], x["key"]) for x in lines(out, log)] == [
        ("exchange", "k"),
        ("exchange", "other"),
    ]
    refusals.close()
    (more,) = lines(out, log)[2:]
    assert (more["event"], more["key"], more["outcome"], more["status"], more["count"]) == (
        "refusals",
        "k",
        "rate_limit",
        429,
        19,
    )
    assert COALESCE_S > 1


def test_the_kinds_of_lines_are_bounded_and_none_is_lost() -> None:
    refusals, out, log = made()
    for n in range(MAX_KINDS + 50):
        refuse(refusals, OPENAI, head(), key=str(n))
    assert len(refusals._seen) <= MAX_KINDS + 1
    refusals.close()
    found = lines(out, log)
    assert sum(line.get("count", 1) for line in found) == MAX_KINDS + 50


def test_a_head_that_is_refused_again_and_again_is_answered_without_a_look_at_its_key() -> None:
    refusals, _, _ = made()
    flood, other = head(), head()
    for _ in range(FLOOD):
        refuse(refusals, ANTHROPIC, flood)
        assert not refusals.again(cast(Inbound, Played(flood)))
    first, again = refuse(refusals, ANTHROPIC, flood), Played(flood)
    assert refusals.again(cast(Inbound, again))
    assert (again.status, len(again.body)) == (first.status, len(first.body))
    assert again.block != first.block  # its id
    assert not refusals.again(cast(Inbound, Played(other)))
    refusals._repeated[id(flood)].until_s = 0.0
    assert not refusals.again(cast(Inbound, Played(flood)))  # this one is decided anew
    assert refusals.again(cast(Inbound, Played(flood)))
    refusals.let_in(cast(Inbound, Played(other)))
    assert refusals.again(cast(Inbound, Played(flood)))
    refusals.let_in(cast(Inbound, Played(flood)))
    assert not refusals.again(cast(Inbound, Played(flood)))
