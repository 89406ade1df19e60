"""Looking at the database without changing it: its schema, and whether it is whole.

The only reader that neither makes nor migrates anything, so that a doctor can look at what an older
or a newer Headgate left.  Integrity is SQLite's `quick_check` (https://sqlite.org/pragma.html, read
2026-11): all of `integrity_check` but that indices match their tables.

Note:
- on a large database it is cut off after `limit_s`, and `whole` is then None: as far as one looked;
- a database that nobody has open is opened as `immutable`, as even a reader of a WAL database makes
  files beside it, which would belong to whoever runs the doctor.
"""

import contextlib
import time
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import apsw
from msgspec import Struct

from headgate.storage.errors import StoreError
from headgate.storage.sqlite.database import BUSY_MS


class Inspection(Struct, frozen=True):
    schema: int  # of the file
    known: int  # of this code
    whole: bool | None  # None: not looked at to the end
    pepper: bytes | None = None  # the fingerprint of its pepper; None: none is kept there


def inspect(file: Path, limit_s: float = 20.0) -> Inspection:
    """StoreError when SQLite cannot read it at all."""
    known = max(
        int(f.name.removesuffix(".sql"))
        for f in files("headgate.storage.sqlite").joinpath("schema").iterdir()
        if f.name.endswith(".sql")
    )
    pepper: bytes | None = None
    try:
        db = _open(file)
        try:
            db.set_busy_timeout(BUSY_MS)
            schema = int(str(db.pragma("user_version")))
            until = time.monotonic() + limit_s
            db.set_progress_handler(lambda: time.monotonic() > until, 100_000)
            whole: bool | None
            try:
                whole = [row[0] for row in db.execute("pragma quick_check(1)")] == ["ok"]
            except apsw.InterruptError:
                whole = None
            except (apsw.CorruptError, apsw.NotADBError):
                whole = False
            with contextlib.suppress(apsw.SQLError):  # an older schema has no such table
                pepper = next(
                    (row[0] for row in db.execute("select fingerprint from pepper")), None
                )
        finally:
            db.close()
    except (apsw.CorruptError, apsw.NotADBError):
        return Inspection(0, known, False)
    except apsw.Error as error:
        raise StoreError(f"{file}: {error}.") from None
    return Inspection(schema, known, whole, pepper)


def _open(file: Path) -> apsw.Connection:
    url = f"file:{quote(str(file.absolute()))}?mode=ro"
    if not file.with_name(f"{file.name}-wal").exists():
        url += "&immutable=1"
    return apsw.Connection(url, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
