"""A price quote: the request is priced and not sent, and no reply to it costs more."""

import json
import secrets
from collections.abc import Iterator
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import Gateway, start, stop
from headgate.catalog import models as shipped
from headgate.chat import Usage
from headgate.policy import pricing, quotes
from headgate.storage.sqlite.reports import UsageReader
from played import PlayedUpstream
from waiting import wait_for

HELLO = [{"role": "user", "content": "hello"}]
CHAT = {"model": "MiniMax-M2", "max_tokens": 500, "messages": HELLO}
FORMS: dict[str, tuple[str, str, dict[str, object]]] = {
    "chat": ("/v1/quote", "/v1/chat/completions", CHAT),
    "chat, whole path": ("/v1/quote/chat/completions", "/v1/chat/completions", CHAT),
    "messages": ("/v1/quote/messages", "/v1/messages", CHAT),
    "responses": (
        "/v1/quote/responses",
        "/v1/responses",
        {"model": "MiniMax-M2", "max_output_tokens": 500, "input": "hello"},
    ),
    "gemini": (
        "/v1beta/quote/models/MiniMax-M2:generateContent",
        "/v1beta/models/MiniMax-M2:generateContent",
        {
            "contents": [{"role": "user", "parts": [{"text": "hello"}]}],
            "generationConfig": {"maxOutputTokens": 500},
        },
    ),
}


@pytest.fixture(scope="module")
def gateway(
    upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    made = start(
        tmp_path_factory.mktemp("quote") / "data",
        HEADGATE_UPSTREAM_URL=upstream.url("openai"),
        HEADGATE_UPSTREAM_KEY="sk-upstream-secret",
    )
    made.upstream = upstream
    yield made
    stop(made)


@pytest.mark.parametrize("form", FORMS)
def test_it_is_priced_in_each_protocol_and_nothing_is_sent_or_billed(
    gateway: Gateway, form: str
) -> None:
    path, real, body = FORMS[form]
    assert gateway.upstream is not None
    seen, before = len(gateway.upstream.seen), _rows(gateway)
    answer = gateway.post(path, body)
    assert answer.status_code == 200, answer.text
    quote = answer.json()
    assert quote["object"] == "quote" and quote["model"] == "MiniMax-M2"
    assert quote["max_output_tokens"] == 500 and quote["counted"] == "estimated"
    assert "tokens (estimated)" in answer.headers["x-headgate-warnings"]
    (price,) = shipped.models()["MiniMax-M2"].prices
    assert quote["price"]["input"] == price.input and quote["price"]["output"] == price.output
    assert Decimal(quote["input_cost"]) == Decimal(price.input) * quote["input_tokens"] / 10**6
    assert Decimal(quote["max_output_cost"]) == Decimal(price.output) * 500 / 10**6
    assert Decimal(quote["max_cost"]) * 10**9 == quote["max_cost_nano_usd"]
    assert len(gateway.upstream.seen) == seen and _rows(gateway) == before
    # What it costs in the end is within the quote.
    sent = gateway.post(real, body)
    assert sent.status_code == 200, sent.text
    id = sent.headers["x-request-id"]
    reader = UsageReader(gateway.data)
    try:
        wait_for(lambda: reader.generation(id) is not None)
        row = reader.generation(id)
    finally:
        reader.close()
    assert row is not None and row.cost_nano_usd is not None
    assert 0 < row.cost_nano_usd <= quote["max_cost_nano_usd"]
    assert row.price_version == quote["price"]["price_version"]


def _rows(gateway: Gateway) -> int:
    reader = UsageReader(gateway.data)
    try:
        return len(reader.requests(most=1000))
    finally:
        reader.close()


def test_what_would_be_refused_is_refused_in_the_callers_protocol(gateway: Gateway) -> None:
    assert gateway.post("/v1/quote", CHAT, authorization="Bearer hg_live_no").status_code == 401
    assert gateway.post("/v1/quote/", CHAT).status_code == 200
    assert gateway.get("/v1/quote").status_code == 405
    unknown = gateway.post("/v1/quote", {**CHAT, "model": "nothing"})
    assert unknown.status_code == 404 and unknown.json()["error"]["code"] == "model_not_found"
    wrong = gateway.post("/v1/quote/messages", {**CHAT, "messages": "x"})
    assert wrong.status_code == 400 and wrong.json()["type"] == "error"
    assert gateway.post("/v1/quote", b"{").status_code == 400
    for nowhere in ("/v1/quotes", "/v1/quote/x", "/v1beta/quote/models/../x:generateContent"):
        assert gateway.post(nowhere, CHAT).status_code == 404, nowhere


def test_no_secret_and_no_prompt_is_in_a_quote_or_in_the_log(gateway: Gateway) -> None:
    word = secrets.token_hex(12)
    answer = gateway.post("/v1/quote", {**CHAT, "messages": [{"role": "user", "content": word}]})
    text = json.dumps(dict(answer.headers)) + answer.text
    gateway.catch_up()
    text += (gateway.data.parent / f"{gateway.data.name}.log").read_text()
    for secret in ("sk-upstream-secret", gateway.key, word, "127.0.0.1:" + str(9)):
        assert secret not in text


PRICES = st.builds(
    lambda i, o, c: shipped.Price(pricing_day, input=f"{i}.{i}", output=str(o), cache_read=c),
    st.integers(0, 99),
    st.integers(0, 99),
    st.sampled_from(("", "0", "0.01", "120")),
)
pricing_day = shipped.models()["MiniMax-M2"].prices[0].valid_from


@given(
    prices=st.lists(PRICES, min_size=1, max_size=3),
    input=st.integers(0, 10**6),
    more=st.integers(0, 10**6),
    used=st.integers(0, 10**6),
    cached=st.integers(0, 10**6),
    output=st.integers(0, 10**5),
    asked=st.integers(0, 10**5),
)
def test_no_usage_within_the_request_costs_more_than_the_quote(
    prices: list[shipped.Price],
    input: int,
    more: int,
    used: int,
    cached: int,
    output: int,
    asked: int,
) -> None:
    tariffs = tuple(pricing.Tariff((p,), "", pricing_day) for p in prices)
    quote = quotes.quote(
        model="m",
        service_tier="",
        prices=prices[:1],
        tariff=tariffs[0],
        dearest=pricing.dearest(tariffs),
        input=input,
        counted="exact",
        input_bound=input + more,
        max_output=asked,
    )
    used = min(used, input + more)
    usage = Usage(used, min(output, asked), cached=min(cached, used))
    for tariff in tariffs:
        nano = tariff.charge(usage).nano
        assert nano is not None and quote.max_cost_nano_usd is not None
        assert nano <= quote.max_cost_nano_usd


def test_a_free_route_costs_nothing_and_an_unknown_price_is_null() -> None:
    common = {"model": "m", "service_tier": "", "prices": (), "input": 5, "counted": "exact"}
    nothing = pricing.Tariff((), "", pricing_day)
    free = quotes.quote(**common, tariff=nothing, dearest=None, input_bound=9, max_output=9)  # type: ignore[arg-type]
    assert free.free and free.max_cost == free.input_cost == "0.00" and free.price is None
    unknown = quotes.quote(**common, tariff=nothing, dearest=nothing, input_bound=9, max_output=9)  # type: ignore[arg-type]
    assert not unknown.free and unknown.max_cost is None and unknown.max_cost_nano_usd is None
