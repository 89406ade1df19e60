"""This module shows the reference of the API, at /docs/api: the OpenAPI document as a page.

The only place that shows it to people.  Rendered here, from the document that clients get, with no
script: the smallest viewer that could be vendored, Redoc, is 327 kB compressed, where the whole console
is 75, and it writes styles into the page, which our policy forbids (desk.py, CSP).  Note:
the page is open, as the document is; both tell nothing of this gateway but its address.
"""

import functools
import shlex
from collections.abc import Iterator
from typing import Any

import msgspec
from starlette.responses import Response

from headgate.web.api import openapi
from headgate.web.api.openapi import JSON
from headgate.web.app import Rule
from headgate.web.context import NavigationEntry, RequestContext
from headgate.web.site.hypertext import negotiate

_WIDE = 100  # characters of a body in one line of a command
_NOUNS = {"string": "characters", "array": "items"}


class Kind(msgspec.Struct, frozen=True):
    """What a value is, in words; `link` names the object that it is, or has several of."""

    text: str
    link: str = ""


class Field(msgspec.Struct, frozen=True):
    name: str
    kind: Kind
    required: bool
    words: str
    default: str  # as JSON; "": none


class Operation(msgspec.Struct, frozen=True):
    id: str
    method: str
    path: str
    summary: str
    words: str
    manages: bool  # takes a management key
    open: bool  # takes none
    docs: str
    parameters: tuple[Field, ...]
    body: tuple[Field, ...]
    status: str
    answer: str  # the name of an object; "": as the vendor has it
    kinds: tuple[str, ...]  # media types of the answer
    refusals: tuple[tuple[str, str], ...]
    curl: str


class Group(msgspec.Struct, frozen=True):
    name: str
    id: str
    words: str
    operations: tuple[Operation, ...]


class Shown(msgspec.Struct, frozen=True):
    """An object that answers are, or have in them."""

    name: str
    words: str
    fields: tuple[Field, ...]


@functools.lru_cache(maxsize=4)
def groups(base_url: str) -> tuple[Group, ...]:
    document = openapi.document(base_url)
    operations = [(o, s) for o, s in _operations(document, base_url)]
    return tuple(
        Group(
            tag["name"],
            _slug(tag["name"]),
            tag.get("description", ""),
            tuple(o for o, group in operations if group == tag["name"]),
        )
        for tag in document["tags"]
    )


@functools.lru_cache(maxsize=4)
def objects(base_url: str) -> tuple[Shown, ...]:
    """Those of answers; what a request takes is shown with it."""
    document = openapi.document(base_url)
    taken = {
        _name(content["schema"])
        for path in document["paths"].values()
        for operation in path.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
    }
    return tuple(
        Shown(name, schema.get("description", ""), tuple(_fields(schema)))
        for name, schema in document["components"]["schemas"].items()
        if name not in taken
    )


def _slug(text: str) -> str:
    return text.lower().replace(" ", "-").replace("'", "")


def _operations(document: JSON, base_url: str) -> Iterator[tuple[Operation, str]]:
    responses, schemas = document["components"]["responses"], document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, reported in methods.items():
            body = reported.get("requestBody", {}).get("content", {}).get("application/json", {})
            taken = body.get("schema", {})
            taken = schemas[_name(taken)] if "$ref" in taken else taken
            refusals = []
            for status, response in reported["responses"].items():
                response = responses[_name(response)] if "$ref" in response else response
                if not status.startswith("2"):
                    refusals.append((status, response["description"]))
            well = next(s for s in reported["responses"] if s.startswith("2"))
            content = reported["responses"][well]["content"]
            answer = next(iter(content.values())).get("schema", {})
            operation = Operation(
                reported["operationId"],
                method.upper(),
                path,
                reported["summary"],
                reported.get("description", ""),
                {"management": []} in reported["security"],
                not reported["security"],
                reported.get("externalDocs", {}).get("url", ""),
                tuple(_parameter(p) for p in reported["parameters"]),
                tuple(_fields(taken)),
                well,
                _name(answer),
                tuple(content),
                tuple(refusals),
                _curl(method.upper(), base_url + path, body.get("example"), reported["security"]),
            )
            yield operation, reported["tags"][0]


def _name(schema: JSON) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _parameter(reported: JSON) -> Field:
    return _field(
        reported["name"],
        {**reported["schema"], "description": reported.get("description", "")},
        reported["required"],
    )


def _fields(schema: JSON) -> Iterator[Field]:
    required = schema.get("required", ())
    for name, reported in schema.get("properties", {}).items():
        yield _field(name, reported, name in required)


def _field(name: str, reported: JSON, required: bool) -> Field:
    words = reported.get("description") or next(
        (t["description"] for t in reported.get("anyOf", ()) if "description" in t), ""
    )
    default = msgspec.json.encode(reported["default"]).decode() if "default" in reported else ""
    return Field(name, _kind(reported), required, words, default)


def _kind(reported: JSON) -> Kind:
    match reported:
        case {"$ref": _}:
            return Kind("", _name(reported))
        case {"anyOf": of}:
            kinds = [_kind(k) for k in of]
            return Kind(
                " or ".join(k.text or k.link for k in kinds),
                next((k.link for k in kinds if k.link), ""),
            )
        case {"enum": values}:
            return Kind(" | ".join(f'"{v}"' for v in values))
        case {"type": "array", "items": items}:
            inner = _kind(items)
            return Kind(f"array of {inner.text}".rstrip() + _range(reported), inner.link)
        case {"type": "string", "format": format}:
            return Kind(format)
        case {"type": str(type)}:
            return Kind(type + _range(reported))
        case _:
            return Kind("any")


def _range(reported: JSON) -> str:
    least, most = _bounds(reported)
    noun = _NOUNS.get(reported["type"], "")
    if least is None and most is None:
        return ""
    if most is None:
        text = f"at least {least:,}"
    elif not least and noun:
        text = f"up to {most:,}"
    else:
        text = f"{least:,} to {most:,}"
    return f", {text} {noun}".rstrip()


def _bounds(reported: JSON) -> tuple[Any, Any]:  # Any: numbers
    for least, most in (
        ("minimum", "maximum"),
        ("minLength", "maxLength"),
        ("minItems", "maxItems"),
    ):
        if least in reported or most in reported:
            return reported.get(least), reported.get(most)
    return None, None


def _curl(method: str, url: str, body: Any, security: list[JSON]) -> str:  # Any: JSON
    """Return a command to paste; {names} in the address are the reader's to fill in."""
    implied = "GET" if body is None else "POST"
    stated = "" if method == implied else f"-X {method} "
    lines = [f"curl {stated}{_quoted(url)}"]
    if security:
        variable = "ADMIN_KEY" if {"management": []} in security else "KEY"
        lines.append(f'-H "Authorization: Bearer $HEADGATE_{variable}"')
    if body is not None:
        lines.append('-H "Content-Type: application/json"')
        data = msgspec.json.encode(body).decode()
        line = msgspec.json.format(data, indent=0)
        shown = line if len(line) <= _WIDE else msgspec.json.format(data, indent=2)
        lines.append(f"-d {shlex.quote(shown)}")
    return " \\\n  ".join(lines)


def _quoted(url: str) -> str:
    """In quotes where a shell would read braces as its own."""
    return f'"{url}"' if "{" in url else url


def show(visit: RequestContext) -> Response:
    if negotiate("/docs/api", visit.request.headers.get("accept", "")) == "markdown":
        return show_markdown(visit)
    base_url = visit.console_context.base_url
    return visit.render("reference.html", groups=groups(base_url), objects=objects(base_url))


def markdown(base_url: str) -> str:
    """Return the same reference as markdown, for agents."""
    out = [
        "# API reference\n",
        f"The machine-readable description: {base_url}/openapi.json\n",
        "Protocols take a gateway key (`hg_live_...`), `/admin/v1` takes a management key (`hg_admin_...`).\n",
    ]
    for group in groups(base_url):
        out.append(f"## {group.name}\n\n{group.words}\n")
        for o in group.operations:
            key = "a management key" if o.manages else "no key" if o.open else "a gateway key"
            out.append(f"### {o.method} {o.path}\n\n{o.summary}. {o.words}\n\nTakes {key}.\n")
            for title, fields in (("Parameters", o.parameters), ("Body", o.body)):
                if fields:
                    out.append(f"{title}:\n\n" + "\n".join(map(_line, fields)) + "\n")
            refusals = ", ".join(f"{status} ({why.rstrip('.')})" for status, why in o.refusals)
            answer = f"`{o.answer}`" if o.answer else "as the vendor has it"
            out.append(f"Answers {o.status}: {answer}. Refuses with: {refusals or 'nothing'}.\n")
            out.append(f"```bash\n{o.curl}\n```\n")
    out.append("## Objects\n")
    out += [
        f"### {each.name}\n\n{each.words}\n\n" + "\n".join(map(_line, each.fields)) + "\n"
        for each in objects(base_url)
    ]
    return "\n".join(out)


def _line(field: Field) -> str:
    required = ", required" if field.required else ""
    words = f": {field.words}" if field.words else ""
    return f"- `{field.name}` ({field.kind.text}{required}){words}"


def show_markdown(visit: RequestContext) -> Response:
    return Response(
        markdown(visit.console_context.base_url), media_type="text/markdown; charset=utf-8"
    )


ENTRY = NavigationEntry("/docs/api", "Admin API", "see", "Reference")
RULES = (
    Rule("GET", "/docs/api", show),
    Rule("GET", "/docs/api.md", show_markdown),
)
