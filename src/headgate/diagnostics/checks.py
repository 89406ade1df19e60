"""What an upstream really does, measured with the operator's own key in a handful of requests.

The only place that judges an upstream; `diagnostics/probes.py` holds the questions.  What comes back is
compared with the route's capabilities, and where it differs the report has the lines for
headgate.toml.  What it asks is what deployments were found to get wrong: region, streams, reasoning on
turn two, cache.

Note:
- one sample each, of a model that throws dice: a measurement is evidence, not proof;
- whether reasoning that was given back is *read* is seen in the input tokens: they grow, against
  the same turn without it.  The turn is inside a tool loop, as MiniMax's template leaves out the
  reasoning before the last user message;
- nothing that a model or an upstream wrote is in a finding: of an error only its kind and number.
"""

import asyncio
import secrets
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec
from msgspec import structs

from headgate.catalog.routes import Route
from headgate.chat import Format
from headgate.diagnostics import probes
from headgate.diagnostics.findings import (
    Comparison,
    Report,
    Results,
    what_of,
)
from headgate.diagnostics.judgements import (
    cached_of,
    judge_access,
    judge_calls,
    judge_stream,
    judge_thinking,
    turn_two,
)
from headgate.diagnostics.probe_run import Run
from headgate.diagnostics.probes import MAX_TOKENS, ProbeResult
from headgate.net.client import Client
from headgate.net.client_errors import Timeouts

MAX_S = 600.0  # of a whole checkup; what is not asked by then is reported as such


# --- the checkup ---------------------------------------------------------------------------------


async def run_checks(
    client: Client,
    route: Route,
    timeouts: Timeouts,
    *,
    home: str = "",
    other_region: str = "",
    native: Route | None = None,
    notify: Callable[[str], None] = lambda check: None,
) -> Report:
    """Measure one route; never more requests than `plan` says, and about `MAX_S` at most.

    `tell` hears the name of each check before it is made.
    """
    run = Run(client, timeouts, asyncio.get_running_loop().time() + MAX_S)
    results = Results(route.capabilities)
    notify("access and streaming")
    hello = await run.ask(route, probes.hello())
    there = None
    if hello.failure is not None and hello.failure.kind == "upstream_auth" and other_region:
        notify("the other region")
        away = structs.replace(
            route, upstream=structs.replace(route.upstream, base_url=other_region)
        )
        there = await run.ask(away, probes.request(probes.user("Say hello."), max_tokens=16))
    results.findings.append(judge_access(hello, route, home, other_region, there))
    for other in route.pool[1:]:
        notify(f"access by key {other.key.number}")
        probed = await run.ask(other, probes.hello())
        results.findings.append(judge_access(probed, other, home, other_region, None))
    if hello.failure is not None:
        return Report(tuple(results.findings), requests=run.requests, usage=run.usage)
    results.findings.append(judge_stream(hello))
    if results.has.thinking_off and hello.thinking is not None:
        results.able("thinking off", "thinking_off", True, False, False, "thinking: disabled")

    mark = secrets.token_hex(8)
    notify("cache, the first time")
    await run.ask(route, probes.prefix(mark))
    notify("tool calls and thinking")
    turn = await run.ask(route, probes.first_turn())
    judge_calls(results, turn)
    judge_thinking(results, route, turn)
    seen = await turn_two(run, route, turn, results, notify)
    if results.has.tools and results.measured.get("tools", True):
        await _choices(run, route, results, notify)
    await _structured(run, route, results, notify)
    await _stops(run, route, results, notify)
    if "image" in route.model.input:
        await _image(run, route, results, notify)
    await _counts(run, route, native, results, notify)
    notify("cache, the second time")
    again = await run.ask(route, probes.prefix(mark))
    _judge_cache(results, again)
    comparison: tuple[Comparison, ...] = ()
    if native is not None:
        comparison = await _compare(run, native, results, notify, (hello, turn, seen, again))
    return Report(tuple(results.findings), results.changes(), comparison, run.requests, run.usage)


async def _choices(run: Run, route: Route, results: Results, notify: Callable[[str], None]) -> None:
    honoured = list(results.has.tool_choice)
    for mode in probes.MODES:
        check = f"tool_choice {mode}"
        notify(check)
        probed = await run.ask(route, probes.choosing(mode))
        if results.failed(check, probed):
            continue
        names = {c.name for c in probed.calls}
        if probed.cut and not names:
            results.add(check, "warn", f"not known within {MAX_TOKENS} tokens", "Run it again.")
            continue
        match mode:
            case "none":
                can = not names and "tool_call>" not in probed.text
            case "required":
                can = bool(names)
            case _:
                can = names == {"get_time"}
        can = can and probed.failure is None
        has = mode in results.has.tool_choice
        if can and not has:
            honoured.append(mode)
        elif has and not can:
            honoured.remove(mode)
        value = tuple(m for m in probes.MODES if m in honoured)
        results.able(check, "tool_choice", has, can, value, f"tool_choice: {mode}")
    if "tool_choice" in results.measured:  # in the order of the capabilities' own
        same = set(honoured) == set(results.has.tool_choice)
        results.measured["tool_choice"] = (
            results.has.tool_choice if same else tuple(m for m in probes.MODES if m in honoured)
        )


async def _structured(
    run: Run, route: Route, results: Results, notify: Callable[[str], None]
) -> None:
    check = "structured output"
    notify(check)
    asked = Format("schema", "place", msgspec.Raw(probes.SCHEMA), True)
    probed = await run.ask(
        route, probes.request(probes.user("Write one short sentence about Paris."), format=asked)
    )
    if results.failed(check, probed):
        return
    if probed.cut:
        results.add(check, "warn", f"not known within {MAX_TOKENS} tokens", "Run it again.")
        return
    try:
        can = bool(msgspec.json.decode(probed.text, type=probes.Place))
    except (ValueError, msgspec.MsgspecError):
        can = False
    has = results.has.response_format
    results.able(check, "response_format", has, can, can, "a JSON schema")


async def _stops(run: Run, route: Route, results: Results, notify: Callable[[str], None]) -> None:
    check = "stop sequences"
    notify(check)
    stated = "Write the numbers from 1 to 9 on one line, separated by commas, and nothing else."
    probed = await run.ask(route, probes.request(probes.user(stated), stop=("6",)))
    if results.failed(check, probed):
        return
    if "7" in probed.text or "6" in probed.text or probed.failure is not None:
        can = False
    elif "5" in probed.text:
        can = True
    else:
        results.add(check, "warn", "not known: the model did not count", "Run it again.")
        return
    results.able(check, "stop", results.has.stop, can, can, "a stop sequence")


async def _image(run: Run, route: Route, results: Results, notify: Callable[[str], None]) -> None:
    check = "image input"
    notify(check)
    asked = probes.user("Which colour is this picture? Answer with one word.", probes.picture())
    probed = await run.ask(route, probes.request(asked))
    if results.failed(check, probed):
        return
    has = "image" in results.has.input
    if probed.failure is not None:
        left = tuple(i for i in results.has.input if i == "text")
        results.able(check, "input", has, False, left, "a picture")
    elif "red" in probed.text.lower():
        value = results.has.input if has else (*results.has.input, "image")
        results.able(check, "input", has, True, value, "a picture")
    else:
        results.add(
            check,
            "warn",
            "a picture was accepted, but its colour not seen",
            'Run it again; if it stays so, pictures are dropped on the way: set input = ["text"].',
        )


async def _counts(
    run: Run, route: Route, native: Route | None, results: Results, notify: Callable[[str], None]
) -> None:
    """Whether the way of counting that the capabilities name, or else the likely one, works."""
    check, dialect = "count endpoint", route.upstream.dialect
    notify(check)
    anthropic = dialect == "anthropic" or native is not None
    kind = results.has.counts or ("anthropic" if anthropic else "tokenize")
    count = await run.counts(native if kind == "anthropic" and native is not None else route)
    if dialect in ("responses", "gemini"):  # `counts` has no word for theirs
        stated = "none" if count is None else "it counts"
        results.add(check, "ok", f"{stated}; not used, the gateway estimates")
        return
    value = kind if count is not None else ""
    results.able(
        check, "counts", bool(results.has.counts), count is not None, value, "counting tokens"
    )


def _judge_cache(results: Results, again: ProbeResult) -> None:
    check = "cache"
    if results.failed(check, again):
        return
    if again.usage is None:
        results.add(
            check, "warn", "no usage was reported", "Whether prefixes are cached cannot be seen."
        )
    elif again.usage.cached:
        results.add(check, "ok", f"{cached_of(again)} of a repeated prefix came from it")
    else:
        results.add(
            check,
            "warn",
            f"{cached_of(again)} of a repeated prefix came from it",
            "Long sessions pay every turn in full: try the provider's other path, or switch caching"
            " on (vLLM: --enable-prefix-caching).",
        )


async def _compare(
    run: Run,
    native: Route,
    results: Results,
    notify: Callable[[str], None],
    bridge: tuple[ProbeResult, ProbeResult, str, ProbeResult],
) -> tuple[Comparison, ...]:
    """The same few questions on the vendor's Anthropic path, beside the answers of the bridge."""
    hello, turn, seen, again = bridge
    host = urlsplit(native.upstream.base_url)
    notify(f"the native path {host.path}")
    check = "bridge or native"
    hello_ = await run.ask(native, probes.hello())
    if hello_.failure is not None:
        results.add(
            check,
            "warn",
            f"{host.path}: {what_of(hello_.failure)}",
            "Only the bridge can be used with this key and address.",
        )
        return ()
    aside = Results(native.capabilities)
    mark = secrets.token_hex(8)
    await run.ask(native, probes.prefix(mark))
    turn_ = await run.ask(native, probes.first_turn())
    seen_ = await turn_two(run, native, turn_, aside, notify)
    again_ = await run.ask(native, probes.prefix(mark))

    def row(
        name: str, tells: Callable[[ProbeResult], str], a: ProbeResult, b: ProbeResult
    ) -> Comparison:
        return Comparison(name, *(what_of(s.failure) if s.failure else tells(s) for s in (a, b)))

    def thinks(probed: ProbeResult) -> str:
        return "none came" if probed.thinking is None else "came"

    rows = (
        row("first token", lambda s: f"{s.first_s:.2f} s", hello, hello_),
        row("thinking", thinks, turn, turn_),
        Comparison("thinking, turn two", seen, seen_),
        row("cache", cached_of, again, again_),
        row("tool calls", lambda s: str(len(s.calls)), turn, turn_),
    )
    ours = _score(turn, seen, again)
    theirs = _score(turn_, seen_, again_)
    if theirs > ours:
        results.add(
            check,
            "warn",
            "the native path keeps more",
            f"For Anthropic clients, add an upstream with the preset `{native.upstream.name}` and route to it first.",
        )
    else:
        better = "the bridge keeps more" if ours > theirs else "both keep the same"
        results.add(check, "ok", f"{better}: stay with the bridge")
    return rows


def _score(turn: ProbeResult, seen: str, again: ProbeResult) -> tuple[int, int, int, int]:
    """What an agent needs, the most important first: tools, reasoning kept, thinking, cache."""
    cached = again.usage is not None and again.usage.cached > 0
    kept = {"read": 2, "accepted": 1}.get(seen, 0)
    return bool(turn.calls), kept, turn.thinking is not None, cached
