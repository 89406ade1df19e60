"""The tools of Chat Completions, from clients: definitions, choice and web search."""

import msgspec
from msgspec import Raw, Struct

from headgate import bounds
from headgate.chat import Choice, Tool, WebSearch
from headgate.dialects import fields
from headgate.dialects.fields import carried, first_given, given
from headgate.dialects.openai.request_wire import NOTHING, USUAL_CHOICE, ChoiceIn, RequestIn, ToolIn
from headgate.errors import invalid, unsupported


class _SearchIn(Struct, frozen=True):
    user_location: Raw = NOTHING


_search_decoder = msgspec.json.Decoder(_SearchIn)


def search_of(raw: Raw, warnings: list[str]) -> WebSearch:
    """The search of the web that the client asks for; OpenAI's has no list of domains."""
    if given(_search_decoder.decode(raw).user_location):
        warnings.append("web_search_options.user_location")
    return WebSearch()


def schema_in(schema: Raw, param: str) -> Raw:
    if not bytes(schema).startswith(b"{"):
        raise invalid(f"Expected `object` - at `{param}`", param)
    return carried(schema, param)


def tools_of(wire: RequestIn, search: WebSearch | None) -> tuple[tuple[Tool, ...], Choice]:
    stated, parallel = wire.tool_choice, wire.parallel_tool_calls
    if wire.tools is None and stated is None and parallel is None:
        return (), USUAL_CHOICE
    bounds.check_size(wire.tools, bounds.TOOLS, "$.tools")
    tools = tuple(_tool(t, f"$.tools[{i}]") for i, t in enumerate(wire.tools or ()))
    if stated is None:
        return tools, Choice(parallel=parallel)
    if isinstance(stated, ChoiceIn):
        names = {t.name for t in tools}
        if stated.type == "allowed_tools" and stated.allowed_tools is not None:
            bounds.check_size(
                stated.allowed_tools.tools, bounds.TOOLS, "$.tool_choice.allowed_tools"
            )
            allowed = {n.name for t in stated.allowed_tools.tools if (n := t.function or t.custom)}
            if unknown := sorted(allowed - names):
                raise invalid(
                    f"The tool `{unknown[0][:64]}` is not in `tools`.",
                    "$.tool_choice.allowed_tools",
                )
            tools = tuple(t for t in tools if t.name in allowed)
            stated = stated.allowed_tools.mode
        elif stated.type in ("function", "custom") and (chosen := stated.function or stated.custom):
            if chosen.name not in names:
                raise invalid(
                    f"The tool `{chosen.name[:64]}` is not in `tools`.",
                    f"$.tool_choice.{stated.type}.name",
                )
            return tools, Choice("named", chosen.name, parallel)
        else:
            raise unsupported(f"$.tool_choice.{stated.type}", "Use a function.")
    if stated == "required" and not tools and search is None:
        raise invalid("`tool_choice` asks for a call but `tools` is empty.", "$.tool_choice")
    return tools, Choice(stated, parallel=parallel)


def _tool(wire: ToolIn, param: str) -> Tool:
    if wire.type == "custom" and wire.custom is not None:
        bounds.check_name(wire.custom.name, f"{param}.custom.name")
        grammar = _grammar(wire.custom.format)
        return fields.freeform(wire.custom.name, wire.custom.description or "", grammar)
    if wire.type != "function":
        raise unsupported(f"{param}.{wire.type}", "Only tools of type `function` and `custom` are.")
    function = wire.function
    if function is None:
        raise invalid(f"Object missing required field `function` - at `{param}`", param)
    bounds.check_name(function.name, f"{param}.function.name")
    tool = Tool(function.name, function.description or "", strict=function.strict is True)
    schema = first_given(function.parameters, function.input_schema, function.inputSchema)
    if not given(schema):
        return tool
    parameters = schema_in(schema, f"{param}.function.parameters")
    return msgspec.structs.replace(tool, parameters=parameters)


class _Grammar(Struct, frozen=True):
    syntax: str = ""
    definition: str = ""


class _CustomFormat(Struct, frozen=True):
    type: str = "text"
    grammar: _Grammar | None = None
    syntax: str = ""  # flat, as in Responses
    definition: str = ""


_format_decoder = msgspec.json.Decoder(_CustomFormat)


def _grammar(raw: Raw) -> tuple[str, str]:
    """Syntax and definition of a freeform tool's grammar, both empty when it has none."""
    if not given(raw):
        return "", ""
    try:
        format = _format_decoder.decode(raw)
    except msgspec.MsgspecError:
        return "", ""
    if format.type != "grammar":
        return "", ""
    kept = format.grammar or format
    return kept.syntax, kept.definition
