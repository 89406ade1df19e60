"""Token counts without a tokenizer: estimates, always labelled so.

MiniMax's vocabulary is its own 200 k BPE and is on no package index; English runs at about 4.2
characters a token and Chinese at about 1.6 in comparable vocabularies (measured 2026-11 with
o200k).  Used before an upstream says its own count, and never for a bill that an upstream's own
count could make.
"""

from headgate.chat import Media, Message, Request, Text, Thinking, ToolCall, ToolResult

ASCII_PER_TOKEN = 4.0
OTHER_PER_TOKEN = 1.7
JSON_PER_TOKEN = 3.5
PER_MESSAGE = 4
PER_IMAGE = 512  # what RunAPI's count_tokens uses (2026-07)


def of_text(text: str) -> float:
    ascii_chars = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return ascii_chars / ASCII_PER_TOKEN + (len(text) - ascii_chars) / OTHER_PER_TOKEN


def of_counts(ascii_chars: int, other_chars: int) -> int:
    return round(ascii_chars / ASCII_PER_TOKEN + other_chars / OTHER_PER_TOKEN)


def estimate(request: Request) -> int:
    """Input tokens of a request: an estimate, some 20 % off on prose and more on code."""
    total = 3.0 + sum(PER_MESSAGE + _message(m) for m in request.messages)
    total += sum(
        len(bytes(t.parameters)) / JSON_PER_TOKEN + of_text(t.description) for t in request.tools
    )
    return round(total)


def _message(message: Message) -> float:
    total = 0.0
    for part in message.parts:
        match part:
            case Text() | Thinking():
                total += of_text(part.text)
            case ToolCall():
                total += of_text(part.name) + len(part.arguments) / JSON_PER_TOKEN
            case ToolResult():
                total += sum(
                    of_text(p.text) if isinstance(p, Text) else PER_IMAGE for p in part.parts
                )
            case Media():
                total += PER_IMAGE
    return total
