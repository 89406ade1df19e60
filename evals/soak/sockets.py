"""Runs the parts `server` and `client`: both sides of net/ over loopback sockets.

The server is compared with a second reader of HTTP, plain and strict, that shares nothing with it
(`strictly`): what a handler saw is a beginning of what that reader sees.  The client may end an
exchange with its own exceptions only, and no bytes of one answer show up in the next.
"""

import asyncio
import hashlib
import json
import random
import re

import uvloop
from mutations import mutate_bytes, pieces_of
from turns import configured, loudly

from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut, Timeouts
from headgate.net.dial import NotSent
from headgate.net.inbound import Inbound
from headgate.net.server import Server
from headgate.net.server_limits import Limits
from waiting import PATIENCE_S, pause, until

GOOD = [
    b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/x?q=1 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /v1/x HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST /s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n1;x=y\r\nh\r\n0A\r\n0123456789"
    b"\r\n0\r\nTrailer: 1\r\n\r\n",
    b"POST /v1/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    b"GET http://a/x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"HEAD /s HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"POST /h2 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"Content-Length: 3\r\n\r\nabc",
]
_HTTP = [
    b"",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\x00",
    b"\x80",
    b":",
    b",",
    b"0",
    b"a",
    b"Host: b\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: +5\r\n",
    b"Content-Length : 5\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Content-Length: 99999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n",
    b"X: a\r\n b\r\n",
    b"X: \x01\r\n",
    b"X-Long: " + b"x" * 5000 + b"\r\n",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/0.9",
    b"0\r\n\r\n",
    b"0\r\n",
    b"5\r\n",
    b"-5\r\n",
    b"5;" + b"e" * 300 + b"\r\n",
    b"0x5\r\n",
    b"G\r\n",
    b"fffffffffffffffff\r\n",
    b"Expect: 200-ok\r\n",
    b"Upgrade: websocket\r\nConnection: upgrade\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"TRACE",
    b"get",
    b"#",
    b'"',
]
_TCHAR = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# llhttp takes more than one space around the target, which leaves no doubt about the framing.
_LINE = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) +([!$-~]+) +HTTP/(1\.[01])")
_FIELD = re.compile(rb"(" + _TCHAR + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
Read = tuple[str, ...]  # method, target, digest of the body


def strictly(data: bytes) -> list[Read]:
    """The requests at the beginning of `data` that are beyond doubt, read by nothing but RFC 9112.

    A request ends the list when it is not whole, or breaks a rule; so does one that closes.
    """
    out: list[Read] = []
    while True:
        data = data.lstrip(b"\r\n")  # "a server [...] SHOULD ignore at least one empty line", 2.2
        head, found, data = data.partition(b"\r\n\r\n")
        if not found:
            return out
        first, *lines = head.split(b"\r\n")
        line = _LINE.fullmatch(first)
        fields = [_FIELD.fullmatch(each) for each in lines]
        if line is None or any(f is None for f in fields):
            return out
        pairs = [(f[1].lower(), f[2]) for f in fields if f is not None]
        named = dict(pairs)
        single = (
            b"host",
            b"content-length",
            b"transfer-encoding",
            b"content-type",
            b"authorization",
            b"expect",
        )
        if any(sum(n == name for n, _ in pairs) > 1 for name in single):
            return out
        method, target, version = line[1], line[2], line[3]
        host = named.get(b"host")
        if (host is None and version == b"1.1") or not _HOST.fullmatch(host or b"a"):
            return out
        if target.startswith((b"http://", b"https://")):
            authority, slash, rest = target.partition(b"://")[2].partition(b"/")
            if authority != host or not slash:
                return out
            target = b"/" + rest
        if not target.startswith(b"/") or b'"' in target or b"#" in target:
            return out
        length, coding = named.get(b"content-length"), named.get(b"transfer-encoding")
        if coding is not None and (length is not None or version != b"1.1"):
            return out
        if named.get(b"expect", b"100-continue").lower() != b"100-continue":
            return out
        if coding is not None:
            if coding.lower() != b"chunked":
                return out
            body, rest_ = dechunked(data)
            if body is None:
                return out
            data = rest_
        else:
            size = length or b"0"
            if not re.fullmatch(rb"[0-9]{1,15}", size) or len(data) < int(size):
                return out
            body, data = data[: int(size)], data[int(size) :]
        out.append((method.decode(), target.decode(), hashlib.sha256(body).hexdigest()[:16]))


def dechunked(data: bytes) -> tuple[bytes | None, bytes]:
    body = b""
    while True:
        line, found, data = data.partition(b"\r\n")
        size = _SIZE.fullmatch(line)
        if not found or size is None:
            return None, b""
        n = int(size[1], 16)
        if n == 0:
            break
        if data[n : n + 2] != b"\r\n":
            return None, b""
        body, data = body + data[:n], data[n + 2 :]
    while True:  # trailers
        line, found, data = data.partition(b"\r\n")
        if not found:
            return None, b""
        if not line:
            return body, data
        if not _FIELD.fullmatch(line):
            return None, b""


async def handler(inbound: Inbound) -> None:
    body = await inbound.body()
    target = inbound.path + ("?" + inbound.query if inbound.query else "")
    seen = json.dumps([inbound.method, target, hashlib.sha256(body).hexdigest()[:16]]).encode()
    if inbound.path == "/s":
        inbound.start(200, [("x-seen", seen.decode())])
        for piece in (b"a", b"bc" * 2000, b""):
            inbound.write(piece)
            if inbound.paused:
                await inbound.drain()
        inbound.end()
    else:
        inbound.respond(200, [("x-seen", seen.decode())], seen)


_BRIEF = Limits(
    header_bytes=8192,
    header_s=1.0,
    idle_s=1.0,
    body_bytes=1 << 16,
    body_grace_s=1.0,
    body_min_bytes_per_s=1 << 16,
    write_stall_s=3.0,
)


async def converse(port: int, pieces: list[bytes]) -> bytes:
    """All that the server says to these pieces until it ends the connection; it must, soon."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    out = b""
    try:
        async with asyncio.timeout(2 * PATIENCE_S):  # LINGER_S is 5
            for piece in pieces:
                if writer.transport.is_closing():
                    break
                writer.write(piece)
                await asyncio.sleep(0)
            while data := await reader.read(1 << 16):
                out += data
    except ConnectionError:
        pass
    except TimeoutError:
        raise AssertionError("the server never ended the connection") from None
    finally:
        writer.transport.abort()
    return out


def http_bytes(r: random.Random) -> bytes:
    data = b"".join(r.choice(GOOD) for _ in range(r.choice((1, 1, 1, 2, 3, 5))))
    for _ in range(r.choice((0, 1, 1, 2, 4))):
        data = mutate_bytes(data, r, _HTTP)
    return data


def server(seed: int, examples: int) -> None:
    """A turn is a few examples of many connections at once, as the timers must run out for each."""

    async def example(r: random.Random) -> None:
        s = Server(handler, _BRIEF)
        port = await s.listen("127.0.0.1", 0)
        sent = [http_bytes(r) for _ in range(60)]
        cut = [pieces_of(data, r) for data in sent]
        answers = await asyncio.gather(*(converse(port, pieces) for pieces in cut))
        for pieces, data, got in zip(cut, sent, answers, strict=True):
            judge(data, got, pieces)
        last = await converse(port, [GOOD[8]])
        assert b"200 OK" in last, last
        s.stop_accepting()
        await s.drain(1)
        await until(lambda: not (s.connections or s.running))  # no connection is left behind

    loops = [uvloop.new_event_loop, asyncio.new_event_loop]

    @configured(seed, max(1, examples // 50))
    def run(chosen: int) -> None:
        r = random.Random(f"{seed} {chosen}")
        with asyncio.Runner(loop_factory=r.choice(loops)) as runner:
            runner.run(loudly(example(r)))

    run()


def judge(data: bytes, got: bytes, pieces: list[bytes]) -> None:
    """What handlers saw is a beginning of what the strict reader sees."""
    allowed = strictly(data)
    seen = [tuple(json.loads(s)) for s in re.findall(rb"^x-seen: (.+?)\r$", got, re.M)]
    assert seen == allowed[: len(seen)], f"{data!r}\nread as {seen}, not as {allowed}: {pieces!r}"
    good = len(re.findall(rb"^HTTP/1\.1 2", got, re.M)) - got.count(b"HTTP/1.1 100")
    assert good <= len(seen), (data, got)


# --- client ---------------------------------------------------------------------------------------

ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nTOKEN",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nTO\r\n3;a=b\r\nKEN\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nTOKEN",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nTOKEN",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nTOKEN",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 429 Too Many\r\nContent-Length: 2\r\nRetry-After: 1\r\n\r\n{}",
    b"HTTP/1.1 301 Moved\r\nLocation: http://b/\r\nContent-Length: 0\r\n\r\n",
]
_ODD = [
    *_HTTP,
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    b"Content-Encoding: gzip\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON",
    b"HTTP/1.1 103 Early Hints\r\n\r\n",
    b"Keep-Alive: timeout=0\r\n",
    b"Connection: close\r\n",
    b"ICY 200 OK\r\n",
    b"x" * 70000,
]
_HASTY = Timeouts(connect_s=10.0, first_token_s=1.0, stall_s=1.0, total_s=5.0)


def client(seed: int, examples: int) -> None:
    async def example(r: random.Random) -> None:
        scripts: dict[bytes, tuple[list[bytes], str]] = {}

        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(2)
                    name = head.split(b" ")[1]
                    pieces, then = scripts.get(name, ([ANSWERS[0]], "keep"))
                    for piece in pieces:
                        if writer.transport.is_closing():
                            return
                        writer.write(piece)
                        if len(pieces) > 1:
                            await asyncio.sleep(0)
                    if then == "close":
                        writer.close()
                        return
                    if then == "abort":
                        writer.transport.abort()
                        return
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        listener = await asyncio.start_server(play, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        base = f"http://127.0.0.1:{port}"
        made = Client(proxies={}, idle_s=5.0)

        async def one(n: int) -> None:
            script = r.choice(ANSWERS)
            plain = script
            for _ in range(r.choice((0, 0, 1, 1, 2, 4))):
                script = mutate_bytes(script, r, _ODD)
            pieces = pieces_of(script, r) if r.random() < 0.6 else [script]
            then = r.choice(("keep", "close", "abort"))
            scripts[b"/%d" % n] = pieces, then
            whole = script == plain and then == "keep" and b"Content-Length" in plain
            await exchange(f"{base}/{n}", whole, script)

        async def exchange(url: str, whole: bool, script: bytes) -> None:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    response = await made.send("POST", url, {"x": "y"}, b"{}", _HASTY)
                    body = await response.read_all(1 << 20)
            except (Broken, NotSent, TimedOut) as error:
                # A good answer over a kept connection may still meet its end: then it was Broken
                # with nothing heard, and the client has tried a new one.
                assert not whole, (script, error)
                return
            except TimeoutError:
                raise AssertionError(f"the exchange never ended: {script!r}") from None
            if whole:
                assert body in (b"TOKEN", b"{}", b""), (script, body)

        for group in range(6):  # at once, and then over what is left of the connections
            await asyncio.gather(*(one(group * 20 + n) for n in range(20)))
        await pause(0.02, "what came after an answer is seen, and its connection dropped")
        for n in range(20):
            response = await made.send("POST", f"{base}/good{n}", {}, b"{}", _HASTY)
            assert await response.read_all() == b"TOKEN"
        await made.close()
        listener.close()
        await until(lambda: not made.open)  # no connection is left behind

    loops = [uvloop.new_event_loop, asyncio.new_event_loop]

    @configured(seed, max(1, examples // 40))
    def run(chosen: int) -> None:
        r = random.Random(f"{seed} {chosen}")
        with asyncio.Runner(loop_factory=r.choice(loops)) as runner:
            runner.run(loudly(example(r)))

    run()
