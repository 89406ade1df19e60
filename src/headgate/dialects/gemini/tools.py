"""The tools of generateContent, from clients: definitions, choice and web search."""

import msgspec
from msgspec import Raw, Struct

from headgate import bounds
from headgate.chat import Choice, Tool, WebSearch
from headgate.dialects import unreadable
from headgate.dialects.fields import EMPTY_SCHEMA, check_domains, given
from headgate.dialects.gemini.names import camel
from headgate.dialects.gemini.request_wire import FunctionIn, ToolConfigIn, functions_decoder
from headgate.dialects.gemini.schemas import compact, googles
from headgate.errors import invalid


def tools_of(wire: list[dict[str, Raw]] | None, notes: list[str]) -> tuple[Tool, ...]:
    bounds.check_size(wire, bounds.TOOLS, "$.tools")
    out: list[Tool] = []
    for i, tool in enumerate(wire or ()):
        for raw_name, value in tool.items():
            if camel(raw_name) in _SEARCHES:
                continue
            if raw_name != "functionDeclarations" and bytes(value) != b"null":
                # Executed by Google: the model answers without it, and nothing can force it.
                notes.append(f"tools.{unreadable.plain(camel(raw_name))}")
        place = f"$.tools[{i}].functionDeclarations"
        declared = _functions(tool.get("functionDeclarations", _NULL), place)
        bounds.check(len(out) + len(declared), bounds.TOOLS, place)
        for f in declared:
            if f.behavior not in (None, "", "UNSPECIFIED", "BLOCKING"):
                notes.append("functionDeclarations.behavior")
            if given(f.response) or given(f.response_json_schema):
                notes.append("functionDeclarations.response")
        out += [_tool(f, f"{place}[{k}]") for k, f in enumerate(declared)]
    return tuple(out)


_NULL = Raw(b"null")
# Google's searches of the web, which the gateway serves itself where it can.
_SEARCHES = frozenset(("googleSearch", "googleSearchRetrieval", "enterpriseWebSearch"))


class _SearchIn(Struct, frozen=True, rename="camel"):
    exclude_domains: list[str] | None = None


_search_decoder = msgspec.json.Decoder(_SearchIn)


def search_of(wire: list[dict[str, Raw]] | None) -> WebSearch | None:
    """The search of the web that the client declares."""
    for i, tool in enumerate(wire or ()):
        for raw_name, value in tool.items():
            name = camel(raw_name)
            if name not in _SEARCHES or not bytes(value).startswith(b"{"):
                continue
            place = f"$.tools[{i}].{name}"
            try:
                blocked = _search_decoder.decode(value).exclude_domains or ()
            except msgspec.ValidationError as error:
                message = str(error).partition(" - at ")[0]
                raise invalid(f"{message} - at `{place}`", place) from None
            check_domains(blocked, f"{place}.excludeDomains")
            return WebSearch(blocked=tuple(blocked))
    return None


def _functions(raw: Raw, where: str) -> list[FunctionIn]:
    try:
        return functions_decoder.decode(raw) or []
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        place = where + place.strip("`").removeprefix("$")
        raise invalid(f"{message} - at `{place}`", place) from None


def _tool(wire: FunctionIn, param: str) -> Tool:
    if not wire.name:
        raise invalid("A function needs a name.", f"{param}.name")
    bounds.check_name(wire.name, f"{param}.name")
    if given(wire.parameters_json_schema):
        schema = compact(wire.parameters_json_schema, f"{param}.parametersJsonSchema")
    elif given(wire.parameters):
        schema = googles(wire.parameters, f"{param}.parameters")
    else:
        schema = EMPTY_SCHEMA
    return Tool(wire.name, wire.description or "", schema)


def choice_of(
    wire: ToolConfigIn | None,
    tools: tuple[Tool, ...],
    search: WebSearch | None,
    notes: list[str],
) -> tuple[tuple[Tool, ...], Choice]:
    if wire is not None:
        if given(wire.retrieval_config):
            notes.append("toolConfig.retrievalConfig")
        if wire.include_server_side_tool_invocations:
            notes.append("toolConfig.includeServerSideToolInvocations")
    config = wire.function_calling_config if wire is not None else None
    if config is None:
        return tools, Choice()
    where = "$.toolConfig.functionCallingConfig"
    mode = (config.mode or "AUTO").upper()
    if mode == "REQUIRED":  # OpenAI's word
        mode = "ANY"
    names = config.allowed_function_names or []
    bounds.check_size(names, bounds.TOOLS, f"{where}.allowedFunctionNames")
    allowed = set(names)
    if mode in ("ANY", "VALIDATED") and allowed:
        if unknown := allowed - {t.name for t in tools}:
            raise invalid(
                f"The function `{min(unknown)[:64]}` is not declared in `tools`.",
                f"{where}.allowedFunctionNames",
            )
        if mode == "ANY" and len(allowed) == 1:
            return tools, Choice("named", names[0])
        tools = tuple(t for t in tools if t.name in allowed)
    match mode:
        case "AUTO" | "VALIDATED" | "MODE_UNSPECIFIED":
            return tools, Choice()
        case "NONE":
            return tools, Choice("none")
        case "ANY" if tools or search is not None:
            return tools, Choice("required")
        case "ANY":
            raise invalid(
                "`mode` ANY asks for a call but no function is declared.", f"{where}.mode"
            )
    notes.append(f"functionCallingConfig.mode ({unreadable.plain(mode)} read as AUTO)")
    return tools, Choice()
