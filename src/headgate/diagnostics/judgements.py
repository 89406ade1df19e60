"""What an upstream's answers show: access, streams, calls, thinking, what it reads of it."""

from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, structs

from headgate.catalog.routes import Route
from headgate.chat import Thinking
from headgate.diagnostics import probes
from headgate.diagnostics.findings import (
    AGAIN,
    AT_ONCE_S,
    FIXES,
    Finding,
    Results,
    declined,
    what_of,
)
from headgate.diagnostics.probe_run import Run
from headgate.diagnostics.probes import MAX_TOKENS, ProbeResult
from headgate.dialects.capabilities import ReasoningForm
from headgate.dialects.registry import FACTS


def judge_access(
    probed: ProbeResult, route: Route, home: str, other_region: str, there: ProbeResult | None
) -> Finding:
    """Whether we may talk to it at all; `home` is the preset's own address."""
    base = route.upstream.base_url.rstrip("/")
    host = urlsplit(base).netloc
    failure = probed.failure
    check = f"access, key {route.key.number}" if route.key.number else "access"
    if failure is None:
        return Finding(check, "ok", f"{host} answers, the key and the model are good")
    stated = f"{host}: {what_of(failure)}"
    code = failure.upstream_code
    if code in FIXES:
        return Finding(check, "fail", stated, FIXES[code])
    if failure.kind == "upstream_auth":
        other = urlsplit(other_region).netloc
        if there is not None and there.failure is None:
            do = (
                f"The key is good at {other}: keys belong to one region."
                f' Set `base_url = "{other_region}"`, or the preset for it.'
            )
        elif there is not None:
            do = f"{other} refuses it too: it is mistyped, expired or of another provider. Make a new one."
        else:
            do = (
                "Check the key for a typing mistake, and that it is of this host: MiniMax's keys belong to one"
                " region (presets `minimax` for api.minimax.io, `minimax-cn` for api.minimaxi.com)."
            )
        return Finding(check, "fail", stated + ": the key is refused", do)
    if failure.kind == "upstream_config" and ("/" in code or code == "no content type"):
        do = "What answers there is no API: check `base_url`, and proxies that answer in its place."
        return Finding(check, "fail", stated, do)
    if failure.kind == "upstream_config" and code.startswith("3"):
        do = f"It redirects ({code}): set `base_url` to the address that it leads to."
        return Finding(check, "fail", stated, do)
    if failure.kind == "upstream_config":
        do = "Try another --model, or name this one in `models.ID.routes`; else check `base_url`."
        path, own = urlsplit(base).path, urlsplit(home).path
        if home and path != own:
            ends = f"`{path}`" if path else "no path"
            do = f"The address ends in {ends}, the preset's in `{own}`: set `base_url` so. Else: {do}"
        return Finding(check, "fail", f"{stated}: no such path, or no such model", do)
    if code == "not_sent":
        why = f" ({probed.reason})" if probed.reason else ""
        do = "Check the host's name, DNS, the firewall and HTTPS_PROXY"
        if probed.reason.startswith("TLS"):
            do = "Check the certificates of this machine (SSL_CERT_FILE), its clock, and proxies that open TLS"
        return Finding(check, "fail", f"{host} could not be reached{why}", do + ".")
    match failure.kind:
        case "rate_limit" | "overloaded":
            do = "It limits this key, or is busy, right now: wait a minute and run it again."
        case "invalid":
            do = f"It refuses the plainest request: check that its dialect is `{route.upstream.dialect}`."
        case _:
            do = AGAIN
    return Finding(check, "fail", stated, do)


def judge_stream(probed: ProbeResult) -> Finding:
    """Whether the reply came as it was written."""
    stated = f"first token after {probed.first_s:.2f} s, {probed.pieces} pieces in {probed.total_s:.2f} s"
    whole = probed.pieces <= 1 and len(probed.text) > 60
    held = probed.total_s > AT_ONCE_S and probed.first_s > 0.95 * probed.total_s
    if whole or held:
        return Finding(
            "streaming",
            "fail",
            f"{stated}: all at once",
            "Something on the way holds replies back: switch off buffering in the proxies between"
            " (nginx: `proxy_buffering off`).",
        )
    if probed.usage is None:
        return Finding(
            "streaming",
            "warn",
            f"{stated}; no usage was reported",
            "Tokens will be estimated; if the server refuses `stream_options`, set stream_usage = false.",
        )
    return Finding("streaming", "ok", stated)


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
    results: Results, dialect: str, thought: Thinking, found: dict[ReasoningForm, Returned]
) -> None:
    check = "thinking, turn two"
    own = results.has.reasoning_form
    reported = "; ".join(
        f"{form}: "
        + ("refused" if not r.accepted else "read" if _reads(r, thought) else "accepted")
        for form, r in found.items()
    )
    read = [form for form, r in found.items() if _reads(r, thought)]
    taken = [form for form, r in found.items() if r.accepted]
    # Other wires than chat's have one form, whatever it is called in the capabilities.
    here = own if own in found else next(iter(found), own) if dialect != "openai" else own
    if own == "none" and read:
        results.measured["reasoning_form"] = read[0]
        results.add(
            check,
            "fail",
            reported,
            "Its reasoning is dropped between turns: set reasoning_form (lines below).",
        )
    elif here in read or own == "none":
        results.add(check, "ok", reported)
    elif read:
        results.measured["reasoning_form"] = read[0]
        results.add(
            check,
            "fail",
            reported,
            f"It reads `{read[0]}`, not `{own}`: set reasoning_form (lines below).",
        )
    elif here not in taken:
        results.measured["reasoning_form"] = taken[0] if taken else "none"
        results.add(
            check, "fail", reported, f"It refuses `{own}`: set reasoning_form (lines below)."
        )
    else:
        results.add(
            check,
            "warn",
            f"{reported} (the input did not grow)",
            "Accepted, but whether it is read cannot be seen in the tokens it counts.",
        )


def cached_of(probed: ProbeResult) -> str:
    if probed.usage is None:
        return "no usage" if probed.failure is None else what_of(probed.failure)
    return f"{probed.usage.cached:,} of {probed.usage.input:,} tokens"


def judge_calls(results: Results, turn: ProbeResult) -> None:
    check = "tool calls"
    if results.failed(check, turn):
        return
    if declined(turn):
        results.able(check, "tools", results.has.tools, False, False, "tools")
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
        results.able(check, "tools", results.has.tools, True, True, "a call with arguments")
    elif turn.calls:
        results.add(
            check,
            "fail",
            "a call came, of another tool or with arguments that do not fit",
            "Check the server's tool-call parser (vLLM: --tool-call-parser minimax_m2).",
        )
    elif turn.cut:
        results.add(check, "warn", f"no call within {MAX_TOKENS} tokens", "Run it again.")
    elif results.has.tools:
        results.add(
            check,
            "fail",
            "no call came, though the model was asked for one",
            "Switch on the server's tool calls (vLLM: --enable-auto-tool-choice"
            " --tool-call-parser minimax_m2), or set tools = false.",
        )
    else:
        results.add(check, "ok", "none came, and none are relied on")


def judge_thinking(results: Results, route: Route, turn: ProbeResult) -> None:
    if turn.failure is not None:
        return  # the tool calls' finding says so
    stated = f"{_came(turn)}, when asked to think"
    if turn.thinking is None and results.has.reasoning_form != "none":
        results.add(
            "thinking",
            "warn",
            stated,
            "The model may have seen no need; run it again, or check the server's reasoning parser.",
        )
    elif turn.thinking is not None and results.has.reasoning_split and turn.channels == ("tags",):
        results.add(
            "thinking",
            "warn",
            stated,
            "`reasoning_split` is sent and not heeded; the tags are taken out all the same.",
        )
    else:
        results.add("thinking", "ok", stated)


async def turn_two(
    run: Run, route: Route, turn: ProbeResult, results: Results, notify: Callable[[str], None]
) -> str:
    """Judge the reasoning given back; returns a word for the comparison."""
    if turn.failure is not None or not (turn.calls or results.has.tools):
        return "not measured"
    thought = turn.thinking
    if thought is None or (route.upstream.dialect == "anthropic" and not thought.signature):
        if route.upstream.dialect != "openai":  # those wires take back only what they signed
            results.add("thinking, turn two", "ok", "nothing to give back, as it did not think")
            return "nothing to give back"
        thought = Thinking(probes.THOUGHT)
    notify("thinking on turn two")
    bare = await run.ask(route, probes.second_turn(turn, None))
    if results.failed("thinking, turn two", bare) or bare.failure is not None:
        if bare.failure is not None and declined(bare):
            results.add(
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
        probed = await run.ask(with_form, probes.second_turn(turn, thought))
        if probed.failure is not None and not declined(probed):
            continue
        grown = (
            probed.usage.input - bare.usage.input
            if probed.usage is not None and bare.usage is not None
            else None
        )
        found[form] = Returned(probed.failure is None, grown)
    if not found:
        results.add("thinking, turn two", "fail", "could not be measured", AGAIN)
        return "not measured"
    _judge_returned(results, route.upstream.dialect, thought, found)
    if any(_reads(r, thought) for r in found.values()):
        return "read"
    return "accepted" if any(r.accepted for r in found.values()) else "refused"
