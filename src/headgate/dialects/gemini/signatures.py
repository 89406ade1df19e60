"""Thought signatures of generateContent are converted here: as bytes and as the base64 of its JSON."""

import base64
import binascii

# What is no base64 travels as base64 of this and the text, so that one wire form has one meaning.
_WRAP = b"hg:"


def bytes_of(text: str) -> bytes | None:
    """What base64 of either alphabet, padded or not, stands for; None for what is none."""
    body = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def encode_signature(signature: str) -> str:
    """Return the standard base64, which Google's SDKs insist on; `decode_signature` gives it back."""
    data = bytes_of(signature)
    if data is not None and not data.startswith(_WRAP) and _standard(data) == signature:
        return signature
    return _standard(_WRAP + signature.encode())


def decode_signature(wire: str) -> str:
    """The signature a client replays; "" for what is no base64.

    The alphabet is not the client's to choose: google-genai for Python changes it on the way.
    """
    data = bytes_of(wire)
    if data is None:
        return ""
    if not data.startswith(_WRAP):
        return _standard(data)
    try:
        return data[len(_WRAP) :].decode()
    except UnicodeDecodeError:
        return ""


def _standard(data: bytes) -> str:
    return base64.b64encode(data).decode()


def signature_in(wire: str) -> str:
    """An upstream's own, kept as it came; in the plain when it is sent back as the same bytes."""
    plain = decode_signature(wire)
    return plain if plain and signature_out(plain) == wire else wire


def signature_out(signature: str) -> str:
    return signature if bytes_of(signature) is not None else encode_signature(signature)
