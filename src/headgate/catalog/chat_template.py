"""A request as MiniMax's models read it: our rendering of their template, for tokenizers that are no more than that.

After the chat template of MiniMaxAI/MiniMax-M2.
"""

from collections.abc import Iterator

import msgspec

from headgate.chat import Media, Request, Text, Thinking, ToolCall, ToolResult

_TOOLS = (
    "\n\n# Tools\nYou may call one or more tools to assist with the user query.\n"
    "Here are the tools available in JSONSchema format:\n\n<tools>\n"
)
_TOOLS_END = (
    "</tools>\n\nWhen making tool calls, use XML format to invoke tools and pass parameters:\n\n"
    '<minimax:tool_call>\n<invoke name="tool-name-1">\n<parameter name="param-key-1">'
    "param-value-1</parameter>\n</invoke>\n</minimax:tool_call>"
)
_ROLES = {"user": "user", "assistant": "ai", "tool": "tool"}


def written(request: Request) -> str:
    """The request as one text, as MiniMax's models read it; media are left out."""
    return "".join(_written(request))


def _written(request: Request) -> Iterator[str]:
    yield "]~!b[]~b]system\n"
    yield "\n".join(m.text for m in request.messages if m.role == "system")
    if request.tools:
        yield _TOOLS
        for tool in request.tools:
            about = {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            }
            yield f"<tool>{msgspec.json.encode(about).decode()}</tool>\n"
        yield _TOOLS_END
    yield "[e~[\n"
    for message in request.messages:
        if message.role != "system":
            yield f"]~b]{_ROLES[message.role]}\n"
            yield from map(_part, message.parts)
            yield "[e~[\n"
    yield "]~b]ai\n<think>\n"


def _part(part: Text | Media | Thinking | ToolCall | ToolResult) -> str:
    match part:
        case Text():
            return part.text
        case Thinking(text):
            return f"<think>\n{text}\n</think>\n\n"
        case ToolCall():
            call = f'<invoke name="{part.name}">\n{part.arguments}\n</invoke>'
            return f"\n<minimax:tool_call>\n{call}\n</minimax:tool_call>"
        case ToolResult():
            stated = "".join(p.text for p in part.parts if isinstance(p, Text))
            return f"<response>{stated}</response>"
        case Media():
            return ""
