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

import re
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


def rewritten_body(
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


def load(raw: Raw) -> object:
    return msgspec.json.decode(raw)


def text_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def dump(value: object) -> Raw:
    if isinstance(value, list):  # one by one: the encoder keeps Python's lock for each call
        return Raw(b"[" + b",".join([msgspec.json.encode(each) for each in value]) + b"]")
    return Raw(msgspec.json.encode(value))


def check_counts(holders: list[object], param: str) -> None:
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


def first(value: _Object, *names: str) -> object:
    for name in names:
        if value.get(name) is not None:
            return value[name]
    return None


def string(value: object) -> str:
    return value if isinstance(value, str) else ""


def arguments_of(value: object) -> str:
    """A call's arguments as the text of a JSON object."""
    if isinstance(value, str):
        return value
    return text_json({} if value is None else value)


# --- Chat Completions ------------------------------------------------------------------------------

ROLES = frozenset(("system", "developer", "user", "assistant", "tool"))
ROLE_NAMES = {"human": "user", "ai": "assistant", "model": "assistant", "bot": "assistant"}


def role_of(message: object) -> str:
    return string(message.get("role")) if isinstance(message, dict) else ""


# --- tools and hints of both -----------------------------------------------------------------------


def rewritten_tools(
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
        kind = load(tool["type"]) if "type" in tool else "function"
        new = read(tool, string(kind))
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
    """Return the nearest known effort; empty where the value asks for none in particular."""
    word = value.strip().lower() if isinstance(value, str) else ""
    return word if word in EFFORTS else _NEAREST.get(word, "")


def word_of(raw: Raw) -> str:
    """Return the word of a hint; "" for none, and "?" for what is no word."""
    if bytes(raw) in (b"", b"null"):
        return ""
    value = load(raw)
    return value if isinstance(value, str) else "?"


def rewrite_effort(fields: dict[str, Raw], name: str, warning: str, warnings: list[str]) -> None:
    value = load(fields[name])
    if value is None or value in EFFORTS:
        return
    warnings.append(warning)
    if known := effort(value):
        fields[name] = dump(known)
    else:
        del fields[name]


# A choice in other vendors' words: Mistral's and Anthropic's `any`, and objects that hold only the word.
_CHOICES = {"any": "required", "auto": "auto", "none": "none", "required": "required"}


def rewrite_choice(fields: dict[str, Raw], warnings: list[str]) -> None:
    """Write a `tool_choice` of any vendor in OpenAI's words; an unknown word becomes `auto`.

    An object of an unknown kind asks for an effect and stays as it is.
    """
    choice = load(fields["tool_choice"])
    word = choice
    if isinstance(choice, dict):
        word = choice.get("type")
        if word == "tool" and string(choice.get("name")):  # Anthropic's
            fields["tool_choice"] = dump({"type": "function", "name": choice["name"]})
            return
        if string(word) not in _CHOICES:
            return
    known = _CHOICES.get(string(word))
    if known is None and choice is not None:
        warnings.append("tool_choice")
    if choice is not None:
        fields["tool_choice"] = dump(known or "auto")


def rewrite_strings(fields: dict[str, Raw], names: tuple[str, ...], warnings: list[str]) -> None:
    """Hints of a wrong type are left out."""
    for name in names:
        if name in fields and bytes(fields[name])[:1] not in (b'"', b"n"):
            del fields[name]
            warnings.append(name)
