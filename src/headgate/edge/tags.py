"""Labels that a client gives its requests, for reports: the header `x-headgate-tags`."""

import msgspec

from headgate.chat import Request

TAGS_HEADER = "x-headgate-tags"
MAX_TAGS = 16
MAX_TAG_CHARS = 64
MAX_CHARS = 4096  # of the header that are read


def tagged(request: Request, header: str) -> Request:
    """Return the request with the tags of the header, separated by commas, each once and in order.

    What is above the bounds is cut off, with a warning, as a label is no reason to refuse a request.
    """
    words = [word.strip() for word in header[:MAX_CHARS].split(",")]
    fitting = [word[:MAX_TAG_CHARS] for word in words if word and word.isprintable()]
    tags = tuple(dict.fromkeys(fitting))[:MAX_TAGS]
    request = msgspec.structs.replace(request, tags=tags)
    whole = tuple(dict.fromkeys(w for w in words if w)) == tags and len(header) <= MAX_CHARS
    return request if whole else request.warn("x-headgate-tags (cut)")
