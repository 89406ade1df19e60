"""Frameworks from PyPI in a tool loop of their own, as their users write it.

Runs in `.cache/retention/venv`, never in the tests' environment:
`python frameworks.py NAME URL KEY MODEL MARK` goes through one conversation and says nothing.
"""

import asyncio
import os
import sys
from typing import Any

from scripted_replies import AGAIN, result

LIMIT = 30


def find(place: str) -> str:
    """Find a place."""
    return result("find", {"place": place})


def ping() -> str:
    """Answer pong."""
    return result("ping", {})


# --- LangChain -----------------------------------------------------------------------------------


def _langchain(model: Any, first: str) -> None:
    """The loop of LangChain's own documentation: the AI messages are kept as they are."""
    from langchain_core.messages import HumanMessage, ToolMessage

    bound = model.bind_tools([find, ping])
    history: list[Any] = [HumanMessage(first)]
    for step in range(LIMIT):
        if step % 2:
            reply: Any = None
            for chunk in bound.stream(history):
                reply = chunk if reply is None else reply + chunk
        else:
            reply = bound.invoke(history)
        history.append(reply)
        for call in reply.tool_calls:
            output = result(call["name"], call["args"])
            history.append(ToolMessage(output, tool_call_id=call["id"]))
        if not reply.tool_calls:
            break
    bound.invoke([*history, HumanMessage(AGAIN)])


def langchain_openai(url: str, key: str, model: str, first: str) -> None:
    from langchain_openai import ChatOpenAI

    _langchain(ChatOpenAI(base_url=f"{url}/v1", api_key=key, model=model, max_retries=0), first)


def langchain_openai_responses(url: str, key: str, model: str, first: str) -> None:
    from langchain_openai import ChatOpenAI

    asked = {"include": ["reasoning.encrypted_content"], "store": False}
    chat = ChatOpenAI(
        base_url=f"{url}/v1",
        api_key=key,
        model=model,
        max_retries=0,
        use_responses_api=True,
        **asked,
    )
    _langchain(chat, first)


def langchain_anthropic(url: str, key: str, model: str, first: str) -> None:
    from langchain_anthropic import ChatAnthropic

    thinking = {"type": "enabled", "budget_tokens": 2000}
    chat = ChatAnthropic(
        base_url=url, api_key=key, model=model, max_tokens=32000, max_retries=0, thinking=thinking
    )
    _langchain(chat, first)


def langchain_google(url: str, key: str, model: str, first: str) -> None:
    from langchain_google_genai import ChatGoogleGenerativeAI

    chat = ChatGoogleGenerativeAI(
        base_url=url, google_api_key=key, model=model, max_retries=1, include_thoughts=True
    )
    _langchain(chat, first)


# --- pydantic-ai ---------------------------------------------------------------------------------


def _pydantic_ai(model: Any, first: str, settings: Any = None) -> None:
    from pydantic_ai import Agent

    agent = Agent(model, tools=[find, ping], model_settings=settings)
    output = agent.run_sync(first)
    agent.run_sync(AGAIN, message_history=output.all_messages())


def pydantic_ai_openai(url: str, key: str, model: str, first: str) -> None:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{url}/v1", api_key=key)
    _pydantic_ai(OpenAIChatModel(model, provider=provider), first)


def pydantic_ai_responses(url: str, key: str, model: str, first: str) -> None:
    from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=f"{url}/v1", api_key=key)
    settings = OpenAIResponsesModelSettings(openai_reasoning_summary="auto")
    _pydantic_ai(OpenAIResponsesModel(model, provider=provider), first, settings)


def pydantic_ai_anthropic(url: str, key: str, model: str, first: str) -> None:
    from pydantic_ai.models.anthropic import AnthropicModel, AnthropicModelSettings
    from pydantic_ai.providers.anthropic import AnthropicProvider

    provider = AnthropicProvider(base_url=url, api_key=key)
    thinking: Any = {"type": "enabled", "budget_tokens": 2000}
    settings = AnthropicModelSettings(anthropic_thinking=thinking, max_tokens=20000)
    _pydantic_ai(AnthropicModel(model, provider=provider), first, settings)


def pydantic_ai_google(url: str, key: str, model: str, first: str) -> None:
    from pydantic_ai.models.google import GoogleModel, GoogleModelSettings
    from pydantic_ai.providers.google import GoogleProvider

    provider = GoogleProvider(api_key=key, base_url=url)
    settings = GoogleModelSettings(google_thinking_config={"include_thoughts": True})
    _pydantic_ai(GoogleModel(model, provider=provider), first, settings)


# --- openai-agents -------------------------------------------------------------------------------


def _agents(model: Any, first: str) -> None:
    from agents import Agent, ModelSettings, Runner, function_tool, set_tracing_disabled

    set_tracing_disabled(True)
    settings = ModelSettings(store=False, response_include=["reasoning.encrypted_content"])
    tools = [function_tool(find), function_tool(ping)]
    agent = Agent(name="a", model=model, tools=tools, model_settings=settings)

    async def play() -> None:
        output = await Runner.run(agent, first, max_turns=LIMIT)
        asked: Any = [*output.to_input_list(), {"role": "user", "content": AGAIN}]
        streamed = Runner.run_streamed(agent, asked, max_turns=LIMIT)
        async for _ in streamed.stream_events():
            pass

    asyncio.run(play())


def agents_chat(url: str, key: str, model: str, first: str) -> None:
    from agents import OpenAIChatCompletionsModel
    from openai import AsyncOpenAI

    sdk = AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    _agents(OpenAIChatCompletionsModel(model, sdk), first)


def agents_responses(url: str, key: str, model: str, first: str) -> None:
    from agents import OpenAIResponsesModel
    from openai import AsyncOpenAI

    sdk = AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    _agents(OpenAIResponsesModel(model, sdk), first)


# The name of each in the table, with the distribution whose version is shown.
FRAMEWORKS = {
    "langchain_openai": ("LangChain, `ChatOpenAI`", "langchain-openai"),
    "langchain_openai_responses": ("LangChain, `ChatOpenAI` on Responses", "langchain-openai"),
    "langchain_anthropic": ("LangChain, `ChatAnthropic`", "langchain-anthropic"),
    "langchain_google": ("LangChain, `ChatGoogleGenerativeAI`", "langchain-google-genai"),
    "pydantic_ai_openai": ("pydantic-ai, OpenAI chat", "pydantic-ai-slim"),
    "pydantic_ai_responses": ("pydantic-ai, Responses", "pydantic-ai-slim"),
    "pydantic_ai_anthropic": ("pydantic-ai, Anthropic", "pydantic-ai-slim"),
    "pydantic_ai_google": ("pydantic-ai, Google", "pydantic-ai-slim"),
    "agents_chat": ("openai-agents, chat completions", "openai-agents"),
    "agents_responses": ("openai-agents, Responses", "openai-agents"),
}

if __name__ == "__main__":
    name, url, key, *pairs = sys.argv[1:]
    os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"
    os.environ["LANGSMITH_TRACING"] = "false"
    for pair in pairs:  # MODEL=MARK, one after the other: importing takes longer than playing
        model, _, mark = pair.partition("=")
        try:
            globals()[name](url, key, model, f"{mark} Find a way from Zürich to Bern.")
        except Exception as error:
            print(f"{mark} {type(error).__name__}: {str(error)[:300]}")
