"""Laws of money over all dialects: whatever an upstream reports, what is spent stays within the budget.

A request is decoded in a client's dialect, sent in an upstream's, and answered in it, as on its way
through the gateway; only the sockets and the ledger are left out. The upstream reports whatever it
likes within what it was sent, and beyond that in the last law.
"""

import contextlib
import itertools
import json
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headgate import node
from headgate.catalog import chat_template, counting
from headgate.catalog.models import models
from headgate.catalog.routes import Route, Upstream
from headgate.chat import (
    Finish,
    Media,
    Message,
    Reply,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
    replay,
)
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import ReplyFacts, RequestTarget
from headgate.dialects.registry import DIALECTS
from headgate.edge import relay as relays
from headgate.edge.metrics import Metrics
from headgate.edge.record import ExchangeRecord
from headgate.errors import Refused
from headgate.node.admission import Admissions
from headgate.policy import fit, history, reservations
from headgate.policy.keys import Key
from headgate.stream.translate import Translator, Whole
from in_process_node import InProcessLedger

NAMES = sorted(DIALECTS)
PAIRS = list(itertools.product(NAMES, NAMES))
MODELS = ("MiniMax-M2", "MiniMax-M3")
FACTS = ReplyFacts("1a2b", "MiniMax-M2", 1700000000, 50)
DENSE = st.sampled_from(["7", "\u0f40", "\U0001f9ff", "字", "aZ9+/", "e\u0301", " ", '{"a":1,'])
TEXTS = st.builds(lambda piece, times: f"x{piece * times}.", DENSE, st.integers(1, 300))
T = TypeVar("T")


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("it waits")


def route(upstream: str, model: str, *, free: bool = False, tier: bool = False) -> Route:
    capabilities = Capabilities(
        input=("text", "image", "video"),
        reasoning_form="blocks" if upstream == "anthropic" else "reasoning_content",
        response_format=upstream == "openai",
        service_tier=tier,
    )
    where = Upstream(upstream, upstream, "http://x", upstream, "bearer", free=free)  # type: ignore[arg-type]
    found = models()[model]
    return Route(found, where, "m", capabilities, prices=found.prices, free=free)


def asked(client: str, model: str, text: str, max_tokens: int | None, **more: Any) -> Request:
    """A request as a client of that dialect writes it."""
    body: dict[str, Any]
    tool = {"type": "object", "properties": {text[:40]: {"type": "string", "description": text}}}
    tools = more.get("tools")
    match client:
        case "openai":
            body = {"model": model, "messages": [{"role": "user", "content": text}]}
            body |= {"max_tokens": max_tokens}
            function = {"name": "f", "description": text, "parameters": tool}
            body |= {"tools": [{"type": "function", "function": function}]} if tools else {}
            call = {
                "id": "c",
                "type": "function",
                "function": {"name": "f", "arguments": json.dumps({text: 1})},
            }
            if tools:
                body["messages"] += [
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": "c", "content": text},
                ]
            body |= {"service_tier": "priority"} if more.get("priority") else {}
        case "responses":
            body = {"model": model, "input": text, "max_output_tokens": max_tokens}
            function = {"type": "function", "name": "f", "description": text, "parameters": tool}
            body |= {"tools": [function]} if tools else {}
        case "anthropic":
            body = {"model": model, "messages": [{"role": "user", "content": text}]}
            body |= {"max_tokens": max_tokens} if max_tokens else {}
            function = {"name": "f", "description": text, "input_schema": tool}
            body |= {"tools": [function]} if tools else {}
        case _:
            body = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
            body |= {"generationConfig": {"maxOutputTokens": max_tokens}} if max_tokens else {}
            function = {"name": "f", "description": text, "parameters": tool}
            body |= {"tools": [{"functionDeclarations": [function]}]} if tools else {}
    body = {k: v for k, v in body.items() if v is not None}
    return DIALECTS[client].decode_request(json.dumps(body).encode(), RequestTarget(model, False))


def fitted(request: Request, client: str, to: Route) -> fit.Fitted:
    return fit.fit(
        history.repair(request, to.capabilities, client),
        to.capabilities,
        max_output=to.model.max_output,
        default_max_output=to.model.default_max_output,
    )


def received(request: Request, to: Route) -> Request:
    """The request as the upstream reads it."""
    dialect = DIALECTS[to.upstream.dialect]
    body = dialect.encode_request(request, to.capabilities, to.name, False)
    return dialect.decode_request(body, RequestTarget(to.name, False))


def answered(to: Route, reply: Reply) -> Translator:
    """The reply on its way through the upstream's dialect."""
    dialect = DIALECTS[to.upstream.dialect]
    ask = Request("m", (), stream=True)
    data = dialect.encoder(ask, FACTS, RequestTarget("m", True)).feed(list(replay(reply)))
    translator = Translator(dialect.decoder(to.capabilities, "text/event-stream", "s"), [], Whole())
    translator.feed(data)
    if translator.end is None:
        translator.close()
    return translator


class Books:
    """The ledger's sums at the start: nothing was spent."""

    def spent(self, moments: set[tuple[str, float]]) -> dict[tuple[str, float], dict[str, int]]:
        """As reports do: what each owner has spent since each moment."""
        return {moment: self.since(moment[1]) for moment in moments}

    def since(self, at_s: float) -> dict[str, int]:
        return {}

    def recorded(self, ids: object) -> set[str]:
        return set()

    def snapshot(self) -> Any:
        return contextlib.nullcontext()


def a_gate(key: Key) -> Any:
    admissions = Admissions(Books())  # type: ignore[arg-type]
    admissions.load([key])
    ledger = InProcessLedger(admissions)
    client = node.client.Admissions(ledger, lambda: -1, lambda key: True)  # type: ignore[arg-type]
    return SimpleNamespace(
        admissions=client,
        storage=SimpleNamespace(ledger=ledger),
        reporting=SimpleNamespace(metrics=Metrics()),
        budgets=admissions,
    )


def nothing_entered(key: Key) -> node.client.Admission:
    return node.client.Admission(0, key.owner)


# --- the bound of the input --------------------------------------------------------------------------


@pytest.mark.parametrize(("client", "upstream"), PAIRS)
@settings(max_examples=30, deadline=None)
@given(text=TEXTS, tools=st.booleans())
def test_what_an_upstream_reads_has_no_more_bytes_than_the_bound_has_tokens(
    client: str, upstream: str, text: str, tools: bool
) -> None:
    to = route(upstream, "MiniMax-M3")
    request = asked(client, "MiniMax-M3", text, 100, tools=tools)
    bound = counting.input_bound(request, to.model.context_window)
    read = received(fitted(request, client, to).request, to)
    assert len(chat_template.written(read).encode()) <= bound


def test_the_instructions_that_emulate_a_format_are_within_the_bound() -> None:
    schema = {"type": "object", "properties": {f"é{n}": {"type": "string"} for n in range(300)}}
    body = {
        "model": "MiniMax-M2",
        "messages": [{"role": "user", "content": "x"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
    }
    request = DIALECTS["openai"].decode_request(json.dumps(body).encode(), RequestTarget())
    to = route("responses", "MiniMax-M2")
    emulated = fitted(request, "openai", to)
    assert emulated.format is not None
    bound = counting.input_bound(request, to.model.context_window)
    assert len(chat_template.written(emulated.request).encode()) <= bound


@pytest.mark.parametrize(
    ("media", "least", "most"),
    [
        ({"kind": "image", "url": "https://x/y.png"}, 8192, 20_000),
        ({"kind": "image", "data": "AAAA", "media_type": "image/png"}, 8192, 20_000),
        ({"kind": "video", "data": "A" * 400_000, "media_type": "video/mp4"}, 300_000, 310_000),
        ({"kind": "video", "url": "https://x/y.mp4"}, 1_000_000, 1_000_000),
        (
            {"kind": "video", "data": "A" * 4_000_000, "media_type": "video/mp4"},
            1_000_000,
            1_000_000,
        ),
    ],
)
def test_media_are_bounded_and_nothing_is_above_the_context_window(
    media: dict[str, Any], least: int, most: int
) -> None:
    part = Media(**media)
    for message in (Message("user", (part,)), Message("tool", (ToolResult("c", (part,)),))):
        bound = counting.input_bound(Request("m", (message,)), 1_000_000)
        assert least <= bound <= most


def test_the_bound_is_linear_in_parts_messages_calls_and_tools() -> None:
    """Counted in bytes read, and not in time."""
    call = ToolCall("c", "f", '{"a": 1}')

    def bound(n: int) -> int:
        messages = tuple(Message("assistant", (Text("x"), call) * 3) for _ in range(n))
        tools = tuple(Tool(f"t{i}") for i in range(n))
        return counting.input_bound(Request("m", messages, tools=tools), 10**12)

    one, two, four = bound(1000), bound(2000), bound(4000)
    assert 1.9 < two / one < 2.1 and 1.9 < four / two < 2.1


# --- one request -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("client", "upstream"), PAIRS)
@settings(max_examples=25, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    text=TEXTS,
    max_tokens=st.one_of(st.none(), st.integers(1, 600_000)),
    limit=st.integers(0, 10**8),
    shares=st.tuples(*[st.floats(0, 1)] * 4),
    priority=st.booleans(),
)
def test_all_that_a_request_allows_is_paid_for_before_it_is_sent(
    client: str,
    upstream: str,
    model: str,
    text: str,
    max_tokens: int | None,
    limit: int,
    shares: tuple[float, float, float, float],
    priority: bool,
) -> None:
    key = Key("k", "n", 0.0, budget_nano=limit)
    gate = a_gate(key)
    request = asked(client, model, text, max_tokens, priority=priority)
    to, spare = route(upstream, model, tier=True), route("local", model, free=True)
    booking = ExchangeRecord(gate, "x1", client)
    first = fitted(request, client, to)
    try:
        lowered = at_once(
            booking.open(
                key,
                nothing_entered(key),
                request,
                counting.measure(request),
                first.request,
                to,
                (spare, to),
                counting_estimate(request),
            )
        )
    except Refused as refused:
        assert refused.failure.kind == "no_credit"
        assert gate.budgets.standing(("key", key.owner)).held_nano == 0
        return
    if lowered is not None:
        request = reservations.lowered(request, lowered)
        first = fitted(request, client, to)
        assert "lowered to what the budget holds" in " ".join(first.request.warnings)
    booking.sent(first.request, to)
    read = received(first.request, to)
    allowed = read.sampling.max_tokens or to.model.max_output
    if max_tokens is not None:
        assert allowed <= max_tokens
    most = len(chat_template.written(read).encode())
    # None at all is not believed, so it is no report.
    input, output = max(1, round(most * shares[0])), max(1, round(allowed * shares[1]))
    usage = Usage(input, output, round(input * shares[2]), 0, round(output * shares[3]))
    end = answered(to, Reply((Text("So it is."),), Finish("stop", usage)))
    billed = booking.measured(relays.measure(end, 7))
    row = booking.row(to, "stop", 200, billed, first_token_s=0, total_s=0, warnings=())
    assert gate.budgets.standing(("key", key.owner)).held_nano <= limit
    at_once(booking.settle(row))
    assert row.basis in ("upstream", "estimated")
    if row.basis == "upstream":
        assert (row.input_tokens, row.output_tokens) == (input, output)
    standing = gate.budgets.standing(("key", key.owner))
    assert standing.spent_nano == row.cost_nano_usd <= limit
    assert standing.held_nano == 0


def counting_estimate(request: Request) -> int:
    return counting.Learner().estimate(counting.features(request))


# --- many requests at a time -------------------------------------------------------------------------


class Running(msgspec.Struct, eq=False):
    booking: ExchangeRecord
    route: Route
    request: Request
    usage: Usage = Usage(estimated=True)
    again: bool = False


class Exact(RuleBasedStateMachine):
    """Keys of one budget ask in all dialects at a time; upstreams report anything, or break."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 3 * 10**7
        self.key = Key("k", "n", 0.0, budget_nano=self.limit)
        self.gate = a_gate(self.key)
        self.running: list[Running] = []
        self.count = 0
        self.granted = self.limit

    @rule(
        pair=st.sampled_from(PAIRS),
        model=st.sampled_from(MODELS),
        text=TEXTS,
        max_tokens=st.one_of(st.none(), st.integers(1, 20_000)),
        tools=st.booleans(),
    )
    def ask(
        self, pair: tuple[str, str], model: str, text: str, max_tokens: int | None, tools: bool
    ) -> None:
        client, upstream = pair
        self.count += 1
        request = asked(client, model, text, max_tokens, tools=tools)
        to = route(upstream, model)
        booking = ExchangeRecord(self.gate, f"x{self.count}", client)
        first = fitted(request, client, to)
        before = self.gate.budgets.standing(("key", self.key.owner))
        try:
            lowered = at_once(
                booking.open(
                    self.key,
                    nothing_entered(self.key),
                    request,
                    counting.measure(request),
                    first.request,
                    to,
                    (to,),
                    9,
                )
            )
        except Refused as refused:
            terminal = refused.failure.kind == "no_credit"
            assert terminal or before.held_nano > 0
            assert refused.failure.should_retry is not terminal
            return
        if lowered is not None:
            request = reservations.lowered(request, lowered)
            first = fitted(request, client, to)
        booking.sent(first.request, to)
        self.running.append(Running(booking, to, first.request))

    def pick(self, data: Any) -> Running:
        return data.draw(st.sampled_from(self.running))  # type: ignore[no-any-return]

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        input=st.integers(0, 10**31),
        output=st.integers(0, 10**31),
        more=st.integers(0, 10**31),
    )
    def report(self, data: Any, input: int, output: int, more: int) -> None:
        """Anything at all, also what no request allows."""
        one = self.pick(data)
        usage = Usage(input, output, more, more, more)
        one.usage = one.booking.measured(usage)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def ask_again(self, data: Any) -> None:
        """The reply is not valid JSON: a second call of the same exchange."""
        one = self.pick(data)
        if one.usage.estimated or one.again:
            return
        messages = (*one.request.messages, *one.request.messages)
        again = at_once(
            one.booking.again(msgspec.structs.replace(one.request, messages=messages), one.route)
        )
        one.again = True
        if again is not None:
            one.request = again

    @precondition(lambda self: self.running)
    @rule(data=st.data(), outcome=st.sampled_from(["stop", "length", "client_gone", "upstream"]))
    def end(self, data: Any, outcome: str) -> None:
        one = self.pick(data)
        self.running.remove(one)
        row = one.booking.row(
            one.route, outcome, 200, one.usage, first_token_s=0, total_s=0, warnings=()
        )
        assert row.input_tokens < 2**63 and row.output_tokens < 2**63  # as the ledger takes it
        at_once(one.booking.settle(row))

    @rule(nano=st.integers(0, 6 * 10**7))
    def change_the_budget(self, nano: int) -> None:
        """Also below what is spent: then nothing more is granted."""
        self.limit = nano
        self.key = msgspec.structs.replace(self.key, budget_nano=nano)
        self.gate.budgets.load([self.key])

    @invariant()
    def spent_and_reserved_stay_within_what_was_granted(self) -> None:
        standing = self.gate.budgets.standing(("key", self.key.owner))
        total = standing.spent_nano + standing.held_nano
        self.granted = max(self.limit, min(self.granted, total))
        assert total <= self.granted
        assert standing.limit_nano == self.limit
        assert self.gate.budgets._budgets.overrun_nano == 0
        rows = self.gate.storage.ledger.rows
        assert standing.spent_nano == sum(row.cost_nano_usd for row in rows)
        if not self.running:
            assert standing.held_nano == 0


TestExact = Exact.TestCase
TestExact.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
