"""How the statements of SQLite are written."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import headgate

SQLITE = sorted((Path(headgate.__file__).parent / "storage" / "sqlite").glob("*.py"))
RUN = (
    "execute",
    "_all",
    "_changed",
)  # `executemany` writes hundreds of rows that are in order already


def text_of(node: ast.expr) -> str:
    """What is known of a text; an expression inside stands as a blank."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) for value in node.values)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return " "


def statements(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in RUN
            and node.args
        ):
            yield node.lineno, text_of(node.args[0])


def by_position(statement: str) -> bool:
    """Whether a statement has several values and gives them by their places."""
    return statement.count("?") > 1 or re.search(r"\?\d", statement) is not None


@pytest.mark.parametrize("path", SQLITE, ids=lambda path: path.stem)
def test_a_statement_of_several_values_has_them_by_name(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert [(line, text) for line, text in statements(tree) if by_position(text)] == []


def test_a_statement_with_places_would_be_seen() -> None:
    for text in ('"a = ? and b = ?"', '"a = ?1 or " + "b = ?1"', 'f"{x} = ?, {y} = ?"'):
        found = list(statements(ast.parse(f"db.execute({text}, values)")))
        assert len(found) == 1 and by_position(found[0][1])
