"""`make house`: the size of each package and the longest file, class and function, as a table for ARCHITECTURE.md."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "headgate"


class Sized(NamedTuple):
    """Something that has a length in lines."""

    lines: int
    name: str
    place: str


def sized(file: Path) -> Iterator[tuple[str, Sized]]:
    """Measure a file, its classes and its functions; the first item says which of the three it is."""
    text = file.read_text(encoding="utf-8")
    place = str(file.relative_to(SOURCE))
    yield "file", Sized(text.count("\n"), place, place)
    for node in ast.walk(ast.parse(text)):
        kind = {
            ast.ClassDef: "class",
            ast.FunctionDef: "function",
            ast.AsyncFunctionDef: "function",
        }
        if type(node) in kind:
            assert isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield kind[type(node)], Sized(lines, node.name, f"{place}:{node.lineno}")


def main() -> None:
    """Print the packages, then the longest of each kind."""
    packages: dict[str, list[int]] = {}
    longest: dict[str, list[Sized]] = {"file": [], "class": [], "function": []}
    for file in sorted(SOURCE.rglob("*.py")):
        parts = file.relative_to(SOURCE).parts
        package = parts[0] if len(parts) > 1 else "(top)"
        for kind, found in sized(file):
            longest[kind].append(found)
            if kind == "file" and found.lines:
                packages.setdefault(package, []).append(found.lines)
    print("| package | files | lines | longest file |")
    print("|---|---|---|---|")
    for package, lines in sorted(packages.items()):
        print(f"| {package} | {len(lines)} | {sum(lines)} | {max(lines)} |")
    total = [lines for each in packages.values() for lines in each]
    print(f"| all | {len(total)} | {sum(total)} | {max(total)} |")
    print()
    for kind, found in longest.items():
        first = ", ".join(
            f"{s.name} {s.lines} ({s.place})" for s in sorted(found, reverse=True)[:3]
        )
        print(f"- longest {kind}: {first}")


if __name__ == "__main__":
    main()
