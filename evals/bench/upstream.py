"""An upstream that costs nothing worth measuring: fixed bytes, one process.

`python upstream.py` prints its port.  A body with `whole` in it is answered at once, with a
short stream or one body as it asks; one with `many chunks` at once with 300 events or one body; any
other with `CHUNKS` events, one every `PACE_S` seconds, each in a write of its own.  A GET, as gateways
send in the background, is answered with the list of its one model.
"""

import asyncio
import contextlib

import uvloop

CHUNKS = 400
MANY = 300
PACE_S = 0.01
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(delta: str, finish: str = "null") -> bytes:
    data = (
        'data: {"id":"1","object":"chat.completion.chunk","created":1700000000,"model":"MiniMax-M2",'
        f'"choices":[{{"index":0,"delta":{{{delta}}},"finish_reason":{finish}}}]}}\n\n'
    ).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


PIECE = event('"content":" a word or two"')
USAGE = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1700000000,"model":"MiniMax-M2",'
    b'"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":400,"total_tokens":420}}\n\n'
)
END = (
    event("", '"stop"')
    + b"%x\r\n%b\r\n" % (len(USAGE), USAGE)
    + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
)
MANY_CHUNKS = HEAD + event('"role":"assistant","content":""') + PIECE * MANY + END
WHOLE = HEAD + event('"role":"assistant","content":""') + PIECE * 3 + END

REPLY = (
    b'{"id":"1","object":"chat.completion","created":1700000000,"model":"MiniMax-M2","choices":'
    b'[{"index":0,"message":{"role":"assistant","content":" a word or two a word or two a word or two"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":9,"total_tokens":29}}'
)
LIST = b'{"object":"list","data":[{"id":"MiniMax-M2","object":"model","created":1700000000,"owned_by":"bench"}]}'


def whole_response(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


JSON, MODELS = whole_response(REPLY), whole_response(LIST)


class Upstream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # it is a stream's
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, end, body = self.data.partition(b"\r\n\r\n")
        if not end:
            return
        _, found, rest = head.lower().partition(b"content-length:")
        if len(body) < (int(rest.split(b"\r\n", 1)[0]) if found else 0):
            return
        self.data = b""
        if head.startswith(b"GET "):
            self.transport.write(MODELS)
            return
        streamed = b'"stream":true' in body.replace(b" ", b"")
        if b"many chunks" in body:
            self.transport.write(MANY_CHUNKS if streamed else JSON)
        elif b"whole" in body:
            self.transport.write(WHOLE if streamed else JSON)
        else:
            self.task = asyncio.get_running_loop().create_task(self.stream())

    async def stream(self) -> None:
        self.transport.write(HEAD)
        for _ in range(CHUNKS):
            if self.transport.is_closing():
                return
            self.transport.write(PIECE)
            await asyncio.sleep(PACE_S)
        self.transport.write(END)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())
