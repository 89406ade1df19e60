"""Upstreams' bytes to events: what the decoders of all dialects share."""

from contextlib import suppress

import msgspec

from headgate import jsontext
from headgate.bounds import WHOLE_BYTES, reply_too_large
from headgate.chat import Event
from headgate.dialects.capabilities import Capabilities
from headgate.errors import Failure
from headgate.stream import sse
from headgate.stream.framing import Framer
from headgate.stream.thinking import TagSplitter


class Decoder:
    """Turns the bytes of one upstream reply into events; a subclass reads one payload at a time.

    `media` is the reply's content type without parameters: an upstream may answer a stream
    request with one JSON body, and the other way round.  Once an event of the end (Finish or
    Failed) was given, further bytes are ignored.
    """

    def __init__(self, media: str, seed: str = "") -> None:
        self.framer = Framer(seed)
        self._whole = None if media == "text/event-stream" else bytearray()
        self._reader = sse.EventReader()
        self._tags: TagSplitter | None = None  # of the text that `say` reads

    def feed(self, data: bytes) -> list[Event]:
        if self.framer.ended:
            return []
        if self._whole is not None:
            self._whole += data
            if len(self._whole) > WHOLE_BYTES.most:
                self._whole.clear()
                self.framer.fail(reply_too_large(WHOLE_BYTES))
            return self.framer.take()
        try:
            payloads = self._reader.feed(data)
        except sse.EventTooLarge as error:
            self.framer.fail(Failure("upstream", f"The upstream sent {error}."))
            return self.framer.take()
        framer = self.framer
        try:
            for payload in payloads:
                if framer.ended:
                    break
                self._payload(payload)
        except (ValueError, msgspec.MsgspecError) as error:
            self._unreadable(error)
        return framer.take()

    def close(self) -> list[Event]:
        """The upstream closed: the rest, and Failed when there was no end."""
        if not self.framer.ended:
            if self._whole is not None:
                try:
                    self._read_whole()
                except (ValueError, msgspec.MsgspecError) as error:
                    self._unreadable(error)
            else:
                for payload in self._reader.close():
                    self._read(payload)
                if not self.framer.ended:
                    self.eof()
        if not self.framer.ended:
            self.framer.fail(
                Failure("upstream", "The upstream closed the stream before the reply was finished.")
            )
        return self.framer.take()

    def say(self, piece: str) -> None:
        """A piece of text, whose thinking tags are taken out."""
        tags = self._tags
        if tags is None:
            if not piece:
                return
            tags = self._tags = TagSplitter()
        if tags.plain(piece):
            self.framer.text(piece)
            return
        thinking, text = tags.feed(piece)
        self.framer.thinking(thinking)
        self.framer.text(text)

    def end_text(self) -> None:
        """The text so far is complete: what was held back of it is emitted; tags may begin the next."""
        if self._tags is not None:
            thinking, text = self._tags.close()
            self._tags = None
            self.framer.thinking(thinking)
            self.framer.text(text)

    def _read_whole(self) -> None:
        assert self._whole is not None
        body = bytes(self._whole)
        self._whole.clear()
        if not jsontext.within(body, jsontext.most_values(len(body))):
            self.framer.fail(jsontext.garbage("more JSON values than a reply has"))
            return
        unread: Exception | None = None
        try:
            self.whole(body)
        except (ValueError, msgspec.MsgspecError) as error:
            unread = error
        if unread is None and self._answered():
            return
        again = self.mended(body, True)
        if again is not None:
            other = type(self)(Capabilities(), "application/json", self.framer.seed)  # type: ignore[call-arg, arg-type]  # as subclasses have it
            with suppress(ValueError, msgspec.MsgspecError):
                other.whole(again)
            if other._answered():
                self.framer, unread = other.framer, None
        if unread is not None:
            raise unread

    def _answered(self) -> bool:
        """Whether the reply had a part, or a failure that the upstream reported itself."""
        failure = self.framer.failure
        return bool(self.framer.parts) if failure is None else not jsontext.is_garbage(failure)

    def _read(self, payload: bytes) -> None:
        if self.framer.ended:
            return
        try:
            self._payload(payload)
        except (ValueError, msgspec.MsgspecError) as error:
            self._unreadable(error)

    def _payload(self, payload: bytes) -> None:
        """Read the data of one event, with other types than its protocol's if it must."""
        try:
            self.payload(payload)
        except (ValueError, msgspec.MsgspecError):
            again = self.mended(payload, False)
            if again is None:
                raise
            self.payload(again)

    def _unreadable(self, error: Exception) -> None:
        self.framer.fail(
            Failure(
                "upstream", f"The upstream's answer could not be read ({type(error).__name__})."
            )
        )

    def mended(self, body: bytes, whole: bool) -> bytes | None:
        """Return a reply (or, unless `whole`, the data of an event) in the types of the protocol; None: it is lost."""
        return None

    def payload(self, payload: bytes) -> None:
        """Read the data of one server-sent event; ValueError when it cannot be read."""
        raise NotImplementedError

    def whole(self, body: bytes) -> None:
        """Read a reply that came as one JSON body; ValueError when it cannot be read."""
        raise NotImplementedError

    def eof(self) -> None:
        """The stream ended; a dialect whose finish is known by now calls framer.finish."""
