"""The OpenAPI document: valid, small, as the routes are; and a running server does what it says.

schemathesis makes requests of the document, right and wrong ones, and compares the answers with it.
"""

import shlex
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx2
import jsonschema_rs
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.internal.conjecture import utils as cu
from hypothesis_jsonschema import _from_schema
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.specs.openapi import _hypothesis

from admins import IDS, Made, running
from headgate.catalog.models import models
from headgate.dialects.anthropic import request_wire as anthropic_wire
from headgate.dialects.gemini import request_wire as gemini_wire
from headgate.dialects.openai import request_wire as openai_wire
from headgate.dialects.responses import request_wire as responses_wire
from headgate.edge import open_pages, paths
from headgate.edge.stored_responses import PATH as STORED
from headgate.web.api import openapi, openapi_gateway, reference_page, routes
from headgate.web.api.route import Endpoint
from programs import needs

MOST_BYTES = 200_000
URL = "http://127.0.0.1:8787"
EVERY = pytest.mark.parametrize("endpoint", routes.ENDPOINTS, ids=lambda e: e.name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    with running(tmp_path_factory.mktemp("openapi")) as one:
        yield one


# --- the document ---------------------------------------------------------------------------------


def test_the_document_is_open_valid_and_small(made: Made) -> None:
    response = httpx2.get(made.site.url + "/openapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert len(response.content) < MOST_BYTES
    document = response.json()
    OpenAPIV31SpecValidator(document).validate()
    assert document["servers"] == [{"url": made.site.url}]


def test_each_admin_route_is_in_the_document_and_the_other_way_round() -> None:
    told = {
        (method.upper(), path)
        for path, operations in openapi.document(URL)["paths"].items()
        if path.startswith("/admin/")
        for method in operations
    }
    served = {(r.method, r.path.replace(":path}", "}")) for r in routes.RULES}
    assert told == served
    assert all(r.credential_source == "management" and r.action for r in routes.RULES)


def test_each_operation_has_a_name_of_its_own_words_and_a_group() -> None:
    document = openapi.document(URL)
    operations = [o for path in document["paths"].values() for o in path.values()]
    names = [o["operationId"] for o in operations]
    assert len({*names}) == len(names)
    assert {t for o in operations for t in o["tags"]} == {t["name"] for t in document["tags"]}
    assert all(o["summary"].endswith(".") for o in operations)


def test_each_schema_is_used_and_says_what_it_forbids() -> None:
    document = openapi.document(URL)
    text = msgspec.json.encode(document).decode()
    for name, schema in document["components"]["schemas"].items():
        assert f'"#/components/schemas/{name}"' in text
        taken = name.startswith("New") or (name.endswith("Changes") and name != "Changes")
        taken = taken or name in (
            "Rotation",
            "RouteTo",
            "headgate.config.Price",
            "headgate.config.UpstreamPrice",
        )
        assert (schema.get("additionalProperties") is False) == taken


@EVERY
def test_each_example_is_what_the_route_takes(endpoint: Endpoint) -> None:
    if endpoint.body is None:
        assert not endpoint.example
    else:
        msgspec.json.decode(endpoint.example, type=endpoint.body)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/chat/completions", openai_wire.RequestIn),
        ("/v1/responses", responses_wire.RequestIn),
        ("/v1/messages", anthropic_wire.RequestIn),
        ("/v1beta/models/{model}:generateContent", gemini_wire.RequestIn),
    ],
)
def test_the_fields_told_of_a_protocol_are_fields_that_are_read(
    path: str, kind: type[msgspec.Struct]
) -> None:
    outline = next(o for o in openapi_gateway.PATHS if o.path == path)
    fields = msgspec.structs.fields(kind)
    assert {*outline.fields} <= {f.encode_name for f in fields}
    # Gemini's are read one by one, so that both spellings of a name serve.
    checked = {"contents"} if kind is gemini_wire.RequestIn else set()
    assert {*outline.required} == {f.encode_name for f in fields if f.required} | checked


def test_the_gateways_paths_are_those_of_the_edge() -> None:
    told = {o.path for o in openapi_gateway.PATHS}
    doubled = {
        p
        for p in (*paths.POST, *paths.COUNT, *paths.QUOTE)
        if p.startswith("/v1/v1/") or p[:3] != "/v1"
    }
    assert {*paths.POST, *paths.COUNT, *paths.QUOTE} - doubled <= told
    for path in told:
        real = path.replace("{model}", "MiniMax-M3").replace("{id}", IDS[0])
        known = (
            paths.GENERATE,
            paths.GENERATION,
            paths.SESSION,
            paths.MODELS,
            paths.MODEL,
            STORED,
        )
        assert real in (
            *paths.POST,
            *paths.COUNT,
            *paths.QUOTE,
            *open_pages.PAGES,
            "/v1/key",
            "/openapi.json",
        ) or any(pattern.fullmatch(real) for pattern in known), path
    examples = [msgspec.json.decode(o.example) for o in openapi_gateway.PATHS if o.example]
    assert {e["model"] for e in examples if "model" in e} <= {*models()}


# --- a server that runs ---------------------------------------------------------------------------

CHECKED = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)


class _Many(cu.many):
    """Hypothesis' `many` with the `more` that it had before 6.170."""

    def more(self) -> bool:
        if self._depth is None:
            self.__enter__()
            self._turns = iter(self)
        try:
            next(self._turns)
        except StopIteration:
            return False
        return True


@pytest.fixture(scope="module", autouse=True)
def requests_can_be_made_up() -> Iterator[None]:
    """schemathesis 4.24 and hypothesis-jsonschema 0.23 ask for what newer libraries have elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        if not hasattr(jsonschema_rs.CanonicalSchema, "is_satisfiable"):  # jsonschema-rs 0.61
            patch.setattr(_hypothesis, "_canonical_strategy_or_none", lambda *_: None)
        if not hasattr(cu.many, "more"):
            patch.setattr(_from_schema, "cu", SimpleNamespace(many=_Many))
        yield


# Wrong requests are made where a parameter or a body can be wrong.
ASKED = [
    *((e, "real", GenerationMode.POSITIVE) for e in routes.ENDPOINTS),
    *((e, "made up", GenerationMode.POSITIVE) for e in routes.ENDPOINTS if "{" in e.path),
    *(
        (e, "real", GenerationMode.NEGATIVE)
        for e in routes.ENDPOINTS
        if e.body or e.query.__struct_fields__
    ),
]


@pytest.mark.parametrize(
    ("endpoint", "ids", "mode"), ASKED, ids=[f"{e.name}-{i}-{m.value}" for e, i, m in ASKED]
)
def test_the_server_does_what_the_document_says(
    endpoint: Endpoint, ids: str, mode: GenerationMode, made: Made
) -> None:
    document = httpx2.get(made.site.url + "/openapi.json").json()
    path, method = endpoint.shown_path, endpoint.method.lower()
    told = document["paths"][path][method]
    if ids == "real":
        path = made.address(endpoint)
        told["parameters"] = [p for p in told["parameters"] if p["in"] == "query"]
    document["paths"] = {path: {method: told}}
    operation = schemathesis.openapi.from_dict(document)[path][method]
    headers = {"authorization": f"Bearer {made.keys['admin']}"}
    statuses = set()

    @settings(
        max_examples=15,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:  # Any: schemathesis has no name for it in public
        response = case.call_and_validate(made.site.url, headers=headers, checks=CHECKED)
        statuses.add(response.status_code)

    ask()
    assert statuses
    if mode is GenerationMode.POSITIVE:
        wanted = (200,) if ids == "real" else (404, 422)
        assert statuses & {*wanted} or method != "get"


# --- the page -------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_reference_shows_every_operation_to_everybody(made: Made, language: str) -> None:
    with made.site.open(cookie=f"lang={language}") as client:
        page = client.get("/docs/api")
    assert page.status_code == 200
    document = openapi.document(made.site.url)
    for path, operations in document["paths"].items():
        assert f"<code>{path}</code>" in page.text
        for operation in operations.values():
            assert f'id="{operation["operationId"]}"' in page.text
    assert made.site.url in page.text
    assert "<script>" not in page.text
    assert "style=" not in page.text


def test_each_link_on_the_page_leads_to_a_place_on_it(made: Made) -> None:
    with made.site.open() as client:
        text = client.get("/docs/api").text
    targets = {part.split('"')[0] for part in text.split('href="#')[1:]}
    assert targets
    assert {t for t in targets if f'id="{t}"' not in text} == set()


def test_each_command_of_the_page_is_one_a_shell_reads() -> None:
    for group in reference_page.groups(URL):
        for operation in group.operations:
            words = shlex.split(operation.curl)
            assert words[0] == "curl"
            assert any(w.startswith(URL) for w in words)
            if "-d" in words:
                msgspec.json.decode(words[words.index("-d") + 1])


def test_a_command_of_the_page_makes_a_key(made: Made) -> None:
    shown = next(
        o.curl
        for g in reference_page.groups(made.site.url)
        for o in g.operations
        if o.id == "make_key"
    )
    needs("curl")
    done = subprocess.run(
        ["bash", "-c", shown.replace("curl ", "curl -sS ", 1)],
        capture_output=True,
        text=True,
        env={"HEADGATE_ADMIN_KEY": made.keys["admin"], "PATH": "/usr/bin:/bin"},
    )
    assert msgspec.json.decode(done.stdout)["name"] == "ci"
