"""The models and presets as data, and the routes that settings make of them."""

from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from headgate import config
from headgate.catalog import building, catalog, presets
from headgate.catalog import models as shipped
from headgate.catalog.catalog import Catalog
from headgate.config import ConfigError, Settings, loading
from headgate.dialects.capabilities import Capabilities

NINE = [
    "MiniMax-M3",
    "MiniMax-M3.1-Flash",
    "MiniMax-M2.7",
    "MiniMax-M2.7-highspeed",
    "MiniMax-M2.5",
    "MiniMax-M2.5-highspeed",
    "MiniMax-M2.1",
    "MiniMax-M2.1-highspeed",
    "MiniMax-M2",
]
PROMISED = [
    "minimax",
    "minimax-cn",
    "runapi",
    "openrouter",
    "vllm",
    "sglang",
    "openai",
    "anthropic",
    "local",
]


def of_preset(preset: str, **fields: object) -> Settings:
    upstream = msgspec.convert({"preset": preset, "key": "k", **fields}, config.Upstream)
    return Settings(upstreams={"a": upstream})


def load(settings: Settings, **env: str) -> Catalog:
    return building.load(settings, env)


def with_aliases(**aliases: str) -> Catalog:
    settings = of_preset("minimax")
    return load(msgspec.structs.replace(settings, aliases=aliases, default_aliases=False))


def found(catalog: Catalog, name: str) -> str | None:
    model = catalog.find(name)
    return model.id if model is not None else None


# --- the data --------------------------------------------------------------------------------


def test_the_nine_models_are_there_with_their_sizes() -> None:
    models = shipped.models()
    assert list(models) == NINE
    for id, model in models.items():
        assert model.id == id and id in (model.display_name.replace(" ", "-"), model.id)
        assert 0 < model.default_max_output <= model.max_output <= model.context_window
        assert abs(model.released.toordinal() - 719163 - model.created / 86400) < 2
    assert models["MiniMax-M3"].input == ("text", "image", "video")
    assert all(m.input == ("text",) for id, m in models.items() if "M3" not in id)


@pytest.mark.parametrize("id", NINE)
def test_prices_are_exact_decimals_and_their_tiers_are_ordered(id: str) -> None:
    model = shipped.models()[id]
    assert model.prices and model.prices[0].valid_from == model.released
    for price in model.prices:
        read, write = price.cache_read or price.input, price.cache_write or "0"
        numbers = [
            Decimal(p) for p in (price.input, price.output, read, write, price.priority_factor)
        ]
        assert all(n.is_finite() and n >= 0 for n in numbers)
        # nano-dollars a token must be whole: integers, never floats
        assert all((n * 1000) % 1 == 0 for n in numbers[:4])
        assert numbers[2] <= numbers[0] < numbers[1] and numbers[4] >= 1
    assert [p.valid_from for p in model.prices] == sorted(p.valid_from for p in model.prices)
    tiers = [p for p in model.prices if p.valid_from == model.prices[-1].valid_from]
    assert tiers[-1].up_to_input is None, "the last tier must hold for every size"
    for low, high in pairwise(tiers):
        assert low.up_to_input is not None
        assert high.up_to_input is None or low.up_to_input < high.up_to_input
        assert Decimal(low.input) <= Decimal(high.input)


def test_the_promised_presets_are_there() -> None:
    assert set(PROMISED) <= set(presets.presets())


@pytest.mark.parametrize("preset", presets.presets())
def test_every_preset_builds_routes_and_its_capabilities_convert(preset: str) -> None:
    data = presets.presets()[preset]
    offered = load(of_preset(preset, base_url=data.base_url or "http://127.0.0.1:1/v1"))
    assert [m.id for m in offered.models] == NINE
    for id in NINE:
        routes = offered.routes(id)
        if data.only_named and id not in data.names:
            assert routes == ()
            continue
        (route,) = routes
        assert route.model.id == id and route.name and route.upstream.key == "k"
        assert isinstance(route.capabilities, Capabilities)
        assert set(route.capabilities.input) <= {"text", "image", "video"}
    assert set(data.models) | (set(data.names) - {"*"}) <= set(NINE)
    assert data.base_url.startswith(("https://", "http://127.0.0.1:")) or preset in (
        "custom",
        "local",
    )
    assert not data.base_url.endswith("/")


def test_only_openrouter_lacks_models_and_only_the_highspeed_ones() -> None:
    for preset in PROMISED:
        offered = load(of_preset(preset))
        lacks = [id for id in NINE if not offered.routes(id)]
        assert lacks == ([i for i in NINE if "highspeed" in i] if preset == "openrouter" else [])


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        ("minimax", "MiniMax-M2.7"),
        ("runapi", "minimax-m2.7"),
        ("openrouter", "minimax/minimax-m2.7"),
        ("vllm", "MiniMaxAI/MiniMax-M2.7"),
        ("local", "smollm2-135m"),
    ],
)
def test_a_model_has_the_upstreams_own_name_on_its_route(preset: str, name: str) -> None:
    (route,) = load(of_preset(preset)).routes("MiniMax-M2.7")
    assert route.name == name


def test_reasoning_is_asked_for_apart_on_minimaxs_own_paths() -> None:
    for preset in ("minimax", "minimax-cn", "runapi"):
        for id in NINE:
            (route,) = load(of_preset(preset)).routes(id)
            assert route.capabilities.reasoning_split


def test_only_m3_may_be_told_not_to_think_on_minimaxs_own_paths() -> None:
    offered = load(of_preset("minimax"))
    assert [i for i in NINE if offered.routes(i)[0].capabilities.thinking_off] == ["MiniMax-M3"]


# --- settings that change it -----------------------------------------------------------------


def test_upstreams_are_tried_in_the_order_of_the_settings() -> None:
    env = {"OPENROUTER_API_KEY": "o", "MINIMAX_API_KEY": "m", "RUNAPI_TOKEN": "r"}
    offered = building.load(loading.load(None, env), env)
    assert [r.upstream.name for r in offered.routes("MiniMax-M2")] == [
        "minimax",
        "runapi",
        "openrouter",
    ]
    assert [r.upstream.key for r in offered.routes("MiniMax-M2")] == ["m", "r", "o"]
    assert [r.upstream.name for r in offered.routes("MiniMax-M2.5-highspeed")] == [
        "minimax",
        "runapi",
    ]


def test_a_model_may_have_routes_names_and_numbers_of_its_own() -> None:
    settings = Settings(
        upstreams={
            "a": config.Upstream("minimax", key="k"),
            "b": config.Upstream("openrouter", key="k"),
        },
        models={
            "MiniMax-M2.5-highspeed": config.Model(
                (config.RouteTo("b", "mine"), config.RouteTo("a")), context_window=9, max_output=8
            )
        },
    )
    offered = load(settings)
    routes = offered.routes("MiniMax-M2.5-highspeed")
    assert [(r.upstream.name, r.name) for r in routes] == [
        ("b", "mine"),
        ("a", "MiniMax-M2.5-highspeed"),
    ]
    card = next(c for c in offered.cards() if c.id == "MiniMax-M2.5-highspeed")
    model = offered.find("MiniMax-M2.5-highspeed")
    assert model is not None and (model.context_window, model.max_output) == (9, 8)
    assert card.context_window == 9 and card.max_output == 8
    assert shipped.models()[card.id].context_window == 204_800, "the data itself must not change"


def test_an_upstreams_own_capabilities_beat_the_presets() -> None:
    settings = of_preset("minimax", capabilities={"stop": True, "input": ["text"]})
    (route,) = load(settings).routes("MiniMax-M3")
    assert route.capabilities.stop and route.capabilities.input == ("text",)
    assert route.capabilities.reasoning_split


def test_another_dialect_than_the_presets_has_thinking_in_blocks() -> None:
    settings = of_preset("custom", base_url="https://example.com", dialect="anthropic")
    (route,) = load(settings).routes("MiniMax-M2")
    assert route.upstream.dialect == "anthropic"
    assert route.capabilities.reasoning_form == "blocks"
    assert not route.capabilities.reasoning_split


def test_anthropic_gets_its_key_in_its_own_header_and_the_local_model_none() -> None:
    auth = {p: load(of_preset(p)).routes("MiniMax-M2")[0].upstream.auth for p in PROMISED}
    assert auth.pop("anthropic") == "x-api-key" and auth.pop("local") == "none"
    assert set(auth.values()) == {"bearer"}


def test_the_presets_own_variable_holds_the_key_when_the_settings_name_none() -> None:
    settings = Settings(upstreams={"a": config.Upstream("minimax-cn")})
    (route,) = load(settings, MINIMAX_API_KEY="m").routes("MiniMax-M2")
    assert route.upstream.key == "m"
    with pytest.raises(ConfigError, match=r"`upstreams\.a\.key` is missing.*MINIMAX_API_KEY"):
        load(settings)
    with pytest.raises(ConfigError, match="MINIMAX_API_KEY has characters"):
        load(settings, MINIMAX_API_KEY="a\r\nb: c")


def test_a_route_is_there_once_for_each_key_of_its_upstreams_pool() -> None:
    settings = of_preset("minimax", key="a", keys=("b", "c"))
    (route,) = load(settings).routes("MiniMax-M2")
    (name,) = settings.upstreams
    assert [r.key.secret for r in route.pool] == ["a", "b", "c"]
    assert [r.key.account for r in route.pool] == [f"{name}#{n}" for n in (1, 2, 3)]
    assert [r.served_by for r in route.pool] == [f"{route.id};key={n}" for n in (1, 2, 3)]
    assert {r.id for r in route.pool} == {route.id} and route.key == route.pool[0].key
    (one,) = load(of_preset("minimax", key="a")).routes("MiniMax-M2")
    assert (one.pool, one.served_by, one.key.account) == ((), one.id, name)


def test_the_same_key_at_the_same_origin_is_one_account() -> None:
    there = "https://example.com/v1"
    settings = Settings(
        upstreams={
            "a": config.Upstream("openai", there, key="k"),
            "b": config.Upstream("anthropic", "https://example.com/anthropic", keys=("j", "k")),
            "c": config.Upstream("openai", "https://example.org/v1", key="k"),
            "d": config.Upstream("openai", there),
            "e": config.Upstream("openai", there),
        }
    )
    accounts = [
        [key.account for key in route.upstream.keys]
        for route in load(settings).routes("MiniMax-M2")
    ]
    assert accounts == [["a"], ["b#1", "a"], ["c"], ["d"], ["e"]]


def test_an_upstream_never_shows_its_key_in_a_repr() -> None:
    for fields in ({"key": "sk-canary"}, {"keys": ("sk-canary1", "sk-canary2")}):
        (route,) = load(of_preset("minimax", **fields)).routes("MiniMax-M2")
        assert "canary" not in repr((route, route.pool, route.key))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (of_preset("minmax"), "`upstreams.a.preset`: no preset `minmax`. Did you mean `minimax`?"),
        (of_preset("zzzzz"), "no preset `zzzzz`. Known: minimax, minimax-cn"),
        (of_preset("custom"), "`upstreams.a.base_url` is missing"),
        (
            of_preset("openai", capabilities={"stopp": 1}),
            "`upstreams.a.capabilities`: Object contains unknown field `stopp`",
        ),
        (
            of_preset("openai", capabilities={"stop": "x"}),
            "`upstreams.a.capabilities`: Expected `bool`",
        ),
        (
            Settings(
                upstreams={"a": config.Upstream("local")}, models={"MiniMax-M4": config.Model()}
            ),
            "`models.MiniMax-M4`: no such model, and without `routes`",
        ),
        (
            Settings(
                upstreams={"a": config.Upstream("local")},
                models={"MiniMax-M2": config.Model((config.RouteTo("b"),))},
            ),
            "`models.MiniMax-M2.routes[0].upstream`: no upstream `b`. Known: a.",
        ),
        (
            Settings(upstreams={"a": config.Upstream("local")}, aliases={"x": "gpt"}),
            "`aliases.x`: no such model `gpt`",
        ),
    ],
)
def test_settings_that_do_not_fit_are_told_by_their_key(settings: Settings, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(settings)
    assert told in str(caught.value)


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "MiniMax-M2.7",
        "minimax-m2.7",
        "MINIMAX-M2.7",
        " MiniMax-M2.7 ",
        "minimax/minimax-m2.7",
        "MiniMaxAI/MiniMax-M2.7",
        "models/MiniMax-M2.7",
        "models/minimax/minimax-m2.7",
    ],
)
def test_a_model_is_found_in_any_case_and_behind_the_known_prefixes(name: str) -> None:
    assert found(with_aliases(), name) == "MiniMax-M2.7"


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "models/",
        "minimax/",
        "gpt-5",
        "MiniMax-M2.7x",
        "openai/MiniMax-M2.7",
        "MiniMax-M2.7/",
        "*",
        "MiniMax-M?",
        "models/" * 1_000_000,
    ],
    ids=lambda n: n[:20],
)
def test_any_other_name_is_found_nowhere(name: str) -> None:
    assert found(with_aliases(), name) is None


def test_an_alias_may_be_a_name_or_a_pattern_in_any_case() -> None:
    aliases = {"gpt-5": "MiniMax-M3", "Claude-*": "MiniMax-M2.7", "claude-haiku-*": "MiniMax-M2"}
    offered = with_aliases(**aliases)
    assert found(offered, "GPT-5") == "MiniMax-M3"
    assert found(offered, "models/gpt-5") == "MiniMax-M3"
    assert found(offered, "gpt-5-mini") is None
    assert found(offered, "claude-opus-4") == "MiniMax-M2.7"
    assert found(offered, "claude-haiku-4") == "MiniMax-M2.7", "the first pattern that fits holds"


def test_an_alias_beats_a_model_and_a_model_beats_a_pattern() -> None:
    offered = with_aliases(
        **{"*": "MiniMax-M2", "minimax-m2.5": "MiniMax-M3", "a[1m]": "MiniMax-M2.1"}
    )
    assert found(offered, "MiniMax-M2.5") == "MiniMax-M3"
    assert found(offered, "MiniMax-M2.7") == "MiniMax-M2.7"
    assert found(offered, "minimax/MiniMax-M2.7") == "MiniMax-M2.7"
    assert found(offered, "a[1m]") == "MiniMax-M2.1"
    assert found(offered, "anything") == "MiniMax-M2"


def test_near_names_are_told_and_at_most_three() -> None:
    offered = with_aliases()
    assert offered.near("MiniMax-M2.8")[0].startswith("MiniMax-M2")
    assert "MiniMax-M3" in offered.near("openai/minimax-m3x")
    assert len(offered.near("minimax-m")) == 3
    assert offered.near("gpt-4o") == [] and offered.near("") == []
    assert offered.near("x" * 1_000_000) == []


def test_cards_say_what_clients_are_told() -> None:
    cards = with_aliases().cards()
    assert [c.id for c in cards] == NINE
    assert cards[0].context_window == 1_000_000 and cards[0].input == ("text", "image", "video")
    assert all(c.description and c.display_name for c in cards)


def test_a_model_that_is_unknown_has_no_routes() -> None:
    assert with_aliases().routes("gpt-5") == ()


def test_a_key_has_aliases_of_its_own_before_everybodys() -> None:
    settings = loading.load(
        None,
        {"HEADGATE_UPSTREAM_URL": "http://127.0.0.1:1/v1"},
        aliases={"fast": "MiniMax-M2", "claude-*": "MiniMax-M2"},
        key_aliases={"k1": {"Fast": "MiniMax-M3", "claude-opus-4": "MiniMax-M3"}},
        default_aliases=False,
    )
    made = building.load(settings, {})
    for key, name, id in (
        ("k1", "fast", "MiniMax-M3"),
        ("k2", "fast", "MiniMax-M2"),
        ("k1", "claude-opus-4", "MiniMax-M3"),
        ("k1", "claude-haiku", "MiniMax-M2"),
        ("", "claude-opus-4", "MiniMax-M2"),
    ):
        found = made.find(name, key)
        assert found is not None
        assert found.id == id
    assert [c.id for c in made.alias_cards("k1")] == ["fast", "claude-opus-4"]
    assert [c.id for c in made.alias_cards()] == ["fast"]


def test_an_alias_of_a_key_for_no_model_is_a_mistake() -> None:
    settings = loading.load(None, {}, key_aliases={"k1": {"a": "nothing"}})
    with pytest.raises(config.ConfigError, match=r"key_aliases\.k1\.a"):
        building.load(settings, {})


# --- names that agents choose ----------------------------------------------------------------

# Names that the packages of Claude Code, Codex and Gemini CLI hold, and siblings of them.
LARGE = (
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "claude-fable-5-2",
    "claude-opus-4-1-20250805",
    "claude-opus-5-5[1m]",
    "gpt-6.2-sol",
    "gpt-5.6-terra",
    "gpt-5-codex",
    "gpt-5.3-codex-spark",
    "codex-auto-review",
    "o1",
    "o3",
    "o3-pro",
    "o4-2026",
    "gemini-3.1-pro-preview",
    "gemini-2.5-pro",
    "models/gemini-3-pro-preview",
    "CLAUDE-OPUS-5",
    "anthropic/claude-opus-4.5",
    "openai/gpt-6-sol",
    "google/gemini-3-pro",
    "chatgpt-4o-latest",
)
SMALL = (
    "claude-haiku-5-5",
    "claude-haiku-4-5-20251001",
    "claude-3-5-haiku-latest",
    "gemini-3.5-flash-lite",
    "gemini-2.5-flash",
    "gemini-3-flash-preview",
    "models/gemini-2.5-flash-lite",
    "gpt-5-mini",
    "gpt-5.1-codex-mini",
    "gpt-5-nano",
    "gpt-4o-mini",
    "codex-mini-latest",
    "o3-mini",
    "o4-mini",
    "gpt-6-luna",
    "openai/gpt-5-mini",
)


def default_catalog(preset: str = "minimax", **fields: Any) -> catalog.Catalog:
    return load(msgspec.structs.replace(of_preset(preset), **fields))


@pytest.mark.parametrize("name", LARGE)
def test_a_name_that_an_agent_chooses_means_the_flagship(name: str) -> None:
    assert found(default_catalog(), name) == "MiniMax-M3"


@pytest.mark.parametrize("name", SMALL)
def test_a_small_models_name_means_a_cheaper_model(name: str) -> None:
    model = default_catalog().find(name)
    flagship = default_catalog().find("claude-opus-5-5")
    assert model is not None and flagship is not None and model.id != flagship.id
    small, large = model.prices[-1], flagship.prices[0]
    for field in ("input", "output", "cache_read"):
        assert Decimal(getattr(small, field)) <= Decimal(getattr(large, field))
    assert Decimal(small.cache_read) < Decimal(large.cache_read)


@pytest.mark.parametrize(
    "name", ["llama-4", "o1x", "o5", "gpt", "claude", "gemini", "xclaude-opus", "mistral/claude-x"]
)
def test_a_name_that_no_agent_chooses_stays_unknown(name: str) -> None:
    assert found(default_catalog(), name) is None


@pytest.mark.parametrize("name", [*LARGE, *SMALL])
def test_one_setting_switches_the_default_aliases_off(name: str) -> None:
    offered = default_catalog(default_aliases=False)
    assert found(offered, name) is None
    assert offered.default_aliases() == {} and offered.alias_cards() == ()


def test_aliases_of_the_operator_and_of_a_key_come_before_the_default_ones() -> None:
    offered = default_catalog(
        aliases={"claude-*": "MiniMax-M2", "GPT-5-mini": "MiniMax-M2.7"},
        key_aliases={"k1": {"claude-opus-5-5": "MiniMax-M2.5"}},
    )
    assert found(offered, "claude-opus-5-5") == "MiniMax-M2"
    assert found(offered, "claude-haiku-5-5") == "MiniMax-M2"
    assert found(offered, "gpt-5-mini") == "MiniMax-M2.7"
    assert found(offered, "gpt-5-nano") == "MiniMax-M2.1"
    model = offered.find("claude-opus-5-5", "k1")
    assert model is not None and model.id == "MiniMax-M2.5"


def test_a_default_alias_means_a_model_that_has_a_route_and_that_the_key_may_use() -> None:
    upstream = config.Upstream("openai", "https://example.com/v1", "k")
    only = {id: config.Model((config.RouteTo("a"),)) for id in ("MiniMax-M2.7", "MiniMax-M2.5")}
    offered = catalog.Catalog(
        tuple(shipped.models().values()),
        {id: load(Settings(upstreams={"a": upstream}, models=only)).routes(id) for id in only},
        {},
        defaults=presets.default_aliases(),
    )
    assert found(offered, "claude-opus-5-5") == "MiniMax-M2.7"
    assert found(offered, "claude-haiku-5-5") == "MiniMax-M2.5"
    model = default_catalog().find("claude-opus-5-5", "", ("MiniMax-M2",))
    assert model is not None and model.id == "MiniMax-M2"


def test_the_alias_data_names_models_and_kinds_that_exist() -> None:
    data = presets.default_aliases()
    for ids in data.kinds.values():
        assert set(ids) == set(shipped.models()), "a gateway with any one model has an answer"
    assert set(data.patterns.values()) <= set(data.kinds)
    assert all(default_catalog().find(name) for name in data.listed)


def test_anthropics_list_has_names_that_claude_code_keeps() -> None:
    """Claude Code 2.1.332 throws away ids without `claude` or `anthropic` in them."""
    cards = default_catalog().alias_cards()
    assert [c.id for c in cards] == list(presets.default_aliases().listed)
    assert cards[1].context_window == 1_000_000


def test_a_near_name_is_named_only_when_it_is_really_near() -> None:
    offered = with_aliases()
    assert offered.hint("MiniMax-M2.77") == "Did you mean MiniMax-M2.7, MiniMax-M2.5, MiniMax-M2.1?"
    for name in ("llama-4-maverick", "mixtral-8x7b", "minitron", "max", ""):
        assert offered.hint(name).startswith("The models here: MiniMax-M3, "), name
