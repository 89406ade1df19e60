"""CSV (RFC 4180) that a spreadsheet opens without running anything: for the console, the API and the CLI.

The only place that writes a cell.  A text that a spreadsheet may take for a formula gets an apostrophe
before it (owasp.org/www-community/attacks/CSV_Injection, read 2026-11-25); names of keys and sessions are
strangers' texts.  Note: spreadsheets skip white space and quotes before they look, so this does too.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator

# What a formula begins with, also in the wide forms that East Asian input methods write.
_FORMULA = re.compile(r"""[\s"'\ufeff\u200b]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]""")


class Number(str):
    """A number that is written already: money with all its decimals."""

    __slots__ = ()


Cell = str | int | float | None


def cell_text(cell: Cell) -> str:
    """The cell as it is written; a number stays a number, also below zero."""
    if cell is None:
        return ""
    if isinstance(cell, str) and not isinstance(cell, Number) and _FORMULA.match(cell):
        return f"'{cell}"
    return str(cell)


def lines(rows: Iterable[Iterable[Cell]]) -> Iterator[str]:
    """Return each row as a line of CSV."""
    for row in rows:
        out = io.StringIO()
        csv.writer(out).writerow([cell_text(cell) for cell in row])
        yield out.getvalue()
