"""`headgate connect`: point a tool's own configuration here, and put it back.

The only place that writes other programs' files.  Before the first change each file is copied
beside itself (`settings.json.headgate-20261125-134500.bak`, 0600), and a record in the data
directory (`connect/TOOL.json`) says what was there; `--restore` puts those very bytes back.

Note: a key goes into a file only where the tool knows no other way and `--key` was given,
the file is then 0600, and never into a git work tree, links followed (dotfiles are often one).
A work tree that git keeps elsewhere (GIT_WORK_TREE, yadm) does not show and is not noticed.
"""

import difflib
import os
import re
import shutil
import stat
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec
from msgspec import Struct

from headgate.catalog.building import load as load_catalog
from headgate.catalog.catalog import Catalog
from headgate.catalog.models import models
from headgate.cli.connect_record import (
    Record,
    Was,
    beside_path,
    connected,
    digest,
    record_of,
    record_path,
    restore,
    write,
)
from headgate.cli.json_edit import EditError
from headgate.cli.options import as_json, asked_key, places, print_json, print_table, settings_of
from headgate.cli.served import as_served
from headgate.cli.textedit import EDITORS
from headgate.cli.tool import KEY_VARIABLE, ConnectTarget, Tool
from headgate.cli.tool_files import changes, environment, needs_key, place
from headgate.cli.tools import TOOLS, ToolName
from headgate.config import ConfigError, Settings
from headgate.config.addresses import own_url

_MASK = "********"
_MAX_FILE_BYTES = 4 << 20  # no configuration is larger; what is, is something else


class Edit(Struct, frozen=True):
    """One file's change, decided but not made."""

    path: Path
    before: bytes | None  # None: no file
    after: bytes
    mode: int


# -- Deciding --------------------------------------------------------------------------------------


def target_of(settings: Settings, url: str | None, key: str, model: str | None) -> ConnectTarget:
    """Where to point a tool; UsageError for what would not survive in a configuration file."""
    url = url or own_url(as_served(settings))
    url = url.rstrip("/").removesuffix("/v1")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query
    except ValueError:
        good = False
    if not good or parts.username or not re.fullmatch(r"[\w\-.~:/\[\]%@+]+", url, re.ASCII):
        raise click.UsageError("--url must look like http://127.0.0.1:8787, without a query.")
    if key and not re.fullmatch(r"[\w\-.~+/=:]+", key, re.ASCII):
        raise click.UsageError("--key has characters that no key of this gateway has.")
    try:
        catalog = load_catalog(settings, os.environ)
    except ConfigError:  # on a client's machine nothing need be set up but the tool
        catalog = Catalog(tuple(models().values()), {}, {})
    if model is None:
        found = next((m for m in catalog.models if catalog.routes(m.id)), catalog.models[0])
    else:
        wanted = catalog.find(model)
        if wanted is None:
            raise click.UsageError(f"no such model. {catalog.hint(model)}")
        found = wanted
    return ConnectTarget(
        url,
        found.id,
        found.display_name,
        found.context_window,
        found.default_max_output,
        key,
        images="image" in found.input,
    )


def plan(tool: Tool, target: ConnectTarget) -> list[Edit]:
    """Every change that is to be made, in order; ClickException when one cannot be."""
    edits = []
    target = msgspec.structs.replace(target, home=str(place(tool.files[0], os.environ).parent))
    for file in tool.files:
        wanted = changes(file, target)
        if not wanted:
            continue
        path = place(file, os.environ)
        before, mode = _read(path)
        try:
            text = (before or b"").decode()
            after = EDITORS[file.kind](text, wanted).encode()
        except UnicodeDecodeError:
            raise click.ClickException(f"{path}: not UTF-8. Nothing was changed.") from None
        except EditError as error:
            raise click.ClickException(f"{path}: {error}. Nothing was changed.") from None
        keyed = needs_key(file) and bool(target.key)
        if keyed and (tree := _work_tree(path)):
            how = (
                f"leave --key out and set {tool.key_in} in the environment"
                if tool.key_in
                else "this tool takes it from nowhere else"
            )
            raise click.ClickException(
                f"{path} is in the git work tree {tree}, where no key is written: {how}."
                " Nothing was changed."
            )
        # New files are ours alone; a file with a key becomes so.
        edits.append(Edit(path, before, after, 0o600 if keyed or before is None else mode))
    return edits


def _read(path: Path) -> tuple[bytes | None, int]:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_FILE_BYTES:
            raise click.ClickException(f"{path}: not a configuration file. Nothing was changed.")
        return path.read_bytes(), stat.S_IMODE(found.st_mode)
    except FileNotFoundError:
        return None, 0o600
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}. Nothing was changed.") from None


def _work_tree(path: Path) -> Path | None:
    """The git work tree the file is in; `.git` is a file in linked trees and submodules."""
    return next((p for p in path.parents if (p / ".git").exists()), None)


# -- Doing and undoing -----------------------------------------------------------------------------


def apply(settings: Settings, tool: Tool, url: str, edits: list[Edit]) -> list[Path]:
    """Make the changes; the paths of the backups.  The record comes first, so that whatever
    happens half-way can be undone."""
    old = record_of(settings, tool)
    known = {was.path: was for was in old.files} if old and connected(old) else {}
    backups = []
    files = dict(known)
    for edit in edits:
        made = [p for p in edit.path.parents if not p.exists()]
        try:
            edit.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise click.ClickException(f"{edit.path.parent}: {error.strerror}.") from None
        name = str(edit.path)
        if name in known:
            files[name] = msgspec.structs.replace(known[name], sha256_after=digest(edit.after))
            continue
        backup = ""
        mode = edit.mode
        if edit.before is not None:
            mode = stat.S_IMODE(edit.path.stat().st_mode)
            backups.append(beside_path(edit.path, "bak"))
            write(backups[-1], edit.before, 0o600)
            backup = str(backups[-1])
        files[name] = Was(
            name,
            backup,
            mode,
            digest(edit.before or b""),
            digest(edit.after),
            tuple(str(p) for p in made),
        )
    record = Record(tool.name, url, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), ())
    record = msgspec.structs.replace(record, files=tuple(files.values()))
    path = record_path(settings, tool)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write(path, msgspec.json.format(msgspec.json.encode(record)), 0o600)
    for edit in edits:
        write(edit.path, edit.after, edit.mode)
    return backups


# -- Saying ----------------------------------------------------------------------------------------


def shown(edit: Edit, key: str) -> str:
    """The change as a unified diff, the key masked."""
    before = (edit.before or b"").decode().splitlines(keepends=True)
    after = edit.after.decode().splitlines(keepends=True)
    old = "/dev/null" if edit.before is None else str(edit.path)
    lines = difflib.unified_diff(before, after, old, str(edit.path))
    text = "".join(x if x.endswith("\n") else f"{x}\n\\ No newline at end of file\n" for x in lines)
    return text.replace(key, _MASK) if key else text


def advice(tool: Tool, target: ConnectTarget) -> list[str]:
    """What is left for the person to do."""
    out = []
    written = bool(target.key) and any(needs_key(file) for file in tool.files)
    if tool.key_in and not written and tool.files and not os.environ.get(tool.key_in):
        stated = "The key was not written. " if target.key else ""
        out.append(f"{stated}Set {tool.key_in} to your key where {tool.title} is started.")
    return out + [
        hint.replace("<model>", target.model).replace("<url>", target.url) for hint in tool.hints
    ]


def _list(settings: Settings, json_: bool) -> None:
    rows: list[dict[str, Any]] = []  # Any: JSON
    for tool in TOOLS:
        record = record_of(settings, tool)
        on = connected(record)
        rows.append(
            {
                "name": tool.name,
                "title": tool.title,
                "protocol": tool.protocol,
                "program": tool.program,
                "installed": shutil.which(tool.program) is not None,
                "connected": record.url if record and on else None,
                "run": tool.runs,
            }
        )
    if json_:
        print_json(rows)
        return
    print_table(
        ("tool", "what it is", "protocol", "installed", "connected"),
        [
            (
                row["name"],
                row["title"],
                row["protocol"],
                "yes" if row["installed"] else "no",
                row["connected"] or "no",
            )
            for row in rows
        ],
    )


@click.command()
@click.argument("tool", type=ToolName(), required=False)
@click.option("--url", help="The gateway's address, as the tool sees it.")
@click.option(
    "--key",
    default="",
    help="A key of yours; `-` asks for it. Written only if the tool needs it so.",
)
@click.option("--model", help="The model it should use.")
@click.option("--print", "print_", is_flag=True, help="Show the change; make none.")
@click.option("--restore", "restore_", is_flag=True, help="Put the tool's files back.")
@places
@as_json
def command(
    tool: Tool | None,
    url: str | None,
    key: str,
    model: str | None,
    print_: bool,
    restore_: bool,
    config_file: str | None,
    data: str | None,
    json_: bool,
) -> None:
    """Point TOOL's own configuration at this gateway; without TOOL, list the tools."""
    settings = settings_of(config_file, data=data)
    if tool is None:
        if url or key or model or print_ or restore_:
            raise click.UsageError("say which TOOL; `headgate connect` lists them.")
        _list(settings, json_)
        return
    if restore_:
        if url or key or model or print_:
            raise click.UsageError("--restore takes no other option.")
        done = restore(settings, tool)
        if json_:
            print_json({"tool": tool.name, "files": done})
            return
        for back in done:
            kept = f"; as it was lately: {back.kept}" if back.kept else ""
            click.echo(f"{back.path}: {back.done}{kept}")
        return
    key = asked_key(key, needed=bool(tool.files) and not tool.key_in)
    target = target_of(settings, url, key, model)
    if not tool.files:
        _variables(tool, target, json_)
        return
    if not tool.key_in and not target.key:
        raise click.UsageError(
            f"{tool.title} takes its key from its own file only: give --key, or --key - to be asked for it."
        )
    edits = plan(tool, target)
    changed = [e for e in edits if e.before != e.after]
    backups: list[Path] = []
    if changed and not print_:
        backups = apply(settings, tool, target.url, changed)
    hints = advice(tool, target)
    if json_:
        print_json(
            {
                "tool": tool.name,
                "url": target.url,
                "model": target.model,
                "changed": [str(e.path) for e in changed],
                "backups": [str(b) for b in backups],
                "written": bool(changed) and not print_,
                "diff": "".join(shown(e, key) for e in changed),
                "hints": hints,
            }
        )
        return
    if print_:
        click.echo("".join(shown(e, key) for e in changed), nl=False)
    for edit in [] if print_ else changed:
        click.echo(f"{edit.path}: {'made' if edit.before is None else 'changed'}")
    for backup in backups:
        click.echo(f"backup: {backup}")
    if not changed:
        click.echo(f"{tool.title} is connected to {target.url} already; nothing to change.")
    for hint in hints:
        click.echo(hint, err=True)


def _variables(tool: Tool, target: ConnectTarget, json_: bool) -> None:
    """For a tool without a file of its own."""
    named = msgspec.structs.replace(target, key=target.key or f"${KEY_VARIABLE}")
    found = environment(tool, named)
    if json_:
        print_json({"tool": tool.name, "variables": found})
        return
    for name, value in found.items():
        click.echo(f'export {name}="{value}"')
    click.echo(
        f"{tool.title} reads variables only; `headgate run {tool.name}` sets them.", err=True
    )
