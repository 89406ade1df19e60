"""This module builds the response object around the items of a reply of OpenAI Responses."""

from collections.abc import Sequence

import msgspec

from headgate import jsontext
from headgate.chat import Finish, FinishReason, Request, Usage
from headgate.dialects.contract import ReplyFacts
from headgate.dialects.responses.reply_wire import (
    CompactionItem,
    Echo,
    Item,
    ReasoningItem,
    WebSearchItem,
)
from headgate.money import cost_out

_Json = dict[str, object]


# reason: (status, incomplete_details.reason)
_FINISH_OUT: dict[FinishReason, tuple[str, str]] = {
    "stop": ("completed", ""),
    "stop_sequence": ("completed", ""),
    "tool_calls": ("completed", ""),
    "length": ("incomplete", "max_output_tokens"),
    "context_full": ("incomplete", "max_output_tokens"),
    "content_filter": ("incomplete", "content_filter"),
}


def usage_out(usage: Usage, cost_nano: int | None) -> _Json:
    out: _Json = {
        "input_tokens": usage.input,
        "input_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }
    return out | cost_out(cost_nano)


class Frame:
    """The response object around its output: what is the same each time is encoded once."""

    def __init__(self, request: Request, facts: ReplyFacts) -> None:
        self.echo = request.echo if isinstance(request.echo, Echo) else Echo()
        head: _Json = {"id": f"resp_{facts.id}", "object": "response", "created_at": facts.created}
        self._head = jsontext.encode({**head, "model": facts.model})[:-1] + b","
        self._tail = b"," + jsontext.encode(self.echo)[1:]

    def response(
        self,
        status: str,
        output: Sequence[Item] = (),
        usage: _Json | None = None,
        incomplete: str = "",
        error: _Json | None = None,
    ) -> bytes:
        middle: _Json = {
            "status": status,
            "completed_at": None,  # no clock is read here, and nobody needs it
            "error": error,
            "incomplete_details": {"reason": incomplete} if incomplete else None,
            "output": output,
            "usage": usage,
        }
        return self._head + jsontext.encode(middle)[1:-1] + self._tail

    def finished(self, output: list[Item], finish: Finish) -> tuple[str, bytes]:
        """Return the status, and the response with it; the item that was cut short says so."""
        status, incomplete = _FINISH_OUT[finish.reason]
        if (
            incomplete
            and output
            and not isinstance(output[-1], ReasoningItem | WebSearchItem | CompactionItem)
        ):
            output = [*output[:-1], msgspec.structs.replace(output[-1], status="incomplete")]
        usage = usage_out(finish.usage or Usage(), finish.cost_nano)
        return status, self.response(status, output, usage, incomplete)
