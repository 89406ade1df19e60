"""The part `wire`: every decoder and encoder, against what nobody would send.

Only Refused comes out, the grammar of a reply holds, a cut changes nothing, and what clients get
can be read.
"""

import json
import math
import random
from typing import Any

import msgspec
from mutations import ALL, REQUESTS, composed, mutate, pieces_of, streams
from turns import configured

from headgate.catalog import models as shipped
from headgate.catalog import presets
from headgate.chat import Event, Finish, Grammar, Message, Reasoning, Request, Start, Text, Usage
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import Dialect, ReplyFacts, RequestTarget
from headgate.errors import STATUS, Failure, Refused
from headgate.policy import fit, history
from headgate.stream import filters
from headgate.stream.translate import Translator, Whole

FACTS = ReplyFacts("0a1b", "MiniMax-M2", 1790000000, 50)
STREAM, BODY = "text/event-stream", "application/json"


def routes() -> list[tuple[shipped.Model, str, Capabilities]]:
    """Return every model on every preset: (model, dialect, capabilities)."""
    out = []
    for preset in presets.presets().values():
        for model in shipped.models().values():
            fields = preset.capabilities | preset.models.get(model.id, {})
            out.append((model, preset.dialect, msgspec.convert(fields, Capabilities)))
    return list({(m.id, d, repr(c)): (m, d, c) for m, d, c in out}.values())


def check_request(name: str, body: bytes, r: random.Random, ways: list[Any]) -> None:
    """Only Refused comes out, and what is sent to upstreams is JSON."""
    headers = {"anthropic-beta": "x", "x-claude-code-session-id": "s"}
    target = RequestTarget("MiniMax-M2", r.choice((None, True, False)), r.random() < 0.5, headers)
    if target.stream is None and name == "gemini":
        target = RequestTarget("MiniMax-M2", True)
    try:
        request = ALL[name].decode_request(body, target)
        model, dialect, capabilities = r.choice(ways)
        request = history.repair(request, capabilities, name)
        fitted = fit.fit(
            request,
            capabilities,
            max_output=model.max_output,
            default_max_output=model.default_max_output,
        )
    except Refused as refused:
        notify(refused.failure)
        return
    for d in {dialect, r.choice(list(ALL))}:
        sent = ALL[d].encode_request(fitted.request, capabilities, model.id, r.random() < 0.5)
        json.loads(sent)
    answer(name, fitted.request, r)


def answer(name: str, request: Request, r: random.Random) -> None:
    """Whatever was asked, a reply to it can be written."""
    events = [*r.choice(REPLIES), Finish("stop", Usage(1, 1))]
    dialect = ALL[name]
    out = dialect.encoder(request, FACTS, RequestTarget("MiniMax-M2", True)).feed(events)
    read(dialect, out)
    whole = Whole()
    whole.feed(events)
    assert whole.collector.reply is not None
    json.loads(dialect.encode_reply(whole.collector.reply, request, FACTS))


REPLIES: list[list[Event]] = []


def notify(failure: Failure) -> None:
    """A failure can be worded in every protocol."""
    for dialect in ALL.values():
        status, body = dialect.encode_failure(failure, FACTS.id)
        assert 400 <= status < 600 or failure.kind == "blocked", (status, failure)
        json.loads(body)


def read(dialect: Dialect, data: bytes) -> Event:
    decoder = dialect.decoder(Capabilities(), STREAM, "s")
    events = decoder.feed(data) + decoder.close()
    return events[-1]


def check_stream(
    data: bytes, media: str, r: random.Random, ways: list[Any], name: str = ""
) -> None:
    """The grammar holds, a cut changes nothing, and each client can read what it gets."""
    _, _, capabilities = r.choice(ways)
    name = name or r.choice(list(ALL))
    show, stops = r.choice(("yes", "omit", "no", "inline")), r.choice(((), ("END", "ll", "d")))
    fences = r.random() < 0.2
    pieces = pieces_of(data, r)
    whole: list[Event] = []
    cut: list[Event] = []
    for events, fed in ((whole, [data]), (cut, pieces)):
        decoder = ALL[name].decoder(capabilities, media, "s")
        for piece in fed:
            events += decoder.feed(piece)
        events += decoder.close()
        grammar = Grammar()
        for event in events:
            grammar.check(event)
        assert grammar.ended
    assert whole == cut, (whole, cut)
    if len(whole) < 40 and isinstance(whole[-1], Finish):
        REPLIES.append(whole[:-1])
        del REPLIES[:-50]
    asked = Request("m", (Message("user", (Text("x"),)),), True, reasoning=Reasoning("on", show))  # type: ignore[arg-type]
    for client, dialect in ALL.items():
        array = client == "gemini" and r.random() < 0.5
        encoder = dialect.encoder(asked, FACTS, RequestTarget("m", True, array))
        decoder = ALL[name].decoder(capabilities, media, "s")
        each = filters.build(show, stops, fences)
        seen = _Checked(encoder)
        translator = Translator(decoder, each, seen)
        out = b"".join([translator.feed(piece) for piece in pieces]) + translator.close()
        assert translator.end is not None
        if isinstance(translator.end, Finish):
            seen.grammar.check(translator.end)
            out += encoder.feed([translator.end])
        else:
            notify(translator.end.failure)
            out += b"".join(encoder.fail(translator.end.failure))
        if array:
            json.loads(out)
            continue
        for line in out.split(b"\n"):
            assert not line or line.startswith((b"data: ", b"event: ", b'{"error"')), line
            if line.startswith(b"data: {"):
                json.loads(line[6:])
        end = read(dialect, out)
        malformed = b"MALFORMED_FUNCTION_CALL" in out
        assert malformed or type(end) is type(translator.end), (end, translator.end)


class _Checked:
    """An encoder behind the grammar: filters must hold to it as decoders do."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.grammar = Grammar()

    def feed(self, events: Any) -> bytes:
        for event in events:
            self.grammar.check(event)
        out: bytes = self.encoder.feed(events)
        return out

    def fail(self, failure: Failure) -> tuple[bytes, ...]:
        out: tuple[bytes, ...] = self.encoder.fail(failure)
        return out


def check_failure(body: bytes, r: random.Random) -> None:
    status = r.choice((200, 400, 401, 402, 404, 408, 413, 422, 429, 500, 502, 503, 504, 529, 418))
    wait = r.choice(("", "3", "-1", "nan", "inf", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT", "\x00"))
    for dialect in ALL.values():
        failure = dialect.decode_failure(status, {"retry-after": wait}, body)
        assert failure.kind in STATUS
        assert failure.retry_after_s is None or math.isfinite(failure.retry_after_s)
        notify(failure)


def check(seed: int, examples: int) -> None:
    REPLIES[:] = [[Start()]]  # of this turn alone, so that its seed gives the same again
    ways, known = routes(), streams()
    assert known, "tests/exchanges is empty"

    @configured(seed, examples)
    def run(chosen: int) -> None:
        r = random.Random(f"{seed} {chosen}")
        name = r.choice(list(ALL))
        check_request(name, mutate(r.choice(REQUESTS[name]), r), r, ways)
        data = r.choice(known)
        other = r.choice(known)
        if r.random() < 0.2:  # the beginning of one and the end of another
            data = data[: r.randrange(len(data) + 1)] + other[r.randrange(len(other) + 1) :]
        check_stream(mutate(data, r), r.choice((STREAM, STREAM, BODY)), r, ways)
        for name in ALL:
            check_stream(composed(r, name), STREAM, r, ways, name)
        check_failure(mutate(other, r), r)

    run()
