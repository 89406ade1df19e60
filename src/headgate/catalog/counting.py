"""Token counts without the model: what a request is made of, and an estimate that learns.

The only place that guesses tokens.  MiniMax's vocabulary is its own 200 k BPE and is on no package
index; English runs at about 4.2 characters a token and Chinese at about 1.6 in comparable
vocabularies (measured 2026-11 with o200k).  From these starts a `Learner` follows what upstreams
report, one for each model: a Kalman filter over seven weights, whose errors are cut (Huber) and
whose weights are bounded.  What comes of it is an estimate and is labelled so; it is never used for
a bill that an upstream's own count could make.  One ratio for a model would not do: over conversations in
English, code and Chinese the filter is off by 3 % on average, one learned ratio by 26 %, and the start
values by 31 % (`make estimates`, 2026-12).

Note: what upstreams report has the frame of the chat template in it, and sometimes a
system prompt that nobody sent; both are learned as a sum per request.  One caller's texts teach for
all callers of the model, so somebody who sends noise makes the others' estimates worse, by no more
than the bounds.
"""

import re
from collections.abc import Sequence
from operator import mul

import msgspec

from headgate.chat import Media, Request, Text, Thinking, ToolCall, ToolResult

ASCII_PER_TOKEN = 4.0
OTHER_PER_TOKEN = 1.7
JSON_PER_TOKEN = 3.5
PER_MESSAGE = 4.0
PER_IMAGE = 512.0  # what RunAPI's count_tokens uses (2026-07)
PER_REQUEST = 3.0

# Han, kana, Hangul, their punctuation and full-width forms.
_NOT_CJK = re.compile(
    "[^\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]+"
)


_SLICE = 1 << 16  # characters
_ASCII = bytes(range(128))
_decode_string = msgspec.json.Decoder(str).decode


class Features(msgspec.Struct, frozen=True, gc=False):
    """What a request is made of, in the units that tokens go by."""

    ascii: int = 0  # characters
    cjk: int = 0  # characters
    other: int = 0  # characters
    json: int = 0  # bytes of tools' schemas, ASCII characters of calls' arguments
    messages: int = 0
    images: int = 0  # and videos


def of_counts(ascii_chars: int, other_chars: int) -> int:
    """Tokens of a text of which nothing else is known; never learned."""
    return round(ascii_chars / ASCII_PER_TOKEN + other_chars / OTHER_PER_TOKEN)


# What is added to the bytes of a request's texts for an upper bound of its tokens.  The frames are
# generous: MiniMax's template (chat_template.py) has some 6 tokens around a message, 40 around a call.
BOUND_REQUEST = 1024  # the template's head, its text about tools, a system prompt that nobody sent
BOUND_MESSAGE = 32
BOUND_PART = 32
BOUND_CALL = 96  # and the result that history repair puts in where a client lost it
BOUND_TOOL = 64
BOUND_JSON = 2  # a byte of JSON: templates write it with blanks, or each argument between tags
BOUND_WIDE_JSON = 3  # a byte of JSON with other characters, which templates may write as \uXXXX
BOUND_IMAGE = 16_384  # the most of the vision models that publish it (Qwen2-VL, processor, 2026-11)


class RequestSize(msgspec.Struct, frozen=True, gc=False):
    """The size of a request: what its tokens are estimated from, and what they are surely not above."""

    features: Features
    bound: int  # tokens, but for films
    films: int = 0  # videos by address, each of which may fill the context window

    def bound_within(self, context_window: int) -> int:
        """The most input tokens that the request can have, in whatever form a route sends it.

        A byte-level BPE makes no more tokens than there are bytes of UTF-8.  A video by value counts its
        bytes, one by address all that the model can read.  What is longer than the context window is
        refused by the upstream, so the bound never exceeds it.

        Note: a tokenizer that first normalises by NFKC could make more tokens than bytes of a few rare
        characters; MiniMax's does not normalise.
        """
        most_of_film = max(BOUND_IMAGE, context_window)
        return min(self.bound + self.films * most_of_film, context_window)


def features(request: Request) -> Features:
    return measure(request).features


def input_bound(request: Request, context_window: int) -> int:
    return measure(request).bound_within(context_window)


def measure(request: Request) -> RequestSize:
    """Measure a request in one pass, as a history has many parts."""
    tally = _Tally()
    bound = BOUND_REQUEST + BOUND_MESSAGE * len(request.messages)
    views: list[memoryview] = []  # texts that are JSON still
    for message in request.messages:
        for part in message.parts:
            kind = type(part)
            if kind is ToolResult:
                bound += BOUND_PART
                if part.name:  # type: ignore[union-attr]  # by kind, as all below
                    bound += _bytes(part.name)  # type: ignore[union-attr]
                texts: Sequence[Text | Media] = part.parts  # type: ignore[union-attr]
            elif kind is ToolCall:
                bound += BOUND_CALL + tally.call(part)  # type: ignore[arg-type]
                continue
            elif kind is Thinking:
                bound += BOUND_PART + len(part.signature) + tally.text(part.text)  # type: ignore[union-attr]
                continue
            else:
                texts = (part,)  # type: ignore[assignment]
            for each in texts:
                if type(each) is not Text:
                    bound += tally.media(each)  # type: ignore[arg-type]
                    continue
                source = each.source
                if isinstance(source, str):
                    bound += BOUND_PART + tally.text(source)
                else:
                    view = memoryview(source)
                    bound += BOUND_PART + view.nbytes
                    views.append(view)
    for tool in request.tools:
        bound += BOUND_TOOL + tally.text(tool.name) + tally.text(tool.description)
        schema = bytes(tool.parameters)
        bound += _json_bound(schema)
        tally.json += len(schema)
    if request.format is not None:
        bound += _json_bound(bytes(request.format.schema)) + _bytes(request.format.name)
    tally.sample(views)
    found = Features(
        tally.ascii, tally.cjk, tally.other, tally.json, len(request.messages), tally.images
    )
    return RequestSize(found, bound, tally.films)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _json_bound(json: str | bytes) -> int:
    if json.isascii():
        return BOUND_JSON * len(json)
    return BOUND_WIDE_JSON * (_bytes(json) if isinstance(json, str) else len(json))


# Texts that are JSON still are decoded for the tally up to this size together; of longer ones a sample
# is counted.  A share of 64 slices is off by at most a sixteenth (one standard error, where each slice
# is of one script only), which is less than what characters say about tokens.
EXACT_BYTES = 32 << 10
SLICES, SLICE_BYTES = 64, 256


class _Tally:
    __slots__ = ("ascii", "cjk", "films", "images", "json", "other")

    def __init__(self) -> None:
        self.ascii = self.cjk = self.other = self.json = self.images = self.films = 0

    def text(self, text: str) -> int:
        """Count a text; the most tokens that it can have."""
        if text.isascii():
            size = len(text)
            self.ascii += size
            return size
        self.ascii += self._wide(text)
        return _bytes(text)

    def _wide(self, text: str) -> int:
        """Count what is not ASCII; how much is."""
        plain = len(text.encode("ascii", "ignore"))
        # In slices, as each run of a script is an object while it is looked at.
        cjk = sum(
            len(_NOT_CJK.sub("", text[at : at + _SLICE])) for at in range(0, len(text), _SLICE)
        )
        self.cjk += cjk
        self.other += len(text) - plain - cjk
        return plain

    def call(self, call: ToolCall) -> int:
        """Count a call; the most tokens that it can have, without its frame."""
        name, source, stated = call.name, call.source, call.arguments
        if stated.isascii():
            self.json += len(stated)
            # Of a JSON string, as it may be what is sent; it has no fewer bytes than its text.
            size = len(source) if isinstance(source, str) else memoryview(source).nbytes
            bound = BOUND_JSON * size
        else:
            self.json += self._wide(stated)
            bound = _json_bound(source if isinstance(source, str) else bytes(source))
        return bound + self.text(name)

    def media(self, media: Media) -> int:
        """Count a picture or a film; the most tokens that it can have, but for films by address."""
        self.images += 1
        if media.kind == "image":
            return BOUND_IMAGE
        if media.data:
            return max(BOUND_IMAGE, len(media.data) * 3 // 4)
        self.films += 1
        return 0

    def sample(self, views: Sequence[memoryview]) -> None:
        """Count texts that are JSON still."""
        total = sum([view.nbytes for view in views]) - 2 * len(views)  # without their quotes
        if total <= EXACT_BYTES:
            for view in views:
                self.text(_decode_string(view))
            return
        step = total // SLICES
        slices: list[memoryview] = []
        next_at, begin = step // 2, 0
        for view in views:
            size = view.nbytes - 2
            end = begin + size
            while next_at < end:
                # Whole, or the whole text where it is shorter.
                if size <= SLICE_BYTES:
                    slices.append(view[1 : 1 + size])
                else:
                    at = 1 + min(next_at - begin, size - SLICE_BYTES)
                    slices.append(view[at : at + SLICE_BYTES])
                next_at += step
            begin = end
        sample = b"".join(slices)
        part = _Tally()
        part.json_text(sample)
        self.ascii += part.ascii * total // len(sample)
        self.cjk += part.cjk * total // len(sample)
        self.other += part.other * total // len(sample)

    def json_text(self, sample: bytes) -> None:
        """Count slices of JSON strings, about; what is cut at their ends is left out."""
        if b"\\u" in sample:
            self.text(_plain(sample))
            return
        wide = sample.translate(None, _ASCII)
        # Each escape is one character, of two bytes; an escaped backslash is two of them.
        self.ascii += len(sample) - len(wide) - sample.count(b"\\") + sample.count(b"\\\\")
        if wide:
            self._wide(wide.decode("utf-8", "ignore"))


def _plain(sample: bytes) -> str:
    """Return the text of slices of JSON strings with escapes of characters, about."""
    text = sample.decode("utf-8", "ignore")
    escaped = text.encode("ascii", "backslashreplace")
    text = escaped.decode("raw_unicode_escape", "ignore")
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    return text.replace("\\\\", "\0").replace("\\", "")


# --- the learner -----------------------------------------------------------------------------

# By feature, then one for the request itself: tokens at the start, the least and the most that a
# weight may become, and how unsure the start is; the last three in multiples of the first.  Base64
# has some 1.3 characters a token and a page of blanks 16; images depend on their size; templates
# have up to some hundred tokens that nobody sent.
_START = (
    1 / ASCII_PER_TOKEN,
    1 / OTHER_PER_TOKEN,
    1 / OTHER_PER_TOKEN,
    1 / JSON_PER_TOKEN,
    PER_MESSAGE,
    PER_IMAGE,
    PER_REQUEST,
)
LEAST = (0.25, 0.25, 0.25, 0.25, 0.0, 0.0625, 0.0)
MOST = (4.0, 4.0, 4.0, 4.0, 8.0, 16.0, 200.0)
_SPREAD = (0.4, 0.4, 0.4, 0.4, 1.0, 2.0, 20.0)

_NOISE = 0.05  # of a request's tokens: what weights per character cannot explain
_NOISE_TOKENS = 2.0
_CUT = 2.5  # standard deviations above which an error teaches no more
_DRIFT = 0.004  # of the spread, per lesson: texts change, and the learner must never be quite sure


class Learner:
    """The tokens of one model's requests: estimated, and learned from what was reported."""

    __slots__ = ("_cov", "_weights", "lessons")

    def __init__(self) -> None:
        self.lessons = 0
        self._weights = [1.0] * len(_START)  # multiples of _START
        self._cov = [
            [s * s if i == j else 0.0 for j in range(len(_SPREAD))] for i, s in enumerate(_SPREAD)
        ]

    def estimate(self, features: Features) -> int:
        """Tokens of a request: at first some 20 % off on prose and more on code."""
        return max(1, round(_sum(self._weights, _known(features))))

    def learn(self, features: Features, tokens: int) -> None:
        """Take in what an upstream reported as the input of a request with these features.

        A report that no weights within the bounds could make is no lesson: some upstreams report
        0, or only what was not cached.
        """
        x = _known(features)
        if not _sum(LEAST, x) <= tokens <= _sum(MOST, x):
            return
        self.lessons += 1
        cov, weights = self._cov, self._weights
        self._drift()
        stated = _sum(weights, x)
        gain = [_sum(row, x) for row in cov]
        noise = _NOISE * stated + _NOISE_TOKENS
        variance = max(0.0, _sum(gain, x)) + noise * noise
        error = tokens - stated
        # An error too large to be noise is taken for a noisier report: it moves the weights less,
        # and makes them hardly surer.
        variance *= max(1.0, abs(error) / (_CUT * variance**0.5))
        step = error / variance
        for i, g in enumerate(gain):
            weights[i] = max(LEAST[i], min(MOST[i], weights[i] + g * step))
            row, share = cov[i], g / variance
            for j, h in enumerate(gain):
                row[j] -= share * h

    def _drift(self) -> None:
        """Unlearn a little, up to what was unknown at the start."""
        cov = self._cov
        for i, s in enumerate(_SPREAD):
            most = s * s
            now = cov[i][i] = max(cov[i][i], 0.0) + most * _DRIFT * _DRIFT
            if now > most:  # scaling row and column keeps the matrix a covariance
                factor = (most / now) ** 0.5
                for j in range(len(_SPREAD)):
                    cov[i][j] *= factor
                    cov[j][i] *= factor


def _known(features: Features) -> tuple[float, ...]:
    """The tokens that each feature would be at the start."""
    f = features
    return (
        f.ascii * _START[0],
        f.cjk * _START[1],
        f.other * _START[2],
        f.json * _START[3],
        f.messages * _START[4],
        f.images * _START[5],
        _START[6],
    )


def _sum(weights: list[float] | tuple[float, ...], x: list[float] | tuple[float, ...]) -> float:
    total: float = sum(map(mul, weights, x))
    return total
