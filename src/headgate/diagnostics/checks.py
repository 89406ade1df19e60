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
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, structs

from headgate.catalog.catalog import Route
from headgate.chat import Format, Thinking, Usage
from headgate.diagnostics import probes
from headgate.diagnostics.probes import MAX_TOKENS, ProbeResult, Run
from headgate.dialects.capabilities import Capabilities, ReasoningForm
from headgate.dialects.registry import FACTS
from headgate.errors import DECLINED, Failure
from headgate.net.client import Client, Timeouts

State = Literal["ok", "warn", "fail"]

MAX_S = 600.0  # of a whole checkup; what is not asked by then is reported as such
_AT_ONCE_S = 2.0  # a reply that took this long and came within a twentieth of it was held back


class Finding(Struct, frozen=True):
    check: str
    state: State
    said: str
    do: str = ""  # what to do about it; never empty when it failed


class Comparison(Struct, frozen=True):
    """One row of `bridge or native`: the same measurement on both paths."""

    check: str
    bridge: str
    native: str


class Report(Struct, frozen=True):
    findings: tuple[Finding, ...]
    capabilities: dict[str, object] = {}  # what to set, as measured
    comparison: tuple[Comparison, ...] = ()
    requests: int = 0
    usage: Usage = Usage()


# --- judging -------------------------------------------------------------------------------------

# The upstream's numbers, and what an operator does about them.
_FIXES = {
    "1008": "The account has no balance left: top it up at the provider.",
    "1028": "The account's quota is used up: wait for its next window, or use another key.",
    "1030": "The account's quota is used up: wait for its next window, or use another key.",
    "2056": "The plan's five-hour window is used up: wait for the next one, or use another key.",
    "402": "The account has no balance left: top it up at the provider.",
    "2061": "The plan does not include this model: choose another with --model, or another plan.",
}
_SHOWN = frozenset(("not_sent", "broken", "connect", "first_token", "stall", "total", "too_large"))
_AGAIN = "Run it again in a minute; if it stays so, ask the provider, naming the time."


def _what(failure: Failure) -> str:
    """A failure without any of the upstream's words, which may repeat what was sent."""
    code = failure.upstream_code
    shown = code if code in _SHOWN or (code.isdecimal() and len(code) <= 5) else ""
    return f"{failure.kind}, {shown}" if shown else failure.kind


def _declined(shot: ProbeResult) -> bool:
    """Whether the upstream understood the question and does not do it (a 400)."""
    return shot.failure is not None and shot.failure.kind in DECLINED


class _Book:
    """Findings so far, and the capabilities as measured."""

    def __init__(self, capabilities: Capabilities) -> None:
        self.has = capabilities
        self.findings: list[Finding] = []
        self.measured: dict[str, object] = {}

    def add(self, check: str, state: State, said: str, do: str = "") -> None:
        self.findings.append(Finding(check, state, said, do))

    def failed(self, check: str, shot: ProbeResult) -> bool:
        """Whether this check has no result, as the request itself failed."""
        if shot.failure is None or _declined(shot):
            return False
        self.add(check, "fail", f"could not be measured ({_what(shot.failure)})", _AGAIN)
        return True

    def able(self, check: str, field: str, has: bool, can: bool, value: object, what: str) -> None:
        """A capability against its measurement: claimed in vain fails, unused is a warning."""
        self.measured[field] = value
        if can:
            do = "" if has else f"The setting says otherwise: {field} can be used (lines below)."
            self.add(check, "ok" if has else "warn", f"{what}: honoured", do)
        elif has:
            do = f"Clients are promised what does not happen: set {field} (lines below)."
            self.add(check, "fail", f"{what}: not honoured", do)
        else:
            self.add(
                check, "ok", f"{what}: not honoured; not relied on, the gateway stands in for it"
            )

    def changes(self) -> dict[str, object]:
        return {k: v for k, v in self.measured.items() if v != getattr(self.has, k)}


def judge_access(
    shot: ProbeResult, route: Route, home: str, sister: str, there: ProbeResult | None
) -> Finding:
    """Whether we may talk to it at all; `home` is the preset's own address."""
    base = route.upstream.base_url.rstrip("/")
    host = urlsplit(base).netloc
    failure = shot.failure
    check = f"access, key {route.key.number}" if route.key.number else "access"
    if failure is None:
        return Finding(check, "ok", f"{host} answers, the key and the model are good")
    said = f"{host}: {_what(failure)}"
    code = failure.upstream_code
    if code in _FIXES:
        return Finding(check, "fail", said, _FIXES[code])
    if failure.kind == "upstream_auth":
        other = urlsplit(sister).netloc
        if there is not None and there.failure is None:
            do = (
                f"The key is good at {other}: keys belong to one region."
                f' Set `base_url = "{sister}"`, or the preset for it.'
            )
        elif there is not None:
            do = f"{other} refuses it too: it is mistyped, expired or of another provider. Make a new one."
        else:
            do = (
                "Check the key for a typing mistake, and that it is of this host: MiniMax's keys belong to one"
                " region (presets `minimax` for api.minimax.io, `minimax-cn` for api.minimaxi.com)."
            )
        return Finding(check, "fail", said + ": the key is refused", do)
    if failure.kind == "upstream_config" and ("/" in code or code == "no content type"):
        do = "What answers there is no API: check `base_url`, and proxies that answer in its place."
        return Finding(check, "fail", said, do)
    if failure.kind == "upstream_config" and code.startswith("3"):
        do = f"It redirects ({code}): set `base_url` to the address that it leads to."
        return Finding(check, "fail", said, do)
    if failure.kind == "upstream_config":
        do = "Try another --model, or name this one in `models.ID.routes`; else check `base_url`."
        path, own = urlsplit(base).path, urlsplit(home).path
        if home and path != own:
            ends = f"`{path}`" if path else "no path"
            do = f"The address ends in {ends}, the preset's in `{own}`: set `base_url` so. Else: {do}"
        return Finding(check, "fail", f"{said}: no such path, or no such model", do)
    if code == "not_sent":
        why = f" ({shot.reason})" if shot.reason else ""
        do = "Check the host's name, DNS, the firewall and HTTPS_PROXY"
        if shot.reason.startswith("TLS"):
            do = "Check the certificates of this machine (SSL_CERT_FILE), its clock, and proxies that open TLS"
        return Finding(check, "fail", f"{host} could not be reached{why}", do + ".")
    match failure.kind:
        case "rate_limit" | "overloaded":
            do = "It limits this key, or is busy, right now: wait a minute and run it again."
        case "invalid":
            do = f"It refuses the plainest request: check that its dialect is `{route.upstream.dialect}`."
        case _:
            do = _AGAIN
    return Finding(check, "fail", said, do)


def judge_stream(shot: ProbeResult) -> Finding:
    """Whether the reply came as it was written."""
    said = f"first token after {shot.first_s:.2f} s, {shot.pieces} pieces in {shot.total_s:.2f} s"
    whole = shot.pieces <= 1 and len(shot.text) > 60
    held = shot.total_s > _AT_ONCE_S and shot.first_s > 0.95 * shot.total_s
    if whole or held:
        return Finding(
            "streaming",
            "fail",
            f"{said}: all at once",
            "Something on the way holds replies back: switch off buffering in the proxies between"
            " (nginx: `proxy_buffering off`).",
        )
    if shot.usage is None:
        return Finding(
            "streaming",
            "warn",
            f"{said}; no usage was reported",
            "Tokens will be estimated; if the server refuses `stream_options`, set stream_usage = false.",
        )
    return Finding("streaming", "ok", said)


class Returned(Struct, frozen=True):
    """What became of reasoning that was given back in one form."""

    accepted: bool
    grown: int | None  # input tokens more than without it; None: no usage was reported


def _reads(returned: Returned, thought: Thinking) -> bool:
    """A token has up to some 16 characters; less growth than that is something else's."""
    return returned.grown is not None and returned.grown >= max(2, len(thought.text) // 16)


def _came(turn: ProbeResult) -> str:
    if turn.thinking is None:
        return "none came"
    where = f" in {' and '.join(turn.channels)}" if turn.channels else ""
    how = f", {turn.habit}" if turn.habit else ""
    return f"came{where}{how}"


def _judge_returned(
    book: _Book, dialect: str, thought: Thinking, found: dict[ReasoningForm, Returned]
) -> None:
    check = "thinking, turn two"
    own = book.has.reasoning_form
    told = "; ".join(
        f"{form}: "
        + ("refused" if not r.accepted else "read" if _reads(r, thought) else "accepted")
        for form, r in found.items()
    )
    read = [form for form, r in found.items() if _reads(r, thought)]
    taken = [form for form, r in found.items() if r.accepted]
    # Other wires than chat's have one form, whatever it is called in the capabilities.
    here = own if own in found else next(iter(found), own) if dialect != "openai" else own
    if own == "none" and read:
        book.measured["reasoning_form"] = read[0]
        book.add(
            check,
            "fail",
            told,
            "Its reasoning is dropped between turns: set reasoning_form (lines below).",
        )
    elif here in read or own == "none":
        book.add(check, "ok", told)
    elif read:
        book.measured["reasoning_form"] = read[0]
        book.add(
            check,
            "fail",
            told,
            f"It reads `{read[0]}`, not `{own}`: set reasoning_form (lines below).",
        )
    elif here not in taken:
        book.measured["reasoning_form"] = taken[0] if taken else "none"
        book.add(check, "fail", told, f"It refuses `{own}`: set reasoning_form (lines below).")
    else:
        book.add(
            check,
            "warn",
            f"{told} (the input did not grow)",
            "Accepted, but whether it is read cannot be seen in the tokens it counts.",
        )


def _cached(shot: ProbeResult) -> str:
    if shot.usage is None:
        return "no usage" if shot.failure is None else _what(shot.failure)
    return f"{shot.usage.cached:,} of {shot.usage.input:,} tokens"


# --- the checkup ---------------------------------------------------------------------------------


async def checkup(
    client: Client,
    route: Route,
    timeouts: Timeouts,
    *,
    home: str = "",
    sister: str = "",
    native: Route | None = None,
    tell: Callable[[str], None] = lambda check: None,
) -> Report:
    """Measure one route; never more requests than `plan` says, and about `MAX_S` at most.

    `tell` hears the name of each check before it is made.
    """
    run = Run(client, timeouts, asyncio.get_running_loop().time() + MAX_S)
    book = _Book(route.capabilities)
    tell("access and streaming")
    hello = await run.ask(route, probes.hello())
    there = None
    if hello.failure is not None and hello.failure.kind == "upstream_auth" and sister:
        tell("the other region")
        away = structs.replace(route, upstream=structs.replace(route.upstream, base_url=sister))
        there = await run.ask(away, probes.request(probes.user("Say hello."), max_tokens=16))
    book.findings.append(judge_access(hello, route, home, sister, there))
    for other in route.pool[1:]:
        tell(f"access by key {other.key.number}")
        shot = await run.ask(other, probes.hello())
        book.findings.append(judge_access(shot, other, home, sister, None))
    if hello.failure is not None:
        return Report(tuple(book.findings), requests=run.requests, usage=run.usage)
    book.findings.append(judge_stream(hello))
    if book.has.thinking_off and hello.thinking is not None:
        book.able("thinking off", "thinking_off", True, False, False, "thinking: disabled")

    mark = secrets.token_hex(8)
    tell("cache, the first time")
    await run.ask(route, probes.prefix(mark))
    tell("tool calls and thinking")
    turn = await run.ask(route, probes.first_turn())
    _judge_calls(book, turn)
    _judge_thinking(book, route, turn)
    seen = await _turn_two(run, route, turn, book, tell)
    if book.has.tools and book.measured.get("tools", True):
        await _choices(run, route, book, tell)
    await _structured(run, route, book, tell)
    await _stops(run, route, book, tell)
    if "image" in route.model.input:
        await _image(run, route, book, tell)
    await _counts(run, route, native, book, tell)
    tell("cache, the second time")
    again = await run.ask(route, probes.prefix(mark))
    _judge_cache(book, again)
    comparison: tuple[Comparison, ...] = ()
    if native is not None:
        comparison = await _compare(run, native, book, tell, (hello, turn, seen, again))
    return Report(tuple(book.findings), book.changes(), comparison, run.requests, run.usage)


def _judge_calls(book: _Book, turn: ProbeResult) -> None:
    check = "tool calls"
    if book.failed(check, turn):
        return
    if _declined(turn):
        book.able(check, "tools", book.has.tools, False, False, "tools")
        return
    good = False
    for call in turn.calls:
        try:
            good = call.name == "get_weather" and bool(
                msgspec.json.decode(call.arguments, type=probes.City)
            )
        except (ValueError, msgspec.MsgspecError):
            continue
    if good:
        book.able(check, "tools", book.has.tools, True, True, "a call with arguments")
    elif turn.calls:
        book.add(
            check,
            "fail",
            "a call came, of another tool or with arguments that do not fit",
            "Check the server's tool-call parser (vLLM: --tool-call-parser minimax_m2).",
        )
    elif turn.cut:
        book.add(check, "warn", f"no call within {MAX_TOKENS} tokens", "Run it again.")
    elif book.has.tools:
        book.add(
            check,
            "fail",
            "no call came, though the model was asked for one",
            "Switch on the server's tool calls (vLLM: --enable-auto-tool-choice"
            " --tool-call-parser minimax_m2), or set tools = false.",
        )
    else:
        book.add(check, "ok", "none came, and none are relied on")


def _judge_thinking(book: _Book, route: Route, turn: ProbeResult) -> None:
    if turn.failure is not None:
        return  # the tool calls' finding says so
    said = f"{_came(turn)}, when asked to think"
    if turn.thinking is None and book.has.reasoning_form != "none":
        book.add(
            "thinking",
            "warn",
            said,
            "The model may have seen no need; run it again, or check the server's reasoning parser.",
        )
    elif turn.thinking is not None and book.has.reasoning_split and turn.channels == ("tags",):
        book.add(
            "thinking",
            "warn",
            said,
            "`reasoning_split` is sent and not heeded; the tags are taken out all the same.",
        )
    else:
        book.add("thinking", "ok", said)


async def _turn_two(
    run: Run, route: Route, turn: ProbeResult, book: _Book, tell: Callable[[str], None]
) -> str:
    """Judge the reasoning given back; returns a word for the comparison."""
    if turn.failure is not None or not (turn.calls or book.has.tools):
        return "not measured"
    thought = turn.thinking
    if thought is None or (route.upstream.dialect == "anthropic" and not thought.signature):
        if route.upstream.dialect != "openai":  # those wires take back only what they signed
            book.add("thinking, turn two", "ok", "nothing to give back, as it did not think")
            return "nothing to give back"
        thought = Thinking(probes.THOUGHT)
    tell("thinking on turn two")
    bare = await run.ask(route, probes.second_turn(turn, None))
    if book.failed("thinking, turn two", bare) or bare.failure is not None:
        if bare.failure is not None and _declined(bare):
            book.add(
                "thinking, turn two",
                "fail",
                "a tool's result was refused",
                "Tool loops cannot work here: check the server's chat template.",
            )
        return "not measured"
    found: dict[ReasoningForm, Returned] = {}
    for form in FACTS[route.upstream.dialect].reasoning_forms:
        with_form = structs.replace(
            route, capabilities=structs.replace(route.capabilities, reasoning_form=form)
        )
        shot = await run.ask(with_form, probes.second_turn(turn, thought))
        if shot.failure is not None and not _declined(shot):
            continue
        grown = (
            shot.usage.input - bare.usage.input
            if shot.usage is not None and bare.usage is not None
            else None
        )
        found[form] = Returned(shot.failure is None, grown)
    if not found:
        book.add("thinking, turn two", "fail", "could not be measured", _AGAIN)
        return "not measured"
    _judge_returned(book, route.upstream.dialect, thought, found)
    if any(_reads(r, thought) for r in found.values()):
        return "read"
    return "accepted" if any(r.accepted for r in found.values()) else "refused"


async def _choices(run: Run, route: Route, book: _Book, tell: Callable[[str], None]) -> None:
    honoured = list(book.has.tool_choice)
    for mode in probes.MODES:
        check = f"tool_choice {mode}"
        tell(check)
        shot = await run.ask(route, probes.choosing(mode))
        if book.failed(check, shot):
            continue
        names = {c.name for c in shot.calls}
        if shot.cut and not names:
            book.add(check, "warn", f"not known within {MAX_TOKENS} tokens", "Run it again.")
            continue
        match mode:
            case "none":
                can = not names and "tool_call>" not in shot.text
            case "required":
                can = bool(names)
            case _:
                can = names == {"get_time"}
        can = can and shot.failure is None
        has = mode in book.has.tool_choice
        if can and not has:
            honoured.append(mode)
        elif has and not can:
            honoured.remove(mode)
        value = tuple(m for m in probes.MODES if m in honoured)
        book.able(check, "tool_choice", has, can, value, f"tool_choice: {mode}")
    if "tool_choice" in book.measured:  # in the order of the capabilities' own
        same = set(honoured) == set(book.has.tool_choice)
        book.measured["tool_choice"] = (
            book.has.tool_choice if same else tuple(m for m in probes.MODES if m in honoured)
        )


async def _structured(run: Run, route: Route, book: _Book, tell: Callable[[str], None]) -> None:
    check = "structured output"
    tell(check)
    asked = Format("schema", "place", msgspec.Raw(probes.SCHEMA), True)
    shot = await run.ask(
        route, probes.request(probes.user("Write one short sentence about Paris."), format=asked)
    )
    if book.failed(check, shot):
        return
    if shot.cut:
        book.add(check, "warn", f"not known within {MAX_TOKENS} tokens", "Run it again.")
        return
    try:
        can = bool(msgspec.json.decode(shot.text, type=probes.Place))
    except (ValueError, msgspec.MsgspecError):
        can = False
    has = book.has.response_format
    book.able(check, "response_format", has, can, can, "a JSON schema")


async def _stops(run: Run, route: Route, book: _Book, tell: Callable[[str], None]) -> None:
    check = "stop sequences"
    tell(check)
    said = "Write the numbers from 1 to 9 on one line, separated by commas, and nothing else."
    shot = await run.ask(route, probes.request(probes.user(said), stop=("6",)))
    if book.failed(check, shot):
        return
    if "7" in shot.text or "6" in shot.text or shot.failure is not None:
        can = False
    elif "5" in shot.text:
        can = True
    else:
        book.add(check, "warn", "not known: the model did not count", "Run it again.")
        return
    book.able(check, "stop", book.has.stop, can, can, "a stop sequence")


async def _image(run: Run, route: Route, book: _Book, tell: Callable[[str], None]) -> None:
    check = "image input"
    tell(check)
    asked = probes.user("Which colour is this picture? Answer with one word.", probes.picture())
    shot = await run.ask(route, probes.request(asked))
    if book.failed(check, shot):
        return
    has = "image" in book.has.input
    if shot.failure is not None:
        left = tuple(i for i in book.has.input if i == "text")
        book.able(check, "input", has, False, left, "a picture")
    elif "red" in shot.text.lower():
        value = book.has.input if has else (*book.has.input, "image")
        book.able(check, "input", has, True, value, "a picture")
    else:
        book.add(
            check,
            "warn",
            "a picture was accepted, but its colour not seen",
            'Run it again; if it stays so, pictures are dropped on the way: set input = ["text"].',
        )


async def _counts(
    run: Run, route: Route, native: Route | None, book: _Book, tell: Callable[[str], None]
) -> None:
    """Whether the way of counting that the capabilities name, or else the likely one, works."""
    check, dialect = "count endpoint", route.upstream.dialect
    tell(check)
    anthropic = dialect == "anthropic" or native is not None
    kind = book.has.counts or ("anthropic" if anthropic else "tokenize")
    count = await run.counts(native if kind == "anthropic" and native is not None else route)
    if dialect in ("responses", "gemini"):  # `counts` has no word for theirs
        said = "none" if count is None else "it counts"
        book.add(check, "ok", f"{said}; not used, the gateway estimates")
        return
    value = kind if count is not None else ""
    book.able(check, "counts", bool(book.has.counts), count is not None, value, "counting tokens")


def _judge_cache(book: _Book, again: ProbeResult) -> None:
    check = "cache"
    if book.failed(check, again):
        return
    if again.usage is None:
        book.add(
            check, "warn", "no usage was reported", "Whether prefixes are cached cannot be seen."
        )
    elif again.usage.cached:
        book.add(check, "ok", f"{_cached(again)} of a repeated prefix came from it")
    else:
        book.add(
            check,
            "warn",
            f"{_cached(again)} of a repeated prefix came from it",
            "Long sessions pay every turn in full: try the provider's other path, or switch caching"
            " on (vLLM: --enable-prefix-caching).",
        )


async def _compare(
    run: Run,
    native: Route,
    book: _Book,
    tell: Callable[[str], None],
    bridge: tuple[ProbeResult, ProbeResult, str, ProbeResult],
) -> tuple[Comparison, ...]:
    """The same few questions on the vendor's Anthropic path, beside the answers of the bridge."""
    hello, turn, seen, again = bridge
    host = urlsplit(native.upstream.base_url)
    tell(f"the native path {host.path}")
    check = "bridge or native"
    hello_ = await run.ask(native, probes.hello())
    if hello_.failure is not None:
        book.add(
            check,
            "warn",
            f"{host.path}: {_what(hello_.failure)}",
            "Only the bridge can be used with this key and address.",
        )
        return ()
    aside = _Book(native.capabilities)
    mark = secrets.token_hex(8)
    await run.ask(native, probes.prefix(mark))
    turn_ = await run.ask(native, probes.first_turn())
    seen_ = await _turn_two(run, native, turn_, aside, tell)
    again_ = await run.ask(native, probes.prefix(mark))

    def row(
        name: str, tells: Callable[[ProbeResult], str], a: ProbeResult, b: ProbeResult
    ) -> Comparison:
        return Comparison(name, *(_what(s.failure) if s.failure else tells(s) for s in (a, b)))

    def thinks(shot: ProbeResult) -> str:
        return "none came" if shot.thinking is None else "came"

    rows = (
        row("first token", lambda s: f"{s.first_s:.2f} s", hello, hello_),
        row("thinking", thinks, turn, turn_),
        Comparison("thinking, turn two", seen, seen_),
        row("cache", _cached, again, again_),
        row("tool calls", lambda s: str(len(s.calls)), turn, turn_),
    )
    ours = _score(turn, seen, again)
    theirs = _score(turn_, seen_, again_)
    if theirs > ours:
        book.add(
            check,
            "warn",
            "the native path keeps more",
            f"For Anthropic clients, add an upstream with the preset `{native.upstream.name}` and route to it first.",
        )
    else:
        better = "the bridge keeps more" if ours > theirs else "both keep the same"
        book.add(check, "ok", f"{better}: stay with the bridge")
    return rows


def _score(turn: ProbeResult, seen: str, again: ProbeResult) -> tuple[int, int, int, int]:
    """What an agent needs, the most important first: tools, reasoning kept, thinking, cache."""
    cached = again.usage is not None and again.usage.cached > 0
    kept = {"read": 2, "accepted": 1}.get(seen, 0)
    return bool(turn.calls), kept, turn.thinking is not None, cached
