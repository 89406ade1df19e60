"""What can be wrong with a data directory: its modes, its room, its database and pepper."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from headgate.diagnostics.clock import SKEW_S
from headgate.diagnostics.findings import Finding
from headgate.diagnostics.running import user_name
from headgate.storage.errors import StoreError
from headgate.storage.sqlite.database import PEPPER_BYTES, fingerprint_of
from headgate.storage.sqlite.inspection import inspect

_OK, _LOW = 1 << 30, 200 << 20  # bytes free: enough for months of rows; for some days of them


def data_findings(data: Path) -> Iterator[Finding]:
    if not data.exists():
        parent = next(p for p in data.absolute().parents if p.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield Finding("data", "ok", f"{data} is not there yet: the first start makes it")
        else:
            yield Finding(
                "data",
                "fail",
                f"{data} is not there and {parent} is not writable",
                f"Make it for this user (mkdir, chown), or choose another with --data; it is for {user_name()}.",
            )
        return
    try:
        with tempfile.TemporaryFile(dir=data) as file:
            file.write(b"doctor")
            file.flush()
    except OSError as error:
        yield Finding(
            "data",
            "fail",
            f"{data} cannot be written: {error.strerror}",
            f"Give it to the user that runs the gateway ({user_name()}): chown, chmod 700, or remount it.",
        )
        return
    yield Finding("data", "ok", f"{data} can be written")
    yield _modes(data)
    yield _space(data)
    yield from _database(data)


def _modes(data: Path) -> Finding:
    if os.name == "nt":
        return Finding("modes", "ok", "are not looked at on Windows")
    secret = [data / "headgate.db", data / "headgate.db-wal", data / "pepper"]
    loose = [p for p in secret if p.exists() and p.stat().st_mode & 0o077]
    wide = data.stat().st_mode & 0o022
    commands = [f"chmod 700 {data}"] if wide else []
    commands += [f"chmod 600 {p}" for p in loose]
    if commands:
        who = "others can write into it" if wide else "others can read what only the gateway should"
        return Finding("modes", "fail", who, "; ".join(commands))
    if data.stat().st_mode & 0o077:
        return Finding(
            "modes", "warn", "others can list the directory, not read it", f"chmod 700 {data}"
        )
    return Finding("modes", "ok", "only the gateway's user can read keys and ledger")


def _space(data: Path) -> Finding:
    free = shutil.disk_usage(data).free
    stated = f"{free / (1 << 30):.1f} GiB free"
    do = "Make room on that disk, or move --data: without room the ledger cannot be written."
    if free < _LOW:
        return Finding("space", "fail", stated, do)
    return Finding("space", "ok", stated) if free >= _OK else Finding("space", "warn", stated, do)


def _database(data: Path) -> Iterator[Finding]:
    file, pepper = data / "headgate.db", data / "pepper"
    if not file.exists():
        yield Finding("database", "ok", "is not there yet: the first start makes it")
        return
    restore = (
        "Stop the gateway and put back a copy (`headgate backup` makes them), with its pepper."
    )
    try:
        found = inspect(file)
        content = pepper.read_bytes() if pepper.exists() else b""
    except (StoreError, OSError) as error:
        yield Finding(
            "database", "fail", str(error), f"Let {user_name()} read it; if it does: {restore}"
        )
        return
    if found.whole is False:
        yield Finding("database", "fail", "is damaged", restore)
    elif found.schema > found.known:
        yield Finding(
            "database",
            "fail",
            f"schema {found.schema}, this Headgate knows {found.known}",
            "Upgrade Headgate: a newer one has written it.",
        )
    elif found.whole is None:
        yield Finding("database", "warn", f"schema {found.schema}, large: looked at for 20 s only")
    else:
        old = f" (the next start brings it to {found.known})" if found.schema < found.known else ""
        yield Finding("database", "ok", f"whole, schema {found.schema}{old}")
    if len(content) != PEPPER_BYTES:
        what = "damaged" if content else "missing"
        yield Finding(
            "pepper",
            "fail",
            f"{pepper} is {what}: no key can be used",
            "Put back a copy of it; to begin anew, use an empty --data.",
        )
    elif found.pepper is not None and found.pepper != fingerprint_of(content):
        yield Finding(
            "pepper",
            "fail",
            f"{pepper} is not the one that the keys in {file} were created with: none of them works",
            "Put back the copy that belongs to this database; to begin anew, use an empty --data.",
        )
    ahead = file.stat().st_mtime - time.time()
    if ahead > SKEW_S[1]:
        yield Finding(
            "clock",
            "fail",
            f"the database was written {ahead:.0f} s in the future",
            "The clock was or is wrong: set it (timedatectl set-ntp true).",
        )
