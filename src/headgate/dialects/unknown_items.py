"""The items of an `input` of OpenAI Responses that the dialect does not know."""

import msgspec
from msgspec import Raw

from headgate.dialects.compaction import SUMMARY, summary_of
from headgate.dialects.item_fields import READ, TOOL_FIELDS, only_read
from headgate.dialects.unknown import (
    ROLE_NAMES,
    arguments_of,
    dump,
    first,
    load,
    named,
    note,
    rewritten_tools,
    role_of,
    string,
    text_json,
)
from headgate.dialects.unknown_parts import call_of, part_of, text_of, thoughts_beside

_Object = dict[str, object]


def responses_tool(tool: dict[str, Raw], kind: str, warnings: list[str]) -> dict[str, Raw] | None:
    if kind.startswith("web_search") or kind in ("function", "custom", "tool_search"):
        if kind == "function" and "name" not in tool and "function" in tool:  # as in chat
            inner = msgspec.json.decode(tool["function"], type=dict[str, Raw])
            return {"type": dump("function"), **inner}
        return tool if "type" in tool else {"type": dump("function"), **tool}
    if kind != "namespace":
        return None
    inside = dict(tool)
    rewritten_tools(inside, warnings, lambda t, k: t if k in ("function", "custom") else None)
    return tool if inside == tool else inside


_OUTPUT = ("function_call_output", "custom_tool_call_output")


class Items:
    """The items of an `input` in words that are known; `out` has them."""

    def __init__(self, items: list[object], warnings: list[str]) -> None:
        self.out: list[object] = []
        self._warnings = warnings
        self._end = len(items) - 1
        self._ids: set[str] = set()
        self._calls: set[str] = set()
        self._answered: set[str] = set()
        self._referred = False  # calls may be among the items that are only referred to
        for item in items:
            if not isinstance(item, dict):
                continue
            kind, call = string(item.get("type")), string(item.get("call_id"))
            if kind == "item_reference" or (not kind and not item.get("role") and item.get("id")):
                self._referred = True
            else:
                self._ids.add(string(item.get("id")))
            if kind.endswith("output"):
                self._answered.add(call or string(item.get("id")))
            elif kind.endswith("call") or kind == "program":
                self._calls.add(call)
        before = items[-2] if len(items) > 1 else None
        kind = string(before.get("type")) if isinstance(before, dict) else ""
        # What stands behind a tool's result is what the tool returned.
        returned = kind.endswith("output") or role_of(before) in ("tool", "function")
        for n, item in enumerate(items):
            self._item(item, n == self._end and not returned)
        self.out = [only_read(item, warnings) for item in self.out]

    def _lost(self, kind: object) -> None:
        self._warnings.append(f"input.{named(kind)}")

    def _say(self, text: str, role: str = "user") -> None:
        kind = "output_text" if role == "assistant" else "input_text"
        content = [{"type": kind, "text": text}]
        self.out.append({"type": "message", "role": role, "content": content})

    def _item(self, item: object, last: bool) -> None:
        if isinstance(item, str):
            self._say(item)
            return
        if not isinstance(item, dict):
            self._lost(None)
            return
        kind = item.get("type")
        if kind == "message" or (kind is None and item.get("role")):
            self._message(item, last)
        elif kind in ("function_call", "custom_tool_call"):
            self._called(item)
        elif kind in _OUTPUT:
            self._output(item)
        elif kind == "item_reference" or (kind is None and isinstance(item.get("id"), str)):
            id = string(item.get("id"))
            if not id or id not in self._ids:  # else the item itself is here
                self._lost("item_reference")
        elif kind == "compaction" and (text := summary_of(item.get("encrypted_content"))):
            self._say(SUMMARY + text)
        elif isinstance(kind, str) and kind in READ:
            self._known(item, kind)
        else:
            self._unknown(item, named(kind))

    def _known(self, item: _Object, kind: str) -> None:
        if not isinstance(item.get("call_id", ""), str | None):
            self._lost(f"{kind}.call_id")
            item = {**item, "call_id": None}
        if kind == "tool_search_output":
            item = {**item, "tools": self._found(item.get("tools"))}
        if kind in ("additional_tools", "tool_search_output"):
            fields = {"tools": dump(item.get("tools") or [])}
            rewritten_tools(
                fields, self._warnings, lambda t, k: responses_tool(t, k, self._warnings)
            )
            item = {**item, "tools": load(fields["tools"])}
        elif kind == "reasoning":
            content, summary = item.get("content"), item.get("summary")
            item = {**item, "content": text_of(content) or None, "text": text_of(item.get("text"))}
            item["summary"] = (
                [{"type": "summary_text", "text": text_of(summary)}] if summary else []
            )
            if not isinstance(item.get("encrypted_content"), str):
                item["encrypted_content"] = None
        elif kind == "tool_search_call" and not isinstance(item.get("arguments"), str | dict):
            item = {**item, "arguments": arguments_of(item.get("arguments"))}
        self.out.append(item)

    def _found(self, tools: object) -> list[object]:
        """The tools that a search found, without those whose fields have other types."""
        kept: list[object] = []
        for tool in tools if isinstance(tools, list) else ():
            sound = isinstance(tool, dict) and all(
                isinstance(value := tool.get(name), kinds) or value is None
                for name, kinds in TOOL_FIELDS.items()
            )
            if not sound or not isinstance(tool.get("type", "function"), str):
                self._lost("tool_search_output")
            elif tool.get("type") == "namespace":
                kept.append({**tool, "tools": self._found(tool.get("tools"))})
            else:
                kept.append({"type": "function", **tool})
        return kept

    def _called(self, item: _Object) -> None:
        item = {
            name: value
            for name, value in item.items()
            if name not in ("call_id", "name", "namespace") or isinstance(value, str)
        }
        if (
            not item.get("call_id")
            and isinstance(item.get("id"), str)
            and item["id"] in self._answered
        ):
            item["call_id"] = item["id"]
        name = "arguments" if item["type"] == "function_call" else "input"
        if item.get(name) is not None and not isinstance(item[name], str):
            item[name] = arguments_of(item[name])
        if not (item.get("call_id") and item.get("name")):
            self._lost(f"{item['type']}.{'name' if item.get('call_id') else 'call_id'}")
            self._say(f"[called {item.get('name') or 'a tool'}: {item.get(name)}]", "assistant")
            return
        self.out.append(item)

    def _output(self, item: _Object) -> None:
        item = dict(item)
        call = string(item.get("call_id"))
        item["output"] = self._content(item.get("output"), "tool", False)
        if not call or (self._referred and call not in self._calls):
            self._lost("item_reference" if call else f"{item['type']}.call_id")
            text = text_of(item["output"])
            self._say(f"[The result of an earlier tool call]\n{text}")
            return
        self.out.append(item)

    def _content(self, content: object, role: str, last: bool) -> object:
        """A message's content or a tool's output in parts that are known."""
        if content is None or isinstance(content, str):
            return content
        if isinstance(content, dict) and "type" not in content:
            return text_of(content) or text_json(content)
        parts: list[object] = []
        for value in content if isinstance(content, list) else [content]:
            if isinstance(value, int | float):
                parts.append({"type": "input_text", "text": text_json(value)})
                continue
            part = part_of(value, role, last)
            if part.warning:
                self._lost(f"content.{part.warning}")
            if part.keep:
                parts.append(value)
            if part.text:
                text = "output_text" if role == "assistant" else "input_text"
                parts.append({"type": text, "text": part.text})
            if part.media:
                kind, url, detail = part.media
                if kind == "image":
                    parts.append(
                        {"type": "input_image", "image_url": url, "detail": detail or None}
                    )
                else:
                    self._lost("content.video")
                    parts.append({"type": "input_text", "text": note("video")})
            if part.thought:
                text, signature = part.thought
                thought = [{"type": "summary_text", "text": text}]
                sealed = signature or None
                self.out.append(
                    {"type": "reasoning", "summary": thought, "encrypted_content": sealed}
                )
            if part.call:
                id, name, arguments = part.call
                self.out.append(
                    {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}
                )
            if part.result:
                id, result, _ = part.result
                self._output({"type": _OUTPUT[0], "call_id": id, "output": result})
        return parts

    def _message(self, item: _Object, last: bool) -> None:
        item = dict(item)
        role = item.get("role")
        if role in ("tool", "function"):
            id = first(item, "call_id", "tool_call_id")
            if isinstance(id, str):
                self._output({"type": _OUTPUT[0], "call_id": id, "output": item.get("content")})
                return
        if role not in ("user", "assistant", "system", "developer") and (role or not last):
            item["role"] = role = ROLE_NAMES.get(string(role), "user")
            self._lost("role")
        for text, signature in thoughts_beside(item) if role == "assistant" else ():
            summary = [{"type": "summary_text", "text": text}]
            sealed = signature or None
            self.out.append({"type": "reasoning", "summary": summary, "encrypted_content": sealed})
        calls = item.pop("tool_calls", None)
        if not item.get("content") and isinstance(item.get("refusal"), str):
            item["content"] = item["refusal"]
        item["content"] = self._content(item.get("content"), string(role), last and role == "user")
        if item["content"] != []:
            self.out.append(item)
        for call in calls if isinstance(calls, list) else ():  # as in chat
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and (read := call_of({**call, **function})):
                id, name, arguments = read
                self.out.append(
                    {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}
                )

    def _unknown(self, item: _Object, kind: str) -> None:
        """A call with its output is a call of a function of that name; other text is kept."""
        self._lost(kind)
        id = string(item.get("call_id")) or string(item.get("id"))
        if kind.endswith("output"):
            if id and id in self._calls:
                output = self._content(first(item, "output", "result"), "tool", False)
                self.out.append({"type": _OUTPUT[0], "call_id": id, "output": output})
            elif text := text_of(item):
                self._say(text)
            return
        if kind.endswith("call") or kind == "program":
            inner = {
                name: value
                for name, value in item.items()
                if name in ("action", "actions", "operation", "arguments", "input", "code")
            }
            arguments = inner.pop("arguments", None) if len(inner) == 1 else None
            text = arguments_of(arguments) if arguments is not None else text_json(inner)
            name = string(item.get("name")) or kind.removesuffix("_call")
            call = {"type": "function_call", "call_id": id, "name": name, "arguments": text}
            if id and id in self._answered:
                self.out.append(call)
            elif id and "output" in item:
                self.out.append(call)
                output = text_of(item["output"]) or text_of(item.get("error"))
                self.out.append({"type": _OUTPUT[0], "call_id": id, "output": output})
            return
        if text := text_of(item):
            role = item.get("role")
            self._say(text, "assistant" if role == "assistant" else "user")
