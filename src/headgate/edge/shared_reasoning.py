"""The reasoning cache of all nodes (`cache`): turns are written to Redis or Valkey, and read when they are missed.

Each edge has a connection of its own.  A turn is written before its reply is finished for the client; a
request whose reasoning is not in this machine's memory asks for it in two round trips.  What is stored
is encrypted and bound to the key that made it; the server sees neither texts nor ids of calls.

Note: the server may be lost at any time.  Reasoning that only another node has is missed then, and nothing else
changes.  How much the server keeps is its own `maxmemory`; here a turn lives an hour after its last use.
"""

import asyncio
import hmac
import re
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from headgate.net.redis import Redis, RedisError, Reply, parsed
from headgate.reasoning import cache, kept_turns
from headgate.reasoning.cache import DEFAULT_TTL_S, MAX_TURN_BYTES, ReasoningCache

PREFIX = b"headgate:1:"  # the version of what is stored
TTL_S = int(DEFAULT_TTL_S + DEFAULT_TTL_S / cache.USE_IS_NEWS)  # use is reported that late
MAX_ALIKE = 16  # turns that are read after the same words
MAX_HANDLES = 512  # that one request asks for, the latest
MAX_TURNS = 512  # that one request reads
MAX_BYTES = 16 * MAX_TURN_BYTES  # of them
AT_A_TIME = 32  # turns of one round trip
MAX_UNSETTLED = 10_000  # answers; then nobody has waited for them for long
RETRY_S = (0.5, 1.0, 2.0, 5.0)  # between attempts to connect
LOOK_S = 0.5  # how often a lost connection is noticed

_encode = msgspec.msgpack.Encoder().encode
_HEADER = {"alg": "dir", "enc": "A256GCM"}
_NAME = re.compile(rb"[0-9a-f]{16}")


class SharedReasoning:
    """What one edge asks the cache of all nodes."""

    def __init__(
        self, url: str, secret: bytes, memory: ReasoningCache, report: Callable[[str], None]
    ) -> None:
        """`report` is given a line when the server goes away and when it is back."""
        # Imported here, as an edge without a cache needs neither the code nor its memory.
        from joserfc import errors, jwe, jwk

        self._jwe, self._jwk = jwe, jwk
        self._registry = jwe.JWERegistry(algorithms=[*_HEADER.values()])
        self._registry.max_ciphertext_length = (
            4 * MAX_TURN_BYTES
        )  # its own is for tokens in headers
        self._not_ours = (errors.JoseError, ValueError)
        self._redis = Redis(parsed(url))
        self._memory = memory
        self._report = report
        self._secret = secret
        self._unsettled: list[asyncio.Future[Reply]] = []
        self._away = False

    async def work(self) -> float:
        """Keep the connection; RedisError."""
        try:
            await self._redis.connect()
        except RedisError as error:
            if not self._away:
                self._away = True
                self._report(f"the reasoning cache of all nodes is away: {error}")
            raise
        if self._away:
            self._away = False
            self._report("the reasoning cache of all nodes is back.")
        return LOOK_S

    def kept(self, name: str, data: bytes) -> None:
        """Write a turn that this edge has kept, or whose use it has seen; nothing waits for it here."""
        handles = kept_turns.handles(data)
        key_id, named = handles[0][0], name.encode()
        sealed = self._sealed(key_id, named, data)
        ttl_s = str(TTL_S).encode()
        commands = [[b"SET", PREFIX + b"t:" + named, sealed, b"EX", ttl_s]]
        when = str(time.time()).encode()
        for _, handle in handles:
            index = self._index(key_id, handle)
            commands += (
                [b"ZADD", index, when, named],
                [b"ZREMRANGEBYRANK", index, b"0", str(-cache.MAX_ALIKE - 1).encode()],
                [b"EXPIRE", index, ttl_s],
            )
        if len(self._unsettled) > MAX_UNSETTLED:
            self._unsettled.clear()
        self._unsettled += self._redis.send(commands)

    def used(self, names: Iterable[str]) -> None:
        """Keep turns for longer: they are written anew."""
        for name in names:
            data = self._memory.packed(name)
            if data is not None:
                self.kept(name, data)

    @property
    def unsettled(self) -> bool:
        """Whether something was written that the server has not confirmed."""
        return bool(self._unsettled)

    async def settle(self) -> None:
        """Wait until the server has what was written, or is given up."""
        futures, self._unsettled = self._unsettled, []
        await self._redis.answers(futures)

    async def fetch(self, key_id: str, missed: Sequence[str | bytes]) -> int | None:
        """Take in the turns of these handles that this edge does not have; how many, None: nobody knows."""
        handles = list(dict.fromkeys(missed))[-MAX_HANDLES:]
        most = str(MAX_ALIKE - 1).encode()
        asks = [[b"ZREVRANGE", self._index(key_id, handle), b"0", most] for handle in handles]
        found = await self._redis.ask(asks)
        if found is None:
            return None
        names: dict[bytes, None] = {}
        for reply in found:
            for name in reversed(reply) if isinstance(reply, list) else ():
                if isinstance(name, bytes) and _NAME.fullmatch(name):
                    names[name] = None
        wanted = [name for name in names if not self._memory.knows(name.decode())][-MAX_TURNS:]
        taken = size = 0
        for at in range(0, len(wanted), AT_A_TIME):
            some = wanted[at : at + AT_A_TIME]
            answer = await self._redis.ask([[b"MGET", *(PREFIX + b"t:" + name for name in some)]])
            if answer is None:
                return None
            values = answer[0] if isinstance(answer[0], list) else []
            for name, sealed in zip(some, values, strict=False):
                if isinstance(sealed, bytes) and (data := self._opened(key_id, name, sealed)):
                    size += len(data)
                    taken += self._memory.take(data, time.monotonic(), key_id)
            if size > MAX_BYTES:
                break
        return taken

    def close(self) -> None:
        self._redis.close()

    # --- encryption: a key for each turn, of the key that made it and its name

    def _key(self, key_id: str, name: bytes) -> Any:  # Any: joserfc's OctKey
        material = hmac.digest(self._secret, b"turn\n%b\n%b" % (key_id.encode(), name), "sha256")
        return self._jwk.OctKey.import_key(material)

    def _sealed(self, key_id: str, name: bytes, data: bytes) -> bytes:
        key = self._key(key_id, name)
        return self._jwe.encrypt_compact(_HEADER, data, key, registry=self._registry).encode()

    def _opened(self, key_id: str, name: bytes, sealed: bytes) -> bytes | None:
        """A turn as it was kept; None when it was not written for this key by one of us."""
        try:
            key = self._key(key_id, name)
            return self._jwe.decrypt_compact(sealed, key, registry=self._registry).plaintext
        except self._not_ours:
            return None

    def _index(self, key_id: str, handle: str | bytes) -> bytes:
        stated = _encode((key_id, handle))
        return (
            PREFIX + b"i:" + blake2b(stated, key=self._secret, digest_size=16).hexdigest().encode()
        )
