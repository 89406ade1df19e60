"""`store` and `previous_response_id`: a conversation that the gateway keeps, on any of its edges."""

import asyncio
import json
import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from joserfc.errors import JoseError

from gateway import COMMAND, Gateway, environment, start, stop
from headgate.chat import ToolCall, ToolResult
from headgate.config import Responses
from headgate.edge.stored_responses import ResponseStore
from headgate.errors import Refused
from headgate.policy.stored_responses import KeptBounds, StoredResponses
from played import PlayedUpstream
from waiting import PATIENCE_S

TOOL = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture(scope="module")
def gate(upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = start(
        tmp_path_factory.mktemp("stored") / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="x",
        HEADGATE_EDGES="2",
        HEADGATE_RESPONSES_STORE="true",
    )
    running.upstream = upstream
    yield running
    assert stop(running) == 0


def client(gate: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gate.url}/v1", api_key=gate.key, max_retries=0)


def shown(gate: Gateway) -> list[str]:
    """The texts of what the model was shown last."""
    assert gate.upstream is not None
    return [m.text for m in gate.upstream.last.request.messages]


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_goes_on_from_an_earlier_response(gate: Gateway, stream: bool) -> None:
    """Each request has a connection of its own, and so one of the two edges."""
    previous, said = None, []
    for n in range(6):
        body: dict[str, Any] = {"model": "MiniMax-M2", "input": f"hello {n}", "stream": stream}
        if previous is not None:
            body["previous_response_id"] = previous
        reply = gate.post("/v1/responses", body)
        assert reply.status_code == 200, reply.text
        found = reply.json() if not stream else _completed(reply.text)
        assert (found["store"], found["previous_response_id"]) == (True, previous)
        assert "x-headgate-warnings" not in reply.headers
        previous = found["id"]
        said.append(f"hello {n}")
        assert [t for t in shown(gate) if t.startswith("hello")] == said
        assert len(shown(gate)) == 2 * n + 1


def _completed(text: str) -> dict[str, Any]:
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    found: dict[str, Any] = events[-1]["response"]
    return found


def test_a_conversation_may_go_on_without_a_new_word(gate: Gateway) -> None:
    first = client(gate).responses.create(model="MiniMax-M2", input="hello alone")
    body = {"model": "MiniMax-M2", "previous_response_id": first.id}
    assert gate.post("/v1/responses", body).status_code == 200
    assert shown(gate)[0] == "hello alone"
    assert gate.post("/v1/responses", {"model": "MiniMax-M2"}).status_code == 400


def test_two_answers_may_follow_the_same_response(gate: Gateway) -> None:
    sdk = client(gate)
    first = sdk.responses.create(model="MiniMax-M2", input="hello root")
    for branch in ("hello left", "hello right"):
        sdk.responses.create(model="MiniMax-M2", input=branch, previous_response_id=first.id)
        assert [t for t in shown(gate) if t.startswith("hello")] == ["hello root", branch]


def test_a_tool_loop_sends_nothing_but_the_result(gate: Gateway) -> None:
    sdk = client(gate)
    first = sdk.responses.create(model="MiniMax-M2", input="tools", tools=[TOOL])  # type: ignore[list-item]
    call = next(item for item in first.output if item.type == "function_call")
    sdk.responses.create(
        model="MiniMax-M2",
        tools=[TOOL],  # type: ignore[list-item]
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "hello sun"}],
    )
    assert gate.upstream is not None
    parts = [p for m in gate.upstream.last.request.messages for p in m.parts]
    calls = [p for p in parts if isinstance(p, ToolCall)]
    results = [p for p in parts if isinstance(p, ToolResult)]
    assert call.call_id in [c.id for c in calls]
    assert call.call_id in [r.call_id for r in results]


def test_a_response_is_read_listed_and_deleted_by_the_sdk(gate: Gateway) -> None:
    sdk = client(gate)
    first = sdk.responses.create(model="MiniMax-M2", input="hello one")
    second = sdk.responses.create(
        model="MiniMax-M2",
        previous_response_id=first.id,
        input=[{"role": "user", "content": "hello two"}],
    )
    assert sdk.responses.retrieve(second.id).output_text == second.output_text
    assert sdk.responses.retrieve(second.id).usage == second.usage
    listed = sdk.responses.input_items.list(second.id, order="asc")
    texts = [item.content[0].text for item in listed.data if item.type == "message"]  # type: ignore[union-attr]
    assert texts == ["hello one", first.output_text, "hello two"]
    assert len({item.id for item in listed.data}) == len(listed.data)
    paged = [i.id for i in sdk.responses.input_items.list(second.id, limit=1)]
    assert paged == [item.id for item in listed.data][::-1]
    sdk.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(second.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.delete(second.id)
    assert sdk.responses.retrieve(first.id).id == first.id


def test_nothing_is_kept_of_a_request_that_does_not_want_it(gate: Gateway) -> None:
    sdk = client(gate)
    first = sdk.responses.create(model="MiniMax-M2", input="hello", store=False)
    assert first.model_extra is None or first.model_extra.get("store") in (None, False)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(first.id)
    kept = sdk.responses.create(model="MiniMax-M2", input="hello", store=True)
    last = sdk.responses.create(
        model="MiniMax-M2", input="hello again", store=False, previous_response_id=kept.id
    )
    assert last.previous_response_id == kept.id
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(last.id)


@pytest.mark.parametrize(
    "id", ["resp_0123456789abcdef01234567", "resp_other", "../v1/key", "x" * 200]
)
def test_an_earlier_response_that_is_not_kept_is_named(gate: Gateway, id: str) -> None:
    body = {"model": "MiniMax-M2", "input": "hello", "previous_response_id": id}
    for path in ("/v1/responses", "/v1/responses/compact", "/v1/responses/input_tokens"):
        reply = gate.post(path, body)
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] == "previous_response_not_found"
        assert reply.json()["error"]["param"] == "previous_response_id"


def test_another_key_sees_nothing_of_it(gate: Gateway) -> None:
    made = subprocess.run(
        [*COMMAND, "keys", "create", "other", "--data", str(gate.data), "--json"],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    other = json.loads(made.stdout)["key"]
    first = client(gate).responses.create(model="MiniMax-M2", input="hello secret")
    theirs = {"authorization": f"Bearer {other}"}
    for path in (f"/v1/responses/{first.id}", f"/v1/responses/{first.id}/input_items"):
        assert gate.get(path, **theirs).status_code == 404
    reply = httpx2.delete(f"{gate.url}/v1/responses/{first.id}", headers=theirs, timeout=PATIENCE_S)
    assert reply.status_code == 404
    body = {"model": "MiniMax-M2", "input": "hello", "previous_response_id": first.id}
    assert gate.post("/v1/responses", body, **theirs).status_code == 400
    assert client(gate).responses.retrieve(first.id).id == first.id
    assert gate.get(f"/v1/responses/{first.id}").status_code == 401


def test_counts_and_summaries_see_the_whole_conversation(gate: Gateway) -> None:
    first = client(gate).responses.create(model="MiniMax-M2", input="hello " + "word " * 2000)
    body = {"model": "MiniMax-M2", "input": "hello", "previous_response_id": first.id}
    assert gate.post("/v1/responses/input_tokens", body).json()["input_tokens"] > 1000
    assert gate.post("/v1/responses/compact", body).status_code == 200
    assert any("word word" in text for text in shown(gate))


# --- without a gateway ---------------------------------------------------------------------------


class Node:
    """The node's part, in this process."""

    def __init__(self) -> None:
        self.stored = StoredResponses()
        self.seen: list[bytes] = []

    async def store(
        self, owner: str, id: str, previous: str, data: bytes, bounds: KeptBounds
    ) -> bool:
        self.seen.append(data)
        return self.stored.keep((owner, id), previous, data, bounds, 0.0)

    async def recall(self, owner: str, id: str, *, alone: bool = False) -> Any:
        if alone:
            one = self.stored.one((owner, id), 0.0)
            return "unknown" if one is None else [one]
        return self.stored.chain((owner, id), 0.0)

    async def forget(self, owner: str, id: str) -> bool:
        return self.stored.drop((owner, id))


async def worker(work: Any, *args: Any) -> Any:
    return work(*args)


def store(node: Node) -> ResponseStore:
    return ResponseStore(Responses(store=True), b"s" * 32, node)  # type: ignore[arg-type]


ID = "resp_" + "0" * 24


async def kept(store: ResponseStore, body: object, id: str = ID) -> bool:
    arrived = await store.whole("a", json.dumps(body).encode(), worker)
    assert arrived.turn is not None
    response = json.dumps({"id": id, "output": [{"type": "message", "role": "assistant"}]})
    return await store.keep(arrived.turn, id, response.encode(), worker)


def test_the_node_sees_no_word_of_what_it_keeps() -> None:
    async def main() -> None:
        node = Node()
        mine = store(node)
        assert await kept(mine, {"model": "m", "input": "a very secret text"})
        assert b"secret" not in node.seen[0]
        body = {"model": "m", "input": "more", "previous_response_id": ID}
        arrived = await mine.whole("a", json.dumps(body).encode(), worker)
        assert b"a very secret text" in arrived.body
        # Another owner's key does not open it, nor does it under another id.
        for owner, id in (("b", ID), ("a", "resp_" + "1" * 24)):
            data = node.seen[0].replace(ID.encode(), id.encode())
            with pytest.raises(JoseError):
                mine._opened(owner, data, 1 << 20)

    asyncio.run(main())


def test_a_conversation_above_the_bound_is_refused_and_a_turn_above_it_not_kept() -> None:
    async def main() -> None:
        node = Node()
        mine = store(node)
        previous = ""
        for n in range(5):
            body = {"model": "m", "input": "x" * (8 << 20)}
            id = f"resp_{n:024d}"
            arrived = await mine.whole("a", json.dumps(body).encode(), worker)
            assert arrived.turn is not None
            turn = type(arrived.turn)("a", previous, arrived.turn.input)
            assert await mine.keep(turn, id, b'{"output":[]}', worker)
            previous = id
        body = {"model": "m", "input": "x", "previous_response_id": previous}
        with pytest.raises(Refused) as refused:
            await mine.whole("a", json.dumps(body).encode(), worker)
        assert refused.value.failure.code == "previous_response_too_large"
        with pytest.raises(Refused):
            await mine.input_items("a", previous, {}, worker)
        dense = {"model": "m", "input": secrets.token_hex(3 << 20)}
        assert not await kept(mine, dense, "resp_" + "f" * 24)

    asyncio.run(main())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"model":"m","input":7}',
        b'{"model":"m","input":"x","previous_response_id":7}',
        b'{"model":"m","input":"x","store":"yes"}',
        b'{"model":"m","input":"x","store":false}',
        b"\xff",
    ],
)
def test_a_body_that_says_nothing_of_storing_stays_as_it_is(body: bytes) -> None:
    arrived = asyncio.run(store(Node()).whole("a", body, worker))
    assert (arrived.body, arrived.turn) == (body, None)


@pytest.mark.parametrize(
    "query", [{"order": "up"}, {"limit": "0"}, {"limit": "many"}, {"after": "x"}]
)
def test_a_page_that_cannot_be_is_refused_by_its_field(query: dict[str, str]) -> None:
    async def main() -> None:
        mine = store(Node())
        await kept(mine, {"model": "m", "input": "x"})
        with pytest.raises(Refused) as refused:
            await mine.input_items("a", ID, query, worker)
        assert refused.value.failure.param == next(iter(query))

    asyncio.run(main())
