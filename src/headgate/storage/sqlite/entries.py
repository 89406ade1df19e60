"""Encodes intents and rows for the writer of the ledger.

This is the only module that says what of a text is fit to be kept.  An entry is a JSON
array (writer.py), and has a time of its own on the edge's core: it is encoded as it is
where that is known to be harmless, which is nearly always.
"""

import msgspec

from headgate.storage.rows import MAX_CHARS, MAX_WORDS, AttemptRecord, IntentRecord, LedgerRow

PLAIN = 2048  # bytes of an entry that is taken as it is, if nothing in it is out of the ordinary

_BACKSLASH, _DEL = b"\\\x7f"  # as numbers, which `in` finds at once (stream/sse.py)

_encode = msgspec.json.Encoder().encode


def encode_row(row: LedgerRow) -> bytes:
    values = msgspec.structs.astuple(row)
    return _plain((1, *values), row.session, row.user) or _encode((1, *_clean(values)))


def encode_entry(intent: IntentRecord, *before: object) -> bytes:
    """Return an entry that has the intent as its last element."""
    data = _plain((*before, intent), intent.session, intent.user)
    if data is None:
        data = _encode((*before, _clean_intent(intent)))
    return data


def encode_intent(intent: IntentRecord) -> bytes:
    """Return the intent alone, as a JSON object."""
    data = _plain(intent, intent.session, intent.user)
    return _encode(_clean_intent(intent)) if data is None else data


def _clean_intent(intent: IntentRecord) -> dict[str, object]:
    values = _clean(msgspec.structs.astuple(intent))
    return dict(zip(intent.__struct_fields__, values, strict=True))


def _plain(value: object, session: str, user: str) -> bytes | None:
    """Return the JSON as it is, if `_clean`, which costs five times as much, is not needed.

    ASCII without a backslash has nothing that JSON must escape, and nothing unprintable but DEL.
    """
    try:
        data = _encode(value)
    except UnicodeEncodeError:
        return None
    if len(data) > PLAIN or len(session) > MAX_CHARS or len(user) > MAX_CHARS:
        return None
    return None if not data.isascii() or _BACKSLASH in data or _DEL in data else data


def _clean(values: tuple[object, ...]) -> tuple[object, ...]:
    """Fields as JSON and SQLite can hold them: bounded, and no surrogates or zeros in a text."""
    return tuple(
        _word(v) if type(v) is str else _words(v) if type(v) is tuple else v for v in values
    )


def _word(text: str) -> str:
    if len(text) > MAX_CHARS:
        text = text[:MAX_CHARS]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _words(values: tuple[object, ...]) -> list[object]:
    return [
        _word(v)
        if isinstance(v, str)
        else AttemptRecord(*_clean(msgspec.structs.astuple(v)))  # type: ignore[arg-type]  # same fields
        if isinstance(v, AttemptRecord)
        else v
        for v in values[:MAX_WORDS]
    ]


decode_intent = msgspec.json.Decoder(IntentRecord).decode
