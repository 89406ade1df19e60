"""Counting: what a request is made of, an estimate that learns and stays in bounds, the template."""

import json
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.catalog import chat_template, counting
from headgate.catalog.counting import LEAST, MOST, Features, Learner, features
from headgate.chat import Media, Message, Request, Text, Thinking, Tool, ToolCall, ToolResult

PROSE = "The quick brown fox jumps over the lazy dog, and nobody was surprised. " * 20


def of_text(text: str) -> Features:
    return features(Request("m", (Message("user", (Text(text),)),)))


# --- features --------------------------------------------------------------------------------


def test_prose_has_about_four_characters_a_token_and_chinese_about_two() -> None:
    assert Learner().estimate(of_text(PROSE)) == len(PROSE) / 4 + 4 + 3
    assert Learner().estimate(of_text("你好" * 17)) == 20 + 4 + 3
    assert counting.of_counts(400, 17) == 110


@pytest.mark.parametrize(
    ("text", "ascii", "cjk", "other"),
    [
        ("", 0, 0, 0),
        ("plain", 5, 0, 0),
        ("café – “so”", 7, 0, 4),
        ("你好, 世界。", 2, 5, 0),
        ("カタカナ한글ｆｕ", 0, 8, 0),
        ("привет 👋", 1, 0, 7),
        ("𠀀𠀁", 0, 2, 0),
        ("\ud800x", 1, 0, 1),
    ],
)
def test_every_character_is_of_one_kind(text: str, ascii: int, cjk: int, other: int) -> None:
    found = of_text(text)
    assert (found.ascii, found.cjk, found.other) == (ascii, cjk, other)


@given(st.text())
def test_no_character_is_lost_or_counted_twice(text: str) -> None:
    found = of_text(text)
    assert found.ascii + found.cjk + found.other == len(text)
    assert found.ascii == sum(c.isascii() for c in text)


def test_every_part_of_a_request_counts() -> None:
    def cost(*parts: object, **fields: object) -> int:
        message = Message("user", parts)  # type: ignore[arg-type]
        return Learner().estimate(features(Request("m", (message,), **fields)))  # type: ignore[arg-type]

    nothing = cost()
    assert 0 < nothing < 20
    for parts in (
        [Text(PROSE)],
        [Thinking(PROSE)],
        [ToolCall("id", "f", PROSE)],
        [ToolCall("id", "f", "好" * 1000)],
        [ToolResult("id", (Text(PROSE),))],
        [ToolResult("id", (Media("image", data="AAAA"),))],
        [Media("image", url="https://example.com/cat.png")],
    ):
        assert cost(*parts) > nothing + 300, parts
    assert cost(tools=(Tool("f", PROSE),)) > nothing + 300
    long = msgspec.Raw(msgspec.json.encode({"description": PROSE}))
    assert cost(tools=(Tool("f", parameters=long),)) > nothing + 300
    assert cost(Media("image", data="A" * 1_000_000)) == cost(Media("image", data="A"))


# --- the learner -----------------------------------------------------------------------------

START = (1 / 4, 1 / 1.7, 1 / 1.7, 1 / 3.5, 4.0, 512.0, 3.0)
some_features = st.builds(
    Features,
    ascii=st.integers(0, 400_000),
    cjk=st.just(0) | st.integers(0, 100_000),
    other=st.just(0) | st.integers(0, 5_000),
    json=st.just(0) | st.integers(0, 100_000),
    messages=st.integers(1, 400),
    images=st.just(0) | st.integers(0, 8),
)


def tokens(f: Features, weights: tuple[float, ...]) -> float:
    x = (f.ascii, f.cjk, f.other, f.json, f.messages, f.images, 1)
    return sum(n * start * weight for n, start, weight in zip(x, START, weights, strict=True))


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(some_features, st.integers(-(10**9), 10**9) | st.integers(0, 200_000)),
        max_size=40,
    ),
    some_features,
)
def test_whatever_is_reported_an_estimate_is_never_negative_or_wild(
    reports: list[tuple[Features, int]], asked: Features
) -> None:
    learner = Learner()
    for known, reported in reports:
        learner.learn(known, reported)
    found = learner.estimate(asked)
    assert found >= 1
    assert tokens(asked, LEAST) - 1 <= found <= tokens(asked, MOST) + 1


truth = st.tuples(
    *[st.floats(0.5, 2.0)] * 4, st.floats(0.0, 4.0), st.floats(0.25, 4.0), st.floats(0.0, 150.0)
)


@settings(max_examples=40, deadline=None)
@given(truth, st.integers(0, 2**32), st.booleans())
def test_it_comes_close_to_what_is_reported_also_when_a_tenth_of_it_is_nonsense(
    weights: tuple[float, ...], seed: int, lies: bool
) -> None:
    """Within 5 % in the mean of fresh requests, from up to 100 % at the start; with lies, 20 %."""
    draw = random.Random(seed)

    def request() -> Features:
        mostly = draw.choice(("ascii", "cjk", "json", "mixed"))
        size = int(10 ** draw.uniform(2.5, 5.5))

        def part(kind: str) -> int:
            return size if mostly == kind else int(size * draw.random() * (mostly == "mixed"))

        return Features(
            part("ascii"),
            part("cjk"),
            part("other"),
            part("json"),
            draw.randint(1, 60),
            draw.choice((0, 0, 0, 2)),
        )

    learner = Learner()
    for n in range(200):
        f = request()
        reported = tokens(f, weights) * draw.gauss(1, 0.03)
        if lies and n % 10 == 3:
            reported *= draw.uniform(0.1, 10)
        learner.learn(f, round(reported))
    errors = []
    for _ in range(50):
        f = request()
        right = tokens(f, weights)
        errors.append(abs(learner.estimate(f) - right) / right)
    assert sum(errors) / len(errors) < (0.2 if lies else 0.05)


def test_a_growing_conversation_is_estimated_well_after_a_few_turns() -> None:
    """The same prefix in each report, as agents have it: nothing but sums can be learned."""
    learner = Learner()
    for turn in range(1, 12):
        f = Features(ascii=24_000 + 3_000 * turn, json=30_000, messages=2 * turn)
        right = round(f.ascii / 3.1 + f.json / 4.6 + f.messages * 9 + 140)
        if turn > 6:
            assert learner.estimate(f) == pytest.approx(right, rel=0.05)
        learner.learn(f, right)


@pytest.mark.parametrize("reported", [0, -5, 3, 10**9])
def test_a_report_that_no_vocabulary_explains_teaches_nothing(reported: int) -> None:
    learner, f = Learner(), of_text(PROSE)
    before = learner.estimate(f)
    for _ in range(100):
        learner.learn(f, reported)
    assert learner.estimate(f) == before
    assert learner.lessons == 0


def test_what_was_learned_long_ago_is_unlearned() -> None:
    learner, f = Learner(), of_text(PROSE * 10)
    for _ in range(2000):
        learner.learn(f, 4000)
    assert learner.estimate(f) == pytest.approx(4000, rel=0.02)
    for _ in range(200):
        learner.learn(f, 2500)
    assert learner.estimate(f) == pytest.approx(2500, rel=0.05)


# --- the template ----------------------------------------------------------------------------


def test_a_conversation_is_written_as_the_models_read_it() -> None:
    request = Request(
        "m",
        (
            Message("system", (Text("Be brief."),)),
            Message("user", (Text("Weather?"), Media("image", data="AAAA"))),
            Message("assistant", (Thinking("hm"), Text("I look."), ToolCall("1", "f", '{"a":1}'))),
            Message("tool", (ToolResult("1", (Text("sunny"),)),)),
        ),
    )
    assert chat_template.written(request) == (
        "]~!b[]~b]system\nBe brief.[e~[\n"
        "]~b]user\nWeather?[e~[\n"
        "]~b]ai\n<think>\nhm\n</think>\n\nI look.\n"
        '<minimax:tool_call>\n<invoke name="f">\n{"a":1}\n</invoke>\n</minimax:tool_call>[e~[\n'
        "]~b]tool\n<response>sunny</response>[e~[\n"
        "]~b]ai\n<think>\n"
    )
    tool = Tool("f", "Finds.", msgspec.Raw(b'{"type":"object"}'))
    asked = chat_template.written(msgspec.structs.replace(request, tools=(tool,)))
    line = '<tool>{"name":"f","description":"Finds.","parameters":{"type":"object"}}</tool>\n'
    assert line in asked


# --- texts that are JSON still -----------------------------------------------------------------


def _request_of(texts: list[str], escaped: bool) -> Request:
    parts = [Text(msgspec.Raw(json.dumps(t, ensure_ascii=escaped).encode())) for t in texts]
    return Request("m", tuple(Message("user", (part,)) for part in parts))


MIXED = [
    "def f():\n    return 'a'\n" * 400,
    "用中文写的很长的说明。" * 300,
    "Über größere Maße\n" * 500,
]


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("texts", [MIXED * 4, MIXED[:1] * 40, MIXED[1:2] * 40, ["a\n"] * 40_000])
def test_a_sample_of_long_texts_is_off_by_less_than_a_tenth(
    texts: list[str], escaped: bool
) -> None:
    exact = Learner().estimate(of_text("".join(texts)))
    request = _request_of(texts, escaped)
    sampled = features(request)
    assert Learner().estimate(msgspec.structs.replace(sampled, messages=1)) == pytest.approx(
        exact, rel=0.1
    )


def test_short_texts_are_counted_exactly_in_any_form() -> None:
    text = 'a\n"b" \\ 中😀'
    assert (
        features(_request_of([text], True)) == features(_request_of([text], False)) == of_text(text)
    )


@settings(deadline=None)
@given(st.text(max_size=200), st.booleans())
def test_the_bound_of_a_text_that_is_json_still_is_no_lower_than_of_the_text(
    text: str, escaped: bool
) -> None:
    plain = Request("m", (Message("user", (Text(text),)),))
    window = 10**9
    assert counting.input_bound(_request_of([text], escaped), window) >= counting.input_bound(
        plain, window
    )
