"""`store` and `previous_response_id` of Responses: what is kept of a turn, and how it comes back.

The node keeps the items of each turn (policy/stored_responses.py), for all edges; here they are made, encrypted for
their owner and id, and put before the input of the next turn.  So everything behind this file sees a request that
says all by itself.

Sources: OpenAI's reference of Responses, openai 3.57 (read 2026-11).  Note: as there, what is kept is the input and
the output; `instructions` and `tools` are those of each request.
"""

import hmac
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from headgate import jsontext
from headgate.config import Responses
from headgate.dialects.responses import listing
from headgate.edge.counter import Worker
from headgate.edge.overload import OFF_LOOP_BYTES
from headgate.edge.reads import no_node
from headgate.errors import Failure, Refused
from headgate.node.client import Storing
from headgate.policy.stored_responses import MOST_BYTES, KeptBounds
from headgate.storage.errors import StoreError

R = TypeVar("R")

PATH = re.compile(r"(?:/v1)?/responses/([A-Za-z0-9_-]{1,128})(/input_items)?")
_ID = re.compile(r"resp_[0-9a-f]{24}")
_MOST_DECODED = 32 << 20  # of one conversation: as large as a body may be
_PREVIOUS = "previous_response_id"
_NOTHING = Raw(b"null")
_HEADER = {"alg": "dir", "enc": "A256GCM"}


class Kept(msgspec.Struct, frozen=True):
    """One turn: the items that were sent, and the response with its output."""

    input: list[Raw]
    response: Raw


class _Output(msgspec.Struct, frozen=True):
    output: list[Raw]


class PendingResponse(msgspec.Struct, frozen=True):
    """What will be kept of a request, once it has been answered."""

    owner: str
    previous: str
    input: list[Raw]


class Arrived(msgspec.Struct, frozen=True):
    """A request with what it refers to; `turn` None: nothing is kept of it."""

    body: bytes
    turn: PendingResponse | None = None
    previous: str = ""


class _Read(msgspec.Struct, frozen=True):
    """Reads what a body asks of storing."""

    fields: dict[str, Raw]
    input: list[Raw]
    previous: str
    store: bool


_TOO_LONG = Failure(
    "invalid",
    "The conversation before this response is too long to be read; send its end, or a summary, as `input`.",
    param="$.previous_response_id",
    code="previous_response_too_large",
    should_retry=False,
)


async def _worked(worker: Worker, size: int, work: Callable[..., R], *args: Any) -> R:
    """What `work` returns, from the thread if it would delay others; Any: what `work` takes."""
    if size < OFF_LOOP_BYTES:
        return work(*args)
    found: R = await worker(work, *args)
    return found


def _read(body: bytes) -> _Read | None:
    """Return what a body says; None for one that the dialect will refuse, or that says nothing of it."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Raw])
        previous = msgspec.json.decode(fields.get(_PREVIOUS, b'""'), type=str | None)
        store = msgspec.json.decode(fields.get("store", b"true"), type=bool | None)
        mine = _items(fields.get("input", _NOTHING))
        read = _Read(fields, mine, previous or "", store is not False)
        jsontext.check_duplicates(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    return read if read.previous or read.store else None


_decode_kept = msgspec.json.Decoder(Kept).decode
_encode = msgspec.json.Encoder().encode


class ResponseStore:
    """Is the edge's side; `secret` is the data directory's, for this purpose."""

    def __init__(self, settings: Responses, secret: bytes, storing: Storing) -> None:
        from joserfc import jwe, jwk  # 30 ms, for those who switch it on

        self._jwe, self._jwk = jwe, jwk
        self._registry = jwe.JWERegistry(algorithms=[*_HEADER.values()])
        self._registry.max_ciphertext_length = 2 * MOST_BYTES  # its own is for tokens in headers
        self._secret = secret
        self._storing = storing
        self._bounds = KeptBounds(settings.keep_s, settings.per_key, settings.max_mb << 20)

    # --- a request

    async def whole(self, owner: str, body: bytes, worker: Worker) -> "Arrived":
        """Return the body with what it refers to, and what will be kept of it; Refused.

        A body that cannot be read comes back as it is: whoever decodes it says what is wrong.  Work on
        long texts is done by `worker`.
        """
        read = await _worked(worker, len(body), _read, body)
        if read is None:
            return Arrived(body)
        turn = PendingResponse(owner, read.previous, read.input) if read.store else None
        found: list[bytes] = []
        if read.previous:
            found = await self._chain(owner, read.previous)
        size = len(body) + 4 * sum([len(data) for data in found])  # as texts are compressed
        return Arrived(
            await _worked(worker, size, self._joined, owner, read, found), turn, read.previous
        )

    def _joined(self, owner: str, read: "_Read", found: list[bytes]) -> bytes:
        """The body with the turns before it in its input, and without what has been seen to."""
        fields = {n: v for n, v in read.fields.items() if n not in ("store", _PREVIOUS)}
        if found:
            items: list[Raw] = []
            left = _MOST_DECODED
            for data in found:
                kept, size = self._opened(owner, data, left)
                left -= size
                if left < 0:
                    raise Refused(_TOO_LONG)
                items += (*kept.input, *_output(kept))
            items += read.input
            fields["input"] = Raw(b"[" + b",".join([bytes(item) for item in items]) + b"]")
        return _encode(fields)

    async def _chain(self, owner: str, id: str) -> list[bytes]:
        """Return the turns up to this one; Refused when one of them is not kept."""
        found = await self._recall(owner, id) if _ID.fullmatch(id) else "unknown"
        if isinstance(found, list):
            return found
        if found == "too_large":
            raise Refused(_TOO_LONG)
        raise Refused(
            Failure(
                "invalid",
                f"Previous response with id `{id[:64]}` not found. One is kept for"
                f" {self._bounds.keep_s:.0f} s after its last use, for the key that made it; send the"
                " whole `input` instead.",
                param=f"$.{_PREVIOUS}",
                code="previous_response_not_found",
                should_retry=False,
            )
        )

    async def _recall(self, owner: str, id: str, *, alone: bool = False) -> list[bytes] | str:
        try:
            return await self._storing.recall(owner, id, alone=alone)
        except StoreError:
            raise no_node() from None

    # --- a reply

    async def keep(self, turn: PendingResponse, id: str, response: bytes, worker: Worker) -> bool:
        """Keep an answered turn before its client sees the end; whether it is kept."""
        size = len(response) + sum([len(bytes(item)) for item in turn.input])
        data = await _worked(worker, size, self._sealed, turn, id, response)
        if len(data) > MOST_BYTES:
            return False
        try:
            return await self._storing.store(turn.owner, id, turn.previous, data, self._bounds)
        except StoreError:
            return False

    # --- what clients ask for by its id

    async def response(self, owner: str, id: str, worker: Worker) -> bytes:
        """Return a response as it was answered; Refused when it is not kept."""
        (data,) = await self._known(owner, id, alone=True)
        kept, _ = await _worked(worker, len(data), self._opened, owner, data, _MOST_DECODED)
        return bytes(kept.response)

    async def _known(self, owner: str, id: str, *, alone: bool) -> list[bytes]:
        found = await self._recall(owner, id, alone=alone) if _ID.fullmatch(id) else ""
        if not isinstance(found, list):
            raise Refused(_not_found(id))
        return found

    async def delete(self, owner: str, id: str) -> bytes:
        """Forget a response; Refused when it was not kept."""
        try:
            done = bool(_ID.fullmatch(id)) and await self._storing.forget(owner, id)
        except StoreError:
            raise no_node() from None
        if not done:
            raise Refused(_not_found(id))
        return _encode({"id": id, "object": "response", "deleted": True})

    async def input_items(
        self, owner: str, id: str, query: Mapping[str, str], worker: Worker
    ) -> bytes:
        """Return a page of what the model was shown: the turns before it, and its own input."""
        found = await self._known(owner, id, alone=False)
        size = sum([len(data) for data in found])
        return await _worked(worker, size, self._listing, owner, id, found, query)

    def _listing(self, owner: str, id: str, found: list[bytes], query: Mapping[str, str]) -> bytes:
        items: list[Raw] = []
        left = _MOST_DECODED
        for n, data in enumerate(found):
            kept, size = self._opened(owner, data, left)
            left -= size
            if left < 0:
                raise Refused(_TOO_LONG)
            items += (*kept.input, *(_output(kept) if n < len(found) - 1 else ()))
        return _encode(listing.page(items, id.removeprefix("resp_"), query))

    # --- encryption: a key for each response, of its owner and its id

    def _key(self, owner: str, id: str) -> Any:  # Any: joserfc's OctKey
        material = hmac.digest(self._secret, f"{owner}\n{id}".encode(), "sha256")
        return self._jwk.OctKey.import_key(material)

    def _sealed(self, turn: PendingResponse, id: str, response: bytes) -> bytes:
        packed = zlib.compress(_encode(Kept(turn.input, Raw(response))), 1)
        token = self._jwe.encrypt_compact(
            _HEADER, packed, self._key(turn.owner, id), registry=self._registry
        )
        return f"{id}.{token}".encode()

    def _opened(self, owner: str, data: bytes, most: int) -> tuple[Kept, int]:
        """Return a turn and its size, which is above `most` where there is more of it."""
        id, _, token = data.decode().partition(".")
        packed = self._jwe.decrypt_compact(
            token, self._key(owner, id), registry=self._registry
        ).plaintext
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(packed or b"", most + 1)
        if len(text) > most:
            return Kept([], Raw(b'{"output":[]}')), len(text)
        return _decode_kept(text), len(text)


def _not_found(id: str) -> Failure:
    return Failure(
        "not_found", f"Response with id `{id[:64]}` not found.", code="response_not_found"
    )


def _items(raw: Raw) -> list[Raw]:
    """The items of an input, none where there is no input; a text is one message."""
    found = msgspec.json.decode(raw, type=str | list[Raw] | None)
    if not isinstance(found, str):
        return found or []
    return [Raw(_encode({"type": "message", "role": "user", "content": found}))]


def _output(kept: Kept) -> list[Raw]:
    return msgspec.json.decode(kept.response, type=_Output).output
