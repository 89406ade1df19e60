"""What the ledger is told: marks and rows, and how they are written for the writer.

The only place that says what a row has, and what of a text is fit to be kept.  An entry is a JSON
array (writer.py), and has a time of its own on the edge's core: it is encoded as it is
where that is known to be harmless, which is nearly always.
"""

from typing import Literal

import msgspec

Basis = Literal["upstream", "disputed", "partial", "estimated", "none", "recovered"]
MAX_CHARS = 256  # of any text: names, and a session id that the client has made up
MAX_WORDS = 64  # warnings and attempts of one row
PLAIN = 2048  # bytes of an entry that is taken as it is, if nothing in it is out of the ordinary

_encode = msgspec.json.Encoder().encode


class AttemptRecord(msgspec.Struct, frozen=True, gc=False):
    """One contact with an upstream; the client pays for the last one only."""

    upstream: str
    model: str  # the upstream's name of it
    outcome: str
    upstream_code: str = ""
    ms: int = 0
    key: int = 0  # its place in the upstream's pool of keys, from 1; 0: there is no pool
    reply_began: bool = False  # it failed after its reply had begun, which may be billed
    upstream_text: str = ""  # of its error, as redaction.py leaves it


class LedgerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange as it ended.  The fields are the columns of `ledger`, in their order."""

    id: str
    account: str = ""
    key: str
    session: str = ""  # the client's own; two keys may use the same
    dialect: str
    model: str
    upstream: str = ""
    upstream_model: str = ""
    stream: bool = False
    outcome: str
    basis: Basis
    status: int = 0  # 0: the client was told nothing
    began_s: float  # Unix seconds
    first_token_ms: int | None = None
    total_ms: int = 0
    input: int = 0  # includes cached and cache_write
    cached: int = 0
    cache_write: int = 0
    output: int = 0  # includes reasoning
    reasoning: int = 0
    cost_nano: int | None  # None: no price is known
    price_version: str = ""
    service_tier: str = ""
    attempts: tuple[AttemptRecord, ...] = ()
    warnings: tuple[str, ...] = ()


class IntentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an exchange before its upstream is contacted, or at a checkpoint."""

    id: str
    account: str = ""
    key: str
    session: str = ""
    dialect: str
    model: str
    upstream: str = ""
    upstream_model: str = ""
    stream: bool = False
    began_s: float
    # What the row says should the process die now.  To a client that pays nothing is the safe side.
    input: int = 0
    output: int = 0
    cost_nano: int | None = 0
    price_version: str = ""
    service_tier: str = ""

    def recovered(self) -> LedgerRow:
        return LedgerRow(
            **{name: getattr(self, name) for name in self.__struct_fields__},
            outcome="crashed",
            basis="recovered",
        )


def encode_row(row: LedgerRow) -> bytes:
    values = msgspec.structs.astuple(row)
    return _plain((1, *values), row.session) or _encode((1, *_clean(values)))


def encode_mark(mark: IntentRecord, *before: object) -> bytes:
    data = _plain((*before, mark), mark.session)
    if data is None:
        values = _clean(msgspec.structs.astuple(mark))
        data = _encode((*before, dict(zip(mark.__struct_fields__, values, strict=True))))
    return data


def encode_intent(mark: IntentRecord) -> bytes:
    """The intent alone, as a JSON object."""
    try:
        data = _encode(mark)
        short = len(data) <= PLAIN and len(mark.session) <= MAX_CHARS
        if short and data.isascii() and b"\\" not in data and b"\x7f" not in data:
            return data
    except UnicodeEncodeError:
        pass
    values = _clean(msgspec.structs.astuple(mark))
    return _encode(dict(zip(mark.__struct_fields__, values, strict=True)))


def _plain(values: tuple[object, ...], session: str) -> bytes | None:
    """The entry as it is, if it is such that `_clean`, which costs five times as much, is not needed.

    ASCII without a backslash has nothing that JSON must escape, and nothing unprintable but DEL.
    """
    try:
        data = _encode(values)
    except UnicodeEncodeError:
        return None
    if len(data) > PLAIN or len(session) > MAX_CHARS or not data.isascii():
        return None
    return None if b"\\" in data or b"\x7f" in data else data


def _clean(values: tuple[object, ...]) -> tuple[object, ...]:
    """Fields as JSON and SQLite can hold them: bounded, and no surrogates or zeros in a text."""
    return tuple(_word(v) if type(v) is str else _words(v) if type(v) is tuple else v for v in values)  # fmt: skip


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


decode_mark = msgspec.json.Decoder(IntentRecord).decode
