"""Imports point one way, protocol code does no I/O, and only the store knows SQL's library.

Read from the syntax trees, so that an import inside a function counts as well.  A new package of
`headgate` fails here until it has a place in LAYERS.
"""

import ast
import importlib
import inspect
import sys
import tomllib
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

from headgate.dialects import registry

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "headgate"

# Each line may import from the lines above it and from itself, not from others on its own line.
LAYERS = [
    {"_version"},  # written by the build
    {"headgate"},  # the version
    {
        "errors",
        "money",
        "tasks",
        "output",
        "csv_export",
        "redaction",
        "near_names",
        "call_loop",
        "utf8",
    },
    {"bounds", "chat"},
    {"jsontext"},
    {"stream"},
    {"dialects"},
    {"reasoning"},
    {"config"},
    {"catalog", "policy"},
    {"storage", "net"},
    {"node", "admin"},
    {"edge", "local", "web"},
    {"diagnostics", "supervisor"},
    {"cli"},
]
DEPTH = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}

PURE = {
    "errors",
    "money",
    "near_names",
    "redaction",
    "utf8",
    "bounds",
    "chat",
    "jsontext",
    "stream",
    "dialects",
    "policy",
}
OUTSIDE = {
    "asyncio",
    "concurrent",
    "http",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "queue",
    "random",
    "secrets",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "urllib",
}

# Libraries that one package hides from the rest.
HIDDEN = {
    "apsw": "storage",
    "asyncpg": "storage",
    "sqlite3": "storage",
    "httptools": "net",
    "click": "cli",
    "jinja2": "web",
    "starlette": "web",
    "uvicorn": "web",
    "argon2": "web",
    "jsonschema_rs": "policy",
    "markdown_it": "web",
}
# `uvloop` is chosen by the command; the local model's engine and the tokenizers are extras.
OPTIONAL = {"xllamacpp", "tokenizers", "asyncpg"}


def modules() -> dict[str, Path]:
    found = {}
    for file in sorted(SOURCE.rglob("*.py")):
        parts = ("headgate", *file.relative_to(SOURCE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def layer(module: str) -> str:
    """`headgate.stream.sse` is in `stream`, and `headgate` itself in `headgate`."""
    return module.split(".")[1] if "." in module else module


def imports(module: str) -> Iterator[str]:
    """Full names of what it imports; a module of ours by its own name, not by what is taken."""
    for node in ast.walk(ast.parse(MODULES[module].read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}:{node.lineno}: imports are written in full"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def ours(module: str) -> Iterator[str]:
    return (name for name in imports(module) if name.split(".")[0] == "headgate")


def theirs(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports(module)} - {"headgate"}


def may_import(importer: str, imported: str) -> bool:
    return importer == imported or DEPTH[imported] < DEPTH[importer]


def test_every_package_has_its_layer() -> None:
    assert {layer(m) for m in MODULES} | {"_version"} == set(DEPTH)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module: str) -> None:
    wrong = [name for name in ours(module) if not may_import(layer(module), layer(name))]
    assert not wrong, f"{module} imports {wrong}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {m: {name for name in ours(m) if name != m} for m in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names them


@pytest.mark.parametrize("module", [m for m in MODULES if layer(m) in PURE])
def test_protocols_and_decisions_do_no_input_or_output(module: str) -> None:
    outside = theirs(module)
    assert not outside & OUTSIDE
    assert outside - set(sys.stdlib_module_names) <= {"msgspec", "jsonschema_rs"}


@pytest.mark.parametrize("module", MODULES)
def test_a_library_stays_in_the_package_that_hides_it(module: str) -> None:
    assert {HIDDEN.get(name, layer(module)) for name in theirs(module)} <= {layer(module)}


def test_every_library_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        line.split(";")[0]
        .split(">")[0]
        .strip()
        .replace("-", "_")
        .removesuffix("_py")
        .removesuffix("_cffi")
        for line in project["dependencies"]
    }
    used = {name for m in MODULES for name in theirs(m)} - set(sys.stdlib_module_names)
    assert used <= declared | OPTIONAL
    assert declared <= used, "a dependency that nothing imports"


PACKAGES = sorted(p.name for p in (SOURCE / "dialects").iterdir() if (p / "__init__.py").exists())
# What each file of a dialect's package has: a function, or a class by the end of its name, and its parameters.
PARTS: dict[str, dict[str, Any]] = {  # Any: parameters, or a type
    "facts": {"FACTS": ()},
    "request": {"request_in": ("body", "target")},
    "reply": {
        "reply_out": ("reply", "request", "facts"),
        "Encoder": ("request", "facts", "target"),
    },
    "upstream": {
        "request_out": ("request", "capabilities", "model", "stream"),
        "Decoder": ("capabilities", "media", "seed"),
    },
    "errors": {"failure_out": ("failure", "request_id")},
    "models": {"models_out": ("cards", "query"), "model_out": ("card",)},
    "dialect": {"Dialect": ()},
}


def required(call: Callable[..., object]) -> tuple[str, ...]:
    parameters = inspect.signature(call).parameters.values()
    return tuple(p.name for p in parameters if p.default is p.empty)


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("part", PARTS)
def test_the_packages_of_dialects_have_the_same_parts(package: str, part: str) -> None:
    module = importlib.import_module(f"headgate.dialects.{package}.{part}")
    own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__}
    for name, parameters in PARTS[part].items():
        if name == "FACTS":
            assert module.FACTS.name == package and registry.FACTS[package] is module.FACTS
        else:
            (found,) = (v for n, v in own.items() if n.endswith(name) and n[0] != "_")
            assert required(found) == parameters


@pytest.mark.parametrize("package", PACKAGES)
def test_no_dialect_imports_another(package: str) -> None:
    home = f"headgate.dialects.{package}"
    inside = [m for m in MODULES if m.startswith(home + ".")]
    others = tuple(f"headgate.dialects.{p}." for p in PACKAGES if p != package)
    assert [n for m in inside for n in ours(m) if n.startswith(others)] == []


# What changes keys, accounts, people and models of the operator's own.
WRITES = {
    "create_key",
    "change_key",
    "revoke",
    "rotate",
    "create_account",
    "change_account",
    "close_account",
    "create_user",
    "change_user",
    "create_management_key",
    "revoke_management_key",
    "put_own_model",
    "remove_own_model",
}


# Whoever signs in sets their own password there, which is no operation on somebody.
OWN_PASSWORD = "headgate.web.auth.sign_in"
SURFACES = [m for m in MODULES if layer(m) in ("cli", "web") and m != OWN_PASSWORD]


@pytest.mark.parametrize("module", SURFACES)
def test_only_the_operations_of_admin_change_keys_accounts_and_people(module: str) -> None:
    calls = (
        n for n in ast.walk(ast.parse(MODULES[module].read_bytes())) if isinstance(n, ast.Call)
    )
    written = [
        ast.unparse(call.func)
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr in WRITES
    ]
    assert [w for w in written if not w.split(".")[0].endswith("operations")] == []


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("edge", "dialects", True),
        ("dialects", "dialects", True),
        ("dialects", "edge", False),
        ("net", "storage", False),
        ("chat", "dialects", False),
        ("edge", "web", False),
        ("cli", "local", True),
    ],
)
def test_the_rule_itself(importer: str, imported: str, allowed: bool) -> None:
    assert may_import(importer, imported) is allowed


# --- sizes -----------------------------------------------------------------------------------------

# Modules stay short enough to be read at once, and the classes of the edge hold few things.  Those that do not are
# named here with their bound, which may only be lowered.  Most are one class whose methods share its state (the
# connections, the node, SQLite's stores), or a table (tools, shapes, facts, figures).
MOST_LINES = 300
MOST_FIELDS = 12  # of a class in edge/

LONGER = {
    "node/shared_limits.py": 325,
    "catalog/building.py": 325,
    "catalog/counting.py": 375,
    "chat.py": 575,
    "cli/connect.py": 375,
    "cli/serve.py": 400,
    "config/__init__.py": 375,
    "diagnostics/checks.py": 325,
    "dialects/openai/upstream.py": 350,
    "net/client.py": 375,
    "net/inbound.py": 400,
    "net/inbound_connection.py": 550,
    "net/server.py": 350,
    "net/tls.py": 325,
    "net/upstream_connection.py": 550,
    "node/admission.py": 350,
    "node/client.py": 525,
    "node/server.py": 425,
    "node/state.py": 425,
    "node/wire.py": 325,
    "policy/shared_rates.py": 325,
    "reasoning/cache.py": 575,
    "storage/interface.py": 400,
    "storage/sqlite/database.py": 625,
    "storage/sqlite/ledger.py": 625,
    "storage/sqlite/reports.py": 850,
    "stream/blocks.py": 325,
    "supervisor/operations.py": 350,
    "supervisor/supervise.py": 375,
    "web/api/openapi_gateway.py": 375,
    "web/app.py": 425,
    "web/console/keys_page.py": 425,
    "web/console/request_details.py": 350,
    "web/console/requests_page.py": 475,
    "web/console/upstreams_page.py": 350,
    "web/console/usage_page.py": 450,
    "web/context.py": 375,
}
# What holds one exchange or one edge.
LISTS = {"LogLine", "Metrics"}  # of what is logged and counted: as long as that is


def lines_of(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


def fields_of(tree: ast.ClassDef) -> set[str]:
    """Return what a class declares and what its methods assign to `self`."""
    found = {
        s.target.id
        for s in tree.body
        if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                found.add(name)
    return found


LENGTHS = {str(p.relative_to(SOURCE)): lines_of(p) for p in sorted(SOURCE.rglob("*.py"))}
CLASSES = {
    node.name: len(fields_of(node))
    for path in sorted((SOURCE / "edge").rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.ClassDef)
}


def test_no_module_is_longer_than_its_bound() -> None:
    long = {name: n for name, n in LENGTHS.items() if n > LONGER.get(name, MOST_LINES)}
    assert not long, "move a concept of it into a module of its own"


def test_no_module_of_the_edge_is_among_the_longer_ones() -> None:
    assert not [name for name in LONGER if name.startswith("edge/")]


def test_no_class_of_the_edge_holds_more_than_its_bound() -> None:
    wide = {name for name, n in CLASSES.items() if n > MOST_FIELDS} - LISTS
    assert not wide, "group what belongs together"


def test_what_has_shrunk_is_no_exception_any_more() -> None:
    assert [name for name in LONGER if LENGTHS.get(name, 0) <= MOST_LINES] == []
