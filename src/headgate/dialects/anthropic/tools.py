"""The tools of Anthropic Messages, from clients: definitions, choice and web search."""

from collections.abc import Sequence

import msgspec

from headgate import bounds
from headgate.chat import Choice, Tool, WebSearch
from headgate.dialects import unreadable
from headgate.dialects.anthropic.content import cache_of
from headgate.dialects.anthropic.own_tools import own_tool
from headgate.dialects.anthropic.request_wire import ChoiceIn, RequestIn, ToolIn
from headgate.dialects.fields import check_domains, first_given, schema_of
from headgate.errors import invalid, unsupported


def tools_of(
    wires: Sequence[ToolIn] | None, choice: "ChoiceIn | None", notes: list[str]
) -> tuple[Tool, ...]:
    """Return the tools as functions; those that Anthropic executes are left out, unless one is forced."""
    bounds.check_size(wires, bounds.TOOLS, "$.tools")
    forced = choice.name if choice is not None and choice.type == "tool" else None
    tools: list[Tool] = []
    for i, wire in enumerate(wires or ()):
        kind, param = wire.type or "custom", f"$.tools[{i}]"
        if kind.startswith(_SEARCH_TYPE):
            continue
        if kind == "function":
            wire = _of_openai(wire, param)
        elif (own := own_tool(kind)) is not None:
            words, schema = own
            wire = msgspec.structs.replace(wire, description=words, input_schema=schema)
        elif kind != "custom":
            if forced is not None and forced == wire.name:
                raise unsupported(
                    f"{param}.type",
                    f"`{kind[:40]}` is executed by Anthropic; describe a tool of your own.",
                )
            notes.append(f"tools.{unreadable.plain(kind)}")
            continue
        tools.append(_tool(wire, param))
    return tuple(tools)


def _of_openai(wire: ToolIn, param: str) -> ToolIn:
    """Return a function in a form of OpenAI's, nested or flat, as a tool of this protocol."""
    inner = wire
    if bytes(wire.function).startswith(b"{"):
        try:
            inner = msgspec.json.decode(wire.function, type=ToolIn)
        except msgspec.MsgspecError as error:
            raise invalid(str(error), f"{param}.function") from None
    return msgspec.structs.replace(inner, cache_control=inner.cache_control or wire.cache_control)


_SEARCH_TYPE = "web_search_"  # a tool of Anthropic's that the gateway serves, of any date


def search_of(wire: RequestIn, notes: list[str]) -> WebSearch | None:
    """The search of the web that the client declares."""
    tools = enumerate(wire.tools or ())
    found = next(((i, t) for i, t in tools if (t.type or "").startswith(_SEARCH_TYPE)), None)
    if found is None:
        return None
    i, tool = found
    check_domains(tool.allowed_domains, f"$.tools[{i}].allowed_domains")
    check_domains(tool.blocked_domains, f"$.tools[{i}].blocked_domains")
    if bytes(tool.user_location) != b"null":
        notes.append("tools.web_search.user_location")
    choice = stated_choice(wire.tool_choice)
    forced = choice is not None and choice.type == "tool" and choice.name == tool.name
    return WebSearch(
        forced and tool.name is not None,
        tool.max_uses,
        tuple(tool.allowed_domains or ()),
        tuple(tool.blocked_domains or ()),
    )


def _tool(wire: ToolIn, param: str) -> Tool:
    if not wire.name:
        raise invalid("A tool needs a `name`.", f"{param}.name")
    bounds.check_name(wire.name, f"{param}.name")
    return Tool(
        wire.name,
        wire.description or "",
        schema_of(
            first_given(wire.input_schema, wire.parameters, wire.inputSchema),
            f"{param}.input_schema",
        ),
        bool(wire.strict),
        cache=cache_of(wire.cache_control),
    )


def stated_choice(wire: ChoiceIn | str | None) -> ChoiceIn | None:
    """Return the choice in Anthropic's words; OpenAI's are read as well."""
    if isinstance(wire, str):
        wire = ChoiceIn(wire)
    if wire is None:
        return None
    if wire.type == "required":
        return msgspec.structs.replace(wire, type="any")
    if wire.type == "function" and (name := wire.function.name if wire.function else wire.name):
        return msgspec.structs.replace(wire, type="tool", name=name)
    return wire


def choice_of(
    wire: ChoiceIn | None, tools: tuple[Tool, ...], search: WebSearch | None, notes: list[str]
) -> Choice:
    if wire is None:
        return Choice()
    stated = wire.disable_parallel_tool_use
    parallel = None if stated is None else not stated
    match wire.type:
        case "auto":
            return Choice("auto", parallel=parallel)
        case "none":
            return Choice("none", parallel=parallel)
        case "any" if tools or search is not None:
            return Choice("required", parallel=parallel)
        case "any":
            raise invalid("A tool can only be called when `tools` are given.", "$.tool_choice")
        case "tool" if wire.name and any(t.name == wire.name for t in tools):
            return Choice("named", wire.name, parallel)
        case "tool" if search is not None and search.forced:
            return Choice("auto", parallel=parallel)  # edge/ names the tool that it offers
        case "tool":
            raise invalid(f"There is no tool `{(wire.name or '')[:64]}`.", "$.tool_choice.name")
    notes.append(f"tool_choice ({unreadable.plain(wire.type)} read as auto)")
    return Choice("auto", parallel=parallel)
