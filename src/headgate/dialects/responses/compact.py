"""Compaction of Responses: a conversation in, the same in fewer items out, by one turn of the model.

`POST /v1/responses/compact` (openai 3.57, `CompactedResponse`, read 2026-11).  The model is asked for
a summary, whose text is the `encrypted_content` of a compaction item, encoded and not encrypted; the
item is read again by dialects/unknown.py.  What users wrote last is repeated before it.

Note: nothing is streamed here, as OpenAI streams nothing.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from headgate import jsontext
from headgate.chat import Choice, Message, Reply, Request, Text
from headgate.dialects import compaction
from headgate.dialects.contract import ReplyFacts, RequestTarget
from headgate.dialects.responses.dialect import ResponsesDialect
from headgate.dialects.responses.frame import usage_out
from headgate.dialects.responses.request import SUMMARIZE

_KEPT_CHARS = 80_000  # of what users wrote, some 20,000 tokens, as Codex keeps by itself


class _Kept(Struct, frozen=True):
    """What users wrote, to be repeated in the reply."""

    texts: tuple[str, ...]


class CompactDialect(ResponsesDialect):
    """Responses, for requests that ask for a summary of themselves."""

    def decode_request(self, body: bytes, target: RequestTarget) -> Request:
        request = super().decode_request(body, target)
        asked = Message("user", (Text(SUMMARIZE),))
        return msgspec.structs.replace(
            request,
            messages=(*request.messages, asked),
            stream=False,
            choice=Choice("none") if request.tools else Choice(),
            format=None,
            echo=_Kept(_written(request.messages)),
        )

    def encode_reply(self, reply: Reply, request: Request, facts: ReplyFacts) -> bytes:
        texts = request.echo.texts if isinstance(request.echo, _Kept) else ()
        summary = "".join([part.text for part in reply.parts if isinstance(part, Text)]).strip()
        kept = [
            {
                "type": "message",
                "id": f"msg_{facts.id}_{n}",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_text", "text": text}],
            }
            for n, text in enumerate(texts)
        ]
        item = {
            "type": "compaction",
            "id": f"cmp_{facts.id}",
            "encrypted_content": compaction.compacted(summary),
        }
        out = {
            "id": f"resp_{facts.id}",
            "object": "response.compaction",
            "created_at": facts.created,
            "output": [*kept, item],
            "usage": usage_out(reply.usage, reply.cost_nano),
        }
        return jsontext.encode(out)


def _written(messages: Sequence[Message]) -> tuple[str, ...]:
    """The last texts of users, without summaries of what was before."""
    kept: list[str] = []
    room = _KEPT_CHARS
    for message in reversed(messages):
        text = message.text
        if message.role != "user" or not text or text.startswith(compaction.SUMMARY):
            continue
        room -= len(text)
        if room < 0:
            break
        kept.append(text)
    return tuple(reversed(kept))
