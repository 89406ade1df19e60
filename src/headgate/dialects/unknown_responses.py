"""What a body of OpenAI Responses holds and the dialect does not know."""

import msgspec
from msgspec import Raw

from headgate.dialects.unknown import (
    Rewritten,
    check_counts,
    dump,
    load,
    named,
    rewrite_choice,
    rewrite_effort,
    rewrite_strings,
    rewritten_body,
    rewritten_tools,
)
from headgate.dialects.unknown_items import Items, responses_tool
from headgate.errors import Refused


def responses(body: bytes, refused: Refused) -> Rewritten:
    """Return the same for a body of Responses."""
    return rewritten_body(body, refused, _responses_fields)


def parameters(fields: dict[str, Raw], warnings: list[str]) -> None:
    """Put what other protocols name in another way into this one's words."""
    if "input" not in fields and "messages" in fields:  # as in chat
        fields["input"] = fields.pop("messages")


def _responses_fields(fields: dict[str, Raw], warnings: list[str]) -> None:
    if "input" in fields:
        items = load(fields["input"])
        if isinstance(items, list) and items:
            check_counts(items, "$.input")
            fields["input"] = dump(Items(items, warnings).out)
    rewritten_tools(fields, warnings, lambda tool, kind: responses_tool(tool, kind, warnings))
    if "tool_choice" in fields:
        rewrite_choice(fields, warnings)
        _allowed(fields, warnings)
    _nested(fields, "reasoning", warnings, ("summary", "generate_summary"), effort_in="effort")
    _nested(fields, "text", warnings, ("verbosity",))
    rewrite_strings(
        fields,
        ("service_tier", "truncation", "prompt_cache_key", "safety_identifier", "user"),
        warnings,
    )
    if "include" in fields:
        include = load(fields["include"])
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
        rewrite_effort(inner, effort_in, effort_in, inside)
    rewrite_strings(inner, strings, inside)
    if inside:
        warnings += [f"{name}.{each}" for each in inside]
        fields[name] = Raw(msgspec.json.encode(inner))


_TOOLS = ("function", "custom", "namespace", "tool_search")


def _allowed(fields: dict[str, Raw], warnings: list[str]) -> None:
    choice = load(fields["tool_choice"])
    if not isinstance(choice, dict):
        return
    if choice.get("type") == "function" and isinstance(inner := choice.get("function"), dict):
        fields["tool_choice"] = dump({"type": "function", **inner})
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
        fields["tool_choice"] = dump({**choice, "tools": kept})
