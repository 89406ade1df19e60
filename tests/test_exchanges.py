"""Replays tests/exchanges/: what an upstream sent, and to the byte what each client gets of it.

The only place where whole replies are compared to the byte.  A transcript's name says the case; the
numbers of cases are those of CASES below.  Each is replayed whole, cut at every single byte, and
byte by byte: nothing may depend on how the network cut it.

`python tests/test_exchanges.py --write [NAME...]` writes what clients get into the transcripts.  It
shows what the code does, not what is right: read the difference before you commit it.

A transcript is a description, a blank line, settings, and sections.  The settings:

    upstream: minimax MiniMax-M2.7    a preset and a model: the dialect and its capabilities
    capabilities: {...}               changes to these
    content-type: text/event-stream   of the upstream's answer; its status is 200
    newline: crlf                     the upstream's line ends, as files here have LF only
    shown: omit                       how thinking is shown: yes, omit, no, inline
    stop: ["END"]                     stop sequences that the gateway looks for itself
    usage: no                         a client of OpenAI's protocol that did not ask for usage

A section is everything between its heading and the next, but for its last line end.  A heading
names a client, `streamed` or `whole`, and the HTTP status where it is not 200.  `<echo>` stands for
the fields that Responses repeats from the request in each response object.
"""

import re
import sys
from functools import cache
from itertools import chain, pairwise
from pathlib import Path

import msgspec
import pytest

from headgate import jsontext
from headgate.catalog import counting, presets
from headgate.chat import Event, Failed, Finish, Grammar, Message, Reasoning, Request, Text, Usage
from headgate.dialects.capabilities import Capabilities
from headgate.dialects.contract import Dialect, ReplyFacts, RequestTarget
from headgate.dialects.decoder import Decoder
from headgate.dialects.registry import DIALECTS
from headgate.dialects.responses.dialect import ResponsesDialect
from headgate.dialects.responses.reply_wire import Echo
from headgate.stream import filters
from headgate.stream.translate import Translator, Whole

HERE = Path(__file__).parent / "exchanges"
FACTS = ReplyFacts("0a1b2c", "MiniMax-M2.7", 1790000000, 50)
ALL: dict[str, Dialect] = {**DIALECTS, "responses": ResponsesDialect()}
ECHO = jsontext.encode(Echo())[1:-1]
CASES = {
    7: "an empty answer",
    8: "<think> tags: cut anywhere, inside the answer, never closed",
    9: "thinking in both channels",
    10: "cumulative, incremental and summarised reasoning",
    11: "arguments cut inside an escape, and inside a character",
    12: "interleaved calls",
    13: "finish_reason `stop` with calls",
    14: "usage: null, zeros, no details, at the start only",
    15: "a first chunk without choices",
    16: "an error inside status 200",
    17: "an error first, and an error later",
    18: "closed without a finish; a finish without [DONE]",
    19: "one JSON body for a stream, and a stream for one body",
    24: "Gemini's array",
}
_HEADING = re.compile(rb"^=== (.+)\n", re.M)


class Client(msgspec.Struct, frozen=True):
    """One way to ask: a dialect, streamed or not."""

    dialect: Dialect
    stream: bool
    array: bool = False

    @property
    def title(self) -> str:
        name = self.dialect.name + (" array" if self.array else "")
        return f"{name}, {'streamed' if self.stream else 'whole'}"


CLIENTS = [
    Client(ALL[name], stream, array)
    for name in ("openai", "anthropic", "gemini", "responses")
    for stream, array in ((True, False), (True, True), (False, False))
    if not array or name == "gemini"
]
Answer = tuple[int, bytes]  # status and body, as the client gets them


class Transcript(msgspec.Struct, frozen=True):
    name: str
    head: bytes  # description and settings, as written
    upstream: bytes  # as sent
    written: bytes  # as in the file
    expected: dict[str, Answer]  # by the client's title
    settings: dict[str, str]

    def decoder(self) -> Decoder:
        preset, model = self.settings["upstream"].split()
        known = presets.presets()[preset]
        fields = known.capabilities | known.models.get(model, {})
        fields |= msgspec.json.decode(self.settings.get("capabilities", "{}"))
        capabilities = msgspec.convert(fields, Capabilities)
        return ALL[known.dialect].decoder(capabilities, self.settings["content-type"], "0a1b2c")

    def request(self, client: Client) -> Request:
        show = self.settings.get("shown", "yes")
        usage = self.settings.get("usage", "yes") == "yes"
        return Request(
            FACTS.model,
            (Message("user", (Text("Hello"),)),),
            stream=client.stream,
            want_usage=usage or client.dialect.name != "openai",
            reasoning=Reasoning("on", show),  # type: ignore[arg-type]  # as a transcript says
        )

    def answer(self, client: Client, pieces: list[bytes]) -> Answer:
        """What the client gets, as edge/exchange.py has it, when the upstream sends these pieces."""
        request = self.request(client)
        encoder = client.dialect.encoder(
            request, FACTS, RequestTarget(FACTS.model, True, client.array)
        )
        sink = encoder if client.stream else Whole()
        stops = tuple(msgspec.json.decode(self.settings.get("stop", "[]")))
        show = request.reasoning.show
        translator = Translator(self.decoder(), filters.build(show, stops, False), sink)
        out = b"".join([translator.feed(piece) for piece in pieces]) + translator.close()
        end = translator.end
        assert end is not None
        if isinstance(end, Failed):
            streamed = client.stream and client.dialect.refuses_in_stream(end.failure, {})
            if not (out or streamed):
                return client.dialect.encode_failure(end.failure, FACTS.id)
            return 200, out + b"".join(encoder.fail(end.failure))
        if end.usage is None:
            said = counting.of_counts(translator.ascii, translator.other)
            counted = Usage(
                translator.begun.input_tokens or FACTS.input_estimate, said, estimated=True
            )
            end = msgspec.structs.replace(end, usage=counted)
        tail = sink.feed([end])
        if isinstance(sink, Whole):
            assert sink.collector.reply is not None
            return 200, client.dialect.encode_reply(sink.collector.reply, request, FACTS)
        return 200, out + tail

    def batches(self, pieces: list[bytes]) -> list[list[Event]]:
        """The events that each piece completes, and those of the end."""
        decoder = self.decoder()
        return [*[decoder.feed(piece) for piece in pieces], decoder.close()]


def flat(batches: list[list[Event]]) -> list[Event]:
    return list(chain.from_iterable(batches))


def parse(path: Path) -> Transcript:
    head, *rest = _HEADING.split(path.read_bytes())
    sections = {t.decode(): body[:-1] for t, body in zip(rest[::2], rest[1::2], strict=True)}
    settings = dict(re.findall(r"^([a-z-]+): (.+)$", head.decode().partition("\n\n")[2], re.M))
    written = upstream = sections.pop("upstream")
    if settings.get("newline") == "crlf":
        upstream = written.replace(b"\n", b"\r\n")
    if settings.get("newline") == "cr":
        upstream = written.replace(b"\n", b"\r")
    expected: dict[str, Answer] = {}
    for heading, body in sections.items():
        title, _, status = heading.partition(": ")
        expected[title] = int(status or 200), body.replace(b"<echo>", ECHO)
    return Transcript(path.stem, head, upstream, written, expected, settings)


@cache
def transcripts() -> dict[str, Transcript]:
    return {path.stem: parse(path) for path in sorted(HERE.glob("*.txt"))}


def write(t: Transcript) -> None:
    sections = [t.head, b"=== upstream\n", t.written, b"\n"]
    for client in CLIENTS:
        status, body = t.answer(client, [t.upstream])
        title = client.title if status == 200 else f"{client.title}: {status}"
        sections += [f"=== {title}\n".encode(), body.replace(ECHO, b"<echo>"), b"\n"]
    (HERE / f"{t.name}.txt").write_bytes(b"".join(sections))


@pytest.mark.parametrize("name", transcripts())
def test_each_client_gets_what_the_transcript_says(name: str) -> None:
    t = transcripts()[name]
    got = {client.title: t.answer(client, [t.upstream]) for client in CLIENTS}
    assert got == t.expected


@pytest.mark.parametrize("name", transcripts())
def test_byte_by_byte_is_the_same(name: str) -> None:
    t = transcripts()[name]
    pieces = [t.upstream[i : i + 1] for i in range(len(t.upstream))]
    assert {client.title: t.answer(client, pieces) for client in CLIENTS} == t.expected


@pytest.mark.parametrize("name", transcripts())
def test_a_cut_at_any_byte_is_the_same(name: str) -> None:
    """What clients get is made of the events in their batches alone: each way to part them is
    encoded once, which is what makes every cut affordable."""
    t = transcripts()[name]
    events = flat(t.batches([t.upstream]))
    tried: set[tuple[int, ...]] = set()
    for i in range(len(t.upstream) + 1):
        pieces = [t.upstream[:i], t.upstream[i:]]
        batches = t.batches(pieces)
        assert flat(batches) == events, f"cut at {i}"
        lengths = tuple(map(len, batches))
        if lengths not in tried:
            tried.add(lengths)
            for client in CLIENTS:
                assert t.answer(client, pieces) == t.expected[client.title], f"cut at {i}"


@pytest.mark.parametrize("name", transcripts())
def test_the_grammar_holds(name: str) -> None:
    t = transcripts()[name]
    grammar = Grammar()
    for event in flat(t.batches([t.upstream])):
        grammar.check(event)
    assert grammar.ended


@pytest.mark.parametrize("name", transcripts())
def test_a_stream_cut_short_never_ends_well_before_its_finish(name: str) -> None:
    """Any prefix gives a prefix of the events and Failed; or the end, once all of it was told."""
    t = transcripts()[name]
    events = flat(t.batches([t.upstream]))
    for i in range(0, len(t.upstream), 7):
        *told, end = flat(t.batches([t.upstream[:i]]))
        if isinstance(end, Failed):
            assert told == events[: len(told)], f"cut at {i}"
        else:
            assert isinstance(end, Finish) and isinstance(events[-1], Finish), f"cut at {i}"
            assert (end.reason, told) == (events[-1].reason, events[:-1]), f"cut at {i}"


def test_every_corner_case_of_replies_has_a_transcript() -> None:
    numbers = {int(n) for name in transcripts() for n in re.findall(r"^case(\d+)", name)}
    assert numbers == set(CASES)


def test_sections_come_in_the_order_in_which_they_are_written() -> None:
    titles = [client.title for client in CLIENTS]
    for t in transcripts().values():
        assert list(t.expected) == titles, t.name
        assert not any(a == b for a, b in pairwise(t.expected)), t.name


if __name__ == "__main__":
    if sys.argv[1:2] != ["--write"]:
        sys.exit("usage: python tests/test_exchanges.py --write [NAME...]")
    for each in transcripts().values():
        if not sys.argv[2:] or each.name in sys.argv[2:]:
            write(each)
