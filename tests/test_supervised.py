"""Nothing on the event loop blocks, and every background task is supervised: read from the syntax trees.

A call that is allowed all the same stands in a list below with its reason; one that is not there any more
fails too.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "headgate"

TASKS = {
    ("tasks.py", "_begin"): "the supervisor",
    ("net/server.py", "_revive"): "it catches what may happen, and each sweep tries again",
    ("net/server.py", "run"): "one task per request; `_handle` catches everything, `drain` waits",
    ("call_loop.py", "run"): "the calling thread waits for it",
    ("storage/sharing.py", "_wait"): "the calling thread waits for it",
}
STARTS_A_TASK = {"create_task", "ensure_future", "run_coroutine_threadsafe"}

# Calls that wait for a disk, a name server, a pipe or the clock.
NAMES = {"open", "print", "input"}
METHODS = {
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "execute",
    "executemany",
    "echo",
    "getaddrinfo",
    "gethostbyname",
    "check_call",
    "check_output",
}
DOTTED = {
    "time.sleep",
    "subprocess.run",
    "subprocess.call",
    "subprocess.Popen",
    "os.open",
    "os.read",
    "os.write",
    "os.system",
    "os.popen",
    "sys.stderr.write",
    "sys.stdout.write",
    "socket.create_connection",
}
# Whoever holds one of these holds a database: each of their calls may wait for the disk or a lock.
STORES = {"ledger_reports", "_ledger_reports", "store", "_store", "people", "_people"}

BLOCKING = {
    ("edge/overload_bounds.py", "machine_bytes"): "at the start, before anything is served",
    ("edge/tokenizer.py", "load_tokenizer"): "at the start, before anything is served",
    ("edge/context.py", "__init__"): "at the start, before anything is served",
    ("edge/management.py", "close"): "at the end, when nothing reads any more",
    ("edge/context.py", "_changed"): "in a thread (Reads.run)",
    ("edge/management.py", "_manages"): "in a thread (Reads)",
    ("net/certificates.py", "_pem"): "at the start, and in a thread (edge/listeners.py, watch)",
}
# Functions that are handed to a thread where they stand.
HANDED = {"read"}


def calls(tree: ast.AST, where: str = "", handed: bool = False) -> Iterator[tuple[str, ast.Call]]:
    """Each call with the name of the function around it; not those that run in a thread."""
    for node in ast.iter_child_nodes(tree):
        inside, threaded = where, handed
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            threaded = handed or (bool(where) and node.name in HANDED)
            inside = where if threaded else node.name
        elif isinstance(node, ast.Call):
            if not handed:
                yield where, node
            if dotted(node.func).endswith((".reads", ".reads.run", "._reads.run", "to_thread")):
                yield from calls(node, where, True)
                continue
        yield from calls(node, inside, threaded)


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def blocks(call: ast.Call) -> bool:
    name = dotted(call.func)
    *owners, last = name.split(".")
    if isinstance(call.func, ast.Name):
        return last in NAMES
    if owners and owners[-1] in STORES and last != "derived":  # that one only computes
        return True
    return name in DOTTED or (isinstance(call.func, ast.Attribute) and call.func.attr in METHODS)


def found(files: list[Path], wanted: str) -> dict[tuple[str, str], list[int]]:
    out: dict[tuple[str, str], list[int]] = {}
    for file in files:
        for where, call in calls(ast.parse(file.read_text("utf-8"))):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else dotted(call.func)
            if blocks(call) if wanted == "blocks" else name in STARTS_A_TASK:
                place = (file.relative_to(SOURCE).as_posix(), where)
                out.setdefault(place, []).append(call.lineno)
    return out


def test_every_task_is_started_by_the_supervisor() -> None:
    started = found(sorted(SOURCE.rglob("*.py")), "tasks")
    assert set(started) == set(TASKS), started


def test_nothing_that_blocks_is_called_on_the_loop_of_the_edge() -> None:
    files = [f for folder in ("edge", "net") for f in sorted((SOURCE / folder).rglob("*.py"))]
    blocking = found(files, "blocks")
    assert set(blocking) == set(BLOCKING), blocking


def test_the_reader_of_the_syntax_trees_sees_what_it_must() -> None:
    code = (
        "async def a(self):\n await self.reads(lambda: self.ledger_reports.session(1))\n"
        " self.ledger_reports.session(1)\n time.sleep(1)\n print(1)\n open('x')\n self._db.execute('x')\n"
        " await self.reports_of(1)\n self.store.derived('x')\n"
        "def b(self):\n def read():\n  return self.ledger_reports.session(1)\n return self.reads(read)\n"
    )
    lines = [call.lineno for _, call in calls(ast.parse(code)) if blocks(call)]
    assert lines == [3, 4, 5, 6, 7]
