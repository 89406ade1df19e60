"""Who used it and for what: the client's own names of users and tags are in the ledger."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway import Gateway, start, stop
from headgate.chat import Request
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import DIALECTS
from headgate.edge.tags import MAX_TAG_CHARS, MAX_TAGS, tagged
from played import PlayedUpstream

HELLOS = [{"role": "user", "content": "hello"}]
CODE = '{"device_id": "d1", "account_uuid": "", "session_id": "s1"}'
BODIES: list[tuple[str, dict[str, object], str]] = [
    ("openai", {"messages": HELLOS, "user": "ann"}, "ann"),
    ("openai", {"messages": HELLOS, "safety_identifier": "bob"}, "bob"),
    ("openai", {"messages": HELLOS, "user": 7}, ""),
    ("responses", {"input": "hello", "user": "ann"}, "ann"),
    ("anthropic", {"messages": HELLOS, "max_tokens": 9, "metadata": {"user_id": "ann"}}, "ann"),
    ("anthropic", {"messages": HELLOS, "max_tokens": 9, "metadata": {"user_id": CODE}}, "d1"),
]


@pytest.mark.parametrize(("dialect", "body", "user"), BODIES)
def test_a_dialect_reads_the_end_user(dialect: str, body: dict[str, object], user: str) -> None:
    data = msgspec.json.encode({"model": "MiniMax-M2", **body})
    assert DIALECTS[dialect].decode_request(data, RequestTarget()).user == user


def test_tags_are_each_there_once_and_in_their_order() -> None:
    request = tagged(Request("m", ()), " team-a, nightly ,team-a")
    assert (request.tags, request.warnings) == (("team-a", "nightly"), ())


@pytest.mark.parametrize("header", ["x" * 5000, ",".join(map(str, range(99))), "a\x7fb,c"])
def test_tags_above_the_bounds_are_cut_with_a_warning(header: str) -> None:
    request = tagged(Request("m", ()), header)
    assert len(request.tags) <= MAX_TAGS and all(len(t) <= MAX_TAG_CHARS for t in request.tags)
    assert request.warnings == ("x-headgate-tags (cut)",)


@pytest.fixture
def gate(upstream: PlayedUpstream, tmp_path: Path) -> Iterator[Gateway]:
    running = start(
        tmp_path / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="upstream-secret",
    )
    yield running
    assert stop(running) == 0


def test_user_and_tags_are_in_the_row(gate: Gateway) -> None:
    body = {"model": "MiniMax-M2", "messages": HELLOS, "user": "ann"}
    reply = gate.post("/v1/chat/completions", body, **{"x-headgate-tags": "team-a,nightly"})
    id = reply.headers["x-request-id"]
    row = gate.get(f"/v1/generations/{id}", authorization=f"Bearer {gate.key}").json()
    assert (row["user"], row["tags"]) == ("ann", ["team-a", "nightly"])
