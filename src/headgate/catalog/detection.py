"""Which server an address is, by what it answers itself: vLLM, SGLang or llama.cpp.

The only place that knows how they identify themselves.  A server that was named by its address alone takes the
preset of its kind, so that guided decoding is used instead of prompts; whatever says nothing stays as it is.

Sources, read 2026-11: vLLM's `/version` and `/v1/models` (`owned_by`, `root`), SGLang's `/get_server_info` and
`/get_model_info`, llama.cpp's `/props`.

Note: a version alone identifies nothing, as other servers have a `/version` too.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from headgate.catalog.models import Model

Kind = Literal["vllm", "sglang", "llamacpp"]  # each is a preset
MODELS = "/models"  # below the base address; all other pages are beside its /v1
LABELS: dict[Kind, str] = {"vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp"}
# The pages that tell the version, by kind; the first that answers counts.
PAGES: dict[Kind, tuple[str, ...]] = {
    "vllm": ("/version",),
    "sglang": ("/get_server_info", "/get_model_info"),
    "llamacpp": ("/props",),
}
_MOST_MODELS = 1000  # of a list; a server of one's own has a handful
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,40}")


class Detected(Struct, frozen=True):
    """A kind of server, and the names under which it serves models of the catalog."""

    kind: Kind
    version: str = ""  # "": it does not tell
    names: dict[str, str] = {}  # the catalog's id: the server's own name

    @property
    def text(self) -> str:
        """Return the server and its version, for people."""
        return f"{LABELS[self.kind]} {self.version}".strip()


def owner(page: bytes) -> Kind | None:
    """Return the kind that a list of models names as the owner of all of them."""
    owners = {each.get("owned_by") for each in _listed(page)}
    return next((kind for kind in PAGES if owners == {kind}), None)


def judge(pages: Mapping[str, bytes], models: Iterable[Model]) -> Detected | None:
    """Return which server answered with these pages; None when it cannot be known.

    `pages` has the bodies of the answers with status 200, by path.
    """
    listing = pages.get(MODELS, b"")
    kind = owner(listing) or _by_pages(pages)
    if kind is None:
        return None
    found = (_version(_object(pages.get(path, b""))) for path in PAGES[kind])
    return Detected(kind, next(filter(None, found), ""), _names(_listed(listing), models))


def _by_pages(pages: Mapping[str, bytes]) -> Kind | None:
    """A kind by what only it answers, for a server whose list of models names another owner."""
    if isinstance(_object(pages.get("/props", b"")).get("default_generation_settings"), dict):
        return "llamacpp"
    for path in PAGES["sglang"]:
        page = _object(pages.get(path, b""))
        if "model_path" in page and ("is_generation" in page or "tokenizer_path" in page):
            return "sglang"
    if set(_object(pages.get("/version", b""))) == {"version"} and any(
        "max_model_len" in each for each in _listed(pages.get(MODELS, b""))
    ):
        return "vllm"
    return None


def _object(page: bytes) -> dict[str, Any]:  # Any: what a server sent
    try:
        found = msgspec.json.decode(page)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _listed(page: bytes) -> list[dict[str, Any]]:
    data = _object(page).get("data")
    return [e for e in data[:_MOST_MODELS] if isinstance(e, dict)] if isinstance(data, list) else []


def _version(page: Mapping[str, Any]) -> str:
    found = page.get("version") or page.get("build_info")
    return found if isinstance(found, str) and _VERSION.fullmatch(found) else ""


def _names(listed: Iterable[Mapping[str, Any]], models: Iterable[Model]) -> dict[str, str]:
    """The server's names of the catalog's models, by its id or by the weights it was started with."""
    known = {name: model.id for model in models for name in model.names()}
    found: dict[str, str] = {}
    for each in listed:
        id, root = each.get("id"), each.get("root")
        if not isinstance(id, str) or not 0 < len(id) <= 256:
            continue
        for name in (id, root):
            short = name.rstrip("/").rpartition("/")[2].lower() if isinstance(name, str) else ""
            if short in known:
                found.setdefault(known[short], id)
                break
    return found
