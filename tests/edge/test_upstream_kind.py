"""A server that is named by its address alone is asked what it is, off the path of requests."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from gateway import COMMAND, Gateway, environment, start, stop
from headgate import config
from headgate.catalog import building
from headgate.catalog.detection import Detected
from headgate.catalog.models import models
from headgate.catalog.routes import Route
from headgate.config import loading
from headgate.diagnostics import upstream_access
from headgate.edge.upstream_kind import Unreachable, ask
from headgate.net.client import Client
from own_server import OwnServer
from waiting import wait_for

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}


def settings_for(server: OwnServer) -> config.Settings:
    return loading.load(None, {"HEADGATE_UPSTREAM_URL": server.url})


def asked(url: str) -> Detected | None:
    settings = loading.load(None, {"HEADGATE_UPSTREAM_URL": url})
    route: Route = building.load(settings, {}).routes("MiniMax-M2")[0]

    async def main() -> Detected | None:
        client = Client(proxies={})
        try:
            return await ask(client, route, models().values())
        finally:
            await client.close()

    return asyncio.run(main())


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llamacpp"])
def test_a_server_that_names_itself_is_asked_for_its_version_only(kind: str) -> None:
    with OwnServer(kind).running() as server:
        found = asked(server.url)
    assert found is not None and (found.kind, bool(found.version)) == (kind, True)
    assert len(server.asked) == 2


@pytest.mark.parametrize("kind", ["nothing", "another vendor", "no JSON"])
def test_a_server_that_is_none_of_them_is_asked_five_times(kind: str) -> None:
    with OwnServer(kind).running() as server:
        assert asked(server.url) is None
    assert len(server.asked) == 5 == len(set(server.asked))


def test_a_server_that_is_away_or_loads_its_model_is_asked_again_later() -> None:
    with OwnServer("vllm").running() as server:
        server.status = 503
        with pytest.raises(Unreachable):
            asked(server.url)
    with pytest.raises(Unreachable):
        asked(server.url)


def test_a_server_that_refuses_the_key_is_not_known() -> None:
    with OwnServer("vllm").running() as server:
        server.status = 401
        assert asked(server.url) is None


@pytest.mark.parametrize(("kind", "text"), [("vllm", "up; it is vLLM 0.11.2"), ("nothing", "up")])
def test_the_doctor_says_which_server_it_is(kind: str, text: str) -> None:
    with OwnServer(kind).running() as server:
        settings = settings_for(server)
        (found,) = asyncio.run(
            upstream_access.upstream_findings(settings, building.load(settings, {}), False)
        )
    assert (found.state, found.result) == ("ok", text)


def detected(gate: Gateway) -> list[str]:
    """What the log says that upstreams are."""
    lines = (gate.data.parent / f"{gate.data.name}.log").read_text().splitlines()
    found = [json.loads(line) for line in lines if '"upstream_detected"' in line]
    return [line["where"] for line in found]


def sent(gate: Gateway, server: OwnServer) -> dict[str, object]:
    """The body that the server gets of a request with a forced tool and a schema."""
    body = {"model": "MiniMax-M2", "messages": [{"role": "user", "content": "hi"}]}
    forced = gate.post("/v1/chat/completions", {**body, "tools": [TOOL], "tool_choice": "required"})
    shaped = gate.post("/v1/chat/completions", {**body, "response_format": FORMAT})
    assert shaped.status_code == 200, shaped.text
    assert forced.status_code in (200, 502)  # the server never calls a tool
    with_tool = next(b for b in server.bodies if "tools" in b)
    return {**server.bodies[-1], "tool_choice": with_tool.get("tool_choice")}


def test_a_gateway_takes_the_preset_of_the_server_and_asks_again_at_a_reload(
    tmp_path: Path,
) -> None:
    with OwnServer("vllm").running() as server:
        gate = start(
            tmp_path / "data", HEADGATE_UPSTREAM_URL=server.url, HEADGATE_UPSTREAM_CHECK_S="300"
        )
        try:
            wait_for(lambda: detected(gate))
            assert detected(gate) == ["vLLM 0.11.2; the preset `vllm` is in force"]
            body = sent(gate, server)
            assert (body["model"], body["tool_choice"]) == ("prod", "required")
            assert body["response_format"]
            page = gate.get("/models/MiniMax-M2.md").text
            assert "| 1 | text | yes | yes |" in page, page

            server.kind = "llamacpp"
            reload(gate, server)
            wait_for(lambda: len(detected(gate)) == 2)
            assert detected(gate)[1] == "llama.cpp b6900-1a2b3c; the preset `llamacpp` is in force"
            body = sent(gate, server)
            assert (body["model"], body["tool_choice"]) == ("MiniMax-M2", "required")
            assert body["response_format"]

            server.kind = "nothing"
            reload(gate, server)
            wait_for(lambda: "/props" in server.asked)
            body = sent(gate, server)
            assert (body["model"], body["tool_choice"]) == ("MiniMax-M2", None)
            assert "response_format" not in body
            assert len(detected(gate)) == 2
        finally:
            assert stop(gate) == 0


def reload(gate: Gateway, server: OwnServer) -> None:
    server.asked.clear()
    server.bodies.clear()
    line = [*COMMAND, "reload", "--data", str(gate.data)]
    subprocess.run(line, env=environment(), check=True, stdout=subprocess.DEVNULL)
