"""No key at all: the SDKs against the small real model that runs beside the gateway."""

import subprocess
from collections.abc import Iterator

import pytest
from anthropic import Anthropic
from google import genai
from google.genai import types
from openai import OpenAI

from gateway import Gateway, start, stop
from programs import embedded_model, needs

MODEL = "MiniMax-M2"
# Without chance it names them in a dozen pieces.
ASK = [{"role": "user", "content": "Name three colors."}]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    embedded_model()
    needs("curl")
    running = start(tmp_path_factory.mktemp("embedded") / "data")
    yield running
    assert stop(running) == 0


def test_the_start_says_who_answers_and_what_to_do(embedded: Gateway) -> None:
    said = embedded.printed
    assert "SmolLM2-135M" in said
    assert "MINIMAX_API_KEY" in said
    assert f"OpenAI     {embedded.url}/v1" in said
    pasted = said[said.index("export ") : said.index("headgate ready")]
    shown = pasted.replace("curl ", "curl -sS -i ", 1)
    done = subprocess.run(["bash", "-c", shown], capture_output=True, text=True)
    assert "x-headgate-upstream: local/smollm2-135m" in done.stdout, done.stderr
    assert '"content":"' in done.stdout


def test_openai(embedded: Gateway) -> None:
    client = OpenAI(base_url=f"{embedded.url}/v1", api_key=embedded.key)
    reply = client.chat.completions.create(model=MODEL, messages=ASK, temperature=0, max_tokens=40)
    assert reply.choices[0].message.content
    chunks = client.chat.completions.create(
        model=MODEL, messages=ASK, temperature=0, max_tokens=40, stream=True
    )
    assert sum(bool(c.choices[0].delta.content) for c in chunks) > 2
    answer = client.responses.create(
        model=MODEL, input="Name three colors.", temperature=0, max_output_tokens=40
    )
    assert answer.output_text


def test_openai_structured_output_is_enforced(embedded: Gateway) -> None:
    import json

    client = OpenAI(base_url=f"{embedded.url}/v1", api_key=embedded.key)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "A number, please."}],
        temperature=0,
        max_tokens=60,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    )
    assert isinstance(json.loads(reply.choices[0].message.content)["n"], int)


def test_anthropic(embedded: Gateway) -> None:
    client = Anthropic(base_url=embedded.url, api_key=embedded.key)
    reply = client.messages.create(
        model=MODEL, messages=ASK, extra_body={"temperature": 0}, max_tokens=40, system="Be brief."
    )
    assert reply.content[0].text
    with client.messages.stream(
        model=MODEL, messages=ASK, extra_body={"temperature": 0}, max_tokens=40
    ) as events:
        assert len(list(events.text_stream)) > 2


def test_gemini(embedded: Gateway) -> None:
    options = types.HttpOptions(base_url=embedded.url)
    client = genai.Client(api_key=embedded.key, vertexai=False, http_options=options)
    config = types.GenerateContentConfig(max_output_tokens=40, temperature=0)
    given = {"model": MODEL, "contents": "Name three colors.", "config": config}
    assert client.models.generate_content(**given).text
    assert len(list(client.models.generate_content_stream(**given))) > 2


def test_a_picture_is_refused_by_name(embedded: Gateway) -> None:
    url = {"url": "data:image/png;base64,aGk="}
    content = [{"type": "image_url", "image_url": url}]
    body = {"model": "MiniMax-M3", "messages": [{"role": "user", "content": content}]}
    reply = embedded.post("/v1/chat/completions", body)
    assert reply.status_code == 400
    assert "image" in reply.json()["error"]["message"]
