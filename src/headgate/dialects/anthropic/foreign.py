"""Messages of a history that carry fields of other protocols beside their content.

Reasoning and calls become blocks, a message of the role `tool` becomes a result, and what is left is named in a warning.
"""

import msgspec
from msgspec import Raw

from headgate import bounds, jsontext
from headgate.dialects import malformed
from headgate.dialects.anthropic.request_wire import MessageIn
from headgate.dialects.unknown import string, warned
from headgate.dialects.unknown_fields import names_of
from headgate.dialects.unknown_parts import call_of, drop_foreign, thoughts_beside
from headgate.errors import Refused

_Object = dict[str, object]
_OWN = names_of(MessageIn)


def without_foreign(body: bytes, refused: Refused) -> tuple[bytes, tuple[str, ...]]:
    """Return the body with its messages in Anthropic's words, and the warnings; the same body where they are.

    Raises `refused` again for a body that cannot be read.
    """
    warnings: list[str] = []
    try:
        fields = msgspec.json.decode(body, type=malformed.Fields)
        messages = msgspec.json.decode(fields["messages"], type=list[Raw])
        jsontext.check_duplicates(body)
        bounds.check_size(messages, bounds.MESSAGES, "$.messages")
        own = [_own(raw, warnings) for raw in messages]
        if own == messages:
            return body, ()
        fields["messages"] = Raw(msgspec.json.encode(own))
    except (msgspec.MsgspecError, KeyError, RecursionError, UnicodeError):
        raise refused from None
    return msgspec.json.encode(fields), warned(warnings)


def _own(raw: Raw, warnings: list[str]) -> Raw:
    known = malformed.fields_of(raw)
    if known is None or _OWN.issuperset(known):
        return raw
    message: _Object = msgspec.json.decode(raw, type=_Object)
    role = message.get("role")
    before = [_thinking(*each) for each in thoughts_beside(message)]
    calls = message.pop("tool_calls", None)
    result = string(message.pop("tool_call_id", "")) if role == "tool" else ""
    content = message.get("content")
    if result:
        content = [{"type": "tool_result", "tool_use_id": result, "content": content}]
        message |= {"role": "user", "content": content}
    elif role == "assistant" and (before or calls):
        blocks = content if isinstance(content, list) else []
        if isinstance(content, str) and content:
            blocks = [{"type": "text", "text": content}]
        has_own = any(isinstance(b, dict) and b.get("type") == "thinking" for b in blocks)
        after = [block for call in _list(calls) if (block := _tool_use(call))]
        message["content"] = [*([] if has_own else before), *blocks, *after]
    elif content is None:
        message["content"] = ""
    return Raw(msgspec.json.encode(drop_foreign(message, _OWN, "messages.", warnings)))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _thinking(text: str, signature: str) -> _Object:
    return {"type": "thinking", "thinking": text, "signature": signature}


def _tool_use(call: object) -> _Object | None:
    """A call of Chat Completions as a block; None where it has no id or no name."""
    if not isinstance(call, dict):
        return None
    inner = call.get("function")
    read = call_of({**call, **inner} if isinstance(inner, dict) else call)
    if read is None:
        return None
    id, name, arguments = read
    return {"type": "tool_use", "id": id, "name": name, "input": arguments}
