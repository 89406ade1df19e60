"""Stop sequences: found where an engine would find them, however the text was cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.stream.stops import StopScanner

LETTERS = st.text("ab", max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4)


def scan(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    scanner = StopScanner(stops)
    shown, hit = "", None
    for piece in pieces:
        text, hit = scanner.feed(piece)
        shown += text
    return shown + scanner.close(), hit


def by_definition(stops: list[str], text: str) -> tuple[str, str | None]:
    """Character by character, as an engine looks: slow, and plainly right."""
    for end in range(1, len(text) + 1):
        complete = [s for s in stops if text[:end].endswith(s)]
        if complete:
            hit = max(complete, key=len)
            return text[: end - len(hit)], hit
    return text, None


@pytest.mark.parametrize(
    ("stops", "text", "shown", "hit"),
    [
        (["END"], "one END two", "one ", "END"),
        (["END"], "one EN", "one EN", None),
        (["END"], "END", "", "END"),
        (["b", "a"], "xab", "x", "a"),  # the first in the text, not in the list
        (["ab", "abc"], "abc", "", "ab"),  # complete first
        (["bc", "abc"], "xabc", "x", "abc"),  # complete at once: the longest
        (["abcd", "bc"], "abcd", "a", "bc"),
        (["\n\n"], "a\n\nb", "a", "\n\n"),
        (["é🙂"], "caf é🙂!", "caf ", "é🙂"),
        (["", "x"], "abx", "ab", "x"),  # an empty one stops nothing
    ],
)
def test_a_text_ends_before_its_first_stop(
    stops: list[str], text: str, shown: str, hit: str | None
) -> None:
    assert scan(stops, [text]) == (shown, hit)
    assert scan(stops, list(text)) == (shown, hit)


@given(STOPS, st.lists(LETTERS, max_size=6))
def test_how_a_text_is_cut_changes_nothing(stops: list[str], pieces: list[str]) -> None:
    assert scan(stops, pieces) == by_definition(stops, "".join(pieces))


@given(STOPS, LETTERS)
def test_only_what_may_begin_a_stop_is_held_back(stops: list[str], text: str) -> None:
    scanner = StopScanner(stops)
    shown, hit = scanner.feed(text)
    held = scanner.close()
    if hit is None:
        assert shown + held == text
        assert not held or any(s.startswith(held) and s != held for s in stops)


def test_text_that_begins_no_stop_passes_at_once() -> None:
    scanner = StopScanner(["STOP"])
    assert scanner.feed("Hello S") == ("Hello ", None)
    assert scanner.feed("un") == ("Sun", None)


def test_nothing_comes_after_a_hit() -> None:
    scanner = StopScanner(["x"])
    assert scanner.feed("axb") == ("a", "x")
    assert scanner.feed("more") == ("", "x")
    assert scanner.close() == ""
