"""Notes in place of what a model cannot read: a tool's results and history never end a session.

This file is the only place for their words. The policy behind them, for every dialect: history that
cannot be read is kept as text or skipped, with a warning, because its user cannot take it back; what
a tool returned becomes a note for the model; only what a user attached may be refused.
"""

from headgate.chat import Text

_BY_TYPE = {
    "application/pdf": "a PDF",
    "image": "a picture",
    "video": "a video",
    "audio": "an audio file",
}
# Names of blocks and parts that carry media, in any dialect.
_BY_KIND = {
    "image": "a picture",
    "image_url": "a picture",
    "input_image": "a picture",
    "video": "a video",
    "video_url": "a video",
    "audio": "an audio file",
    "input_audio": "an audio file",
    "document": "a document",
    "file": "a file",
    "input_file": "a file",
    "container_upload": "a file",
}
ATTACHMENTS = frozenset(_BY_KIND)


def name_of(kind: str, media_type: str = "") -> str:
    """What a person calls a block of this kind and media type, with its article."""
    media_type = media_type.lower()
    found = _BY_TYPE.get(media_type) or _BY_TYPE.get(media_type.partition("/")[0])
    if found is None:
        found = _BY_KIND.get(kind)
    return found or f"a block of the type `{plain(kind)}`"


def note_of(what: str, cache: str = "") -> Text:
    """The note that the model reads where a tool returned `what`."""
    return Text(f"[{what} was returned here; this model cannot read it]", cache)


def warning_of(what: str) -> str:
    """The warning that the client gets beside the note."""
    return f"tool result: {what} replaced by a note"


def attached(what: str, cache: str = "") -> Text:
    """The note that the model reads where a user attached `what` in an earlier turn."""
    return Text(f"[{what} was attached here; this model cannot read it]", cache)


def replaced(what: str) -> str:
    """The warning that the client gets beside the note for an attachment."""
    return f"history: {what} replaced by a note"


def skipped(what: str) -> str:
    """The warning for history that has no text to keep."""
    return f"history: {what} skipped"


def kept_as_text(what: str) -> str:
    """The warning for history that the model is shown as text."""
    return f"history: {what} kept as text"


def plain(kind: str) -> str:
    """A client's own word, short and printable: it goes into a header and a note."""
    return "".join(c for c in kind[:40] if c.isascii() and (c.isalnum() or c in "_-.")) or "unknown"


__all__ = [
    "ATTACHMENTS",
    "attached",
    "kept_as_text",
    "name_of",
    "note_of",
    "plain",
    "replaced",
    "skipped",
    "warning_of",
]
