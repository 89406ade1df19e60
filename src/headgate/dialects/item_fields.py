"""The fields of items of OpenAI Responses that the dialect reads; others are left out with a warning."""

from headgate.dialects.unknown import string
from headgate.dialects.unknown_parts import drop_foreign

TOOL_FIELDS = {
    "name": str,
    "description": str,
    "strict": bool,
    "parameters": dict,
    "format": dict,
    "execution": str,
    "tools": list,
}


# What requests.py reads or leaves out by itself.
READ = frozenset(
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
    "reasoning": frozenset(("type", "content", "summary", "encrypted_content", "text")),
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


# What says nothing to the model, and what an earlier hosted tool found, which its call's note replaces.
_SILENT = frozenset(
    (
        *("id", "status", "phase", "annotations", "caller", "created_by", "execution", "metadata"),
        *("queries", "results", "result", "code", "outputs", "container_id", "action"),
        *("refusal", "name", "role"),
    )
)


def only_read(item: object, warnings: list[str]) -> object:
    """The item without the fields that are not read of its kind."""
    if not isinstance(item, dict):
        return item
    kind = string(item.get("type")) or "message"
    read = _FIELDS[kind]
    item = drop_foreign(item, read | _SILENT, f"input.{kind}.", warnings)
    return {name: value for name, value in item.items() if name in read}
