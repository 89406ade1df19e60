"""Preferences among routes: read, narrowed, applied."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from headgate.chat import Preferences
from headgate.dialects import provider
from headgate.dialects.provider import parsed
from headgate.policy.preferences import NONE, Figures, allowed, narrowed, sorted_by, written


class Upstream(msgspec.Struct, frozen=True):
    name: str
    region: str = ""


class Route(msgspec.Struct, frozen=True):
    upstream: Upstream


A, B, C = (Route(Upstream(n, r)) for n, r in (("a", ""), ("B", "own"), ("c", "cn")))


def names(routes: list[Route]) -> str:
    return "".join(r.upstream.name for r in routes)


def test_a_text_is_read_and_written_again() -> None:
    found = parsed(" sort = price ; only=A, b;ignore=c; regions=own,CN ")
    assert found == Preferences("price", ("a", "b"), ("c",), ("own", "cn"))
    assert parsed(written(found)) == found
    assert parsed("") == NONE and written(NONE) == ""


@pytest.mark.parametrize(
    "text",
    [
        "sort",
        "sort=",
        "sort=cheap",
        "sort=price,latency",
        "order=a",
        "only=a;only=b",
        "x" * 600,
        "only=" + ",".join("abcdefghijklmnopqrstuvwxyzabcdefghijk"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parsed(text)


def test_routes_are_left_in_the_operators_order() -> None:
    routes = [A, B, C]
    assert names(allowed(routes, parsed("only=b,A"))) == "aB"
    assert names(allowed(routes, parsed("ignore=b"))) == "ac"
    assert names(allowed(routes, parsed("regions=own"))) == "B"
    assert names(allowed(routes, parsed("only=a; regions=own"))) == ""
    assert names(allowed(routes, Preferences(only=()))) == ""


NAMES = st.lists(st.sampled_from(["a", "b", "c"]), max_size=3).map(tuple)
WISH = st.builds(
    Preferences,
    sort=st.sampled_from(["", "price"]),
    only=st.none() | NAMES,
    ignore=NAMES,
    regions=st.none() | st.lists(st.sampled_from(["own", "cn", ""]), max_size=2).map(tuple),
)


@given(WISH, WISH)
def test_what_a_caller_prefers_never_widens_what_its_key_allows(
    a: Preferences, b: Preferences
) -> None:
    routes = [A, B, C]
    both = allowed(routes, narrowed(a, b))
    assert both == [r for r in allowed(routes, a) if r in allowed(routes, b)]


def test_the_best_route_comes_first_and_the_unknown_where_it_should() -> None:
    known = {
        "a": Figures(30, 0.9, 10.0),
        "B": Figures(10, 0.1, 90.0),
        "c": Figures(None, None, None),
    }

    def of(route: Route) -> Figures:
        return known[route.upstream.name]

    assert names(sorted_by("price", [A, B, C], of)) == "Bac"
    assert names(sorted_by("latency", [A, B, C], of)) == "cBa"
    assert names(sorted_by("throughput", [A, B, C], of)) == "cBa"


def test_openrouters_provider_is_read_and_what_is_not_kept_is_named() -> None:
    warnings: list[str] = []
    body = (
        b'{"sort":{"by":"latency"},"only":["A"],"ignore":["b"],"order":["a","c"],'
        b'"data_collection":"deny","quantizations":null,"allow_fallbacks":true}'
    )
    assert provider.preferences(Raw(body), warnings) == Preferences("latency", ("a",), ("b",))
    assert warnings == ["provider.order", "provider.data_collection"]
    warnings.clear()
    strict = Raw(b'{"order":["a"],"allow_fallbacks":false,"only":7,"sort":"cheap"}')
    assert provider.preferences(strict, warnings) == Preferences(only=("a",))
    assert warnings == ["provider.only", "provider.sort"]
    assert provider.preferences(Raw(b""), warnings) is None
    assert provider.preferences(Raw(b"[]"), warnings) is None and warnings[-1] == "provider"
