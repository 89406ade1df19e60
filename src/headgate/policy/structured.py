"""Structured output that was asked for in words only: is the reply what the schema says, and if not?

The only place that judges a reply against a caller's JSON Schema, and the only one that takes an
answer out of the prose around it.  A reply that does not fit is asked for once more where the
operator allows it, and is never passed off as valid.

Schemas come from callers, so a validator must be safe with them.  `jsonschema-rs` 0.61 (read and
measured 2026-11) fetches nothing with `offline`, bounds its regular expressions (a fancy one gives
up after `_BACKTRACKS`, a plain one is linear) and stops at references that go in circles.
`jsonschema` and `fastjsonschema` match with `re`, which one pattern can stop forever, and the
latter runs code that it makes of the schema.  It is imported at the first use: 17 ms.

Note:
- a reason is for a model and a log, so it names places and keywords, in the caller's own words only:
  a key that the reply made up is shown as `*`;
- `format` is not checked, as JSON Schema makes it an annotation and models were sent no more;
- an answer is taken out of its prose only where it is the one JSON object there;
- a schema that would take too long is refused (`_MAX_SCHEMA`), except one whose alternatives refer
  back to it more than once for the same place: with a reply as deep it is slow.  Known.
"""

import json
import re

import msgspec

from headgate.chat import Format, Message, Reply, Request, Text, Thinking, ToolCall
from headgate.policy.schemas import check, decode

_MAX_TEXT = 1 << 20  # characters; an answer is taken out of no longer prose
_MAX_TRIES = 64  # braces in prose that begin no object; each may cost the length of the text


# --- taking the answer out ------------------------------------------------------------------------

_FENCED = re.compile(r"```[\w+.-]{0,16}[ \t]{0,8}\r?\n(.*?)\r?\n?[ \t]{0,8}```", re.DOTALL)
_loose = json.JSONDecoder()


def extract(text: str) -> str:
    """The one JSON object in a text that is wrapped in prose or fences; else the text unchanged.

    A text that is JSON already is what it is, to the byte.
    """
    if len(text) > _MAX_TEXT or _is_json(text):
        return text
    blocks = [b for b in (m[1].strip() for m in _FENCED.finditer(text)) if _is_object(b)]
    if not blocks:
        blocks = _objects(text)
    return blocks[0] if len(blocks) == 1 else text


def _objects(text: str) -> list[str]:
    """The outermost objects that stand in the text, the first two of them."""
    out: list[str] = []
    at = 0
    for _ in range(_MAX_TRIES):
        at = text.find("{", at)
        if at < 0 or len(out) == 2:
            return out
        try:
            _, end = _loose.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        if _is_object(text[at:end]):  # as the strict reader sees it, without NaN
            out.append(text[at:end])
        at = end
    return []  # too many braces to say which one is meant


def _is_json(text: str) -> bool:
    try:
        decode(text)
    except ValueError:
        return False
    return True


def _is_object(text: str) -> bool:
    return text.startswith("{") and _is_json(text)


# --- a whole reply --------------------------------------------------------------------------------


def settle(reply: Reply, format: Format) -> tuple[Reply, str | None]:
    """The reply with its answer taken out, and why it still is not valid; None when it is.

    A reply that calls tools has no answer yet, and is left alone.
    """
    if any(isinstance(part, ToolCall) for part in reply.parts):
        return reply, None
    text = "".join(part.text for part in reply.parts if isinstance(part, Text))
    answer = extract(text)
    if answer != text:
        others = tuple(part for part in reply.parts if not isinstance(part, Text))
        reply = msgspec.structs.replace(reply, parts=(*others, Text(answer)))
    return reply, check(answer, format)


def repairable(reply: Reply) -> bool:
    """Whether asking once more may help: not for a reply that was cut, or was filtered."""
    return reply.finish.reason == "stop"


def repair_request(request: Request, reply: Reply, reason: str) -> Request:
    """The one more try: the request as it was sent, the reply that was bad, and what was wrong.

    `request` is the fitted one, so that the schema's instruction is in its system text, and all that
    came before is the same to the byte and may be cached.
    """
    parts = tuple(
        p for p in reply.parts if isinstance(p, Thinking) or (isinstance(p, Text) and p.text)
    )
    # MiniMax refuses empty content (2013), and thinking alone is no content.
    stated = any(isinstance(p, Text) and not p.text.isspace() for p in parts)
    wish = (
        f"Your reply is not what was asked for: {reason}. Answer again with the corrected JSON"
        " object and nothing else: no prose around it and no Markdown fences."
    )
    messages = (Message("assistant", parts),) if stated else ()
    return msgspec.structs.replace(
        request, messages=(*request.messages, *messages, Message("user", (Text(wish),)))
    )
