"""A head that is known is read as the parser and the guard read it, or it is not taken for known."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.net.heads import MAX_HEADS, Cut, Head, Heads, cut
from headgate.net.inbound import Inbound
from headgate.net.inbound_connection import Connection
from headgate.net.server import Server

ASK = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
Told = tuple[object, ...]


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.out = b""
        self.shut = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.out += bytes(data)

    def close(self) -> None:
        self.shut = True

    abort = close

    def is_closing(self) -> bool:
        return self.shut

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Deaf(Heads):
    """Knows no head, whatever it is told."""

    def keep(self, request: Cut, head: Head) -> None:
        pass


def told(pieces: Sequence[bytes], heads: Heads) -> list[Told]:
    """What handlers saw of one connection that got these pieces, each when the last was answered."""
    seen: list[Told] = []

    async def handler(inbound: Inbound) -> None:
        body = await inbound.body()
        seen.append(
            (inbound.method, inbound.path, inbound.query, inbound.headers, inbound.version, body)
        )
        inbound.respond(200, [], b"")

    async def main() -> list[Told]:
        server = Server(handler)
        server._loop, server.heads = asyncio.get_running_loop(), heads
        conn, wire = Connection(server), Wire()
        conn.connection_made(wire)
        for piece in pieces:
            if not wire.shut:
                conn.data_received(piece)
            for _ in range(4 * (len(pieces) + 4)):
                await asyncio.sleep(0)
        conn.connection_lost(None)
        return [*seen, ("written", wire.out.count(b"HTTP/1.1 "), wire.shut)]

    return asyncio.run(main())


def test_a_whole_request_is_cut_around_its_length() -> None:
    assert cut(ASK) == Cut(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: ", "2", b"hi")
    for other in (ASK + b"x", ASK[:-1], ASK.replace(b": 2", b": +2"), ASK.replace(b": 2", b":2")):
        assert cut(other) is None


def test_the_second_request_with_a_head_is_known() -> None:
    heads = Heads()
    seen = told([ASK, ASK.replace(b"2\r\n\r\nhi", b"3\r\n\r\nyou")], heads)
    assert len(heads) == 1
    assert seen == told([ASK, ASK.replace(b"2\r\n\r\nhi", b"3\r\n\r\nyou")], Deaf())
    assert seen[1][5] == b"you"


def test_a_known_head_inside_another_one_is_no_request() -> None:
    """The end of one piece is the beginning of a head whose value goes on in the next."""
    heads = Heads()
    pieces = [ASK, ASK + b"GET /b HTTP/1.1\r\nHost: x\r\nX: ", ASK]
    assert told(pieces, heads) == told(pieces, Deaf())
    assert len(heads) == 1


def test_a_handler_that_changes_its_headers_changes_nobody_elses() -> None:
    heads, request = Heads(), cut(ASK)
    assert request is not None
    heads.keep(request, Head("POST", "/a", "", {"host": "x", "content-length": "2"}, "1.1"))
    for _ in range(2):
        found = heads.find(request)
        assert found is not None
        found[1]["host"] = "y"
    assert heads.find(request) is not None
    assert (heads.find(request) or [{}, {}])[1] == {"host": "x", "content-length": "2"}


def test_the_heads_are_bounded() -> None:
    heads = Heads()
    for n in range(3 * MAX_HEADS):
        heads.keep(Cut(b"%d" % n, "0", b""), Head("GET", "/", "", {}, "1.1"))
        assert len(heads) <= MAX_HEADS


LINES = (
    b"Host: x",
    b"host: y",
    b"Content-Length: 2",
    b"content-length: 2",
    b"content-length: 02",
    b"Content-Length:2",
    b"Content-Length: 2 ",
    b"CONTENT-LENGTH: 0",
    b"content-length: 0",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b"X: a",
    b"X: b",
    b" folded",
    b"X: content-length: 2",
    b"",
    b"X",
    b"X: a\ncontent-length: 2",
    b"X: a\rb",
    b"Cookie: a=1",
    b"cookie: b=2",
    b"X: \xe9",
    b"X: a\x00",
)
FIRST = (
    b"POST /a HTTP/1.1",
    b"POST /a?b=c HTTP/1.1",
    b"POST /a HTTP/1.0",
    b"GET / HTTP/1.1",
    b"HEAD /a HTTP/1.1",
    b"POST http://x/a HTTP/1.1",
    b"POST /a",
    b"\r\nPOST /a HTTP/1.1",
    b"FETCH /a HTTP/1.1",
)


@st.composite
def asked(draw: st.DrawFn) -> bytes:
    """A request that may be wrong in one of many ways; half of them are right."""
    lines = draw(st.lists(st.sampled_from(LINES), max_size=3))
    if draw(st.booleans()):
        lines = [b"Host: x", *lines, b"Content-Length: 2"]
    newline = draw(st.sampled_from((b"\r\n", b"\r\n", b"\r\n", b"\n")))
    head = newline.join([draw(st.sampled_from(FIRST)), *lines, b"", b""])
    return head + draw(st.sampled_from((b"hi", b"hi", b"", b"2\r\nhi\r\n0\r\n\r\n", b"\r\n", b"h")))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_what_is_known_is_read_as_it_was_parsed(data: st.DataObject) -> None:
    requests = data.draw(st.lists(asked(), min_size=1, max_size=2))
    wire = b"".join(data.draw(st.lists(st.sampled_from([*requests, ASK]), min_size=2, max_size=5)))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=3)))
    whole = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    pieces = data.draw(st.permutations([*requests, *requests, ASK, *whole]))
    heads = Heads()
    for _ in range(2):  # the second connection knows what the first has learnt
        assert told(pieces, heads) == told(pieces, Deaf())
