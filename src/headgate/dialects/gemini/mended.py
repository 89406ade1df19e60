"""Turns of generateContent that are malformed, made readable."""

import msgspec
from msgspec import Raw

from headgate.dialects import malformed, unreadable
from headgate.dialects.gemini.content_wire import NULL, part_decoder


def mended(raw: Raw, warnings: list[str]) -> Raw | None:
    """A turn of the history with a role and parts that can be read."""
    if malformed.is_text(raw):
        return raw
    fields = malformed.fields_of(raw)
    if fields is None:
        warnings.append("history: malformed turn skipped")
        return None
    out: dict[str, Raw] = {}
    role, parts = fields.get("role", NULL), fields.get("parts", NULL)
    if malformed.is_text(role) or bytes(role) == b"null":
        out["role"] = role
    else:
        warnings.append("history: malformed role read as user")
    if not (malformed.is_list(parts) or malformed.is_text(parts) or bytes(parts) == b"null"):
        parts = Raw(b"[" + bytes(parts) + b"]")
    if malformed.is_list(parts):
        each = [_mended_part(part, warnings) for part in msgspec.json.decode(parts, type=list[Raw])]
        parts = Raw(msgspec.json.encode([part for part in each if part is not None]))
    out["parts"] = parts
    return Raw(msgspec.json.encode(out))


def _mended_part(raw: Raw, warnings: list[str]) -> Raw | None:
    """A part without the fields that have another type than Google's."""
    try:
        part_decoder.decode(raw)
    except msgspec.ValidationError:
        pass
    else:
        return raw
    if malformed.is_text(raw):
        return Raw(msgspec.json.encode({"text": raw}))
    kept: dict[str, Raw] = {}
    for name, value in (malformed.fields_of(raw) or {}).items():
        try:
            part_decoder.decode(msgspec.json.encode({name: value}))
        except msgspec.ValidationError:
            warnings.append(unreadable.skipped(f"malformed {unreadable.plain(name)}"))
        else:
            kept[name] = value
    if not kept:
        warnings.append(unreadable.skipped("malformed part"))
        return None
    return Raw(msgspec.json.encode(kept))
