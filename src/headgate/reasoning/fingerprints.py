"""Digests by which turns of a conversation are found again."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile

import msgspec

from headgate import jsontext
from headgate.chat import Message, Text, ToolCall, ToolResult

# Bounds of the work that one request can ask for.
MAX_SLOTS = 256  # parts of one turn; MiniMax's models make two dozen at most


_MAX_NORMAL = 1 << 18  # characters of arguments that are compared regardless of their spacing


_HEAD = 512  # characters of each message that tell one place in a conversation from another


def _digest(stated: str) -> bytes:
    return _digest_of(stated.encode(errors="surrogatepass"))


def _digest_of(stated: bytes) -> bytes:
    return hashlib.blake2b(stated, digest_size=16).digest()


def text_digest(texts: Sequence[str]) -> bytes:
    return _digest(jsontext.squeezed("".join(texts)))


def call_digest(call: ToolCall) -> bytes:
    """The same for the same arguments in another order or spacing."""
    arguments = call.arguments
    if len(arguments) > _MAX_NORMAL:
        return _digest(f"{call.name}\0{arguments}")
    with suppress(ValueError, RecursionError):  # invalid; then clients carry it as it is
        arguments = msgspec.json.encode(msgspec.json.decode(arguments), order="sorted").decode()
    return _digest(f"{call.name}\0{arguments}")


def system_digest(messages: Sequence[Message]) -> bytes:
    """The digest of the words that a conversation begins with; they may tell whose it is."""
    leading = takewhile(lambda m: m.role == "system", messages)
    return _digest("\0".join(m.text for m in leading))


def root_digest(messages: Sequence[Message]) -> bytes:
    for message in messages:
        if message.role == "user":
            return _digest_of(_head(message))
    return b""


class ConversationPlace:
    """Where in a conversation we are: what came from users and tools since the assistant's last message.

    Messages of the assistant that follow each other share a place: a turn may be sent in several.
    System messages are passed over, as clients move them.
    """

    def __init__(self) -> None:
        self._stated: list[Message] = []
        self._spoken = False
        self._digest = b""

    def add(self, message: Message) -> None:
        if message.role == "assistant":
            self._spoken = True
        elif message.role != "system":
            if self._spoken:
                self._spoken, self._stated = False, []
            self._stated.append(message)
            self._digest = b""

    @property
    def digest(self) -> bytes:
        if not self._digest:
            self._digest = _digest_of(b"\0".join(map(_head, self._stated)))
        return self._digest


_SPACE = b" \t\n\r\x0b\x0c"


def _head(message: Message) -> bytes:
    """How the message begins, without white space."""
    texts: list[str] = []
    for part in message.parts:
        if type(part) is Text:
            texts.append(part.head(_HEAD))
        elif type(part) is ToolResult:
            texts += [p.head(_HEAD) for p in part.parts if type(p) is Text]
    stated = texts[0] if len(texts) == 1 else "".join(texts)
    return stated.encode(errors="surrogatepass").translate(None, _SPACE)[:_HEAD]
