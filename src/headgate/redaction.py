"""What is kept of a text that an upstream wrote about an error: short, and without secrets or prompts.

Note: an upstream may quote the request in its error, so long quotations and bodies are left out.
"""

import re

MAX_CHARS = 240  # some lines of a table
_HIDDEN = "***"
# Keys and tokens by how they begin or how they are named, and any word too long to be one.
_SECRET = re.compile(
    r"(?:(?i:bearer|basic) |(?i:token|key)[=:] ?)[\"']?[A-Za-z0-9._~+/*-]{8,}=*"
    r"|\b(?:sk|pk|rk|hg|gsk|xai|eyJ|AIza|ghp|Bearer)[-_A-Za-z0-9*]{8,}(?:\.[-_A-Za-z0-9]+)*"
    r"|[A-Za-z0-9_+/=*-]{33,}"
)
_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,255}")
_USER_OF_URL = re.compile(r"(https?://)[^/@\s]{1,255}@")
_QUOTED = re.compile(
    r"\"[^\"]{41,}(?:\"|$)|(?<!\w)'[^']{41,}(?:'|$)|`[^`]{41,}(?:`|$)|“[^”]{41,}(?:”|$)"
)
# From here on validators repeat what was sent: pydantic's input_value, FastAPI's and zod's.
_ECHO = re.compile(
    r"[\s,;(\[{]*[\"']?\b(?:input_value|input|received|body|prompt|messages?)\b[\"']?\s{0,3}[=:]\s{0,3}[\"'\[{(].*"
)


def redacted(text: str) -> str:
    """Return what may be kept of an upstream's error text; "" stays ""."""
    text = " ".join(text[: 8 * MAX_CHARS].split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    text = _ECHO.sub(" ...", text)
    text = _QUOTED.sub('"..."', text)
    text = _USER_OF_URL.sub(rf"\1{_HIDDEN}@", text)
    text = _ADDRESS.sub(_HIDDEN, text)
    text = _SECRET.sub(_HIDDEN, text).strip()
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 3]}..."
