"""Upstreams of the database: joined with the settings, their keys sealed, and left out where they do not fit."""

import msgspec
import pytest

from headgate.catalog import sealed_keys, stored
from headgate.catalog.stored import Stored
from headgate.config import ConfigError, Settings, loading

SECRET = b"s" * 32
KEY = "sk-api-very-secret"
MODEL = '{"routes":[{"upstream":"acme"}],"free":true}'


def kept(upstreams: dict[str, dict[str, object]], models: dict[str, str] | None = None) -> Stored:
    """The database with these upstreams, as the console stores them."""
    texts = {}
    for name, fields in upstreams.items():
        upstream = stored.decoded_upstream(name, msgspec.json.encode(fields))
        texts[name] = stored.encoded_upstream(name, upstream, SECRET)
    return Stored(models or {}, texts, SECRET)


def settings(**env: str) -> Settings:
    return loading.load(None, env, data="/nowhere")


def test_the_first_one_takes_the_place_of_the_model_that_stands_in() -> None:
    alone = stored.joined(settings(), {}, Stored(secret=SECRET))
    assert list(alone.settings.upstreams) == ["local"]
    both = stored.joined(settings(), {}, kept({"mm": {"preset": "minimax", "key": KEY}}))
    assert list(both.settings.upstreams) == ["mm"]
    (route,) = both.catalog.routes("MiniMax-M3")
    assert (route.upstream.name, route.key.secret) == ("mm", KEY)


def test_it_comes_after_those_of_the_settings_and_never_in_their_place() -> None:
    own = settings(MINIMAX_API_KEY="sk-env")
    found = kept(
        {
            "minimax": {"preset": "minimax", "key": KEY},
            "acme": {"preset": "custom", "base_url": "https://a.example/v1"},
        }
    )
    both = stored.joined(own, {}, found)
    assert [r.upstream.name for r in both.catalog.routes("MiniMax-M3")] == ["minimax", "acme"]
    assert both.catalog.routes("MiniMax-M3")[0].key.secret == "sk-env"
    assert "which count" in both.upstream_faults["minimax"]


def test_a_key_is_sealed_and_no_other_secret_or_name_opens_it() -> None:
    text = kept({"mm": {"preset": "minimax", "key": KEY}}).upstreams["mm"]
    assert KEY not in text
    sealed = msgspec.json.decode(text)["key"]
    assert sealed_keys.opened(SECRET, "mm", sealed) == KEY
    for secret, name, given in (
        (b"t" * 32, "mm", sealed),
        (SECRET, "other", sealed),
        (SECRET, "mm", sealed[:-4] + "AAAA"),
        (SECRET, "mm", KEY),
        (SECRET, "mm", "a.b.c.d.e"),
    ):
        with pytest.raises(ConfigError, match="Enter it again") as refused:
            sealed_keys.opened(secret, name, given)
        assert KEY not in str(refused.value)
    assert KEY not in repr(Stored({}, {"mm": text}, SECRET))


def test_one_that_cannot_be_opened_is_left_out_with_its_models_and_the_rest_serves() -> None:
    found = kept(
        {
            "acme": {"preset": "minimax", "key": KEY},
            "good": {"preset": "minimax", "key": KEY + "2"},
        },
        {"acme-coder": MODEL},
    )
    moved = msgspec.structs.replace(found, secret=b"t" * 32)
    both = stored.joined(settings(), {}, moved)
    assert set(both.upstream_faults) == {"acme", "good"} and set(both.faults) == {"acme-coder"}
    assert list(both.settings.upstreams) == ["local"]
    del found.upstreams["acme"]
    both = stored.joined(settings(), {}, found)
    assert list(both.settings.upstreams) == ["good"] and set(both.faults) == {"acme-coder"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"preset": "minimax", "key": "env:MINIMAX_API_KEY"}, "enter the key itself"),
        ({"preset": "minimax", "key": "file:/etc/passwd"}, "enter the key itself"),
        ({"preset": "minimax", "key": "a b"}, "characters that no API key has"),
        ({"preset": "minimax", "keys": ["a", "b"]}, "for headgate.toml"),
        ({"preset": "local"}, "no upstream to add"),
        ({"preset": "custom", "base_url": "http://169.254.169.254/"}, "no upstream can be"),
        ({"preset": "custom", "base_url": "http://10.0.0.1/v1"}, "plain http"),
        ({"preset": "custom", "base_url": "file:///etc/passwd"}, "https://"),
        ({"preset": "custom", "price": 1}, "unknown field"),
    ],
)
def test_what_may_not_be_stored_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        stored.decoded_upstream("acme", msgspec.json.encode(fields))


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", "é", "x" * 65, "-x"])
def test_a_name_that_fits_no_address_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="an upstream's name has"):
        stored.decoded_upstream(name, b'{"preset": "minimax"}')


def test_a_price_of_one_model_comes_before_one_of_every_model_and_free_before_both() -> None:
    prices = [
        {"input": "9", "output": "9"},
        {"model": "minimax-m2", "input": "1", "output": "2"},
    ]
    fields = {"preset": "custom", "base_url": "https://a.example/v1", "prices": prices}
    catalog = stored.joined(settings(), {}, kept({"acme": fields})).catalog
    assert catalog.routes("MiniMax-M2")[0].prices[0].output == "2"
    assert catalog.routes("MiniMax-M3")[0].prices[0].output == "9"
    assert not catalog.routes("MiniMax-M3")[0].free
    catalog = stored.joined(settings(), {}, kept({"acme": {**fields, "free": True}})).catalog
    assert catalog.routes("MiniMax-M3")[0].free
    usual = stored.joined(settings(), {}, kept({"acme": {**fields, "prices": []}})).catalog
    assert usual.routes("MiniMax-M3")[0].prices == usual.find("MiniMax-M3").prices  # type: ignore[union-attr]
