"""An upstream's JSON is decoded here: tolerant of what does no harm, such as a lone surrogate or a number for a name."""

import json
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from headgate import utf8

T = TypeVar("T")


def decode(decoder: "msgspec.json.Decoder[T]", data: bytes, type_: type[T]) -> T:
    """An upstream's JSON, forgiving what does no harm (a lone surrogate, a bad byte).

    Raises ValueError when it is no JSON, or not of the type.
    """
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Surrogates must go here: no encoder could write them.
        try:
            loose = json.loads(data.decode("utf-8", "replace"))
            text = utf8.whole_text(json.dumps(loose, ensure_ascii=False))
            with suppress(msgspec.ValidationError):
                return msgspec.json.decode(text.encode(), type=type_, strict=False)
            text = utf8.whole_text(json.dumps(_tidied(loose), ensure_ascii=False))
        except RecursionError:
            raise ValueError("nested too deep") from None
        return msgspec.json.decode(text.encode(), type=type_, strict=False)
    except RecursionError:
        raise ValueError("nested too deep") from None


# Names that servers also give as numbers, and what is the model's own.
_NAMES = frozenset(("id", "call_id", "item_id", "model", "responseId", "modelVersion"))
_OPAQUE = frozenset(("arguments", "args", "input"))
# Texts that servers also give as objects and lists of texts; a `delta` with a type is a whole part.
_TEXTS = frozenset(("text", "thinking", "delta"))


def _tidied(value: Any) -> Any:  # Any: an upstream's JSON
    """Return the value with names and texts that are something else as strings, and without nulls."""
    if isinstance(value, list):
        return [_tidied(each) for each in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for name, field in value.items():
        if name in _OPAQUE:
            out[name] = field
        elif name in _NAMES and type(field) is int:
            out[name] = str(field)
        elif name in _TEXTS and (text := _joined(field)) is not None:
            out[name] = text
        elif field is not None:
            out[name] = _tidied(field)
    return out


def _joined(field: Any) -> str | None:  # Any: an upstream's JSON
    """Return the text of a number, an object around a text, or a list of these; None: it is none."""
    if type(field) in (int, float):
        return str(field)
    if isinstance(field, list):
        texts = [each if isinstance(each, str) else _joined(each) for each in field]
        known = [text for text in texts if text is not None]
        return "".join(known) if len(known) == len(texts) else None
    if not isinstance(field, dict) or "type" in field:
        return None
    inner = field.get("text", field.get("value"))
    return inner if isinstance(inner, str) else None
