"""The items of a stored response as `GET /v1/responses/ID/input_items` lists them (openai 3.57, read 2026-11)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from headgate.errors import invalid

_PAGE, _MOST_PAGE = 20, 100  # items of a page, as OpenAI has them
_PREFIX = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "function_call_output": "fco",
}


def _listed(raw: Raw, number: str) -> dict[str, Any]:  # Any: a client's item
    """An item as lists show it: with a type, an id, and its text in parts."""
    found = msgspec.json.decode(raw)
    item: dict[str, Any] = dict(found) if isinstance(found, dict) else {"content": found}
    kind = item.setdefault("type", "message")
    if not isinstance(item.get("id"), str):
        item["id"] = f"{_PREFIX.get(kind, 'item')}_{number}"
    if isinstance(text := item.get("content"), str):
        part = "output_text" if item.get("role") == "assistant" else "input_text"
        content: dict[str, Any] = {"type": part, "text": text}
        if part == "output_text":
            content["annotations"] = []
        item["content"] = [content]
    if kind in ("message", "function_call", "function_call_output"):
        item.setdefault("status", "completed")
    return item


def page(raws: Sequence[Raw], number: str, query: Mapping[str, str]) -> dict[str, object]:
    """A page of a list, the last one first unless `order` is `asc`; Refused for what is no page.

    `number` is the response's, from which items without an id get one.
    """
    order, after = query.get("order", "desc"), query.get("after", "")
    limit = query.get("limit", str(_PAGE))
    if order not in ("asc", "desc"):
        raise invalid("`order` is `asc` or `desc`.", "order")
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= _MOST_PAGE:
        raise invalid(f"`limit` is a number from 1 to {_MOST_PAGE}.", "limit")
    items = [_listed(raw, f"{number}_{n}") for n, raw in enumerate(raws)]
    if order == "desc":
        items.reverse()
    if after:
        place = next((n for n, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise invalid(f"No item has the id `{after[:64]}`.", "after")
        items = items[place + 1 :]
    shown = items[: int(limit)]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > len(shown),
    }
