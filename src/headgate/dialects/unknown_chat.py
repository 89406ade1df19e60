"""What a body of Chat Completions holds and the dialect does not know."""

from collections import deque

import msgspec
from msgspec import Raw

from headgate.dialects.openai.request_wire import MessageIn
from headgate.dialects.unknown import (
    ROLE_NAMES,
    ROLES,
    Rewritten,
    arguments_of,
    check_counts,
    dump,
    load,
    named,
    note,
    rewrite_choice,
    rewrite_effort,
    rewrite_strings,
    rewritten_body,
    rewritten_tools,
    role_of,
    string,
    text_json,
)
from headgate.dialects.unknown_fields import names_of
from headgate.dialects.unknown_parts import call_of, drop_foreign, part_of, text_of, thoughts_beside
from headgate.errors import Refused

_Object = dict[str, object]


def chat(body: bytes, refused: Refused) -> Rewritten:
    """A Chat Completions body in words that are known, and the warnings; else `refused` again."""
    return rewritten_body(body, refused, _chat_fields)


def parameters(fields: dict[str, Raw], warnings: list[str]) -> None:
    """Put parameters that servers of open models have into this protocol's own.

    `enable_thinking` and `chat_template_kwargs` are vLLM's and SGLang's, `think` is Ollama's, `extra_body` is what
    OpenAI's SDK for Python spreads over the body and other clients send as it is.
    """
    if "extra_body" in fields:
        more = load(fields.pop("extra_body"))
        if isinstance(more, dict):
            fields |= {name: dump(value) for name, value in more.items() if name not in fields}
        else:
            warnings.append("extra_body")
    switch: object = None
    if "chat_template_kwargs" in fields:
        of_template = load(fields.pop("chat_template_kwargs"))
        if not isinstance(of_template, dict):
            of_template = {"chat_template_kwargs": of_template}
        for name, value in of_template.items():
            if name in ("enable_thinking", "thinking"):
                switch = value
            elif value is not None:
                warnings.append(f"chat_template_kwargs.{named(name)}")
    for name in ("enable_thinking", "think"):
        if name in fields:
            switch = load(fields.pop(name))
    stated = (load(fields[n]) for n in ("thinking", "reasoning_effort", "reasoning") if n in fields)
    if switch is None or any(value is not None for value in stated):
        return
    if isinstance(switch, bool):
        fields["thinking"] = dump({"type": "enabled" if switch else "disabled"})
    else:
        fields["reasoning_effort"] = dump(switch)


def _chat_fields(fields: dict[str, Raw], warnings: list[str]) -> None:
    if "messages" in fields:
        messages = load(fields["messages"])
        if isinstance(messages, list) and messages:
            check_counts(messages, "$.messages")
            fields["messages"] = dump(_chat_messages(messages, warnings))
    rewritten_tools(fields, warnings, _chat_tool)
    if "tool_choice" in fields:
        rewrite_choice(fields, warnings)
        choice = load(fields["tool_choice"])
        flat = choice if isinstance(choice, dict) else {}
        kind, name = string(flat.get("type")), string(flat.get("name"))
        if kind in ("function", "custom") and name:
            fields["tool_choice"] = dump({"type": kind, kind: {"name": name}})
    if "reasoning_effort" in fields:
        rewrite_effort(fields, "reasoning_effort", "reasoning_effort", warnings)
    if "thinking" in fields:
        thinking = load(fields["thinking"])
        switch = thinking.get("type") if isinstance(thinking, dict) else thinking
        if switch not in ("adaptive", "enabled", "disabled", None):
            del fields["thinking"]
            warnings.append("thinking")
    rewrite_strings(
        fields,
        ("service_tier", "verbosity", "prompt_cache_key", "user", "safety_identifier"),
        warnings,
    )


_OWN = names_of(MessageIn)
_REASONING = ("reasoning_details", "reasoning_content", "reasoning")


def _chat_messages(messages: list[object], warnings: list[str]) -> list[object]:
    out: list[object] = []
    function = ""  # the id of the last call in the old form, whose results have none
    waiting: deque[str] = deque()  # ids of the last calls, for results that have none
    end = len(messages) - 1
    for n, message in enumerate(messages):
        if isinstance(message, str):
            out.append({"role": "user", "content": message})
            continue
        if not isinstance(message, dict):
            warnings.append("messages")
            continue
        message = dict(message)
        role = message.get("role")
        if role == "function":
            if function:
                message |= {"role": "tool", "tool_call_id": function}
            else:
                message |= {"role": "user"}
                warnings.append("messages.function")
        elif string(role) not in ROLES and ("role" in message or n < end):
            message["role"] = ROLE_NAMES.get(string(role), "user")
            warnings.append("messages.role")
        if isinstance(call := message.pop("function_call", None), dict) and string(
            call.get("name")
        ):
            function = f"call_function_{n}"
            one = {"name": call["name"], "arguments": arguments_of(call.get("arguments"))}
            message["tool_calls"] = [{"id": function, "type": "function", "function": one}]
        elif call is not None:
            warnings.append("messages.function_call")
        thoughts = thoughts_beside(message, _OWN)
        _chat_strings(message, warnings)
        message = drop_foreign(message, _OWN, "messages.", warnings)
        role = message.get("role")
        if role == "assistant":
            if thoughts and not any(message.get(name) for name in _REASONING):
                message["reasoning_details"] = [
                    {"text": text, **({"signature": signature} if signature else {})}
                    for text, signature in thoughts
                ]
            _chat_calls(message, n, warnings)
            called = message.get("tool_calls")
            listed = called if isinstance(called, list) else []
            waiting = deque([call["id"] for call in listed if isinstance(call, dict)])
        else:
            message.pop("tool_calls", None)
        if role == "tool":
            id = message.get("tool_call_id")
            if not (isinstance(id, str) and id):
                warnings.append("messages.tool_call_id")
                if waiting:
                    message["tool_call_id"] = waiting.popleft()
                else:
                    message["role"] = "user"
            elif waiting and waiting[0] == id:
                waiting.popleft()
        # What stands behind a tool's result is what the tool returned.
        own = n == end and not (n and role_of(messages[n - 1]) in ("tool", "function"))
        _chat_content(message, own and role == "user", out, warnings)
    return out


def _chat_strings(message: _Object, warnings: list[str]) -> None:
    """Fields beside the content, of other types than they have."""
    for name in ("name", "tool_call_id"):
        if not isinstance(message.get(name, ""), str) and message.pop(name) is not None:
            warnings.append(f"messages.{name}")
    for name in ("reasoning_content", "reasoning"):
        value = message.get(name)
        if value is not None and not isinstance(value, str):
            warnings.append(f"messages.{name}")
            message[name] = text_of(value)
    details = message.get("reasoning_details")
    if details is None:
        return
    kept: list[object] = []
    for detail in details if isinstance(details, list) else [details]:
        if isinstance(detail, dict) and all(
            isinstance(detail.get(name), str | None) for name in ("text", "signature")
        ):
            kept.append({name: detail.get(name) for name in ("text", "signature")})
            continue
        warnings.append("messages.reasoning_details")
        if text := text_of(detail):
            kept.append({"text": text})
    message["reasoning_details"] = kept


def _chat_calls(message: _Object, turn: int, warnings: list[str]) -> None:
    """Calls of kinds that are not known, and arguments that are no text."""
    calls = message.get("tool_calls")
    if calls is None:
        return
    if not isinstance(calls, list):
        warnings.append("messages.tool_calls")
        calls = [calls]
    kept: list[object] = []
    lost: list[str] = []
    for n, call in enumerate(calls):
        if not isinstance(call, dict):
            warnings.append("messages.tool_calls")
            lost.append(text_of(call))
            continue
        inner = call.get("function")
        if not isinstance(inner, dict):
            inner = call.get("custom")
        custom = isinstance(inner, dict) and inner is call.get("custom")
        read = call_of({**call, **inner} if isinstance(inner, dict) else call, f"call_{turn}_{n}")
        if read is None:
            warnings.append(f"messages.tool_calls.{named(call.get('type'))}")
            lost.append(text_of(inner) or text_of(call) or note(call.get("type")))
        elif custom:
            id, name, _ = read
            text = inner.get("input") if isinstance(inner, dict) else ""
            text = text if isinstance(text, str) else text_json(text)
            kept.append({"id": id, "type": "custom", "custom": {"name": name, "input": text}})
        else:
            kept.append(_chat_call(*read))
    message["tool_calls"] = kept
    if any(lost):
        content = message.get("content")
        parts = content if isinstance(content, list) else [content] if content else []
        texts = [{"type": "text", "text": text} for text in lost if text]
        message["content"] = [*parts, *texts]


def _chat_call(id: str, name: str, arguments: str) -> _Object:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _chat_content(message: _Object, last: bool, out: list[object], warnings: list[str]) -> None:
    """Append the message with its parts in known words; results of tools become messages before it."""
    content, role = message.get("content"), string(message.get("role"))
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        if content is not None and not isinstance(content, str) and not last:
            message["content"] = text_json(content)
            warnings.append("messages.content")
        out.append(message)
        return
    parts: list[object] = []
    details: list[object] = []
    calls: list[object] = []
    before = len(out)
    for value in content:
        part = part_of(value, role, last)
        if part.warning:
            warnings.append(f"messages.content.{part.warning}")
        if part.keep:
            parts.append(value)
        if part.text:
            parts.append({"type": "text", "text": part.text})
        if part.media:
            kind, url, detail = part.media
            at = {"url": url, "detail": detail} if detail else {"url": url}
            parts.append({"type": f"{kind}_url", f"{kind}_url": at})
        if part.thought:
            text, signature = part.thought
            details.append({"text": text, **({"signature": signature} if signature else {})})
        if part.call:
            calls.append(_chat_call(*part.call))
        if part.result:
            id, result, failed = part.result
            answer: _Object = {"role": "tool", "tool_call_id": id, "content": result}
            if failed:  # this wire has no word for it
                answer["content"] = f"Error: {text_of(result)}"
            if result is not None and not isinstance(result, str | list | dict):
                answer["content"] = text_json(result)
            elif isinstance(result, dict) and not failed:
                answer["content"] = text_of(result) or text_json(result)
            _chat_content(answer, False, out, warnings)
    if details and not message.get("reasoning_details"):
        message["reasoning_details"] = details
    if calls and not message.get("tool_calls"):
        message["tool_calls"] = calls
    message["content"] = parts
    if parts or details or calls or len(out) == before:
        out.append(message)


def _chat_tool(tool: dict[str, Raw], kind: str) -> dict[str, Raw] | None:
    if kind not in ("function", "custom"):
        return None
    if kind not in tool and "name" in tool:  # flat, as in Responses (Cursor)
        inner = {name: value for name, value in tool.items() if name != "type"}
        return {"type": dump(kind), kind: Raw(msgspec.json.encode(inner))}
    return tool
