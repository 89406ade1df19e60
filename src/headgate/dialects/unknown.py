"""The policy for what a request holds and its dialect does not know, in one place.

- History (messages, items, parts, results) is rewritten in words that the dialect knows, kept as
  text, or skipped; its user cannot take it back.
- A hint with an unknown value becomes the nearest known one, or is ignored.
- Only a request for an effect is refused, by the dialect itself and by name: n > 1, audio output, a
  forced tool that is not there, a file that the user attaches to the last message.

Whatever is lost is named in the warnings.  A dialect calls `chat` or `responses` after it refused a
body, so that usual requests pay nothing.  Both work on plain JSON: a body in, a body out.

The kinds are those of openai 3.57 (response_input_item_param, chat_completion_message_param), of
Anthropic's blocks, LangChain's standard content and the AI SDK's parts (read 2026-11).
"""

import base64
import binascii
import re
from collections import deque
from collections.abc import Callable

import msgspec
from msgspec import Raw

from headgate import bounds, jsontext
from headgate.errors import Refused

_Object = dict[str, object]

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
# Names of other vendors and of later releases; what asks for the usual effort is left out.
_NEAREST = {
    "ultra": "max",
    "ultracode": "max",
    "maximum": "max",
    "highest": "max",
    "extra_high": "xhigh",
    "extra-high": "xhigh",
    "x-high": "xhigh",
    "very_high": "xhigh",
    "moderate": "medium",
    "mid": "medium",
    "normal": "medium",
    "minimum": "minimal",
    "min": "minimal",
    "lowest": "minimal",
    "light": "low",
    "off": "none",
    "disabled": "none",
    "disable": "none",
    "false": "none",
}
TIERS = frozenset(("auto", "default", "standard", "priority"))

MOST_WARNINGS = 32  # the header stays below a few kB; a client may invent any number of kinds
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,47}")

Rewritten = tuple[bytes, tuple[str, ...]]


def chat(body: bytes, refused: Refused) -> Rewritten:
    """A Chat Completions body in words that are known, and the warnings; else `refused` again."""
    return _rewritten(body, refused, _chat_fields)


def responses(body: bytes, refused: Refused) -> Rewritten:
    """The same for a body of Responses."""
    return _rewritten(body, refused, _responses_fields)


def warned(warnings: list[str]) -> tuple[str, ...]:
    """Each warning once, and no more than a header has room for."""
    names = tuple(dict.fromkeys(warnings))
    return names if len(names) <= MOST_WARNINGS else (*names[: MOST_WARNINGS - 1], "more")


def named(kind: object) -> str:
    """A client's name for a kind, as it may stand in a header and in a note."""
    return kind if isinstance(kind, str) and _PLAIN.fullmatch(kind) else "unknown"


def note(kind: object) -> str:
    """What the model reads in place of something that it cannot read."""
    return f"[{_NOUNS.get(named(kind), f'content of the kind `{named(kind)}`')} was here; this model cannot read it]"


_NOUNS = {
    "image": "an image",
    "image_url": "an image",
    "input_image": "an image",
    "video_url": "a video",
    "video": "a video",
    "input_video": "a video",
    "file": "a file",
    "input_file": "a file",
    "document": "a document",
    "audio": "audio",
    "input_audio": "audio",
}


_MISSING = "Object missing required field"  # as msgspec says it


def _rewritten(
    body: bytes, refused: Refused, rewrite: "Callable[[dict[str, Raw], list[str]], None]"
) -> Rewritten:
    failure, warnings = refused.failure, list[str]()
    # Of the body as a whole only a field that is missing is mended: its bounds hold whatever is in it.
    mendable = failure.param.startswith("$.") or failure.message.startswith(_MISSING)
    if failure.kind != "invalid" or not mendable:
        raise refused
    try:
        fields = msgspec.json.decode(body, type=dict[str, Raw])
        before = dict(fields)
        jsontext.check_duplicates(body)
        rewrite(fields, warnings)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise refused from None
    if not warnings and fields == before:
        raise refused
    return msgspec.json.encode(fields), warned(warnings)


def _load(raw: Raw) -> object:
    return msgspec.json.decode(raw)


def _text_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _dump(value: object) -> Raw:
    if isinstance(value, list):  # one by one: the encoder keeps Python's lock for each call
        return Raw(b"[" + b",".join([msgspec.json.encode(each) for each in value]) + b"]")
    return Raw(msgspec.json.encode(value))


def _check_counts(holders: list[object], param: str) -> None:
    """Refuse too many messages, items or parts before they are rewritten, wherever parts are nested."""
    bounds.check_size(holders, bounds.MESSAGES, param)
    tally = bounds.Tally()
    for n, holder in enumerate(holders):
        inside = [holder]
        while inside:
            value = inside.pop()
            if not isinstance(value, dict):
                continue
            for name in ("content", "output", "result"):
                if isinstance(parts := value.get(name), list):
                    tally.add(parts, f"{param}[{n}].{name}")
                    inside += parts


# --- what can be read of anything ------------------------------------------------------------------

_TEXTS = (
    "text",
    "refusal",
    "thinking",
    "reasoning",
    "content",
    "summary",
    "output",
    "result",
    "stdout",
    "stderr",
    "transcript",
    "output_text",
    "parts",
)
_DEEPEST = 8  # real parts nest two or three times


def text_of(value: object, depth: int = 0) -> str:
    """The text that stands in a part or item of any kind; empty when there is none."""
    if isinstance(value, str):
        return value
    if depth > _DEEPEST:
        return ""
    if isinstance(value, list):
        return "\n".join([t for each in value if (t := text_of(each, depth + 1))])
    if isinstance(value, dict):
        found = [t for name in _TEXTS if name in value and (t := text_of(value[name], depth + 1))]
        return "\n".join(found)
    return ""


_TEXT_KINDS = frozenset(("text", "input_text", "output_text", "refusal", "summary_text"))
_THOUGHTS = frozenset(
    ("thinking", "reasoning", "reasoning_text", "redacted_thinking", "reasoning_content")
)
_CALLS = frozenset(("tool_use", "tool_call", "tool-call", "function_call", "server_tool_use"))
_RESULTS = frozenset(("tool_result", "tool-result", "function_call_output"))
_MEDIA = frozenset(("image_url", "video_url", "input_image", "image", "input_video", "video"))
_ATTACHED = frozenset(("file", "input_file", "document", "input_audio", "audio"))


def _first(value: _Object, *names: str) -> object:
    for name in names:
        if value.get(name) is not None:
            return value[name]
    return None


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: object) -> str:
    """A call's arguments as the text of a JSON object."""
    if isinstance(value, str):
        return value
    return _text_json({} if value is None else value)


def _call(part: _Object, default: str = "") -> tuple[str, str, str] | None:
    """Id, name and arguments of a call in any vendor's form; `default` is the id of one without."""
    id = _string(_first(part, "call_id", "tool_call_id", "toolCallId", "id")) or default
    name = _string(_first(part, "name", "toolName", "tool_name"))
    if not (id and name):
        return None
    return id, name, _arguments(_first(part, "arguments", "input", "args"))


def _address(part: _Object) -> tuple[str, str]:
    """The URL of a picture or a film in any vendor's form, and its detail."""
    at = _first(part, "image_url", "video_url", "image", "video", "source", "url", "data")
    detail = _string(part.get("detail"))
    kind = _string(_first(part, "mediaType", "media_type", "mime_type"))
    data: object = None
    if isinstance(at, dict):
        detail = _string(at.get("detail")) or detail
        kind = _string(_first(at, "media_type", "mediaType")) or kind
        data, at = at.get("data"), at.get("url")
    elif isinstance(at, str) and not at.startswith(("http://", "https://", "data:")):
        data, at = at, None
    if isinstance(part.get("base64"), str):
        data = part["base64"]
    if not isinstance(at, str) and isinstance(data, str):
        at = f"data:{kind or 'image/png'};base64,{data}"
    return _string(at), detail


def _sound(url: str) -> bool:
    """Whether an upstream could read what is at this URL, as far as we can see."""
    if url.startswith(("http://", "https://")):
        return True
    head, _, data = url.partition(",")
    if not (head.startswith(("data:image/", "data:video/")) and head.endswith(";base64") and data):
        return False
    try:
        return bool(binascii.a2b_base64(data, strict_mode=True))
    except ValueError:
        return False


_OUTPUTS = frozenset(("text", "json", "error-text", "error-json", "content"))


def _unwrapped(output: object) -> tuple[object, bool]:
    """What a tool returned, out of the AI SDK's `{type, value}`, and whether it failed."""
    kind = output.get("type") if isinstance(output, dict) else None
    if not isinstance(output, dict) or kind not in _OUTPUTS or "value" not in output:
        return output, False
    value = output["value"]
    if not isinstance(value, str | list):
        value = _text_json(value)
    return value, _string(kind).startswith("error")


class _Part:
    """One content part, as text, media, a thought, a call, a result, or what stays as it is."""

    __slots__ = ("call", "keep", "media", "result", "text", "thought", "warning")

    def __init__(self) -> None:
        self.text = ""
        self.media: tuple[str, str, str] | None = None  # image or video, URL, detail
        self.thought: tuple[str, str] | None = None  # text and signature
        self.call: tuple[str, str, str] | None = None
        self.result: tuple[str, object, bool] | None = None  # call id, content, is_error
        self.keep = False
        self.warning = ""


def _part(value: object, role: str, last: bool) -> _Part:
    """`last`: the part stands in the last message, of a user, who can still be asked to change it."""
    out = _Part()
    if isinstance(value, str):
        out.text = value
        return out
    if not isinstance(value, dict):
        out.warning = "unknown"
        return out
    kind = value.get("type")
    if kind is None and isinstance(value.get("text"), str):
        kind = "text"
    name = named(kind)
    if name in _TEXT_KINDS:
        out.text = text_of(_first(value, "text", "refusal"))
    elif name in _THOUGHTS:
        text = text_of(value)
        if role == "assistant" and text:
            out.thought = text, _string(value.get("signature"))
        else:
            out.warning = name
    elif name in _CALLS and role == "assistant" and (call := _call(value)):
        out.call = call
    elif name in _RESULTS and role != "assistant":
        id = _string(_first(value, "tool_use_id", "tool_call_id", "toolCallId", "call_id"))
        content, failed = _unwrapped(_first(value, "content", "output", "result"))
        if id:
            out.result = id, content, failed or _first(value, "is_error", "isError") is True
        else:
            out.text, out.warning = text_of(content), name
    elif name in _MEDIA:
        url, detail = _address(value)
        sound = role in ("user", "tool") and _sound(url)
        if last and role == "user" and not sound:
            out.keep = True
        elif sound:
            kind = "video" if "video" in name else "image"
            if detail not in ("", "low", "high", "auto"):
                detail, out.warning = "high" if detail == "original" else "", "detail"
            out.media = kind, url, detail
        else:
            out.text, out.warning = note(name), name
    elif name in _ATTACHED and last and role == "user":
        out.keep = True
    else:
        out.text, out.warning = ("" if name in _ATTACHED else text_of(value)) or note(kind), name
    return out


# --- Chat Completions ------------------------------------------------------------------------------

_ROLES = frozenset(("system", "developer", "user", "assistant", "tool"))
_ROLE_NAMES = {"human": "user", "ai": "assistant", "model": "assistant", "bot": "assistant"}


def _chat_fields(fields: dict[str, Raw], warnings: list[str]) -> None:
    if "messages" in fields:
        messages = _load(fields["messages"])
        if isinstance(messages, list) and messages:
            _check_counts(messages, "$.messages")
            fields["messages"] = _dump(_chat_messages(messages, warnings))
    _tools(fields, warnings, _chat_tool)
    if "tool_choice" in fields:
        choice = _load(fields["tool_choice"])
        flat = choice if isinstance(choice, dict) else {}
        kind, name = _string(flat.get("type")), _string(flat.get("name"))
        if kind in ("function", "custom") and name:
            fields["tool_choice"] = _dump({"type": kind, kind: {"name": name}})
    if "reasoning_effort" in fields:
        _effort(fields, "reasoning_effort", "reasoning_effort", warnings)
    if "thinking" in fields:
        thinking = _load(fields["thinking"])
        switch = thinking.get("type") if isinstance(thinking, dict) else thinking
        if switch not in ("adaptive", "enabled", "disabled", None):
            del fields["thinking"]
            warnings.append("thinking")
    _strings(
        fields,
        ("service_tier", "verbosity", "prompt_cache_key", "user", "safety_identifier"),
        warnings,
    )


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
        elif _string(role) not in _ROLES and ("role" in message or n < end):
            message["role"] = _ROLE_NAMES.get(_string(role), "user")
            warnings.append("messages.role")
        if isinstance(call := message.pop("function_call", None), dict) and _string(
            call.get("name")
        ):
            function = f"call_function_{n}"
            one = {"name": call["name"], "arguments": _arguments(call.get("arguments"))}
            message["tool_calls"] = [{"id": function, "type": "function", "function": one}]
        elif call is not None:
            warnings.append("messages.function_call")
        _chat_strings(message, warnings)
        role = message.get("role")
        if role == "assistant":
            _chat_calls(message, n, warnings)
            ids = [c["id"] for c in message.get("tool_calls") or () if isinstance(c, dict)]
            waiting = deque(ids)
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
        own = n == end and not (n and _role(messages[n - 1]) in ("tool", "function"))
        _chat_content(message, own and role == "user", out, warnings)
    return out


def _role(message: object) -> str:
    return _string(message.get("role")) if isinstance(message, dict) else ""


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
        read = _call({**call, **inner} if isinstance(inner, dict) else call, f"call_{turn}_{n}")
        if read is None:
            warnings.append(f"messages.tool_calls.{named(call.get('type'))}")
            lost.append(text_of(inner) or text_of(call) or note(call.get("type")))
        elif custom:
            id, name, _ = read
            text = inner.get("input") if isinstance(inner, dict) else ""
            text = text if isinstance(text, str) else _text_json(text)
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
    content, role = message.get("content"), _string(message.get("role"))
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        if content is not None and not isinstance(content, str) and not last:
            message["content"] = _text_json(content)
            warnings.append("messages.content")
        out.append(message)
        return
    parts: list[object] = []
    details: list[object] = []
    calls: list[object] = []
    before = len(out)
    for value in content:
        part = _part(value, role, last)
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
                answer["content"] = _text_json(result)
            elif isinstance(result, dict) and not failed:
                answer["content"] = text_of(result) or _text_json(result)
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
        return {"type": _dump(kind), kind: Raw(msgspec.json.encode(inner))}
    return tool


# --- tools and hints of both -----------------------------------------------------------------------


def _tools(
    fields: dict[str, Raw],
    warnings: list[str],
    read: "Callable[[dict[str, Raw], str], dict[str, Raw] | None]",
) -> None:
    """Leave out the tools of kinds that are not known; `tool_choice` that forces one is refused."""
    if "tools" not in fields or not bytes(fields["tools"]).startswith(b"["):
        return
    kept: list[Raw] = []
    changed = False
    for raw in msgspec.json.decode(fields["tools"], type=list[Raw]):
        if not bytes(raw).startswith(b"{"):
            kept.append(raw)
            continue
        tool = msgspec.json.decode(raw, type=dict[str, Raw])
        kind = _load(tool["type"]) if "type" in tool else "function"
        new = read(tool, _string(kind))
        if new is None:
            warnings.append(f"tools.{named(kind)}")
        elif new is tool:
            kept.append(raw)
            continue
        else:
            kept.append(Raw(msgspec.json.encode(new)))
        changed = True
    if changed:
        fields["tools"] = Raw(msgspec.json.encode(kept))


def effort(value: object) -> str:
    """The nearest known effort; empty where the value asks for none in particular."""
    word = value.strip().lower() if isinstance(value, str) else ""
    return word if word in EFFORTS else _NEAREST.get(word, "")


def word_of(raw: Raw) -> str:
    """The word of a hint; "" for none, and "?" for what is no word."""
    if bytes(raw) in (b"", b"null"):
        return ""
    value = _load(raw)
    return value if isinstance(value, str) else "?"


def _effort(fields: dict[str, Raw], name: str, warning: str, warnings: list[str]) -> None:
    value = _load(fields[name])
    if value is None or value in EFFORTS:
        return
    warnings.append(warning)
    if known := effort(value):
        fields[name] = _dump(known)
    else:
        del fields[name]


def _strings(fields: dict[str, Raw], names: tuple[str, ...], warnings: list[str]) -> None:
    """Hints of a wrong type are left out."""
    for name in names:
        if name in fields and bytes(fields[name])[:1] not in (b'"', b"n"):
            del fields[name]
            warnings.append(name)


# --- Responses -------------------------------------------------------------------------------------


def _responses_fields(fields: dict[str, Raw], warnings: list[str]) -> None:
    if "input" not in fields and "messages" in fields:  # as in chat
        fields["input"] = fields.pop("messages")
    if "input" in fields:
        items = _load(fields["input"])
        if isinstance(items, list) and items:
            _check_counts(items, "$.input")
            fields["input"] = _dump(_Items(items, warnings).out)
    _tools(fields, warnings, lambda tool, kind: _responses_tool(tool, kind, warnings))
    if "tool_choice" in fields:
        _allowed(fields, warnings)
    _nested(fields, "reasoning", warnings, ("summary", "generate_summary"), effort_in="effort")
    _nested(fields, "text", warnings, ("verbosity",))
    _strings(
        fields,
        ("service_tier", "truncation", "prompt_cache_key", "safety_identifier", "user"),
        warnings,
    )
    if "include" in fields:
        include = _load(fields["include"])
        if not (include is None or isinstance(include, list)) or (
            isinstance(include, list) and any(not isinstance(name, str) for name in include)
        ):
            del fields["include"]
            warnings.append("include")


def _nested(
    fields: dict[str, Raw],
    name: str,
    warnings: list[str],
    strings: tuple[str, ...],
    effort_in: str = "",
) -> None:
    if name not in fields or bytes(fields[name]) == b"null":
        return
    if not bytes(fields[name]).startswith(b"{"):
        del fields[name]
        warnings.append(name)
        return
    inner = msgspec.json.decode(fields[name], type=dict[str, Raw])
    inside: list[str] = []
    if effort_in in inner:
        _effort(inner, effort_in, effort_in, inside)
    _strings(inner, strings, inside)
    if inside:
        warnings += [f"{name}.{each}" for each in inside]
        fields[name] = Raw(msgspec.json.encode(inner))


_TOOLS = ("function", "custom", "namespace", "tool_search")


def _responses_tool(tool: dict[str, Raw], kind: str, warnings: list[str]) -> dict[str, Raw] | None:
    if kind.startswith("web_search") or kind in ("function", "custom", "tool_search"):
        if kind == "function" and "name" not in tool and "function" in tool:  # as in chat
            inner = msgspec.json.decode(tool["function"], type=dict[str, Raw])
            return {"type": _dump("function"), **inner}
        return tool if "type" in tool else {"type": _dump("function"), **tool}
    if kind != "namespace":
        return None
    inside = dict(tool)
    _tools(inside, warnings, lambda t, k: t if k in ("function", "custom") else None)
    return tool if inside == tool else inside


def _allowed(fields: dict[str, Raw], warnings: list[str]) -> None:
    choice = _load(fields["tool_choice"])
    if not isinstance(choice, dict):
        return
    if choice.get("type") == "function" and isinstance(inner := choice.get("function"), dict):
        fields["tool_choice"] = _dump({"type": "function", **inner})
        return
    tools = choice.get("tools")
    if choice.get("type") != "allowed_tools" or not isinstance(tools, list):
        return
    kept = []
    for tool in tools:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and (kind in _TOOLS or kind.startswith("web_search")):
            kept.append(tool)
        else:
            warnings.append(f"tool_choice.{named(kind)}")
    if len(kept) < len(tools):
        fields["tool_choice"] = _dump({**choice, "tools": kept})


COMPACTED = "headgate-summary-1:"  # begins the `encrypted_content` of our own compaction items
SUMMARY = "Summary of the conversation so far:\n\n"


def compacted(summary: str) -> str:
    """A summary as the content of a compaction item; encoded for transport, not a secret."""
    return COMPACTED + base64.urlsafe_b64encode(summary.encode()).decode()


def _summary(content: object) -> str:
    """The summary in a compaction item of ours; empty for those of others, which are sealed."""
    if not isinstance(content, str) or not content.startswith(COMPACTED):
        return ""
    try:
        return base64.urlsafe_b64decode(content[len(COMPACTED) :]).decode()
    except ValueError:
        return ""


_TOOL_FIELDS = {
    "name": str,
    "description": str,
    "strict": bool,
    "parameters": dict,
    "format": dict,
    "execution": str,
    "tools": list,
}
_OUTPUT = ("function_call_output", "custom_tool_call_output")
# What requests.py reads or leaves out by itself.
_READ = frozenset(
    (
        "reasoning",
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "tool_search_call",
        "tool_search_output",
        "additional_tools",
        "compaction_trigger",
    )
)


# The fields that are read of an item; others may have any type.
_FIELDS = {
    "message": frozenset(("type", "role", "content")),
    "reasoning": frozenset(("type", "content", "summary", "encrypted_content")),
    "web_search_call": frozenset(("type", "id", "action")),
    "file_search_call": frozenset(("type",)),
    "code_interpreter_call": frozenset(("type",)),
    "additional_tools": frozenset(("type", "tools")),
    "compaction_trigger": frozenset(("type",)),
    "tool_search_call": frozenset(("type", "call_id", "arguments")),
    "tool_search_output": frozenset(("type", "call_id", "tools")),
    "function_call": frozenset(("type", "call_id", "name", "namespace", "arguments")),
    "custom_tool_call": frozenset(("type", "call_id", "name", "namespace", "input")),
    "function_call_output": frozenset(("type", "call_id", "output")),
    "custom_tool_call_output": frozenset(("type", "call_id", "output")),
}


def _only(item: object) -> object:
    """The item without the fields that are not read of its kind."""
    if not isinstance(item, dict):
        return item
    read = _FIELDS[_string(item.get("type")) or "message"]
    return {name: value for name, value in item.items() if name in read}


class _Items:
    """The items of an `input` in words that are known; `out` has them."""

    def __init__(self, items: list[object], warnings: list[str]) -> None:
        self.out: list[object] = []
        self._warnings = warnings
        self._end = len(items) - 1
        self._ids: set[str] = set()
        self._calls: set[str] = set()
        self._answered: set[str] = set()
        self._referred = False  # calls may be among the items that are only referred to
        for item in items:
            if not isinstance(item, dict):
                continue
            kind, call = _string(item.get("type")), _string(item.get("call_id"))
            if kind == "item_reference" or (not kind and not item.get("role") and item.get("id")):
                self._referred = True
            else:
                self._ids.add(_string(item.get("id")))
            if kind.endswith("output"):
                self._answered.add(call or _string(item.get("id")))
            elif kind.endswith("call") or kind == "program":
                self._calls.add(call)
        before = items[-2] if len(items) > 1 else None
        kind = _string(before.get("type")) if isinstance(before, dict) else ""
        # What stands behind a tool's result is what the tool returned.
        returned = kind.endswith("output") or _role(before) in ("tool", "function")
        for n, item in enumerate(items):
            self._item(item, n == self._end and not returned)
        self.out = [_only(item) for item in self.out]

    def _lost(self, kind: object) -> None:
        self._warnings.append(f"input.{named(kind)}")

    def _say(self, text: str, role: str = "user") -> None:
        kind = "output_text" if role == "assistant" else "input_text"
        content = [{"type": kind, "text": text}]
        self.out.append({"type": "message", "role": role, "content": content})

    def _item(self, item: object, last: bool) -> None:
        if isinstance(item, str):
            self._say(item)
            return
        if not isinstance(item, dict):
            self._lost(None)
            return
        kind = item.get("type")
        if kind == "message" or (kind is None and item.get("role")):
            self._message(item, last)
        elif kind in ("function_call", "custom_tool_call"):
            self._called(item)
        elif kind in _OUTPUT:
            self._output(item)
        elif kind == "item_reference" or (kind is None and isinstance(item.get("id"), str)):
            id = _string(item.get("id"))
            if not id or id not in self._ids:  # else the item itself is here
                self._lost("item_reference")
        elif kind == "compaction" and (text := _summary(item.get("encrypted_content"))):
            self._say(SUMMARY + text)
        elif isinstance(kind, str) and kind in _READ:
            self._known(item, kind)
        else:
            self._unknown(item, named(kind))

    def _known(self, item: _Object, kind: str) -> None:
        if not isinstance(item.get("call_id", ""), str | None):
            self._lost(f"{kind}.call_id")
            item = {**item, "call_id": None}
        if kind == "tool_search_output":
            item = {**item, "tools": self._found(item.get("tools"))}
        if kind in ("additional_tools", "tool_search_output"):
            fields = {"tools": _dump(item.get("tools") or [])}
            _tools(fields, self._warnings, lambda t, k: _responses_tool(t, k, self._warnings))
            item = {**item, "tools": _load(fields["tools"])}
        elif kind == "reasoning":
            content, summary = item.get("content"), item.get("summary")
            item = {**item, "content": text_of(content) or None}
            item["summary"] = (
                [{"type": "summary_text", "text": text_of(summary)}] if summary else []
            )
            if not isinstance(item.get("encrypted_content"), str):
                item["encrypted_content"] = None
        elif kind == "tool_search_call" and not isinstance(item.get("arguments"), str | dict):
            item = {**item, "arguments": _arguments(item.get("arguments"))}
        self.out.append(item)

    def _found(self, tools: object) -> list[object]:
        """The tools that a search found, without those whose fields have other types."""
        kept: list[object] = []
        for tool in tools if isinstance(tools, list) else ():
            sound = isinstance(tool, dict) and all(
                isinstance(value := tool.get(name), kinds) or value is None
                for name, kinds in _TOOL_FIELDS.items()
            )
            if not sound or not isinstance(tool.get("type", "function"), str):
                self._lost("tool_search_output")
            elif tool.get("type") == "namespace":
                kept.append({**tool, "tools": self._found(tool.get("tools"))})
            else:
                kept.append({"type": "function", **tool})
        return kept

    def _called(self, item: _Object) -> None:
        item = {
            name: value
            for name, value in item.items()
            if name not in ("call_id", "name", "namespace") or isinstance(value, str)
        }
        if (
            not item.get("call_id")
            and isinstance(item.get("id"), str)
            and item["id"] in self._answered
        ):
            item["call_id"] = item["id"]
        name = "arguments" if item["type"] == "function_call" else "input"
        if item.get(name) is not None and not isinstance(item[name], str):
            item[name] = _arguments(item[name])
        if not (item.get("call_id") and item.get("name")):
            self._lost(f"{item['type']}.{'name' if item.get('call_id') else 'call_id'}")
            self._say(f"[called {item.get('name') or 'a tool'}: {item.get(name)}]", "assistant")
            return
        self.out.append(item)

    def _output(self, item: _Object) -> None:
        item = dict(item)
        call = _string(item.get("call_id"))
        item["output"] = self._content(item.get("output"), "tool", False)
        if not call or (self._referred and call not in self._calls):
            self._lost("item_reference" if call else f"{item['type']}.call_id")
            text = text_of(item["output"])
            self._say(f"[The result of an earlier tool call]\n{text}")
            return
        self.out.append(item)

    def _content(self, content: object, role: str, last: bool) -> object:
        """A message's content or a tool's output in parts that are known."""
        if content is None or isinstance(content, str):
            return content
        if isinstance(content, dict) and "type" not in content:
            return text_of(content) or _text_json(content)
        parts: list[object] = []
        for value in content if isinstance(content, list) else [content]:
            if isinstance(value, int | float):
                parts.append({"type": "input_text", "text": _text_json(value)})
                continue
            part = _part(value, role, last)
            if part.warning:
                self._lost(f"content.{part.warning}")
            if part.keep:
                parts.append(value)
            if part.text:
                text = "output_text" if role == "assistant" else "input_text"
                parts.append({"type": text, "text": part.text})
            if part.media:
                kind, url, detail = part.media
                if kind == "image":
                    parts.append(
                        {"type": "input_image", "image_url": url, "detail": detail or None}
                    )
                else:
                    self._lost("content.video")
                    parts.append({"type": "input_text", "text": note("video")})
            if part.thought:
                text, signature = part.thought
                thought = [{"type": "summary_text", "text": text}]
                sealed = signature or None
                self.out.append(
                    {"type": "reasoning", "summary": thought, "encrypted_content": sealed}
                )
            if part.call:
                id, name, arguments = part.call
                self.out.append(
                    {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}
                )
            if part.result:
                id, result, _ = part.result
                self._output({"type": _OUTPUT[0], "call_id": id, "output": result})
        return parts

    def _message(self, item: _Object, last: bool) -> None:
        item = dict(item)
        role = item.get("role")
        if role in ("tool", "function"):
            id = _first(item, "call_id", "tool_call_id")
            if isinstance(id, str):
                self._output({"type": _OUTPUT[0], "call_id": id, "output": item.get("content")})
                return
        if role not in ("user", "assistant", "system", "developer") and (role or not last):
            item["role"] = role = _ROLE_NAMES.get(_string(role), "user")
            self._lost("role")
        item["content"] = self._content(item.get("content"), _string(role), last and role == "user")
        if item["content"] != []:
            self.out.append(item)
        calls = item.pop("tool_calls", None)
        for call in calls if isinstance(calls, list) else ():  # as in chat
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and (read := _call({**call, **function})):
                id, name, arguments = read
                self.out.append(
                    {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}
                )

    def _unknown(self, item: _Object, kind: str) -> None:
        """A call with its output is a call of a function of that name; other text is kept."""
        self._lost(kind)
        id = _string(item.get("call_id")) or _string(item.get("id"))
        if kind.endswith("output"):
            if id and id in self._calls:
                output = self._content(_first(item, "output", "result"), "tool", False)
                self.out.append({"type": _OUTPUT[0], "call_id": id, "output": output})
            elif text := text_of(item):
                self._say(text)
            return
        if kind.endswith("call") or kind == "program":
            inner = {
                name: value
                for name, value in item.items()
                if name in ("action", "actions", "operation", "arguments", "input", "code")
            }
            arguments = inner.pop("arguments", None) if len(inner) == 1 else None
            text = _arguments(arguments) if arguments is not None else _text_json(inner)
            name = _string(item.get("name")) or kind.removesuffix("_call")
            call = {"type": "function_call", "call_id": id, "name": name, "arguments": text}
            if id and id in self._answered:
                self.out.append(call)
            elif id and "output" in item:
                self.out.append(call)
                output = text_of(item["output"]) or text_of(item.get("error"))
                self.out.append({"type": _OUTPUT[0], "call_id": id, "output": output})
            return
        if text := text_of(item):
            role = item.get("role")
            self._say(text, "assistant" if role == "assistant" else "user")
