"""Parts and calls of any vendor's kind, as text, media or calls that every dialect knows."""

import binascii
from collections.abc import Container

from headgate.dialects.unknown import arguments_of, first, named, note, string, text_json

_Object = dict[str, object]


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


def call_of(part: _Object, default: str = "") -> tuple[str, str, str] | None:
    """Id, name and arguments of a call in any vendor's form; `default` is the id of one without."""
    id = string(first(part, "call_id", "tool_call_id", "toolCallId", "id")) or default
    name = string(first(part, "name", "toolName", "tool_name"))
    if not (id and name):
        return None
    return id, name, arguments_of(first(part, "arguments", "input", "args"))


def _address(part: _Object) -> tuple[str, str]:
    """Return the URL of a picture or a film in any vendor's form, and its detail."""
    at = first(part, "image_url", "video_url", "image", "video", "source", "url", "data")
    detail = string(part.get("detail"))
    kind = string(first(part, "mediaType", "media_type", "mime_type"))
    data: object = None
    if isinstance(at, dict):
        detail = string(at.get("detail")) or detail
        kind = string(first(at, "media_type", "mediaType")) or kind
        data, at = at.get("data"), at.get("url")
    elif isinstance(at, str) and not at.startswith(("http://", "https://", "data:")):
        data, at = at, None
    if isinstance(part.get("base64"), str):
        data = part["base64"]
    if not isinstance(at, str) and isinstance(data, str):
        at = f"data:{kind or 'image/png'};base64,{data}"
    return string(at), detail


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
    """Return what a tool returned, out of the AI SDK's `{type, value}`, and whether it failed."""
    kind = output.get("type") if isinstance(output, dict) else None
    if not isinstance(output, dict) or kind not in _OUTPUTS or "value" not in output:
        return output, False
    value = output["value"]
    if not isinstance(value, str | list):
        value = text_json(value)
    return value, string(kind).startswith("error")


# Reasoning beside a message's content: LiteLLM's, DeepSeek's and MiniMax's, Copilot's, OpenRouter's, Ollama's.
BESIDE = (
    "thinking_blocks",
    "reasoning_details",
    "reasoning_content",
    "reasoning_text",
    "reasoning",
    "thinking",
    "thoughts",
    "thought",
)


def thoughts_beside(message: _Object, own: Container[str] = ()) -> list[tuple[str, str]]:
    """Take reasoning out of a message's fields but its protocol's `own`; the texts with their signatures.

    A message that says it in several fields says the same in each.
    """
    found: list[tuple[str, str]] = []
    for name in BESIDE:
        if name in own or name not in message:
            continue
        value = message.pop(name)
        pieces = value if isinstance(value, list) else [value]
        for piece in pieces if not found else ():
            signature = piece.get("signature") if isinstance(piece, dict) else ""
            if text := text_of(piece):
                found.append((text, string(signature)))
    return found


def drop_foreign(
    message: _Object, known: Container[str], prefix: str, warnings: list[str]
) -> _Object:
    """The message without the fields that its protocol does not have; each that says something is named."""
    for name, value in message.items():
        if name not in known and value not in (None, "", [], {}):
            warnings.append(f"{prefix}{named(name)}")
    return {name: value for name, value in message.items() if name in known}


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


def part_of(value: object, role: str, last: bool) -> _Part:
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
        out.text = text_of(first(value, "text", "refusal"))
    elif name in _THOUGHTS:
        text = text_of(value)
        if role == "assistant" and text:
            out.thought = text, string(value.get("signature"))
        else:
            out.warning = name
    elif name in _CALLS and role == "assistant" and (call := call_of(value)):
        out.call = call
    elif name in _RESULTS and role != "assistant":
        id = string(first(value, "tool_use_id", "tool_call_id", "toolCallId", "call_id"))
        content, failed = _unwrapped(first(value, "content", "output", "result"))
        if id:
            out.result = id, content, failed or first(value, "is_error", "isError") is True
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
