"""Reasoning sealed into the opaque field that each protocol makes its clients return.

The fields are the `signature` of Anthropic's thinking blocks, Gemini's `thoughtSignature` and the
`encrypted_content` of Responses.  A client that returns nothing else of a turn's thinking returns
all of it in this field, to any edge that has the secret, so no server needs to keep anything.

    sealed := "hgc1" base64(head pad body mac)      head: body's form and number of pad bytes
    body   := raw deflate of (lengths, upstream's signature, origin, text), or that itself
    mac    := HMAC-SHA256 of all before it, first 16 bytes

Notes:
- It is authenticated, not encrypted.  The client may see its own thinking anyway (`display`,
  `includeThoughts`) and may send any text in a block without a signature.  For the same reason it
  is not bound to a key.  The mac keeps text that was cut, changed or made elsewhere from being taken
  for the model's, and keeps strangers from choosing what is decompressed.
- It is standard base64 as a whole and never ends in "=": every character counts, so every change is
  noticed, and Google's SDKs, which decode and encode it again, give the same bytes.
- A text too long to send twice is left out; the field then holds the upstream's signature only,
  and the client's copy of the text is used.
"""

import binascii
import hmac
import struct
import zlib
from collections.abc import Sequence

import msgspec

from headgate import jsontext
from headgate.chat import (
    Delta,
    Event,
    Message,
    Part,
    PartStart,
    PartStop,
    Pieces,
    Request,
    Thinking,
)

PREFIX = "hgc1"  # four characters, so that the whole is base64; the digit is the version
SECRET_BYTES = 32
# One event of a stream holds the whole field; 256 KiB hold about 120 000 tokens of thinking, and
# aiohttp's readers, the strictest known, can be set to take lines of that size (Google's SDK does).
MAX_SEALED = 256 << 10  # characters
# Thinking caught in a loop compresses a thousandfold.  524 288 tokens, M3's longest, are 2 MiB.
MAX_PAYLOAD = 4 << 20  # bytes of one field, opened
MAX_RESTORED = 8 << 20  # bytes of all fields of one request; a window of 10^6 tokens is 4 MiB

_PREFIX = PREFIX.encode()
_MAC = 16  # bytes
_LENGTHS = struct.Struct(">IHB")  # of signature and origin, in bytes; whether the text is within
_STORED, _DEFLATED = 0, 1  # the form of the body
_LEVEL = 6  # 20 kB of thinking become 12 in 340 us, once; level 1 makes 13 of them in 100


class Sealed(msgspec.Struct, frozen=True, gc=False):
    """This is what a sealed field holds."""

    text: str | None  # the thinking as the upstream sent it; None: it was too long to seal
    signature: str = ""  # the upstream's own
    origin: str = ""  # the upstream that understands that signature; a name clients may see


class Sealer:
    """Seals with the first of its secrets, and opens what any of them sealed.

    To change the secret put the new one first, and remove the old one a day later.
    """

    def __init__(self, *secrets: bytes) -> None:
        if not secrets or any(len(s) != SECRET_BYTES for s in secrets):
            raise ValueError(f"A sealer needs secrets of {SECRET_BYTES} bytes.")
        # HKDF's expand step (RFC 5869); the secrets are uniform already, so nothing to extract.
        # The label is part of what was sealed before: changing it makes that unreadable.
        self._keys = tuple(hmac.digest(s, b"headgate capsule v1\x01", "sha256") for s in secrets)

    def seal(self, text: str, signature: str = "", origin: str = "") -> str:
        """Return the sealed field; "" when even the upstream's signature is too long for one."""
        for content in (text, None):
            payload = _payload(content, signature, origin)
            if len(payload) <= MAX_PAYLOAD:
                sealed = self._encoded(payload)
                if len(sealed) <= MAX_SEALED:
                    return sealed
        return ""

    def open(self, sealed: str) -> Sealed | None:
        """Return the content; None for what was not sealed here or is not whole.  Never raises."""
        if not sealed.startswith(PREFIX) or len(sealed) > MAX_SEALED:
            return None
        try:
            raw = binascii.a2b_base64(sealed[len(PREFIX) :], strict_mode=True)
            if len(raw) <= _MAC or len(sealed) % 4 or sealed.endswith("="):
                return None
            signed, mac = raw[:-_MAC], raw[-_MAC:]
            if not any(hmac.compare_digest(_mac(key, signed), mac) for key in self._keys):
                return None
            form, pad = divmod(signed[0], 4)
            body = signed[1 + pad :]
            if form == _DEFLATED:
                reader = zlib.decompressobj(-zlib.MAX_WBITS)
                body = reader.decompress(body, MAX_PAYLOAD)
                if not reader.eof:
                    return None
            elif form != _STORED:
                return None
            return _sealed(body)
        except (ValueError, struct.error, zlib.error):
            return None  # only after a valid mac: another version's form

    def _encoded(self, payload: bytes) -> str:
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        body, form = packer.compress(payload) + packer.flush(), _DEFLATED
        if len(body) >= len(payload):
            body, form = payload, _STORED
        pad = -(1 + len(body) + _MAC) % 3
        signed = bytes((form * 4 + pad,)) + bytes(pad) + body
        raw = signed + _mac(self._keys[0], signed)
        return PREFIX + binascii.b2a_base64(raw, newline=False).decode()


def _mac(key: bytes, signed: bytes) -> bytes:
    return hmac.digest(key, _PREFIX + signed, "sha256")[:_MAC]


def _payload(text: str | None, signature: str, origin: str) -> bytes:
    # Lone surrogates occur in what models write; sealing must not fail on them.
    signed, name = signature.encode(errors="surrogatepass"), origin.encode()
    head = _LENGTHS.pack(len(signed), len(name), text is not None)
    return head + signed + name + (text or "").encode(errors="surrogatepass")


def _sealed(payload: bytes) -> Sealed:
    signed, named, within = _LENGTHS.unpack_from(payload)
    at = _LENGTHS.size
    signature = payload[at : at + signed].decode(errors="surrogatepass")
    origin = payload[at + signed : at + signed + named].decode()
    text = payload[at + signed + named :].decode(errors="surrogatepass") if within else None
    return Sealed(text, signature, origin)


def is_sealed(signature: str) -> bool:
    """Return whether it looks like a field sealed here; only `Sealer.open` can decide."""
    return signature.startswith(PREFIX)


# --- replies -------------------------------------------------------------------------------------


class Seal:
    """A filter of replies that sets the signature of every thinking part, at its end.

    `origin` names the upstream, for the day when another one is given the conversation.
    `signed_only` is for clients that return the text anyway (OpenAI's): there only an upstream's
    own signature is worth sealing.  Parts without text or signature are left as they are.

    It must stand before `filters.Show`, which may take the text away.
    """

    def __init__(self, sealer: Sealer, origin: str = "", signed_only: bool = False) -> None:
        self._sealer = sealer
        self._origin = origin
        self._signed_only = signed_only
        self._pieces: Pieces | None = None  # of the open part, when it is thinking
        self._size = 0  # characters of them

    def feed(self, events: list[Event]) -> list[Event]:
        pieces = self._pieces
        for n, event in enumerate(events):
            kind = type(event)
            if kind is Delta:
                # What is longer than the field holds is not kept; its text is left out anyway.
                if pieces is not None and self._size <= MAX_PAYLOAD:
                    text = event.text  # type: ignore[union-attr]  # kind says so
                    self._size += len(text)
                    pieces.add(text)
            elif kind is PartStart:
                pieces = Pieces() if event.kind == "thinking" else None  # type: ignore[union-attr]
                self._size = 0
            elif kind is PartStop and pieces is not None:
                events[n] = PartStop(self._seal(pieces.take(), event.signature))  # type: ignore[union-attr]
                pieces = None
        self._pieces = pieces
        return events

    def _seal(self, text: str, signature: str) -> str:
        if not signature and (self._signed_only or not text):
            return ""
        return self._sealer.seal(text, signature, self._origin)


# --- requests ------------------------------------------------------------------------------------


def unseal(request: Request, sealer: Sealer, origin: str = "") -> tuple[Request, int]:
    """Return the request with its sealed thinking opened, and in how many turns.

    The sealed text wins over the client's copy of the text, which may be gone, trimmed, or in pieces.
    The upstream's own signature comes back when it is `origin`'s; any other signature is dropped
    and its text kept, as upstreams refuse or ignore each other's signatures.  Thinking
    without text and signature is dropped.  Pure; a request without thinking is given back as it is.
    """
    if not any(type(p) is Thinking for m in request.messages for p in m.parts):
        return request, 0
    reader = _Reader(sealer, origin)
    for message in request.messages:
        reader.add(message)
    return msgspec.structs.replace(request, messages=reader.close()), reader.restored


def unsigned(request: Request) -> Request:
    """The request for an upstream of another origin than it was unsealed for: texts only."""
    if not any(type(p) is Thinking and p.signature for m in request.messages for p in m.parts):
        return request
    messages = (Message(m.role, _unsigned(m.parts)) for m in request.messages)
    return msgspec.structs.replace(
        request, messages=tuple(m for m in messages if m.parts or m.role != "assistant")
    )


def _unsigned(parts: Sequence[Part]) -> tuple[Part, ...]:
    plain = (Thinking(p.text) if type(p) is Thinking else p for p in parts)
    return tuple(p for p in plain if type(p) is not Thinking or p.text)


class _Reader:
    """Rebuilds messages; sealed text also replaces the pieces of it that stand before it.

    Clients of Gemini keep streamed thoughts as parts, or even as messages, of their own, and the
    signature comes on the first part that is no thought.
    """

    def __init__(self, sealer: Sealer, origin: str) -> None:
        self._sealer = sealer
        self._origin = origin
        self._out: list[tuple[Message, list[Part] | None]] = []  # None: the message as it is
        self._loose: list[tuple[list[Part], str]] = []  # unsigned pieces that came last, and where
        self._budget = MAX_RESTORED
        self.restored = 0

    def add(self, message: Message) -> None:
        if message.role != "assistant" or not any(type(p) is Thinking for p in message.parts):
            self._loose = []
            self._out.append((message, None))
            return
        parts: list[Part] = []
        self._out.append((message, parts))
        opened = 0
        for part in message.parts:
            if type(part) is not Thinking:
                self._loose = []
                parts.append(part)
                continue
            sealed = self._open(part.signature)
            if sealed is None:
                if part.text:
                    parts.append(Thinking(part.text))
                    self._loose.append((parts, part.text))
                continue
            opened = 1
            text = part.text
            if sealed.text is not None:
                text = sealed.text
                self._absorb(text)
            self._loose = []
            signature = sealed.signature if sealed.origin == self._origin else ""
            if text or signature:
                parts.append(Thinking(text, signature))
        self.restored += opened

    def close(self) -> tuple[Message, ...]:
        out = []
        for message, parts in self._out:
            if parts is None or tuple(parts) == message.parts:
                out.append(message)
            elif parts:
                out.append(Message(message.role, tuple(parts)))
        return tuple(out)

    def _open(self, signature: str) -> Sealed | None:
        if not is_sealed(signature) or self._budget <= 0:
            return None
        sealed = self._sealer.open(signature)
        if sealed is not None:
            self._budget -= len(sealed.text or "")
        return sealed

    def _absorb(self, text: str) -> None:
        """Take back the loose pieces, if they are pieces of `text`."""
        if self._loose and jsontext.squeezed(
            "".join(t for _, t in self._loose)
        ) in jsontext.squeezed(text):
            for parts, _ in self._loose:
                parts.pop()  # each stands at the end of its list, and the list holds as many
