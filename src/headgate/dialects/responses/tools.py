"""The tools of OpenAI Responses, from clients: definitions, choice, and those that a history brings."""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from headgate import bounds
from headgate.chat import WEB_SEARCH, Choice, Tool, WebSearch
from headgate.dialects import fields
from headgate.dialects.responses.request_wire import (
    NOTHING,
    AllowedIn,
    ChoiceIn,
    FiltersIn,
    ItemIn,
    RequestIn,
    ToolIn,
)
from headgate.dialects.responses.upstream import flat
from headgate.errors import Refused, invalid, unsupported

# Hosted tools that only help: the model answers without them, if less well.  Codex sends
# `web_search` always, which the gateway serves itself where it can (policy/web_search.py); a hosted
# `tool_search` spares the model tools that it is shown here anyway.
_HINTS = (WEB_SEARCH, "tool_search")
# A search that the client executes (Codex) is a function; what it finds comes in the history.
SEARCH = "tool_search"
_SEARCH_SCHEMA = Raw(
    b'{"type":"object","properties":{"query":{"type":"string","description":"What the tool must'
    b' do."},"limit":{"type":"integer"}},"required":["query"]}'
)
_SEARCH_WORDS = "Searches for more tools. The tools that it finds can be called afterwards."


def tools_of(
    wires: Sequence[ToolIn], warnings: list[str], place: str = "$.tools"
) -> tuple[tuple[Tool, ...], list[ToolIn]]:
    """The tools as functions, and those of the wire that stayed, to be repeated in the reply."""
    tools: list[Tool] = []
    kept: list[ToolIn] = []
    count = len(wires)
    bounds.check(count, bounds.TOOLS, place)
    for i, wire in enumerate(wires):
        where = f"{place}[{i}]"
        if wire.type == SEARCH and wire.execution == "client":
            schema = _SEARCH_SCHEMA
            if fields.given(wire.parameters):
                schema = fields.schema_of(wire.parameters, f"{where}.parameters")
            words = wire.description or _SEARCH_WORDS
            tools.append(Tool(SEARCH, words, schema, search=True))
            kept.append(msgspec.structs.replace(wire, parameters=schema))
            continue
        if wire.type.startswith(_HINTS):  # also web_search_preview and dated names
            if not wire.type.startswith(WEB_SEARCH):
                warnings.append("tools.tool_search")
            continue
        if wire.type != "namespace":
            tools.append(_tool(wire, "", where, warnings))
            kept.append(_plain(wire, tools[-1]))
            continue
        namespace, inner = _name(wire, where), []
        count += len(wire.tools or ())
        bounds.check(count, bounds.TOOLS, f"{where}.tools")
        for j, each in enumerate(wire.tools or ()):
            tools.append(_tool(each, namespace, f"{where}.tools[{j}]", warnings))
            inner.append(_plain(each, tools[-1]))
        kept.append(ToolIn("namespace", namespace, wire.description or "", tools=inner))
    names = {tool.name for tool in tools}
    if len(names) < len(tools) and any(t.namespace or t.custom or t.search for t in tools):
        raise invalid("Two tools come to the same `namespace__name`; rename one.", place)
    return tuple(tools), kept


def search_of(wires: Sequence[ToolIn], warnings: list[str]) -> WebSearch | None:
    """The search of the web that the client declares."""
    for i, wire in enumerate(wires):
        if not wire.type.startswith(WEB_SEARCH):
            continue
        filters = wire.filters or FiltersIn()
        where = f"$.tools[{i}].filters"
        fields.check_domains(filters.allowed_domains, f"{where}.allowed_domains")
        fields.check_domains(filters.blocked_domains, f"{where}.blocked_domains")
        if fields.given(wire.user_location):
            warnings.append("tools.web_search.user_location")
        return WebSearch(
            allowed=tuple(filters.allowed_domains or ()),
            blocked=tuple(filters.blocked_domains or ()),
        )
    return None


def with_history(
    tools: tuple[Tool, ...], items: Sequence[ItemIn], warnings: list[str]
) -> tuple[Tool, ...]:
    """The tools with those that items add, or that a search has found; of one name, the last.

    A tool keeps the place where it first came, as upstreams cache what stays the same.
    """
    known: dict[str, Tool] = {}
    count = 0
    for i, item in enumerate(items):
        if item.type not in ("additional_tools", "tool_search_output") or not item.tools:
            continue
        place = f"$.input[{i}].tools"
        known = known or {tool.name: tool for tool in tools}
        count += len(item.tools)
        bounds.check(count, bounds.TOOLS, place)
        found = item.type == "tool_search_output"
        for wire in [w for tool in item.tools for w in _apart(tool)] if found else item.tools:
            try:
                added, _ = tools_of((wire,), warnings, place)
            except Refused as refused:
                if not found or (wire.type not in _CALLABLE and wire.type != "namespace"):
                    raise refused
                warnings.append("input.tool_search_output")  # found once; its call can be repeated
                continue
            known.update((tool.name, tool) for tool in added)
            bounds.check(len(known), bounds.TOOLS, place)
    return tuple(known.values()) if known else tools


def _apart(wire: ToolIn) -> list[ToolIn]:
    """A namespace as one for each of its tools, so that a malformed tool loses only itself."""
    if wire.type != "namespace" or not wire.tools:
        return [wire]
    return [msgspec.structs.replace(wire, tools=[each]) for each in wire.tools]


def _name(wire: ToolIn, where: str) -> str:
    if not wire.name:
        raise invalid(f"Object missing required field `name` - at `{where}`", f"{where}.name")
    return wire.name


def _tool(wire: ToolIn, namespace: str, where: str, warnings: list[str]) -> Tool:
    if wire.type not in _CALLABLE:
        raise unsupported(
            f"{where}.{wire.type}",
            "Only function, custom and namespace tools, and web_search, are.",
        )
    name, description = flat(namespace, _name(wire, where)), wire.description or ""
    bounds.check_name(name, f"{where}.name")
    if wire.type == "function":
        raw = fields.first_given(wire.parameters, wire.input_schema, wire.inputSchema)
        schema = fields.schema_of(raw, f"{where}.parameters")
        return Tool(name, description, schema, wire.strict is True, namespace=namespace)
    grammar = ("", "")
    if wire.format is not None and wire.format.type == "grammar":
        warnings.append("tools.custom.format")
        grammar = wire.format.syntax or "", wire.format.definition or ""
    return fields.freeform(name, description, grammar, namespace)


def _plain(wire: ToolIn, tool: Tool) -> ToolIn:
    """A tool as OpenAI repeats it: `parameters` and `strict` are always there."""
    if tool.custom:
        return wire
    replace = msgspec.structs.replace
    if wire.input_schema is not NOTHING or wire.inputSchema is not NOTHING:
        wire = replace(wire, input_schema=NOTHING, inputSchema=NOTHING)
    return replace(wire, parameters=tool.parameters, strict=tool.strict)


class _Names:
    """The tools by the names that a choice may give them."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._names = {tool.name for tool in tools}
        self._within: dict[str, set[str]] = {}  # of a namespace, all of its tools
        self._short: dict[str, set[str]] = {}  # without its namespace, what a name may mean
        for tool in tools:
            if tool.namespace:
                self._within.setdefault(tool.namespace, set()).add(tool.name)
                short = tool.name.removeprefix(flat(tool.namespace, ""))
                self._short.setdefault(short, set()).add(tool.name)

    def within(self, namespace: str | None) -> set[str]:
        return self._within.get(namespace or "", set())

    def chosen(self, wire: ChoiceIn | AllowedIn, where: str) -> str:
        """The name of the tool that is meant; the namespace may be left out where it is clear."""
        if wire.type == SEARCH and SEARCH in self._names:
            return SEARCH
        if wire.type not in _CALLABLE:
            raise unsupported(f"{where}.{wire.type[:64]}", "Use a function or a custom tool.")
        name = flat(wire.namespace or "", wire.name or "")
        if name in self._names:
            return name
        found = () if wire.namespace else self._short.get(name, ())
        if len(found) != 1:
            raise invalid(
                f"The tool `{(wire.name or '')[:64]}` is not in `tools`.", f"{where}.name"
            )
        return next(iter(found))


_CALLABLE = frozenset(("function", "custom"))


def choice_of(
    wire: RequestIn, tools: tuple[Tool, ...], search: WebSearch | None
) -> tuple[tuple[Tool, ...], Choice, WebSearch | None]:
    stated, parallel = wire.tool_choice, wire.parallel_tool_calls
    if stated is None:
        return tools, Choice(parallel=parallel), search
    if isinstance(stated, ChoiceIn):
        if stated.type == "allowed_tools":
            bounds.check_size(stated.tools, bounds.TOOLS, "$.tool_choice.tools")
            names, allowed = _Names(tools), set[str]()
            searching = False
            for i, each in enumerate(stated.tools or ()):
                if each.type == "namespace":
                    allowed |= names.within(each.name)
                elif each.type == SEARCH:
                    allowed.add(SEARCH)
                elif each.type.startswith(_HINTS):
                    searching = True
                else:
                    allowed.add(names.chosen(each, f"$.tool_choice.tools[{i}]"))
            tools = tuple(t for t in tools if t.name in allowed)
            search = search if searching else None
            stated = stated.mode or "auto"
        elif stated.type in _CALLABLE or any(t.search for t in tools if t.name == stated.type):
            chosen = _Names(tools).chosen(stated, "$.tool_choice")
            return tools, Choice("named", chosen, parallel), search
        elif stated.type.startswith(WEB_SEARCH) and search is not None:
            return tools, Choice(parallel=parallel), msgspec.structs.replace(search, forced=True)
        else:
            raise unsupported(f"$.tool_choice.{stated.type}", "Use a function or a custom tool.")
    if stated == "required" and not tools and search is None:
        raise invalid("`tool_choice` asks for a call but `tools` is empty.", "$.tool_choice")
    return tools, Choice(stated, parallel=parallel), search
