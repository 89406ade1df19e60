"""The official Python SDKs in a tool loop, each with the way of keeping history that is its users'.

The only place that plays clients without a framework (frameworks.py and vercel.mjs play those).
Every client takes a `Place` and goes through one conversation: it asks, runs the tools until none
is called, and asks once more.  Every second turn is streamed, so both kinds of reply are covered.
"""

import itertools
import json
from collections.abc import Callable
from typing import Any

import anthropic
import msgspec
import openai
from google import genai
from google.genai import types
from scripted_replies import AGAIN, result

FIND: dict[str, Any] = {
    "type": "object",
    "properties": {"place": {"type": "string"}},
    "required": ["place"],
}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
LIMIT = 30  # steps of one loop, in case it never ends


class Place(msgspec.Struct):
    """Where one conversation happens."""

    url: str
    key: str
    model: str
    mark: str  # "[talk NAME TURNS]"

    @property
    def first(self) -> str:
        return f"{self.mark} Find a way from Zürich to Bern."


Client = Callable[[Place], None]
CLIENTS: dict[str, Client] = {}


def client(name: str) -> Callable[[Client], Client]:
    def add(play: Client) -> Client:
        CLIENTS[name] = play
        return play

    return add


# --- OpenAI chat ---------------------------------------------------------------------------------


def _chat_tools() -> list[dict[str, Any]]:
    tools = (("find", FIND), ("ping", NOTHING))
    return [{"type": "function", "function": {"name": n, "parameters": p}} for n, p in tools]


def _chat(place: Place, keep: Callable[[Any], Any]) -> None:
    """A loop over chat completions that keeps of each message what `keep` says."""
    with openai.OpenAI(base_url=f"{place.url}/v1", api_key=place.key, max_retries=0) as sdk:
        history: list[Any] = [{"role": "user", "content": place.first}]
        given: dict[str, Any] = {"model": place.model, "tools": _chat_tools()}
        for step in range(LIMIT):
            if step % 2:
                with sdk.chat.completions.stream(messages=history, **given) as events:
                    message: Any = events.get_final_completion().choices[0].message
            else:
                message = sdk.chat.completions.create(messages=history, **given).choices[0].message
            history.append(keep(message))
            for call in message.tool_calls or ():
                output = result(call.function.name, json.loads(call.function.arguments))
                history.append({"role": "tool", "tool_call_id": call.id, "content": output})
            if not message.tool_calls:
                break
        history.append({"role": "user", "content": AGAIN})
        sdk.chat.completions.create(messages=history, **given)


def _calls(message: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": c.id,
            "type": "function",
            "function": {"name": c.function.name, "arguments": c.function.arguments},
        }
        for c in message.tool_calls or ()
    ]


@client("OpenAI SDK, the message object as it is")
def openai_object(place: Place) -> None:
    def keep(message: Any) -> Any:
        kept = message.model_dump(exclude_none=True)
        for call in kept.get("tool_calls", ()):  # what the stream helper adds
            call["function"].pop("parsed_arguments", None)
        kept.pop("parsed", None)
        return kept

    _chat(place, keep)


@client("OpenAI SDK, `reasoning_content` only (opencode, Cline, Copilot)")
def openai_reasoning_content(place: Place) -> None:
    def keep(message: Any) -> Any:
        kept = {"role": "assistant", "content": message.content or ""}
        thought = (message.model_extra or {}).get("reasoning_content")
        if thought:
            kept["reasoning_content"] = thought
        calls = _calls(message)
        return {**kept, "tool_calls": calls} if calls else kept

    _chat(place, keep)


@client("OpenAI SDK, content and tool_calls only")
def openai_plain(place: Place) -> None:
    def keep(message: Any) -> Any:
        kept = {"role": "assistant", "content": message.content}
        calls = _calls(message)
        return {**kept, "tool_calls": calls} if calls else kept

    _chat(place, keep)


@client("OpenAI SDK, content trimmed, calls renumbered")
def openai_trimmed(place: Place) -> None:
    """As agents do that keep a transcript of their own: strange ids, no white space at the ends."""
    numbers = itertools.count()

    def keep(message: Any) -> Any:
        kept = {"role": "assistant", "content": (message.content or "").strip() or None}
        calls = _calls(message)
        for call, own in zip(calls, message.tool_calls or (), strict=True):
            own.id = call["id"] = f"c{next(numbers)}"
            call["function"]["arguments"] = json.dumps(json.loads(call["function"]["arguments"]))
        return {**kept, "tool_calls": calls} if calls else kept

    _chat(place, keep)


# --- Anthropic -----------------------------------------------------------------------------------

THINKING = {"type": "enabled", "budget_tokens": 2000}


def _messages(place: Place, thinking: dict[str, Any] | None, keep: Callable[[Any], Any]) -> None:
    with anthropic.Anthropic(base_url=place.url, api_key=place.key, max_retries=0) as sdk:
        tools = [{"name": n, "input_schema": s} for n, s in (("find", FIND), ("ping", NOTHING))]
        history: list[Any] = [{"role": "user", "content": place.first}]
        given: dict[str, Any] = {"model": place.model, "max_tokens": 32000, "tools": tools}
        given["timeout"] = 60
        if thinking is not None:
            given["extra_body"] = {"thinking": thinking}
        for step in range(LIMIT):
            if step % 2:
                with sdk.messages.stream(messages=history, **given) as events:
                    reply: Any = events.get_final_message()
            else:
                reply = sdk.messages.create(messages=history, **given)
            history.append({"role": "assistant", "content": keep(reply.content)})
            results = [
                {"type": "tool_result", "tool_use_id": b.id, "content": result(b.name, b.input)}
                for b in reply.content
                if b.type == "tool_use"
            ]
            if not results:
                break
            history.append({"role": "user", "content": results})
        history.append({"role": "user", "content": AGAIN})
        sdk.messages.create(messages=history, **given)


@client("Anthropic SDK, content blocks as they are")
def anthropic_blocks(place: Place) -> None:
    _messages(place, THINKING, lambda content: content)


@client("Anthropic SDK, `display: omitted` (Claude Code)")
def anthropic_omitted(place: Place) -> None:
    _messages(place, {"type": "adaptive", "display": "omitted"}, lambda content: content)


@client("Anthropic SDK, thinking not asked for")
def anthropic_unasked(place: Place) -> None:
    _messages(place, None, lambda content: content)


@client("Anthropic SDK, thinking blocks dropped (claude-code-router)")
def anthropic_dropped(place: Place) -> None:
    _messages(place, THINKING, lambda c: [b for b in c if b.type != "thinking"])


# --- Gemini --------------------------------------------------------------------------------------


def _gemini(place: Place) -> genai.Client:
    options = types.HttpOptions(base_url=place.url)
    return genai.Client(api_key=place.key, vertexai=False, http_options=options)


def _gemini_config(thoughts: bool) -> types.GenerateContentConfig:
    declared = [
        types.FunctionDeclaration(name=n, parameters_json_schema=s)
        for n, s in (("find", FIND), ("ping", NOTHING))
    ]
    return types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=declared)],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        thinking_config=types.ThinkingConfig(include_thoughts=True) if thoughts else None,
    )


def _answers(parts: list[types.Part]) -> list[types.Part]:
    out = []
    for part in parts:
        if call := part.function_call:
            output = types.FunctionResponse(
                id=call.id, name=call.name, response={"output": result(call.name, call.args or {})}
            )
            out.append(types.Part(function_response=output))
    return out


@client("google-genai, chat object")
def gemini_chat(place: Place) -> None:
    sdk = _gemini(place)
    chat = sdk.chats.create(model=place.model, config=_gemini_config(True))
    output: Any = place.first
    for step in range(LIMIT):
        if step % 2:
            chunks = list(chat.send_message_stream(output))
            parts = [p for c in chunks if c.candidates for p in c.candidates[0].content.parts or ()]
        else:
            parts = chat.send_message(output).candidates[0].content.parts
        output = _answers(parts)
        if not output:
            break
    chat.send_message(AGAIN)


def _contents(
    place: Place, thoughts: bool, keep: Callable[[types.Part], types.Part | None]
) -> None:
    sdk = _gemini(place)
    config = _gemini_config(thoughts)
    history = [types.Content(role="user", parts=[types.Part(text=place.first)])]
    for step in range(LIMIT):
        given: dict[str, Any] = {"model": place.model, "contents": history, "config": config}
        if step % 2:
            chunks = list(sdk.models.generate_content_stream(**given))
            parts = [p for c in chunks if c.candidates for p in c.candidates[0].content.parts or ()]
        else:
            parts = sdk.models.generate_content(**given).candidates[0].content.parts
        kept = [k for p in parts if (k := keep(p)) is not None]
        history.append(types.Content(role="model", parts=kept))
        answers = _answers(parts)
        if not answers:
            break
        history.append(types.Content(role="user", parts=answers))
    history.append(types.Content(role="user", parts=[types.Part(text=AGAIN)]))
    sdk.models.generate_content(model=place.model, contents=history, config=config)


@client("google-genai, contents, thoughts not asked for")
def gemini_contents(place: Place) -> None:
    _contents(place, False, lambda part: part)


@client("google-genai, thought parts dropped (Gemini CLI)")
def gemini_dropped(place: Place) -> None:
    _contents(place, True, lambda part: None if part.thought else part)


@client("google-genai, thoughts and signatures dropped")
def gemini_bare(place: Place) -> None:
    def keep(part: types.Part) -> types.Part | None:
        if part.thought or (not part.text and not part.function_call):
            return None
        return types.Part(text=part.text, function_call=part.function_call)

    _contents(place, True, keep)


# --- Responses -----------------------------------------------------------------------------------


def _responses(place: Place, keep: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    with openai.OpenAI(base_url=f"{place.url}/v1", api_key=place.key, max_retries=0) as sdk:
        history: list[Any] = [{"role": "user", "content": place.first}]
        given: dict[str, Any] = {
            "model": place.model,
            "tools": [
                {"type": "function", "name": n, "parameters": s, "strict": False}
                for n, s in (("find", FIND), ("ping", NOTHING))
            ],
            "include": ["reasoning.encrypted_content"],
            "reasoning": {"summary": "auto"},
            "store": False,
        }
        for step in range(LIMIT):
            if step % 2:
                with sdk.responses.stream(input=history, **given) as events:
                    reply: Any = events.get_final_response()
            else:
                reply = sdk.responses.create(input=history, **given)
            results = []
            for item in reply.output:
                kept = item.model_dump(exclude_none=True)
                kept.pop("parsed_arguments", None)
                for content in kept.get("content") or ():
                    content.pop("parsed", None)
                if (keeps := keep(kept)) is not None:
                    history.append(keeps)
                if item.type == "function_call":
                    output = result(item.name, json.loads(item.arguments))
                    results.append(
                        {"type": "function_call_output", "call_id": item.call_id, "output": output}
                    )
            history += results
            if not results:
                break
        history.append({"role": "user", "content": AGAIN})
        sdk.responses.create(input=history, **given)


@client("Responses, output items as they are")
def responses_items(place: Place) -> None:
    _responses(place, lambda item: item)


@client("Responses, `encrypted_content` only (Codex)")
def responses_sealed(place: Place) -> None:
    def keep(item: dict[str, Any]) -> dict[str, Any]:
        if item["type"] != "reasoning":
            return {k: v for k, v in item.items() if k not in ("id", "status")}
        return {"type": "reasoning", "summary": [], "encrypted_content": item["encrypted_content"]}

    _responses(place, keep)


@client("Responses, reasoning items dropped")
def responses_dropped(place: Place) -> None:
    _responses(place, lambda item: None if item["type"] == "reasoning" else item)


@client("Responses, reasoning as `<think>` text (pydantic-ai)")
def responses_tagged(place: Place) -> None:
    def keep(item: dict[str, Any]) -> dict[str, Any]:
        if item["type"] != "reasoning":
            return item
        thought = "\n\n".join(p["text"] for p in item.get("content") or item["summary"])
        text = {"type": "output_text", "text": f"<think>\n{thought}\n</think>", "annotations": []}
        return {"type": "message", "role": "assistant", "content": [text]}

    _responses(place, keep)
