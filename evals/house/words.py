"""`make words`: the source and what users read use the field's standard words, in whole sentences.

It fails on the retired words below, in names and in text, on docstrings whose first sentence has no
verb, and on a reference to a document that is not in this repository.  Run it with file names to
check only those.  `make check` runs it as well.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Retired names -> what to write instead.  They match a whole word of an identifier: `open_mark`, `OpenMark`.
NAMES = {
    "booking": "exchange record",
    "books": "reports, ledger",
    "capsule": "sealed reasoning",
    "capsules": "sealed reasoning",
    "checkup": "diagnostics",
    "desk": "console context",
    "door": "credential source",
    "keepers": "collector",
    "payer": "owner",
    "purse": "budget",
    "said": "reported, requested, sent",
    "salvage": "tool-call recovery",
    "says": "reports, states",
    "sheets": "csv export",
    "shot": "probe result",
    "sister": "other region",
    "tell": "report, show",
    "told": "reported, shown",
}
WHOLE_NAMES = {
    "Gate": "EdgeContext",
    "Visit": "RequestContext",
    "boot": "instance_id",
    "on_hang_up": "on_disconnect",
    "open_mark": "intents",
}
# Retired phrases of comments, docstrings, messages, pages and documents.
PHRASES = {
    r"\bwhat will surprise\b": "Note:",
    r"\b(?:is|are|was|were|be|been|being|gets?|as) (?:told|said)\b": "reported, shown, sent",
    r"\bfor ever\b": "permanently, forever; `0 = keep forever`",
    r"\bhangs? up\b|\bhung up\b|\bhang-ups?\b": "disconnects",
    r"\bself-hosted gate\b(?!way)": "self-hosted gateway",
    r"\bthe books\b": "the ledger",
    r"\bhear(?:s|d)? (?:it|them) (?:to the end|out)\b": "finish and bill",
    r"\bnobody (?:asks|waits|reads|looks)\b": "name the subject",
    r"\bis no duration\b": "invalid duration",
    r"\bon trial\b": "half-open",
    r"\bcapsules?\b": "sealed reasoning",
    r"\bsalvaged\b": "recovered",
}
# Places that are right all the same: what is quoted, compatible, or a name of its own.
ALLOWED = (
    "--on-hang-up",  # the old option, which is refused with the new name
    "on_hang_up",
    'derived("capsules")',  # texts that keys are derived from: another text would be another key
    "headgate capsule v1",
)
DOCUMENTS = re.compile(
    r"\b(?:promises|protocols|clients|lessons|ecosystem|minimax-now|field-cases|wording|architecture)\.md\b"
)
VERBS = frozenset((Path(__file__).parent / "verbs.txt").read_text().split())


def files() -> list[Path]:
    """Return everything that is checked: source, evals, tests' support, pages and documents."""
    found = [
        *ROOT.glob("src/**/*.py"),
        *ROOT.glob("evals/**/*.py"),
        *ROOT.glob("tests/support/*.py"),
    ]
    found += [*ROOT.glob("src/**/*.html"), *ROOT.glob("src/**/*.md"), *ROOT.glob("docs/*.md")]
    found += [*ROOT.glob("*.md"), ROOT / "Makefile"]
    return sorted(f for f in found if "vendor" not in f.name.lower() and f != Path(__file__))


def words_of(identifier: str) -> list[str]:
    """Split `OpenMark` and `open_mark` into `open`, `mark`."""
    return [w.lower() for w in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", identifier)]


def in_names(file: Path, text: str) -> Iterator[str]:
    """Find retired words in the identifiers of a Python file."""
    seen: set[str] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.NAME or token.string in seen:
            continue
        seen.add(token.string)
        retired = WHOLE_NAMES.get(token.string) or next(
            (NAMES[w] for w in words_of(token.string) if w in NAMES), ""
        )
        if retired:
            yield f"{file}:{token.start[0]}: the name `{token.string}`: write {retired}"


def in_text(file: Path, text: str) -> Iterator[str]:
    """Find retired phrases and references to documents that are not in the repository."""
    here = {p.name for p in (ROOT / "docs").glob("*.md")}
    for number, line in enumerate(text.splitlines(), 1):
        for allowed in ALLOWED:
            line = line.replace(allowed, "")
        for phrase, instead in PHRASES.items():
            if found := re.search(phrase, line, re.IGNORECASE):
                yield f"{file}:{number}: `{found[0]}`: write {instead}"
        for found in DOCUMENTS.finditer(line):
            if found[0] not in here:
                yield f"{file}:{number}: {found[0]} is not in this repository: state the reason"


def without_verb(file: Path, text: str) -> Iterator[str]:
    """Find docstrings whose first sentence has no verb."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            continue
        docstring = ast.get_docstring(node)
        if not docstring:
            continue
        first = re.split(r"(?<=[.;])\s|\n\n", docstring, maxsplit=1)[0]
        if not VERBS.intersection(re.findall(r"[a-z]+", first.lower())):
            line = 1 if isinstance(node, ast.Module) else node.lineno
            yield f"{file}:{line}: a docstring without a verb: {first[:70]!r}"


def check(file: Path) -> list[str]:
    """Check one file."""
    text = file.read_text(encoding="utf-8")
    name = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    found = list(in_text(name, text))
    if file.suffix == ".py":
        found += [*in_names(name, text), *without_verb(name, text)]
    return found


def main() -> int:
    """Print what is wrong and how much; the exit code is 1 if anything is."""
    given = [Path(a).resolve() for a in sys.argv[1:]]
    found = [line for file in given or files() for line in check(file)]
    print("\n".join(found))
    print(f"words: {len(found)} to change" if found else "words: all plain")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
