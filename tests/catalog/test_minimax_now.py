"""MiniMax as of 2026-11-30: M3.1-Flash, corrected figures, models that end, and who follows them."""

from datetime import date

import msgspec
import pytest

from headgate import config
from headgate.catalog import building
from headgate.catalog import models as shipped
from headgate.catalog.advice import NOTICE, advice, retirement_text, retirements
from headgate.catalog.cards import card
from headgate.catalog.catalog import Catalog
from headgate.chat import Message, Request, Text, Tool, Usage
from headgate.config import Settings
from headgate.edge.billing import has_breakpoints
from headgate.policy import routing
from headgate.policy.pricing import Tariff, dearest

BEFORE, CLOSED, END = date(2026, 10, 18), date(2026, 11, 17), date(2026, 11, 18)
ENDED = ("MiniMax-M2.7", "MiniMax-M2.7-highspeed", "MiniMax-M2.5", "MiniMax-M2.5-highspeed")
OWN_API = ("minimax", "minimax-cn", "minimax-anthropic")


def settings(*presets: str, **more: object) -> Settings:
    upstreams = {p: config.Upstream(preset=p, key=f"k-{p}") for p in presets}
    return msgspec.structs.replace(Settings(), upstreams=upstreams, **more)


def made(*presets: str) -> Catalog:
    return building.load(settings(*presets), {})


def test_flash_is_offered_under_both_its_names_at_its_exact_prices() -> None:
    offered = made("minimax")
    for name in ("MiniMax-M3.1-Flash", "minimax/minimax-m3.1-flash-preview"):
        model = offered.find(name)
        assert model is not None and model.id == "MiniMax-M3.1-Flash"
    (route,) = offered.routes("MiniMax-M3.1-Flash")
    assert (route.rpm, route.tpm) == (200, 10_000_000)
    assert route.capabilities.efforts == ("low", "medium", "high", "xhigh", "max")
    assert not route.capabilities.thinking_off and not route.capabilities.stop
    tariff = Tariff(route.prices, "", date(2026, 11, 30))
    # 0.15 dollars a million are 150 nano-dollars a token, cached ones 15, output 600.
    assert tariff.charge(Usage(1000, 10, 400)).nano == 600 * 150 + 400 * 15 + 10 * 600


def test_m2_models_take_what_the_api_takes_and_recommend_half_of_m3s() -> None:
    for id, model in shipped.models().items():
        if id.startswith("MiniMax-M2"):
            assert (model.max_output, model.default_max_output) == (204_800, 65_536)


@pytest.mark.parametrize("preset", OWN_API)
@pytest.mark.parametrize("id", ENDED)
def test_a_model_ends_at_its_vendors_own_api_only(id: str, preset: str) -> None:
    (route,) = made(preset).routes(id)
    assert route.retirement is not None and route.retirement.ends == END
    assert route.successor is not None and route.successor.name == "MiniMax-M3.1-Flash"
    for elsewhere in ("runapi", "vllm", "sglang", "custom"):
        extra = {"base_url": "http://127.0.0.1:1/v1"} if elsewhere == "custom" else {}
        upstream = config.Upstream(preset=elsewhere, key="k", **extra)
        (other,) = building.load(Settings(upstreams={"a": upstream}), {}).routes(id)
        assert other.retirement is None and other.successor is None


def test_a_retired_route_is_replaced_from_its_day_on() -> None:
    routes = made("minimax", "runapi").routes("MiniMax-M2.7")
    pairs = [(r, r.successor) for r in routes]
    assert [r.name for r in routing.in_force(pairs, CLOSED)] == ["MiniMax-M2.7", "minimax-m2.7"]
    after = routing.in_force(pairs, END)
    assert [r.name for r in after] == ["MiniMax-M3.1-Flash", "minimax-m2.7"]
    assert after[0].prices == shipped.models()["MiniMax-M3.1-Flash"].prices
    assert after[0].sizes.context_window == 1_000_000
    assert after[0].model.id == "MiniMax-M2.7"


def test_a_pool_of_keys_goes_over_to_the_successor_whole() -> None:
    upstream = config.Upstream(preset="minimax", keys=("a", "b", "c"))
    (route,) = building.load(Settings(upstreams={"a": upstream}), {}).routes("MiniMax-M2.5")
    assert route.successor is not None
    assert [r.key.secret for r in route.successor.pool] == ["a", "b", "c"]
    assert {r.name for r in route.successor.pool} == {"MiniMax-M3.1-Flash"}


def test_callers_are_warned_of_an_end_and_of_another_model() -> None:
    (route,) = made("minimax").routes("MiniMax-M2.7")
    ends = "2026-11-18; successor MiniMax-M3.1-Flash"
    assert routing.notes(route, CLOSED) == (f"model (retires {ends})",)
    assert routing.notes(route, END) == (f"model (retired {ends})",)
    assert route.successor is not None
    assert routing.notes(route.successor, END) == ("model (answered by MiniMax-M3.1-Flash)",)


def test_the_operator_hears_of_an_end_before_it_comes() -> None:
    offered, own = made("minimax"), settings("minimax")
    assert not list(retirements(offered, END - NOTICE - (END - CLOSED)))
    found = list(retirements(offered, END - NOTICE))
    assert [r.model.id for r, ended in found if not ended] == list(ENDED)
    text = retirement_text(found[0][0], own, CLOSED)
    assert "MiniMax-M2.7 ends at upstream `minimax` on 2026-11-18" in text
    assert "are not sent on to its successor MiniMax-M3.1-Flash" in text
    allowed = settings("minimax", retired_to_successor=True)
    assert "are sent on to" in retirement_text(found[0][0], allowed, END)
    warned = {a.model for a in advice(offered, own, END) if a.level == "warning"}
    assert warned == set(ENDED)


def test_a_card_shows_the_end_unless_another_route_goes_on() -> None:
    alone, both = made("minimax"), made("minimax", "runapi")
    model = shipped.models()["MiniMax-M2.7"]
    shown = card(model, alone.routes(model.id), BEFORE)
    assert (shown.lifecycle, shown.retires, shown.closed) == (
        "deprecated",
        "2026-11-18",
        "2026-10-19",
    )
    shown = card(model, alone.routes(model.id), END)
    assert shown.lifecycle == "retired" and shown.successor == "MiniMax-M3.1-Flash"
    assert "MiniMax-M3.1-Flash" in shown.description
    assert card(model, both.routes(model.id), END).lifecycle == "active"


def test_a_write_costs_more_only_where_the_request_marks_what_to_cache() -> None:
    model = shipped.models()["MiniMax-M2.7"]
    tariff, usage = Tariff(model.prices, "", END), Usage(1000, 0, 0, 600)
    assert tariff.charge(usage).nano == 400 * 300 + 600 * 375
    assert tariff.charge(usage, lambda: True).nano == 400 * 300 + 600 * 375
    assert tariff.charge(usage, lambda: False).nano == 1000 * 300
    asked = []
    tariff.charge(Usage(1000), lambda: bool(asked.append(1)))
    assert not asked, "nothing was written, so nobody is asked"


def test_breakpoints_are_found_on_tools_and_on_parts() -> None:
    plain = Request("m", (Message("user", (Text("hi"),)),))
    assert not has_breakpoints(plain) and not has_breakpoints(None)
    assert has_breakpoints(Request("m", (Message("user", (Text("hi", cache="5m"),)),)))
    assert has_breakpoints(msgspec.structs.replace(plain, tools=(Tool("f", cache="1h"),)))


def test_the_responses_path_of_m3_does_not_think_unasked() -> None:
    upstream = config.Upstream(preset="minimax", key="k", dialect="responses")
    offered = building.load(Settings(upstreams={"a": upstream}), {})
    assert offered.routes("MiniMax-M3")[0].capabilities.thinking_default == "off"
    assert offered.routes("MiniMax-M2.7")[0].capabilities.thinking_default == "on"
    assert made("minimax").routes("MiniMax-M3")[0].capabilities.thinking_default == "on"


def test_a_reservation_pays_for_the_dearest_of_several_prices() -> None:
    cheap = Tariff(shipped.models()["MiniMax-M3.1-Flash"].prices, "", END)
    dear = Tariff(shipped.models()["MiniMax-M3"].prices, "", END)
    both = dearest((cheap, dear))
    assert both is not None and dearest(()) is None and dearest((cheap,)) is cheap
    for input in (0, 100, 512_000, 512_001, 900_000):
        assert both.worst_case(input, 100).nano == dear.worst_case(input, 100).nano
        assert both.output_for(input, 10**9) == dear.output_for(input, 10**9)
    unknown = dearest((dear, Tariff((), "", END)))
    assert unknown is not None and unknown.worst_case(1, 1).nano is None
    assert unknown.output_for(1, 1) is None
