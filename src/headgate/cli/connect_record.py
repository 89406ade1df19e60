"""What `headgate connect` changed, kept so that it can be put back."""

import hashlib
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import click
import msgspec
from msgspec import Struct

from headgate.cli.tool import Tool
from headgate.config import Settings


class Was(Struct, frozen=True):
    """One file as it was before the first change."""

    path: str
    backup: str  # "": there was no file
    mode: int
    sha256: str  # of the backup
    sha256_after: str  # of what we wrote
    made: tuple[str, ...] = ()  # directories that were not there, the innermost first


class Record(Struct, frozen=True):
    """Records how to undo a connection."""

    tool: str
    url: str
    when: str  # UTC
    files: tuple[Was, ...]


def record_path(settings: Settings, tool: Tool) -> Path:
    return Path(settings.data) / "connect" / f"{tool.name}.json"


def record_of(settings: Settings, tool: Tool) -> Record | None:
    path = record_path(settings, tool)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError):
        raise click.ClickException(f"{path}: cannot be read; the backups lie beside the files.")


def connected(record: Record | None) -> bool:
    """Whether the tool's files still point where we pointed them."""
    if record is None:
        return False
    return any(record.url.encode() in (_quiet(Path(was.path)) or b"") for was in record.files)


def _quiet(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def write(path: Path, content: bytes, mode: int) -> None:
    """All or nothing: a tool that reads meanwhile sees the old file or the new one."""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}.") from None


def beside_path(path: Path, word: str) -> Path:
    """A name beside the file that is not taken."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    names = [f"{path.name}.headgate-{stamp}{f'-{n}' if n else ''}.{word}" for n in range(1000)]
    return next(p for p in map(path.with_name, names) if not p.exists())


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Back(Struct, frozen=True):
    """What `--restore` did with one file."""

    path: str
    done: Literal["restored", "removed", "was as before"]
    kept: str = ""  # where the file as it was meanwhile changed lies


def restore(settings: Settings, tool: Tool) -> list[Back]:
    """Return the very bytes of before; what somebody else changed since is kept beside them."""
    record = record_of(settings, tool)
    if record is None:
        raise click.ClickException(f"{tool.title} was not connected from here.")
    # Everything is read before anything is written: half a restoration helps nobody.
    originals: list[bytes | None] = []
    for was in record.files:
        original = _quiet(Path(was.backup)) if was.backup else None
        if was.backup and (original is None or digest(original) != was.sha256):
            raise click.ClickException(
                f"{was.backup} is missing or changed, so {was.path} cannot be put back as it was."
                " Nothing was changed."
            )
        originals.append(original)
    done = []
    for was, original in zip(record.files, originals, strict=True):
        path = Path(was.path)
        now = _quiet(path)
        if now == original:
            if now is not None:
                os.chmod(path, was.mode)
            done.append(Back(was.path, "was as before"))
        else:
            kept = ""
            if now is not None and digest(now) != was.sha256_after:
                kept = str(beside_path(path, "changed"))
                write(Path(kept), now, 0o600)
            if original is None:
                path.unlink(missing_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, original, was.mode)
            done.append(Back(was.path, "removed" if original is None else "restored", kept))
        if was.backup:
            Path(was.backup).unlink(missing_ok=True)
    for directory in (name for was in record.files for name in was.made):
        with suppress(OSError):  # the tool has put something there meanwhile
            Path(directory).rmdir()
    record_path(settings, tool).unlink(missing_ok=True)
    return done
