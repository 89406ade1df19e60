"""This module builds the OpenAPI 3.1 document of this gateway, at /openapi.json.

The only place that makes it.  What /admin/v1 has comes from the routes and structs that serve it, so
that it cannot differ from them; the gateway's own protocols are the vendors', and told in outline
(openapi_gateway.py).  Specification: https://spec.openapis.org/oas/v3.1.1.html, read 2026-11-25.
Note: it has the address under which this gateway is reached, so two gateways have two.
"""

import functools
import re
from collections.abc import Iterable
from typing import Annotated, Any, Final

import msgspec
from starlette.responses import Response

from headgate import __version__
from headgate.web.api.openapi_gateway import ANSWERED, PATHS, Outline
from headgate.web.api.route import Endpoint
from headgate.web.api.routes import ENDPOINTS
from headgate.web.app import Rule
from headgate.web.context import MAX_FORM_BYTES, RequestContext

JSON = dict[str, Any]  # Any: JSON, of the shapes that the specification has
_REF = "#/components/schemas/{name}"
_ID: Final = {"type": "string", "minLength": 1, "maxLength": 300}
_PLACE = re.compile(r"\{(\w+)\}")
_ABOUT = (
    "MiniMax's models in the protocols of OpenAI, Anthropic and Google, and the administration of this"
    " gateway below /admin/v1. A key of models (`hg_live_...`) opens the protocols and nothing of the"
    " administration; a management key (`hg_admin_...`, made by `headgate admin keys create NAME`)"
    " opens that, and calls no model. Amounts are given twice: in dollars as an exact decimal, and in"
    " whole nano-dollars. Lists come in pages: send `next` back as the parameter that its description"
    " names."
)
_GROUPS: Final = {
    "Keys": "Keys of models: who may call what, how often, for how much.",
    "Accounts": "Teams: keys that share a budget, whose figures are added up.",
    "Upstream keys": "Upstream keys of accounts and of keys, which come in and never go out.",
    "Users": "People who sign in to the console.",
    "Management keys": "Keys of the admin API.",
    "Usage and requests": "What was used, by whom, and what it cost.",
    "Upstreams and models": "Where requests go, and the catalog.",
    "OpenAI": "",
    "Anthropic": "",
    "Gemini": "",
    "A key's own": "What a key of models may ask about itself.",
    "Health": "",
}
_REFUSALS: Final = {
    "400": "The body is not JSON.",
    "401": "No valid management key was sent.",
    "403": "The key's role may not do this.",
    "404": "There is no such thing, or none that this key sees.",
    "409": "It is in a state in which this cannot be done.",
    "413": f"The body is larger than {MAX_FORM_BYTES} bytes.",
    "422": "A value cannot be so; `field` says which.",
    "500": "A fault of the gateway's; its log says where.",
    "502": "The gateway's edge did not answer.",
    "503": "The ledger cannot be read now.",
}


class Fault(msgspec.Struct, frozen=True):
    """What is wrong."""

    message: Annotated[str, msgspec.Meta(description="What is wrong, and what to write instead.")]
    field: Annotated[
        str | None,
        msgspec.Meta(description="Where: `$.name` in a body, `since` of the parameters."),
    ]


class Refusal(msgspec.Struct, frozen=True):
    """Any answer below /admin/v1 that is no success."""

    error: Fault


@functools.lru_cache(maxsize=4)
def document(base_url: str) -> JSON:
    kinds = {k for e in ENDPOINTS for k in (e.query, e.body, e.answer) if k is not None}
    ordered = sorted(kinds, key=lambda k: k.__name__)
    _, schemas = msgspec.json.schema_components((*ordered, Refusal), ref_template=_REF)
    schemas = msgspec.json.decode(
        msgspec.json.encode(schemas)
    )  # a default that is a tuple becomes a list
    queries = {e.query.__name__ for e in ENDPOINTS}
    parameters = {name: _parameters(schemas.pop(name)) for name in queries}
    paths: dict[str, JSON] = {}
    for endpoint in ENDPOINTS:
        operation = _operation(endpoint, parameters[endpoint.query.__name__])
        paths.setdefault(endpoint.shown_path, {})[endpoint.method.lower()] = operation
    for outline in PATHS:
        paths.setdefault(outline.path, {})[outline.method.lower()] = _outlined(outline)
    found: JSON = {
        "openapi": "3.1.0",
        "info": {
            "title": "Headgate",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": base_url}],
        "tags": [{"name": n, **({"description": d} if d else {})} for n, d in _GROUPS.items()],
        "paths": paths,
        "components": {
            "schemas": {name: _plain(s) for name, s in sorted(schemas.items())},
            "responses": {
                _response(status): {
                    "description": text,
                    "content": {ANSWERED: {"schema": {"$ref": _REF.format(name="Refusal")}}},
                }
                for status, text in _REFUSALS.items()
            },
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of models.",
                },
                "x-api-key": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "x-api-key",
                    "description": "A key of models, or a management key below /admin/v1.",
                },
                "x-goog-api-key": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "x-goog-api-key",
                    "description": "A key of models.",
                },
                "management": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A management key.",
                },
            },
        },
    }
    return found


def _operation(endpoint: Endpoint, parameters: list[JSON]) -> JSON:
    summary, words = endpoint.words
    operation: JSON = {
        "operationId": endpoint.name,
        "tags": [endpoint.group],
        "summary": summary,
        **({"description": words} if words else {}),
    }
    operation["parameters"] = [*_places(endpoint.shown_path), *parameters]
    if endpoint.body is not None:
        fields = msgspec.structs.fields(endpoint.body)
        operation["requestBody"] = {
            "required": any(f.required for f in fields),
            "content": {
                ANSWERED: {
                    "schema": {"$ref": _REF.format(name=endpoint.body.__name__)},
                    "example": msgspec.json.decode(endpoint.example),
                }
            },
        }
    schema = {"$ref": _REF.format(name=endpoint.answer.__name__)}
    operation["responses"] = {
        str(endpoint.status): {
            "description": "Created." if endpoint.status == 201 else "Done.",
            "content": {ANSWERED: {"schema": schema}},
        },
        **{s: {"$ref": f"#/components/responses/{_response(s)}"} for s in _refusals(endpoint)},
    }
    operation["security"] = [{"management": []}, {"x-api-key": []}]
    return operation


def _refusals(endpoint: Endpoint) -> Iterable[str]:
    writes = endpoint.method != "GET"
    tells = {
        "400": endpoint.body is not None,
        "404": "{" in endpoint.path or "account" in endpoint.query.__struct_fields__,
        "409": writes,
        "502": "upstreams" in endpoint.path,
    }
    return (status for status in _REFUSALS if tells.get(status, True))


def _response(status: str) -> str:
    return f"Refused{status}"


def _places(path: str) -> list[JSON]:
    return [
        {"name": name, "in": "path", "required": True, "schema": dict(_ID)}
        for name in _PLACE.findall(path)
    ]


def _parameters(schema: JSON) -> list[JSON]:
    """Return the parameters of an address, of the schema of their struct."""
    out = []
    for name, kind in schema["properties"].items():
        kind = _plain(kind)
        words = kind.pop("description", "")
        if kind.get("format") == "date-time":  # convert() is lax there: Unix seconds as well
            kind = {"anyOf": [kind, {"type": "number"}]}
        out.append(
            {
                "name": name,
                "in": "query",
                "required": name in schema["required"],
                **({"description": words} if words else {}),
                "schema": kind,
            }
        )
    return out


def _plain(schema: Any) -> Any:  # Any: JSON
    """Without what says nothing, titles that repeat a name and no required fields; enums with a type."""
    match schema:
        case {"enum": [str(), *_]}:
            return {"type": "string", **{k: v for k, v in schema.items() if k != "title"}}
        case dict():
            return {
                k: {n: _plain(v) for n, v in value.items()} if k == "properties" else _plain(value)
                for k, value in schema.items()
                if k != "title" and not (k == "required" and not value)
            }
        case list():
            return [_plain(item) for item in schema]
    return schema


def _outlined(outline: Outline) -> JSON:
    words = outline.words
    operation: JSON = {
        "operationId": f"gateway_{outline.name}",
        "tags": [outline.group],
        "summary": outline.summary,
        **({"description": words} if words else {}),
        "parameters": _places(outline.path),
    }
    if outline.docs:
        operation["externalDocs"] = {"url": outline.docs, "description": "The vendor's reference"}
    if outline.fields:
        properties = {n: {"type": t} if t else {} for n, t in outline.fields.items()}
        schema: JSON = {"type": "object", "properties": properties}
        if outline.required:
            schema["required"] = list(outline.required)
        example = msgspec.json.decode(outline.example)
        content = {ANSWERED: {"schema": schema, "example": example}}
        operation["requestBody"] = {"required": True, "content": content}
    operation["responses"] = {
        "200": {"description": "Done.", "content": {kind: {} for kind in outline.answers}},
        "default": {"description": "An error, in the protocol of who asks."},
    }
    schemes = ("key", "x-api-key", "x-goog-api-key")
    operation["security"] = [] if outline.open else [{s: []} for s in schemes]
    return operation


def show(visit: RequestContext) -> Response:
    data = msgspec.json.encode(document(visit.console_context.base_url))
    return Response(data, headers={"cache-control": "no-cache"}, media_type=ANSWERED)


RULES = (Rule("GET", "/openapi.json", show),)
