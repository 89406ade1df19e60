"""The fields of items of OpenAI Responses that the dialect reads; others are left out."""

from headgate.dialects.unknown import string

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


def _only(item: object) -> object:
    """The item without the fields that are not read of its kind."""
    if not isinstance(item, dict):
        return item
    read = _FIELDS[string(item.get("type")) or "message"]
    return {name: value for name, value in item.items() if name in read}
