"""No loop over input hides a second loop: what makes work quadratic is not written in these packages.

Read from the syntax trees of dialects/, stream/, policy/ and net/, and of the memory of reasoning.  Inside of a
loop, a comprehension or a private function these are found:

    x in found                     where `found` was made as a list or a tuple
    found.remove(x), .index(x), .insert(0, x), .pop(0), del found[0]
    text += piece                  where `text` was made as a text, bytes or a tuple
    found = (*found, x)            and `found = found + (x,)`

Note: names are judged by how their function makes or annotates them, attributes by their class.
A place that is right all the same is in ALLOWED, with its reason.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "headgate"
PACKAGES = ("dialects", "stream", "policy", "net")
FILES = [
    *sorted(file for name in PACKAGES for file in (SOURCE / name).rglob("*.py")),
    *(
        SOURCE / name
        for name in (
            "bounds.py",
            "jsontext.py",
            "reasoning/cache.py",
            "catalog/counting.py",
            "chat.py",
        )
    ),
]

# "file:function: what": why it is right.
ALLOWED: dict[str, str] = {
    "net/chunks.py:Chunks.feed: self._line +=": "a line of at most 8 KiB, bounded before it grows",
    "net/server.py:Server._listen_again: self._listeners.remove": "the listeners, of which there are two",
    "policy/fit.py:_format_instruction: text +=": "once for a request",
    "dialects/anthropic/models.py:_page: in ids": "the catalog's models, once for a request",
    "dialects/anthropic/models.py:_page: ids.index": "the catalog's models, once for a request",
    "stream/translate.py:Translator._pass: events = events + ...": "one held event, once for a reply",
}

_SEQUENCES = ("list", "tuple", "Sequence", "List", "Tuple")
_TEXTS = ("str", "bytes")
_LOOPS = (
    ast.For,
    ast.While,
    ast.AsyncFor,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)
_SCANS = ("remove", "index")
_FEW = 8  # entries of a literal that may be looked through


def _kind_of_annotation(annotation: ast.expr | None) -> str:
    if annotation is None:
        return ""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):  # list[str] | None
        return _kind_of_annotation(annotation.left) or _kind_of_annotation(annotation.right)
    name = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    word = (
        name.id
        if isinstance(name, ast.Name)
        else name.attr
        if isinstance(name, ast.Attribute)
        else ""
    )
    if word in ("tuple", "Tuple"):
        return "tuple"
    return "sequence" if word in _SEQUENCES else "text" if word in _TEXTS else ""


def _kind_of_value(value: ast.expr | None) -> str:
    match value:
        case ast.Tuple(elts):
            return (
                "tuple"
                if len(elts) > _FEW or any(isinstance(e, ast.Starred) for e in elts) or not elts
                else "few"
            )
        case ast.List() | ast.ListComp():
            return "sequence"
        case ast.Constant(value=str() | bytes()) | ast.JoinedStr():
            return "text"
        case ast.Call(func=ast.Name(id="list" | "sorted")):
            return "sequence"
        case ast.Call(func=ast.Name(id="tuple")):
            return "tuple"
    return ""


class _Kinds(ast.NodeVisitor):
    """The kinds of the names of one function, or of the attributes of one class."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def visit_arg(self, node: ast.arg) -> None:
        self._add(node.arg, _kind_of_annotation(node.annotation))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        kind = _kind_of_annotation(node.annotation)
        self._add(_path(node.target), kind or _kind_of_value(node.value))

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for each, value in zip(target.elts, node.value.elts, strict=False):
                    self._add(_path(each), _kind_of_value(value))
            else:
                self._add(_path(target), _kind_of_value(node.value))
        self.generic_visit(node)

    def _add(self, name: str, kind: str) -> None:
        if name and kind:
            self.names.setdefault(name, kind)


def _path(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.AST, dict[str, str]]]:
    """Each function with its name and the kinds of what it can see."""
    module = _Kinds()
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            module.visit(statement)
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            own = _Kinds()
            own.visit(statement)
            fields = {f"self.{n}": k for n, k in own.names.items() if "." not in n}
            attributes = fields | {n: k for n, k in own.names.items() if n.startswith("self.")}
            for inner in statement.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{statement.name}.{inner.name}", inner, module.names | attributes
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement.name, statement, module.names


def _inside(function: ast.AST) -> Iterator[ast.AST]:
    """What runs once for each round of a loop of this function."""
    for node in ast.walk(function):
        if isinstance(node, _LOOPS):
            heads: list[ast.AST] = []
            if isinstance(node, ast.For | ast.AsyncFor):
                heads = [node.iter]
            elif not isinstance(node, ast.While):
                heads = [node.generators[0].iter]
            skipped = {id(each) for head in heads for each in ast.walk(head)}
            for each in ast.walk(node):
                if each is not node and id(each) not in skipped:
                    yield each


def faults(source: str) -> list[str]:
    """The quadratic places of a module: "function: what"."""
    found: dict[str, None] = {}
    for name, function, outer in _functions(ast.parse(source)):
        kinds = _Kinds()
        kinds.visit(function)
        known = outer | kinds.names
        # A private function is nearly always called from a loop over the input.
        private = name.rpartition(".")[2].startswith("_") and not name.endswith("__")
        for node in ast.walk(function) if private else _inside(function):
            if what := _fault(node, known):
                found[f"{name}: {what}"] = None
    return list(found)


def _fault(node: ast.AST, kinds: dict[str, str]) -> str:
    slow = ("sequence", "tuple")
    match node:
        case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[right]):
            kind = kinds.get(_path(right)) or _kind_of_value(right)
            if kind in slow:
                return f"in {ast.unparse(right)}"
        case ast.Call(func=ast.Attribute(value=owner, attr=method), args=args):
            kind = kinds.get(_path(owner), "")
            first = bool(args) and isinstance(args[0], ast.Constant) and args[0].value == 0
            if kind in slow and (method in _SCANS or (first and method in ("pop", "insert"))):
                return f"{ast.unparse(owner)}.{method}"
        case ast.Delete(targets=[ast.Subscript(value=owner, slice=ast.Constant(value=0))]):
            if kinds.get(_path(owner)) in slow:
                return f"del {ast.unparse(owner)}[0]"
        case ast.AugAssign(target=target, op=ast.Add(), value=value):
            kind = kinds.get(_path(target)) or ("text" if _kind_of_value(value) == "text" else "")
            if kind in ("text", "tuple", "few"):
                return f"{ast.unparse(target)} +="
        case ast.Assign(targets=[target], value=value) if _path(target):
            name = _path(target)
            copied = isinstance(value, ast.Tuple | ast.List) and any(
                isinstance(e, ast.Starred) and _path(e.value) == name for e in value.elts
            )
            added = (
                isinstance(value, ast.BinOp)
                and isinstance(value.op, ast.Add)
                and _path(value.left) == name
                and (kinds.get(name) in ("text", "tuple", "few", "sequence"))
            )
            if copied or added:
                return f"{name} = {name} + ..."
    return ""


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_no_loop_hides_another(file: Path) -> None:
    place = str(file.relative_to(SOURCE))
    found = [f"{place}:{fault}" for fault in faults(file.read_text())]
    assert [f for f in found if f not in ALLOWED] == []


def test_what_is_allowed_is_still_there() -> None:
    found = {
        f"{file.relative_to(SOURCE)}:{fault}"
        for file in FILES
        for fault in faults(file.read_text())
    }
    assert set(ALLOWED) <= found


@pytest.mark.parametrize(
    "code",
    [
        "def f(xs: list[str]) -> None:\n    seen = []\n    for x in xs:\n        if x in seen: pass",
        "def f(xs, ys: tuple[str, ...]) -> None:\n    return [x for x in xs if x not in ys]",
        "def f(xs):\n    text = ''\n    for x in xs:\n        text += x",
        "def f(xs):\n    out = ()\n    for x in xs:\n        out = (*out, x)",
        "def f(xs):\n    out = ()\n    for x in xs:\n        out += (x,)",
        "def f(xs):\n    out = ()\n    for x in xs:\n        out = out + (x,)",
        "def f(xs: list[int]) -> None:\n    while xs:\n        xs.pop(0)",
        "def f(xs):\n    left = list(xs)\n    for x in xs:\n        left.remove(x)",
        "class A:\n    def __init__(self):\n        self.text = b''\n    def f(self, xs):\n        for x in xs:\n            self.text += x",
        "class A:\n    calls: tuple[str, ...] = ()\n    def f(self, xs):\n        return [x for x in xs if x in self.calls]",
    ],
)
def test_each_kind_is_found(code: str) -> None:
    assert faults(code)


@pytest.mark.parametrize(
    "code",
    [
        "def f(xs):\n    seen = set()\n    return [x for x in xs if x in seen]",
        "def f(xs):\n    return [x for x in xs if x in ('a', 'b')]",
        "def f(xs: list[str]) -> None:\n    for x in [y for y in xs if y]:\n        pass",
        "def f(xs):\n    n = 0\n    for x in xs:\n        n += len(x)",
        "def f(xs):\n    out = []\n    for x in xs:\n        out += [x]",
        "def f(xs: list[str], x) -> None:\n    return x in xs",
    ],
)
def test_what_is_linear_is_left_alone(code: str) -> None:
    assert faults(code) == []
