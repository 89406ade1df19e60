"""A change finds its place: each change of ARCHITECTURE.md's table is made in a copy of the package.

A change is a list of edits; a probe, run over the copy, prints whether it works.  The probe must fail
before the change and succeed after it, and no more files may be touched than the table names.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "headgate"
COMPILED = shutil.ignore_patterns("__pycache__", "*.pyc")


class Edit(msgspec.Struct, frozen=True):
    """New text in a file: before the first `before`, or at its end, or in place of `instead_of`."""

    file: str
    text: str
    before: str = ""
    instead_of: str = ""

    def make(self, package: Path) -> None:
        path = package / self.file
        old = path.read_text() if path.exists() else ""
        anchor = self.before or self.instead_of
        assert anchor in old, f"{self.file} has no {anchor!r} any more"
        if not anchor:
            new = old + self.text
        elif self.before:
            new = old.replace(anchor, self.text + anchor, 1)
        else:
            new = old.replace(anchor, self.text, 1)
        path.write_text(new)


class Package(msgspec.Struct, frozen=True):
    """A new package, made as another one with some words replaced."""

    file: str
    like: str
    words: tuple[tuple[str, str], ...]

    def make(self, package: Path) -> None:
        shutil.copytree(package / self.like, package / self.file)
        for path in (package / self.file).glob("*.py"):
            text = path.read_text()
            for old, new in self.words:
                text = text.replace(old, new)
            path.write_text(text)


class Change(msgspec.Struct, frozen=True):
    row: str  # how its row in ARCHITECTURE.md begins
    edits: tuple[Edit | Package, ...]
    probe: str  # Python that prints True or False, or fails


def _next_migration() -> str:
    newest = max(p.stem for p in (PACKAGE / "storage/sqlite/schema").glob("*.sql"))
    return f"storage/sqlite/schema/{int(newest) + 1:03}.sql"


CHANGES = {
    "a client protocol": Change(
        "a client protocol",
        (
            Package(
                "dialects/acme",
                "dialects/anthropic",
                (
                    ("dialects.anthropic", "dialects.acme"),
                    ("Anthropic", "Acme"),
                    ("name='anthropic'", "name='acme'"),
                    ('name="anthropic"', 'name="acme"'),
                    ("/v1/messages", "/v1/acme"),
                    ("anthropic-version", "acme-version"),
                    ("x-api-key", "x-acme-key"),
                    ("msg_", "acme_"),
                ),
            ),
            Edit(
                "dialects/registry.py",
                "from headgate.dialects.acme.dialect import AcmeDialect\n",
                before="from headgate.dialects.anthropic.dialect",
            ),
            Edit(
                "dialects/registry.py",
                "AcmeDialect(), ANTHROPIC, GEMINI)}",
                instead_of="ANTHROPIC, GEMINI)}",
            ),
        ),
        """
import re
from headgate.dialects.registry import DIALECTS, REPLY_ID
from headgate.edge.paths import dialect_of
from headgate.web.console.request_details import PROTOCOLS
print(
    dialect_of("/v1/acme", {}, "") is DIALECTS["acme"]
    and dialect_of("/v1/models", {"acme-version": "1"}, "") is DIALECTS["acme"]
    and re.fullmatch(REPLY_ID, "acme_" + "0" * 24) is not None
    and PROTOCOLS["acme"] == "Acme Messages"
)
""",
    ),
    "an upstream": Change(
        "an upstream",
        (
            Edit(
                "catalog/upstreams.toml",
                '\n[acme]\nlabel = "Acme"\nbase_url = "https://api.acme.test/v1"\n'
                'dialect = "openai"\nenv = "ACME_API_KEY"\n',
            ),
        ),
        """
from headgate import config
from headgate.catalog import building
upstream = config.Upstream(preset="acme", key="k")
found = building.load(config.Settings(upstreams={"a": upstream}), {})
(route,) = found.routes("MiniMax-M2")
print(route.upstream.base_url == "https://api.acme.test/v1")
""",
    ),
    "a model": Change(
        "a model",
        (
            Edit(
                "catalog/models.toml",
                '\n["MiniMax-M9"]\ndisplay_name = "MiniMax M9"\ndescription = "A model."\n'
                "released = 2026-11-01\ncreated = 1793491200\ncontext_window = 1000\n"
                'max_output = 100\ndefault_max_output = 100\ninput = ["text"]\n'
                '[["MiniMax-M9".prices]]\nvalid_from = 2026-11-01\n'
                'input = "1"\noutput = "2"\ncache_read = "0.1"\n',
            ),
        ),
        """
from headgate import config
from headgate.catalog import building
found = building.load(config.Settings(upstreams={"a": config.Upstream(preset="minimax", key="k")}), {})
print("MiniMax-M9" in [m.id for m in found.models] and bool(found.routes("MiniMax-M9")))
""",
    ),
    "a price": Change(
        "a model, a price",
        (
            Edit(
                "catalog/models.toml", 'output = "999.5"', instead_of='output = "1.20"'
            ),  # MiniMax-M3's, the first of the file
        ),
        """
from headgate import config
from headgate.catalog import building
found = building.load(config.Settings(upstreams={"a": config.Upstream(preset="minimax", key="k")}), {})
print("999.5" in str(found.find("MiniMax-M3").prices))
""",
    ),
    "a vendor's error": Change(
        "a vendor's error",
        (
            Edit(
                "dialects/vendor_errors.py",
                '    2099: ("blocked", "The upstream refused it."),\n',
                before="    2061: (",
            ),
        ),
        """
from headgate.dialects.vendor_errors import failure_of
print(failure_of(200, "no", 2099).kind == "blocked")
""",
    ),
    "a failure kind's rule": Change(
        "a retry rule",
        (
            Edit(
                "errors.py",
                '"upstream", fallback=False, client_retry="later"',
                instead_of='"upstream", client_retry="later"',
            ),
        ),
        """
from headgate.errors import Failure
from headgate.policy.retry import After, decide
print(decide(After(Failure("upstream", "x"), 1, 3, others="good")) == "stop")
""",
    ),
    "a metric": Change(
        "a metric",
        (
            Edit(
                "edge/metrics.py",
                '        self.visits = Counts("headgate_visits", "Visits.", ("who",))\n',
                before="        self.bad_keys = Counts(",
            ),
        ),
        """
from headgate.edge.metrics import Metrics
metrics = Metrics()
metrics.visits.add("me")
print(b'headgate_visits_total{who="me"} 1' in metrics.page())
""",
    ),
    "a setting": Change(
        "a setting",
        (
            Edit(
                "config/__init__.py",
                "    backoff: Seconds = 3.0  # between two attempts\n",
                before="    attempts: Annotated[int, Meta(ge=1, le=10)] = 2",
            ),
        ),
        """
import contextlib, io, json, subprocess, sys
from headgate.config.loading import load
settings = load(None, {"HEADGATE_RETRY_BACKOFF": "7"})
run = [sys.executable, "-m", "headgate.cli", "config", "schema"]
schema = subprocess.run(run, capture_output=True, text=True, check=True).stdout
print(settings.retry.backoff == 7 and '"backoff"' in schema)
""",
    ),
    "a limit of a key": Change(
        "a limit of a key",
        (
            Edit(
                "policy/keys.py",
                "    rpd: Annotated[\n        int | None,\n"
                '        Term(kind="count", label="Requests a day", help="Requests a day.",\n'
                '             unset="none", empty="no limit", summary="{value} requests/day"),\n'
                "    ] = None\n",
                before="    budget_nano: BudgetNano = None\n",
            ),
            Edit(
                "policy/keys.py",
                "    rpd: int | None\n",
                before="    on_disconnect: OnDisconnect\n",
            ),
            Edit(
                "policy/limit_kinds.py",
                '        LimitKind("requests_day", "requests a day", lambda key: key.rpd, "request",'
                " 24 * 60 * MINUTE_NS),\n",
                before='        LimitKind("counts",',
            ),
            Edit(_next_migration(), "alter table keys add column rpd integer;\n"),
        ),
        """
import json, subprocess, sys, tempfile
from headgate.policy import limit_kinds, limits
from headgate.policy.keys import Key, Terms
from headgate.policy.terms import TERMS, fault_of, summaries
from headgate.web.api import key_shapes, shapes
from headgate.web.console import audit_log_page
from headgate.web.console.keys_page import form_terms

def keys(*words):
    run = [sys.executable, "-m", "headgate.cli", "keys", *words, "--data", data, "--json"]
    return json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)

with tempfile.TemporaryDirectory() as data:
    made = keys("create", "a", "--rpd", "2")
    changed = keys("change", made["id"], "--rpd", "none")
key = Key("k", "k", 0.0, rpd=2)
found = limit_kinds.of_key(key)
limiter, answers = limits.Limiter(), []
for _ in range(3):
    answers.append(type(limiter.enter("k", found, 10**18)).__name__)
print(
    (made["rpd"], changed["rpd"]) == (2, None)
    and answers == ["LimitAdmission", "LimitAdmission", "LimitRefusal"]
    and all("rpd" in kind.__struct_fields__ for kind in (key_shapes.Key, key_shapes.NewKey, key_shapes.KeyChanges))
    and shapes.terms_of(key)["rpd"] == 2
    and any(field.name == "rpd" for field in form_terms(TERMS))
    and audit_log_page.LABELS["rpd"] == "Requests a day"
    and summaries(key) == [("{value} requests/day", "2")]
    and "rpd" in Terms.__annotations__
    and fault_of(Key("k", "k", 0.0, rpd=-1)) != ""
)
""",
    ),
    "a ledger column": Change(
        "a ledger column",
        (
            Edit(
                "storage/rows.py",
                '    region: Annotated[str, Meta(description="Where the upstream is.")] = ""\n',
                before="    attempts: tuple[AttemptRecord, ...] = ()\n    warnings",
            ),
            Edit(
                _next_migration(),
                "alter table ledger add column region text not null default '';\n",
            ),
        ),
        """
import tempfile
from headgate.storage.rows import LedgerRow, csv_cells, shown, COLUMNS
from headgate.storage.sqlite.database import Store
import apsw
with tempfile.TemporaryDirectory() as data:
    Store(data).close()
    (name,) = __import__("pathlib").Path(data).glob("*.db")
    there = {row[1] for row in apsw.Connection(str(name)).execute("pragma table_info(ledger)")}
row = LedgerRow(request_id="r", key_id="k", dialect="openai", model="m", outcome="stop",
                basis="upstream", started_at=1.0, ended_at=2.0, cost_nano_usd=1, region="eu")
print({*COLUMNS} <= there and shown(row)["region"] == "eu" and "eu" in csv_cells(row))
""",
    ),
    "a page of the console": Change(
        "a page of the console",
        (
            Edit(
                "web/console/hello_page.py",
                '"""A page that greets."""\n\n'
                "from starlette.responses import PlainTextResponse, Response\n\n"
                "from headgate.web.app import Rule\n"
                "from headgate.web.context import RequestContext\n\n\n"
                "def hello(context: RequestContext) -> Response:\n"
                '    return PlainTextResponse("hello")\n\n\n'
                'RULES = (Rule("GET", "/hello", hello, "member"),)\n',
            ),
            Edit("web/console/navigation.py", "    hello_page,\n", before="    home_page,\n"),
            Edit(
                "web/console/navigation.py",
                "    *hello_page.RULES,\n",
                before="    *home_page.RULES",
            ),
        ),
        """
from headgate.web.console.navigation import RULES
print(any(rule.path == "/hello" for rule in RULES))
""",
    ),
}


def allowed(row: str) -> int:
    """How many files ARCHITECTURE.md names for this change."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    (places,) = re.findall(rf"^\| {re.escape(row)}[^|]*\|(.*)\|$", text, re.MULTILINE)
    return len(re.findall(r"`[^`]+/?[^`]*`|a (?:module|template|migration|package)\b", places))


def probed(source: Path, probe: str) -> str:
    """What the probe prints over this copy of the package; its error's last line if it fails."""
    ran = subprocess.run(
        [sys.executable, "-c", probe],
        env={"PYTHONPATH": str(source), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ran.stdout.strip() if not ran.returncode else ran.stderr.strip().splitlines()[-1]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    shutil.copytree(PACKAGE, tmp_path / "headgate", ignore=COMPILED)
    return tmp_path


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_works_and_touches_the_places_that_the_table_names(
    name: str, source: Path
) -> None:
    change = CHANGES[name]
    assert probed(source, change.probe) != "True"  # or the probe shows nothing
    for edit in change.edits:
        edit.make(source / "headgate")
    assert probed(source, change.probe) == "True"
    assert len({edit.file for edit in change.edits}) <= allowed(change.row)
