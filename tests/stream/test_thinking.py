"""Thinking told in odd ways: tags anywhere, snapshots or pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.stream.thinking import Steps, TagSplitter, tagged

# (text as it comes, starts inside, thinking, text)
CASES = {
    "a plain answer": ("Hello", False, "", "Hello"),
    "a leading block": ("<think>\nhm\n</think>\n\nHello", False, "hm", "Hello"),
    "M3's own tags on vLLM": ("<mm:think>hm</mm:think>Hello", False, "hm", "Hello"),
    "a lone closing tag": ("</think>Hello", False, "", "Hello"),
    "a prompt that ended inside the block": ("hm\n</think>\n\nHello", True, "hm", "Hello"),
    "a block that never closes": ("<think>hm", False, "hm", ""),
    "tags inside the answer": ("Use <think> and </think>.", False, "", "Use <think> and </think>."),
    "a second block later": ("<think>a</think>b<think>c</think>", False, "a", "b<think>c</think>"),
    "something like a tag": ("<thin ice", False, "", "<thin ice"),
    "a newline inside": ("<think>\na\n\nb\n</think>\nc", False, "a\n\nb", "c"),
    "nothing": ("", False, "", ""),
}


def split(pieces: list[str], inside: bool) -> tuple[str, str]:
    splitter = TagSplitter(inside)
    out = [splitter.feed(p) for p in pieces] + [splitter.close()]
    return "".join(t for t, _ in out), "".join(x for _, x in out)


@pytest.mark.parametrize("name", CASES)
def test_tags_are_moved_out_wherever_they_are_cut(name: str) -> None:
    said, inside, thinking, text = CASES[name]
    assert split(list(said), inside) == (thinking, text)
    for cut in range(len(said) + 1):
        assert split([said[:cut], said[cut:]], inside) == (thinking, text), cut


def test_a_replayed_block_is_the_same_to_the_byte() -> None:
    for thinking in ("hm", "a\nb", "\nx\n", "<b>"):
        assert split([tagged(thinking) + "Hello"], False) == (thinking, "Hello")


def run(pieces: list[str]) -> str:
    steps = Steps()
    return "".join(steps.feed(p) for p in pieces) + steps.close()


WORDS = st.lists(st.text("abcdefgh <>\n", min_size=1, max_size=12), min_size=3, max_size=12)


@given(WORDS)
def test_pieces_are_left_alone(words: list[str]) -> None:
    words = ["The user wants ", "to know what ", *words]
    assert run(words) == "".join(words)


@given(WORDS)
def test_snapshots_become_pieces(words: list[str]) -> None:
    words = ["The user wants ", *words]
    snapshots = ["".join(words[: n + 1]) for n in range(len(words))]
    assert run(snapshots) == "".join(words)


def test_a_summary_at_the_end_is_not_said_twice() -> None:
    pieces = ["The user ", "wants to ", "know."]
    assert run([*pieces, "".join(pieces)]) == "The user wants to know."


def test_short_pieces_that_begin_alike_are_not_eaten() -> None:
    assert run([" a", " and", " a", " b"]) == " a and a b"


def test_a_summary_after_many_pieces_is_not_said_twice() -> None:
    pieces = [f"{n} words, " for n in range(500)]
    assert (
        run([*pieces, "".join(pieces), "".join(pieces) + "and more"])
        == "".join(pieces) + "and more"
    )


def test_a_piece_between_snapshots_is_kept() -> None:
    assert (
        run(["The user wants", "The user wants to", " know", " it."])
        == "The user wants to know it."
    )


def test_blanks_without_end_are_text() -> None:
    splitter = TagSplitter()
    assert "".join(splitter.feed(" \n")[1] for _ in range(500)) == " \n" * 500
