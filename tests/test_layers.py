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

import pytest

from headgate.dialects import registry

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "headgate"

# Each line may import from the lines above it and from itself, not from others on its own line.
LAYERS = [
    {"_version"},  # written by the build
    {"headgate"},  # the version
    {"errors", "money", "tasks", "output", "csv_export", "redaction", "near_names"},
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
PARTS = {
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
