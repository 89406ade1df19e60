"""Which upstreams a request prefers: a text of the gateway's own, and OpenRouter's `provider` in bodies.

What the gateway has no counterpart of is named in a warning.  `order` names the upstreams that may be
asked when `allow_fallbacks` is false; alone it cannot be kept, as the operator's order counts.
"""

import msgspec
from msgspec import Raw

from headgate.chat import Preferences

MAX_NAMES = 32
MAX_CHARS = 512  # of a text; a few names of upstreams
SORTS = ("price", "throughput", "latency")
_NULL = b"null"
_decoder = msgspec.json.Decoder(dict[str, Raw])
_names = msgspec.json.Decoder(list[str])
_UNSEEN = {b"null", b"true", b'"allow"'}  # what asks for nothing


def parsed(text: str) -> Preferences:
    """Return the preferences of a text like `sort=price; only=a,b; ignore=c; regions=own`.

    ValueError says what is wrong.
    """
    if len(text) > MAX_CHARS:
        raise ValueError(f"it is longer than {MAX_CHARS} characters")
    found: dict[str, tuple[str, ...]] = {}
    for part in text.split(";"):
        if not part.strip():
            continue
        name, equals, rest = part.partition("=")
        name = name.strip().lower()
        values = tuple(v for each in rest.split(",") if (v := each.strip().lower()))
        if not equals or not values or name not in ("sort", "only", "ignore", "regions"):
            raise ValueError(
                f"`{part.strip()[:40]}` is not one of `sort=price|throughput|latency`,"
                " `only=UPSTREAM,...`, `ignore=UPSTREAM,...`, `regions=own,...`"
            )
        if name in found or len(values) > MAX_NAMES:
            raise ValueError(f"`{name}` stands twice, or has more than {MAX_NAMES} names")
        found[name] = values
    sort = found.get("sort", ("",))
    if len(sort) != 1 or sort[0] not in ("", *SORTS):
        raise ValueError(f"`sort` is one of {', '.join(SORTS)}, not `{','.join(sort)[:40]}`")
    return Preferences(
        sort=sort[0],
        only=found.get("only"),
        ignore=found.get("ignore", ()),
        regions=found.get("regions"),
    )


def preferences(raw: Raw, warnings: list[str]) -> Preferences | None:
    """Return what a body's `provider` asks for; None when there is none."""
    data = bytes(raw)
    if not data or data == _NULL:
        return None
    try:
        fields = _decoder.decode(data)
    except msgspec.MsgspecError:
        warnings.append("provider")
        return None
    out: dict[str, object] = {}
    for name, value in fields.items():
        match name:
            case "sort":
                out["sort"] = _sort(bytes(value), warnings)
            case "only" | "ignore" | "regions":
                if (names := _list(bytes(value))) is not None:
                    out[name] = names
                elif bytes(value) != _NULL:
                    warnings.append(f"provider.{name}")
            case "order":
                names = _list(bytes(value))
                if names and bytes(fields.get("allow_fallbacks", Raw(b"true"))) == b"false":
                    out.setdefault("only", names)
                elif names:
                    warnings.append("provider.order")
            case "allow_fallbacks":
                if bytes(value) == b"false" and "order" not in fields:
                    warnings.append("provider.allow_fallbacks")
            case _ if bytes(value) not in _UNSEEN and name.isidentifier() and len(name) < 40:
                warnings.append(f"provider.{name}")
    return msgspec.convert(out, Preferences)


def _list(data: bytes) -> tuple[str, ...] | None:
    try:
        names = _names.decode(data)
    except msgspec.MsgspecError:
        return None
    return tuple(n.strip().lower()[:128] for n in names[:MAX_NAMES])


def _sort(data: bytes, warnings: list[str]) -> str:
    value = msgspec.json.decode(data)
    if isinstance(value, dict):
        value = value.get("by")
    if value in ("price", "throughput", "latency"):
        return str(value)
    if value is not None:
        warnings.append("provider.sort")
    return ""
