"""Servers are known by what they answer themselves, and the catalog takes the preset of their kind."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import config
from headgate.catalog import building, routes
from headgate.catalog.detection import PAGES as ASKED
from headgate.catalog.detection import Detected, judge, owner
from headgate.catalog.models import models
from headgate.config import loading
from own_server import PAGES

ENV = {"HEADGATE_UPSTREAM_URL": "http://127.0.0.1:8000/v1"}


def pages(kind: str) -> dict[str, bytes]:
    return {
        path.removeprefix("/v1"): page.encode()
        if isinstance(page, str)
        else json.dumps(page).encode()
        for path, page in PAGES[kind].items()
    }


@pytest.mark.parametrize(
    ("server", "kind", "version", "names"),
    [
        ("vllm", "vllm", "0.11.2", {"MiniMax-M2": "prod"}),
        ("vllm behind a proxy", "vllm", "0.11.2", {"MiniMax-M2": "MiniMaxAI/MiniMax-M2"}),
        ("sglang", "sglang", "0.5.4", {"MiniMax-M2": "MiniMaxAI/MiniMax-M2"}),
        ("sglang behind a proxy", "sglang", "", {"MiniMax-M2": "minimax-m2"}),
        ("llamacpp", "llamacpp", "b6900-1a2b3c", {}),
        ("llamacpp behind a proxy", "llamacpp", "b6900", {}),
    ],
)
def test_a_server_is_known_by_its_pages(
    server: str, kind: str, version: str, names: dict[str, str]
) -> None:
    assert judge(pages(server), models().values()) == Detected(kind, version, names)  # type: ignore[arg-type]


@pytest.mark.parametrize("server", ["nothing", "another vendor", "several owners", "no JSON"])
def test_a_server_that_says_nothing_of_its_kind_stays_unknown(server: str) -> None:
    assert judge(pages(server), models().values()) is None
    assert owner(pages(server).get("/models", b"")) is None


@given(
    st.dictionaries(
        st.sampled_from(["/models", *(path for paths in ASKED.values() for path in paths)]),
        st.binary(max_size=40)
        | st.recursive(
            st.none() | st.integers() | st.sampled_from(["vllm", "sglang", "llamacpp", "x"]),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["data", "id", "owned_by", "root", "version", "model_path"]),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=6,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_pages_of_any_shape_are_judged(found: dict[str, bytes]) -> None:
    detected = judge(found, models().values())
    assert detected is None or detected.kind in ASKED


def route(detected: dict[str, Detected], **env: str) -> routes.Route:
    settings = loading.load(None, {**ENV, **env})
    return building.load(settings, env, detected).routes("MiniMax-M2")[0]


@pytest.mark.parametrize("kind", sorted(ASKED))
def test_a_detected_server_decodes_with_a_guide_and_keeps_its_own_names(kind: str) -> None:
    before, after = route({}), route({"custom": Detected(kind, "1.0", {"MiniMax-M2": "prod"})})  # type: ignore[arg-type]
    assert (
        not before.capabilities.response_format
        and "required" not in before.capabilities.tool_choice
    )
    assert after.capabilities.response_format and "required" in after.capabilities.tool_choice
    assert (before.name, after.name) == ("MiniMax-M2", "prod")
    assert before.upstream.base_url == after.upstream.base_url
    assert after.upstream.label.endswith(" 1.0")
    assert (before.served, after.served) == (before.model, after.model)


def test_a_model_that_the_server_does_not_list_is_asked_for_as_before() -> None:
    assert route({"custom": Detected("vllm")}).name == "MiniMax-M2"


def test_a_preset_that_was_named_is_not_replaced() -> None:
    named = route({"custom": Detected("llamacpp")}, HEADGATE_UPSTREAM_PRESET="vllm")
    assert (named.name, named.capabilities.tool_choice) == (
        "MiniMaxAI/MiniMax-M2",
        ("none", "required", "named"),
    )


def test_a_preset_of_the_environment_that_is_unknown_is_refused() -> None:
    with pytest.raises(config.ConfigError, match="no preset `vlm`"):
        route({}, HEADGATE_UPSTREAM_PRESET="vlm")
