"""This module serves the console's scripts and styles: files of the package, some of them vendored (static/VENDORED.md)."""

import hashlib
import mimetypes
from functools import cache
from importlib.resources import files

from starlette.responses import Response

from headgate.web.app import Rule
from headgate.web.context import Problem, RequestContext


@cache
def _files() -> dict[str, tuple[bytes, str, str]]:
    """By name: bytes, media type, entity tag."""
    found = {}
    for file in files("headgate.web").joinpath("static").iterdir():
        kind = mimetypes.guess_type(file.name)[0]
        if kind in ("text/javascript", "text/css", "image/svg+xml", "image/png"):
            data = file.read_bytes()
            found[file.name] = (data, kind, f'"{hashlib.sha256(data).hexdigest()[:16]}"')
    return found


def serve(visit: RequestContext) -> Response:
    found = _files().get(visit.path["name"])
    if found is None:
        raise Problem(404, "There is no such file.")
    data, kind, tag = found
    headers = {"etag": tag, "cache-control": "public, max-age=300"}
    if visit.request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=kind)


RULES = (Rule("GET", "/static/{name}", serve, None),)
