"""What the caller asked of tools against what one route can do."""

import msgspec

from headgate.chat import Choice, Request, ToolCall
from headgate.dialects.capabilities import Capabilities
from headgate.errors import invalid, unsupported

_TOOLLESS = "The model `{}` does not call tools."


def fit_tools(
    request: Request, capabilities: Capabilities, notes: list[str], instructions: list[str]
) -> Request:
    choice, tools = request.choice, request.tools
    if not capabilities.tools and choice.mode in ("required", "named"):
        raise unsupported("$.tools", _TOOLLESS.format(request.model[:64]))
    if not tools:
        if choice.mode in ("required", "named"):
            raise invalid("`tool_choice` asks for a call, but there are no tools.", "$.tool_choice")
        return msgspec.structs.replace(request, choice=Choice())
    if choice.mode == "named" and all(t.name != choice.name for t in tools):
        raise invalid(
            f"`tool_choice` names `{choice.name[:64]}`, which is not among the tools.",
            "$.tool_choice",
        )
    if choice.mode == "none" and not _able(choice, capabilities) and not _called(request):
        return msgspec.structs.replace(request, tools=(), choice=Choice())
    if not capabilities.tools:  # it may answer without a call, and always will
        notes.append("tools")
        return msgspec.structs.replace(request, tools=(), choice=Choice())
    parallel = choice.parallel
    if not capabilities.parallel_switch:
        if parallel is False:
            notes.append("parallel_tool_calls")
        parallel = None  # true is what it does anyway
    mode, name = choice.mode, choice.name
    if not _able(choice, capabilities):
        match mode:
            case "none":
                instructions.append("Do not call any tool in your next reply; answer in text.")
            case "required":
                instructions.append(
                    "Your next reply must call at least one of the available tools; do not answer"
                    " in text alone."
                )
            case _:
                instructions.append(
                    f"Your next reply must call the tool `{name}`; do not answer in text alone."
                )
                if _called(request) <= {name}:
                    tools = tuple(t for t in tools if t.name == name)
        notes.append("tool_choice (emulated)")
        mode, name = "auto", ""
    return msgspec.structs.replace(request, tools=tools, choice=Choice(mode, name, parallel))


def _called(request: Request) -> set[str]:
    """The names of the tools that its history has calls of."""
    return {p.name for m in request.messages for p in m.parts if isinstance(p, ToolCall)}


def _able(choice: Choice, capabilities: Capabilities) -> bool:
    return choice.mode == "auto" or (capabilities.tools and choice.mode in capabilities.tool_choice)
