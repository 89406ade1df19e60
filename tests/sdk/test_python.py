"""The official Python SDKs, unchanged, against a real gateway: what a user's program sees."""

import json
from collections.abc import Iterator, Sequence

import anthropic
import openai
import pytest
from anthropic import Anthropic, AsyncAnthropic
from google import genai
from google.genai import errors as genai_errors
from google.genai import types
from openai import AsyncOpenAI, OpenAI

from gateway import Gateway
from headgate.cli import env
from played import CITY, HELLO, THOUGHT

MODEL = "MiniMax-M3"
# Of these only refusals are asked, as those pause a model for seven seconds.
PAUSED = ("MiniMax-M2.1", "MiniMax-M2.5", "MiniMax-M2.7", "MiniMax-M2.7-highspeed")
# Five broken replies in a row pause a model: each kind has one of its own, and an answer comes after it.
BROKEN = {"break": "MiniMax-M2.5-highspeed", "cut": "MiniMax-M2", "trip": "MiniMax-M3"}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
WEATHER = {"name": "get_weather", "description": "The weather of a city.", "parameters": SCHEMA}
TIME = {"name": "get_time", "parameters": {"type": "object", "properties": {}}}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def chat(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def messages(gateway: Gateway) -> Iterator[Anthropic]:
    with Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module", params=["v1beta", "v1"])
def gemini(gateway: Gateway, request: pytest.FixtureRequest) -> genai.Client:
    options = types.HttpOptions(base_url=gateway.url, api_version=request.param)
    return genai.Client(api_key=gateway.key, vertexai=False, http_options=options)


def ask(text: str) -> list:  # type: ignore[type-arg]
    return [{"role": "user", "content": text}]


# OpenAI


def test_openai_text_whole(chat: OpenAI) -> None:
    reply = chat.chat.completions.create(model=MODEL, messages=ask("hello"))
    assert reply.choices[0].message.content == HELLO
    assert reply.choices[0].finish_reason == "stop"
    assert reply.model == MODEL
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (120, 35)
    assert reply.usage.prompt_tokens_details.cached_tokens == 100
    assert reply.usage.completion_tokens_details.reasoning_tokens == 7
    assert reply._request_id


def test_openai_text_streamed_by_the_simplest_loop(chat: OpenAI) -> None:
    text = ""
    for chunk in chat.chat.completions.create(model=MODEL, messages=ask("hello"), stream=True):
        text += chunk.choices[0].delta.content or ""  # no chunk without choices was asked for
    assert text == HELLO


def test_openai_usage_comes_last_when_asked_for(chat: OpenAI) -> None:
    chunks = list(
        chat.chat.completions.create(
            model=MODEL, messages=ask("hello"), stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 155
    assert chunks[-2].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_openai_thinking(chat: OpenAI, stream: bool) -> None:
    if stream:
        thought = text = ""
        for chunk in chat.chat.completions.create(model=MODEL, messages=ask("think"), stream=True):
            delta = chunk.choices[0].delta
            thought += (delta.model_extra or {}).get("reasoning_content") or ""
            text += delta.content or ""
    else:
        message = (
            chat.chat.completions.create(model=MODEL, messages=ask("think")).choices[0].message
        )
        thought, text = message.model_extra["reasoning_content"], message.content
        assert message.model_extra["reasoning_details"][0]["text"] == THOUGHT
    assert (thought, text) == (THOUGHT, HELLO)


@pytest.mark.parametrize("stream", [False, True])
def test_openai_parallel_tools_and_their_results(
    chat: OpenAI, gateway: Gateway, stream: bool
) -> None:
    tools = [{"type": "function", "function": WEATHER}, {"type": "function", "function": TIME}]
    if stream:
        with chat.chat.completions.stream(
            model=MODEL, messages=ask("tools"), tools=tools
        ) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = (
            chat.chat.completions.create(model=MODEL, messages=ask("tools"), tools=tools)
            .choices[0]
            .message
        )
    assert message.content == "Two at once."
    calls = message.tool_calls
    assert [(c.function.name, c.function.arguments) for c in calls] == [
        ("get_weather", CITY),
        ("get_time", "{}"),
    ]
    history = [
        *ask("tools"),
        message.model_dump(exclude_none=True, exclude={"parsed"}),
        *({"role": "tool", "tool_call_id": c.id, "content": f"it is {c.id}"} for c in calls),
    ]
    for call in history[1]["tool_calls"]:
        call["function"].pop("parsed_arguments", None)
    reply = chat.chat.completions.create(model=MODEL, messages=history, tools=tools)
    assert reply.choices[0].message.content == "It is sunny in Zürich."
    sent = gateway.upstream.last.request
    results = [p for m in sent.messages if m.role == "tool" for p in m.parts]
    assert [r.parts[0].text for r in results] == [f"it is {c.id}" for c in calls]


def test_openai_images_reach_a_model_that_takes_them(chat: OpenAI, gateway: Gateway) -> None:
    content = [
        {"type": "text", "text": "hello"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]
    chat.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    part = gateway.upstream.last.request.messages[-1].parts[1]
    assert (part.media_type, part.data) == ("image/png", PNG)
    with pytest.raises(openai.BadRequestError, match="image"):
        chat.chat.completions.create(
            model="MiniMax-M2", messages=[{"role": "user", "content": content}]
        )


def test_openai_errors_are_typed(chat: OpenAI, gateway: Gateway) -> None:
    with pytest.raises(openai.RateLimitError) as limited:
        chat.chat.completions.create(model=PAUSED[0], messages=ask("fail 429"))
    assert 1 <= int(limited.value.response.headers["retry-after"]) <= 7
    assert limited.value.request_id
    with pytest.raises(openai.InternalServerError):
        chat.chat.completions.create(model=PAUSED[3], messages=ask("fail 500"))
    with pytest.raises(openai.APIStatusError, match="operator") as missing:
        chat.chat.completions.create(model=PAUSED[1], messages=ask("fail 404"))
    assert missing.value.status_code == 424
    with pytest.raises(openai.NotFoundError, match="MiniMax-M2") as unknown:
        chat.chat.completions.create(model="MiniMax-M9", messages=ask("hello"))
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        chat.chat.completions.create(model=MODEL, messages=ask("hello"), n=2)
    assert refused.value.param == "n"
    stranger = OpenAI(base_url=f"{gateway.url}/v1", api_key="sk-none", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model=MODEL, messages=ask("hello"))


@pytest.mark.parametrize("word", ["break", "cut", "trip"])
def test_openai_a_broken_stream_is_an_error(chat: OpenAI, word: str) -> None:
    with pytest.raises(openai.APIError):
        list(chat.chat.completions.create(model=BROKEN[word], messages=ask(word), stream=True))
    with pytest.raises(openai.APIError):
        chat.chat.completions.create(model=BROKEN[word], messages=ask(word))
    assert chat.chat.completions.create(model=BROKEN[word], messages=ask("hello"))


def test_openai_models(chat: OpenAI) -> None:
    ids = [m.id for m in chat.models.list()]
    assert "MiniMax-M3" in ids
    assert len(ids) == 9
    assert chat.models.retrieve("MiniMax-M2").id == "MiniMax-M2"
    with pytest.raises(openai.NotFoundError):
        chat.models.retrieve("llama-4")


async def _openai_async(gateway: Gateway) -> str:
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=ask("hello"), stream=True
        )
        return "".join([c.choices[0].delta.content or "" async for c in stream])


# Anthropic


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("beta", [False, True])
def test_anthropic_text(messages: Anthropic, stream: bool, beta: bool) -> None:
    api = messages.beta.messages if beta else messages.messages
    given = {"model": MODEL, "max_tokens": 100, "messages": ask("hello"), "system": "Be brief."}
    if stream:
        with api.stream(**given) as events:
            text = "".join(events.text_stream)
            reply = events.get_final_message()
        assert text == HELLO
    else:
        reply = api.create(**given)
    assert [b.text for b in reply.content] == [HELLO]
    assert reply.stop_reason == "end_turn"
    usage = reply.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (20, 100, 35)


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_thinking_and_tools(messages: Anthropic, gateway: Gateway, stream: bool) -> None:
    tools = [
        {"name": "get_weather", "description": "The weather.", "input_schema": SCHEMA},
        {"name": "get_time", "input_schema": {"type": "object", "properties": {}}},
    ]
    given = {
        "model": MODEL,
        "max_tokens": 4000,
        "tools": tools,
        "thinking": {"type": "enabled", "budget_tokens": 2000},
    }
    for word, kinds in (
        ("tool", ["thinking", "tool_use"]),
        ("tools", ["text", "tool_use", "tool_use"]),
    ):
        if stream:
            with messages.messages.stream(messages=ask(word), **given) as events:
                reply = events.get_final_message()
        else:
            reply = messages.messages.create(messages=ask(word), **given)
        assert [b.type for b in reply.content] == kinds
        assert reply.stop_reason == "tool_use"
        calls = [b for b in reply.content if b.type == "tool_use"]
        assert calls[0].input == json.loads(CITY)
        if word == "tool":
            assert reply.content[0].thinking == THOUGHT
        results = [{"type": "tool_result", "tool_use_id": c.id, "content": "sunny"} for c in calls]
        history = [
            *ask(word),
            {"role": "assistant", "content": reply.content},
            {"role": "user", "content": results},
        ]
        answer = messages.messages.create(messages=history, **given)
        assert answer.content[-1].text == "It is sunny in Zürich."
        if word == "tool":  # what the model thought is told to it again
            sent = gateway.upstream.last.request.messages
            thoughts = [p.text for m in sent for p in m.parts if type(p).__name__ == "Thinking"]
            assert thoughts == [THOUGHT]


def test_anthropic_thinking_is_not_shown_unasked(messages: Anthropic) -> None:
    reply = messages.messages.create(model=MODEL, max_tokens=100, messages=ask("think"))
    assert [b.type for b in reply.content] == ["text"]


def test_anthropic_errors_are_typed(messages: Anthropic, gateway: Gateway) -> None:
    given = {"model": MODEL, "max_tokens": 10}
    with pytest.raises(anthropic.RateLimitError):
        messages.messages.create(messages=ask("fail 429"), **{**given, "model": PAUSED[0]})
    with pytest.raises(anthropic.APIStatusError) as overloaded:
        messages.messages.create(messages=ask("fail 529"), **{**given, "model": PAUSED[2]})
    assert overloaded.value.status_code == 529
    with pytest.raises(anthropic.NotFoundError) as unknown:
        messages.messages.create(model="llama-4", max_tokens=10, messages=ask("hello"))
    assert unknown.value.request_id
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        messages.messages.create(
            messages=ask("fail 400 context window exceeds limit (2013)"), **given
        )
    stranger = Anthropic(base_url=gateway.url, api_key="sk-ant-none", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(messages=ask("hello"), **given)


@pytest.mark.parametrize("word", ["break", "cut", "trip"])
def test_anthropic_a_broken_stream_is_an_error(messages: Anthropic, word: str) -> None:
    given = {"model": BROKEN[word], "max_tokens": 10, "messages": ask(word)}
    with pytest.raises(anthropic.APIError), messages.messages.stream(**given) as events:
        events.get_final_message()
    with pytest.raises(anthropic.APIError):
        messages.messages.create(**given)
    assert messages.messages.create(**(given | {"messages": ask("hello")}))


def test_anthropic_models(messages: Anthropic) -> None:
    models = {m.id: m for m in messages.models.list(limit=3)}  # the SDK turns the pages
    assert len([id for id in models if not id.startswith("claude-")]) == 9
    assert models["claude-opus-5-5"].max_input_tokens == 1_000_000
    assert models["MiniMax-M3"].display_name
    assert messages.models.retrieve("MiniMax-M2").id == "MiniMax-M2"


async def _anthropic_async(gateway: Gateway) -> str:
    async with AsyncAnthropic(base_url=gateway.url, auth_token=gateway.key) as client:
        given = {"model": MODEL, "max_tokens": 10, "messages": ask("hello")}
        async with client.messages.stream(**given) as events:
            return "".join([text async for text in events.text_stream])


# Gemini


def declared() -> types.GenerateContentConfig:
    weather = types.FunctionDeclaration(
        name="get_weather",
        description="The weather.",
        parameters=types.Schema(
            type="OBJECT", properties={"city": types.Schema(type="STRING")}, required=["city"]
        ),
    )
    time = types.FunctionDeclaration(name="get_time", parameters_json_schema=TIME["parameters"])
    off = types.AutomaticFunctionCallingConfig(disable=True)
    return types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[weather, time])],
        automatic_function_calling=off,
        thinking_config=types.ThinkingConfig(include_thoughts=True),
    )


@pytest.mark.parametrize("stream", [False, True])
def test_gemini_text(gemini: genai.Client, stream: bool) -> None:
    config = types.GenerateContentConfig(system_instruction="Be brief.", temperature=0.5)
    given = {"model": MODEL, "contents": "hello", "config": config}
    if stream:
        chunks = list(gemini.models.generate_content_stream(**given))
        text, last = "".join(c.text or "" for c in chunks), chunks[-1]
    else:
        last = gemini.models.generate_content(**given)
        text = last.text
    assert text == HELLO
    assert last.candidates[0].finish_reason == types.FinishReason.STOP
    usage = last.usage_metadata
    assert (usage.prompt_token_count, usage.cached_content_token_count) == (120, 100)
    assert (usage.candidates_token_count, usage.thoughts_token_count) == (28, 7)
    assert usage.total_token_count == 155


def test_gemini_in_vertex_mode(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of `headgate env` switch Google's SDK to Vertex AI's paths."""
    for name, value in env.variables(gateway.url, gateway.key).items():
        monkeypatch.setenv(name, value)
    with genai.Client() as client:
        assert client.vertexai
        models = client.models
        assert models.generate_content(model=MODEL, contents="hello").text == HELLO
        streamed = models.generate_content_stream(model="gemini-3.1-pro-preview", contents="hello")
        assert "".join(chunk.text or "" for chunk in streamed) == HELLO
        assert (models.count_tokens(model=MODEL, contents="hello").total_tokens or 0) > 0
        assert len(list(models.list())) == 9
        assert models.get(model=MODEL).name == f"models/{MODEL}"
        with pytest.raises(genai_errors.ClientError) as unknown:
            models.generate_content(model="llama-4", contents="hello")
        assert unknown.value.code == 404


@pytest.mark.parametrize("stream", [False, True])
def test_gemini_thinking_and_tools(gemini: genai.Client, gateway: Gateway, stream: bool) -> None:
    config = declared()
    for word, names in (("tool", ["get_weather"]), ("tools", ["get_weather", "get_time"])):
        given = {"model": MODEL, "config": config}
        if stream:
            chunks = list(gemini.models.generate_content_stream(contents=word, **given))
            parts = [p for c in chunks for p in (c.candidates[0].content.parts or [])]
        else:
            reply = gemini.models.generate_content(contents=word, **given)
            parts = reply.candidates[0].content.parts
        calls = [p.function_call for p in parts if p.function_call]
        assert [c.name for c in calls] == names
        assert calls[0].args == json.loads(CITY)
        if word == "tool":
            assert "".join(p.text for p in parts if p.thought) == THOUGHT
        history = [
            types.Content(role="user", parts=[types.Part(text=word)]),
            types.Content(role="model", parts=parts),
            types.Content(
                role="user",
                parts=[
                    types.Part.from_function_response(name=c.name, response={"output": "sunny"})
                    for c in calls
                ],
            ),
        ]
        answer = gemini.models.generate_content(contents=history, **given)
        assert answer.text == "It is sunny in Zürich."
        sent = gateway.upstream.last.request.messages
        if word == "tool":
            thoughts = [p.text for m in sent for p in m.parts if type(p).__name__ == "Thinking"]
            assert "".join(thoughts) == THOUGHT


def test_gemini_calls_python_functions_by_itself(gemini: genai.Client) -> None:
    asked: list[str] = []

    def get_weather(city: str, days: int = 1) -> str:
        """The weather of a city."""
        asked.append(city)
        return "sunny"

    config = types.GenerateContentConfig(tools=[get_weather])
    reply = gemini.models.generate_content(model=MODEL, contents="tool", config=config)
    assert asked == ["Zürich"]
    assert reply.text == "It is sunny in Zürich."


def test_gemini_errors_are_typed(gemini: genai.Client, gateway: Gateway) -> None:
    with pytest.raises(genai_errors.ClientError) as limited:
        gemini.models.generate_content(model=PAUSED[0], contents="fail 429")
    assert (limited.value.code, limited.value.status) == (429, "RESOURCE_EXHAUSTED")
    with pytest.raises(genai_errors.ServerError) as broken:
        gemini.models.generate_content(model=PAUSED[3], contents="fail 500")
    assert broken.value.status == "UNAVAILABLE"
    with pytest.raises(genai_errors.ClientError) as unknown:
        gemini.models.generate_content(model="llama-4", contents="hello")
    assert (unknown.value.code, unknown.value.status) == (404, "NOT_FOUND")
    options = types.HttpOptions(base_url=gateway.url)
    stranger = genai.Client(api_key="AIza-none", vertexai=False, http_options=options)
    with pytest.raises(genai_errors.ClientError) as refused:
        stranger.models.generate_content(model=MODEL, contents="hello")
    assert refused.value.code == 401


@pytest.mark.parametrize("word", ["break", "cut", "trip"])
def test_gemini_a_broken_stream_is_an_error(gemini: genai.Client, word: str) -> None:
    with pytest.raises(genai_errors.APIError):
        list(gemini.models.generate_content_stream(model=BROKEN[word], contents=word))
    with pytest.raises(genai_errors.APIError):
        gemini.models.generate_content(model=BROKEN[word], contents=word)
    assert gemini.models.generate_content(model=BROKEN[word], contents="hello")


def test_gemini_models(gemini: genai.Client) -> None:
    models = {m.name: m for m in gemini.models.list()}
    assert len(models) == 9
    assert models["models/MiniMax-M3"].output_token_limit > 0
    assert gemini.models.get(model="MiniMax-M2").name == "models/MiniMax-M2"


def test_async_clients_stream(gateway: Gateway) -> None:
    import asyncio

    async def gemini_async() -> str:
        options = types.HttpOptions(base_url=gateway.url)
        client = genai.Client(api_key=gateway.key, vertexai=False, http_options=options)
        stream = await client.aio.models.generate_content_stream(model=MODEL, contents="hello")
        return "".join([c.text or "" async for c in stream])

    async def all_three() -> Sequence[str]:
        return await asyncio.gather(
            _openai_async(gateway), _anthropic_async(gateway), gemini_async()
        )

    assert [*asyncio.run(all_three())] == [HELLO] * 3


# Responses


@pytest.mark.parametrize("stream", [False, True])
def test_responses_text(chat: OpenAI, stream: bool) -> None:
    given = {"model": MODEL, "input": "hello", "instructions": "Be brief."}
    if stream:
        with chat.responses.stream(**given) as events:
            text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
            reply = events.get_final_response()
        assert text == HELLO
    else:
        reply = chat.responses.create(**given)
    assert reply.output_text == HELLO
    assert reply.status == "completed"
    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (120, 35)
    assert reply.usage.input_tokens_details.cached_tokens == 100


@pytest.mark.parametrize("stream", [False, True])
def test_responses_thinking_and_tools(chat: OpenAI, gateway: Gateway, stream: bool) -> None:
    tools = [{"type": "function", **WEATHER, "strict": False}]
    given = {
        "model": MODEL,
        "tools": tools,
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "high", "summary": "auto"},
        "store": False,
    }
    if stream:
        with chat.responses.stream(input=ask("tool"), **given) as events:
            reply = events.get_final_response()
    else:
        reply = chat.responses.create(input=ask("tool"), **given)
    assert [item.type for item in reply.output] == ["reasoning", "function_call"]
    call = reply.output[1]
    assert call.arguments == CITY
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    # As Codex replays: of the reasoning, nothing but what is sealed.
    sealed = {
        "type": "reasoning",
        "summary": [],
        "encrypted_content": reply.output[0].encrypted_content,
    }
    history = [*ask("tool"), sealed, call.model_dump(exclude_none=True), result]
    for item in history:
        item.pop("parsed_arguments", None)
    answer = chat.responses.create(input=history, **given)
    assert answer.output_text == "It is sunny in Zürich."
    sent = gateway.upstream.last.request.messages
    assert [p.text for m in sent for p in m.parts if type(p).__name__ == "Thinking"] == [THOUGHT]


@pytest.mark.parametrize("word", ["break", "cut", "trip"])
def test_responses_a_broken_stream_fails(chat: OpenAI, word: str) -> None:
    events = list(chat.responses.create(model=BROKEN[word], input=word, stream=True))
    assert events[-1].type == "response.failed"
    assert chat.responses.create(model=BROKEN[word], input="hello")


# Reasoning that the client does not return itself


def test_an_openai_loop_that_keeps_only_content_and_calls_loses_nothing(
    chat: OpenAI, gateway: Gateway
) -> None:
    tools = [{"type": "function", "function": WEATHER}]
    reply = chat.chat.completions.create(model=MODEL, messages=ask("tool"), tools=tools)
    message = reply.choices[0].message
    calls = [c.model_dump() for c in message.tool_calls]
    history = [
        *ask("tool"),
        {"role": "assistant", "content": message.content, "tool_calls": calls},
        {"role": "tool", "tool_call_id": calls[0]["id"], "content": "sunny"},
    ]
    chat.chat.completions.create(model=MODEL, messages=history, tools=tools)
    sent = gateway.upstream.last.request.messages
    assert [p.text for m in sent for p in m.parts if type(p).__name__ == "Thinking"] == [THOUGHT]


def test_anthropic_omitted_thinking_comes_back_by_its_signature(
    messages: Anthropic, gateway: Gateway
) -> None:
    tools = [{"name": "get_weather", "input_schema": SCHEMA}]
    thinking = {"type": "adaptive", "display": "omitted"}
    given = {
        "model": MODEL,
        "max_tokens": 4000,
        "tools": tools,
        "extra_body": {"thinking": thinking},
    }
    reply = messages.messages.create(messages=ask("tool"), **given)
    assert [(b.type, getattr(b, "thinking", "")) for b in reply.content] == [
        ("thinking", ""),
        ("tool_use", ""),
    ]
    result = {"type": "tool_result", "tool_use_id": reply.content[1].id, "content": "sunny"}
    history = [
        *ask("tool"),
        {"role": "assistant", "content": reply.content},
        {"role": "user", "content": [result]},
    ]
    messages.messages.create(messages=history, **given)
    sent = gateway.upstream.last.request.messages
    assert [p.text for m in sent for p in m.parts if type(p).__name__ == "Thinking"] == [THOUGHT]


def test_token_counts_are_estimated_in_each_protocol(
    chat: OpenAI, messages: Anthropic, gemini: genai.Client
) -> None:
    counted = messages.messages.count_tokens(model=MODEL, messages=ask("hello " * 1000))
    assert 100 < counted.input_tokens < 9000  # an estimate, which other tests have taught
    total = gemini.models.count_tokens(model=MODEL, contents="hello " * 1000).total_tokens
    assert total == counted.input_tokens
