"""Keys, accounts and settings in SQLite: one file in the data directory, opened by one process or by several.

The only place that writes it.  Migrations are numbered files in schema/, counted in `user_version`;
a database that is newer than this code is refused, never guessed at.  Note: the
pepper that keys are hashed with is a file of its own beside the database, so that a copied database
alone opens nothing.
"""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, Unpack

import apsw
import msgspec

from headgate.policy import keys
from headgate.policy import terms as terms_rules
from headgate.policy.keys import (
    Account,
    AccountChanges,
    BudgetTerms,
    Changes,
    Key,
    KeySnapshot,
    Terms,
)
from headgate.storage.errors import StoreError as StoreError
from headgate.storage.errors import StoreFault as StoreFault

T = TypeVar("T")
BUSY_MS = 5000
PEPPER_BYTES = 32

_KEY = ", ".join(Key.__struct_fields__)  # the columns have the same names
_ACCOUNT = ", ".join(Account.__struct_fields__)
_LISTS = ("models", "allowed_cidrs")  # of Key; their columns are JSON


@contextlib.contextmanager
def transaction(db: apsw.Connection) -> Iterator[None]:
    """Hold the write lock from the start to the commit.

    Not apsw's own: that one waits for the lock without letting other threads run.
    """
    db.execute("begin immediate")
    try:
        yield
        db.execute("commit")
    except BaseException:
        if db.in_transaction:  # a full disk has rolled it back already
            db.execute("rollback")
        raise


# One owner's, so that they are those of all of its keys
_SHARED = ("account", *terms_rules.TERMS)


class Store:
    """Opens, and on first use makes, the directory, the pepper and the database."""

    def __init__(self, data: str | Path, *, create: bool = True) -> None:
        """`create` False: nothing is created or migrated, so that a look changes nothing."""
        self._directory = Path(data)
        try:
            path = self._path = self._directory / "headgate.db"
            pepper = self._directory / "pepper"
            if create:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif not path.exists():
                raise StoreError(
                    f"there is no Headgate data in {self._directory}. Name another directory with"
                    " --data, or begin with `headgate serve` or `headgate keys create NAME`."
                )
            if path.exists() and not pepper.exists():
                raise StoreError(
                    f"{pepper} is missing: put back a copy; without it no key in headgate.db can be"
                    " used. To begin anew, use an empty --data."
                )
            self._pepper = _pepper(pepper)
            self._db = apsw.Connection(
                str(path),
                flags=apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0),
            )
        except OSError as error:
            raise StoreFault(f"{error.filename or data}: {error.strerror}.") from None
        except apsw.Error as error:
            raise StoreFault(f"{data}/headgate.db: {error}.") from None
        try:
            self._db.set_busy_timeout(BUSY_MS)
            self._check_schema()
            if create:
                self._db.execute("pragma journal_mode = wal")
                path.chmod(0o600)
                self._migrate()
            self._db.execute("pragma synchronous = full")
            self._db.execute("pragma foreign_keys = on")
            self._check_pepper(pepper, create)
            self._file = _identity(path)
        except OSError as error:
            self._db.close()
            raise StoreFault(f"{error.filename or data}: {error.strerror}.") from None
        except apsw.Error as error:
            self._db.close()
            raise StoreFault(f"{data}/headgate.db: {error}.") from None
        except BaseException:
            self._db.close()
            raise

    @property
    def directory(self) -> Path:
        return self._directory

    def derived(self, purpose: str) -> bytes:
        """A secret of this data directory for one purpose: 32 bytes, the same after a restart."""
        return keys.mac(self._pepper, f"purpose:{purpose}")

    def close(self) -> None:
        with contextlib.suppress(apsw.ThreadingViolationError):  # a read that hangs in the disk
            self._db.close()

    def _check_schema(self) -> None:
        """StoreError for a database that this code does not know."""
        newest, found = _steps()[-1][0], self._schema()
        if found > newest:
            raise StoreError(
                f"the database in {self._directory} was written by a newer Headgate"
                f" (schema {found}, this one knows {newest}); upgrade, or use another --data."
            )

    def _schema(self) -> int:
        return int(str(self._db.pragma("user_version")))

    def _migrate(self) -> None:
        """Bring the schema up to date, in one transaction a step."""
        for number, script in _steps():
            if number <= self._schema():
                continue

            def step(number: int = number, script: str = script) -> None:
                if number > self._schema():  # another process may have been faster
                    self._db.execute(script)
                    self._db.execute(f"pragma user_version = {number}")

            self._write(step)

    def _check_pepper(self, file: Path, create: bool) -> None:
        """StoreError when the keys were hashed with another pepper; the first one is remembered."""
        newest, found = _steps()[-1][0], self._schema()
        if found < newest:
            raise StoreError(
                f"the database in {self._directory} is of an older Headgate (schema {found}, this one"
                f" has {newest}); `headgate serve` brings it up to date."
            )
        mine = fingerprint_of(self._pepper)
        kept = list(self._db.execute("select fingerprint from pepper"))
        if not kept and not create:
            return
        if not kept:
            self._write(
                lambda: self._db.execute(
                    "insert into pepper values (1, ?) on conflict do nothing", (mine,)
                )
            )
            kept = list(self._db.execute("select fingerprint from pepper"))
        if kept[0][0] != mine:
            raise StoreError(
                f"{file} is not the pepper that the keys in {self._path} were created with, so none of"
                " them would work: put back the right copy. To begin anew, use an empty --data."
            )

    def _write(self, work: Callable[[], T]) -> T:
        """Run `work` in a transaction that holds the write lock from its start."""
        try:
            with transaction(self._db):
                return work()
        except apsw.Error as error:
            raise StoreFault(f"{self._directory}/headgate.db: {error}.") from None

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreFault(f"{self._path}: {error.strerror}.") from None
        except apsw.Error as error:
            raise StoreFault(f"{self._path}: {error}.") from None

    def data_version(self) -> int:
        """Changes whenever a key has, by any connection: cheap enough to poll.

        StoreFault when the database cannot be read, or its file is not the one that was opened.
        """
        with self._faults():
            if _identity(self._path) != self._file:
                raise StoreFault(
                    f"{self._path} was replaced while it was open; restart the gateway."
                )
            ((changes,),) = self._db.execute("select n from key_changes")
        return int(str(changes))

    # models of the operator's own

    def own_models(self) -> dict[str, str]:
        """Return the stored models by id: the fields of each as JSON."""
        with self._faults():
            rows = self._db.execute("select id, settings from own_models order by id")
            return {str(id): str(text) for id, text in rows}

    def put_own_model(self, id: str, text: str, *, now_s: float) -> None:
        """Store a model, in place of one of the same name; whoever calls has checked it."""
        self._write(
            lambda: self._db.execute(
                "insert into own_models values (?1, ?2, ?3)"
                " on conflict (id) do update set settings = ?2, changed_s = ?3",
                (id, text, now_s),
            )
        )

    def remove_own_model(self, id: str) -> bool:
        """Take a stored model out; False when there is none of this name."""

        def work() -> bool:
            self._db.execute("delete from own_models where id = ?", (id,))
            return self._db.changes() == 1

        return self._write(work)

    # keys

    def create_key(
        self,
        name: str,
        models: tuple[str, ...] = (),
        expires_s: float | None = None,
        *,
        now_s: float,
        account: str = "",
        **terms: Unpack[Terms],
    ) -> tuple[Key, str]:
        """A new key and its text, which is nowhere kept.

        StoreError for a bad name or term, and for an account that is none or closed.
        """
        text, parsed = keys.new_text(secrets.token_bytes(38))
        key = Key(parsed.id, name, now_s, expires_s, None, models, account=account, **terms)
        _refuse(terms_rules.fault_of(key))

        def work() -> None:
            self._must_be_open(account, now_s)
            self._insert(key, parsed.secret)

        self._write(work)
        return key, text

    def _insert(self, key: Key, secret: str) -> None:
        values = (*_columns(key), keys.mac(self._pepper, secret))
        self._db.execute(
            f"insert into keys ({_KEY}, mac) values ({', '.join('?' * len(values))})", values
        )

    def change_key(self, id: str, *, now_s: float, **changes: Unpack[Changes]) -> Key | None:
        """The key with some of its fields replaced; None when it is not good any more.

        Its terms become those of its rotations too, as they take from the same limits and budget.
        StoreError when the fields cannot be so, and then nothing is changed.
        """

        def work() -> Key | None:
            old = next((k for k in self.keys() if k.id == id and k.good(now_s)), None)
            if old is None:
                return None
            new = msgspec.structs.replace(old, **changes)
            _refuse(terms_rules.fault_of(new))
            if new.account != old.account:
                self._must_be_open(new.account, now_s)
            self._db.execute(
                f"update keys set ({_KEY}) = ({', '.join('?' * len(Key.__struct_fields__))})"
                " where id = ?",
                (*_columns(new), id),
            )
            terms = ", ".join(_SHARED)
            self._db.execute(
                f"update keys set ({terms}) = (select {terms} from keys where id = ?1)"
                " where (id = ?2 or rotation_group = ?2) and id <> ?1",
                (id, new.owner),
            )
            return new

        return self._write(work)

    def keys(self) -> list[Key]:
        """All keys, oldest first, also those that are revoked or expired."""
        return [key for key, _ in self._rows()]

    def _rows(self) -> list[tuple[Key, bytes]]:
        with self._faults():
            rows = self._db.execute(f"select mac, {_KEY} from keys order by created_s, id")
            return [(_key(columns), mac) for mac, *columns in rows]

    def ring(self) -> KeySnapshot:
        with self._faults(), self._db:  # one snapshot of both
            rows, accounts = self._rows(), self.accounts()
        return KeySnapshot(self._pepper, rows, accounts)

    def revoke(self, id: str, *, now_s: float) -> bool:
        """Close a key for good; False when there is none with this id that is open."""

        def work() -> bool:
            self._db.execute(
                "update keys set revoked_s = ? where id = ? and (revoked_s is null or revoked_s > ?)",
                (now_s, id, now_s),
            )
            return self._db.changes() == 1

        return self._write(work)

    def rotate(self, id: str, *, now_s: float, overlap_s: float = 0) -> tuple[Key, str] | None:
        """A new key with the rights of an old one, which ends after `overlap_s` seconds.

        None when the old one is not good any more.
        """
        text, parsed = keys.new_text(secrets.token_bytes(38))

        def work() -> Key | None:
            old = next((k for k in self.keys() if k.id == id and k.good(now_s)), None)
            if old is None:
                return None
            new = msgspec.structs.replace(
                old, id=parsed.id, created_s=now_s, revoked_s=None, rotation_group=old.owner
            )
            self._insert(new, parsed.secret)
            self._db.execute(  # one that was to end sooner still does
                "update keys set revoked_s = min(coalesce(revoked_s, ?1), ?1) where id = ?2",
                (now_s + overlap_s, id),
            )
            return new

        key = self._write(work)
        return (key, text) if key is not None else None

    # accounts

    def accounts(self) -> list[Account]:
        """All accounts, oldest first, also those that are closed."""
        with self._faults():
            rows = self._db.execute(f"select {_ACCOUNT} from accounts order by created_s, id")
            return [Account(*columns) for columns in rows]

    def create_account(
        self, id: str, name: str, *, now_s: float, **terms: Unpack[BudgetTerms]
    ) -> Account:
        """A new account; StoreError for a bad or taken id, a bad name or term."""
        account = Account(id, name, now_s, None, **terms)
        _refuse(terms_rules.account_id_fault(id))
        _refuse(terms_rules.fault_of(account))

        def work() -> None:
            if self._account(id) is not None:
                raise StoreError(f"there is an account `{id}` already.")
            values = msgspec.structs.astuple(account)
            self._db.execute(
                f"insert into accounts ({_ACCOUNT}) values ({', '.join('?' * len(values))})", values
            )

        self._write(work)
        return account

    def change_account(
        self, id: str, *, now_s: float, **changes: Unpack[AccountChanges]
    ) -> Account | None:
        """The account with some of its fields replaced; None when it is not open any more.

        StoreError when the fields cannot be so, and then nothing is changed.
        """

        def work() -> Account | None:
            old = self._account(id)
            if old is None or not old.good(now_s):
                return None
            new = msgspec.structs.replace(old, **changes)
            _refuse(terms_rules.fault_of(new))
            self._db.execute(
                f"update accounts set ({_ACCOUNT}) ="
                f" ({', '.join('?' * len(Account.__struct_fields__))}) where id = ?",
                (*msgspec.structs.astuple(new), id),
            )
            return new

        return self._write(work)

    def close_account(self, id: str, *, now_s: float) -> bool:
        """From now on its keys open nothing, for good; False when no open account has this id."""

        def work() -> bool:
            self._db.execute(
                "update accounts set closed_s = ?1"
                " where id = ?2 and (closed_s is null or closed_s > ?1)",
                (now_s, id),
            )
            return self._db.changes() == 1

        return self._write(work)

    def _account(self, id: str) -> Account | None:
        return next((a for a in self.accounts() if a.id == id), None)

    def _must_be_open(self, id: str, now_s: float) -> None:
        if not id:
            return
        account = self._account(id)
        if account is None or not account.good(now_s):
            what = "is closed" if account is not None else "does not exist"
            raise StoreError(f"the account `{id[:64]}` {what}; see: headgate accounts list")


def _steps() -> list[tuple[int, str]]:
    """The migrations, oldest first: number and script."""
    return sorted(
        (int(f.name.removesuffix(".sql")), f.read_text("utf-8"))
        for f in files("headgate.storage.sqlite").joinpath("schema").iterdir()
        if f.name.endswith(".sql")
    )


def _identity(path: Path) -> tuple[int, int]:
    """Which file is at the path; a copy that was put in its place is another one."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _columns(key: Key) -> tuple[object, ...]:
    """In the order of _KEY."""
    fields = msgspec.structs.asdict(key)
    lists = {name: msgspec.json.encode(fields[name]).decode() for name in _LISTS}
    return tuple({**fields, **lists}.values())


def _key(columns: Sequence[Any]) -> Key:  # Any: they are as the schema says
    fields = dict(zip(Key.__struct_fields__, columns, strict=True))
    lists = {n: msgspec.json.decode(fields[n], type=tuple[str, ...]) for n in _LISTS}
    return Key(**{**fields, **lists})


def _refuse(fault: str) -> None:
    if fault:
        raise StoreError(fault)


def fingerprint_of(pepper: bytes) -> bytes:
    """What a database keeps of its pepper, to notice another one."""
    return keys.mac(pepper, "purpose:fingerprint")


def _pepper(path: Path) -> bytes:
    """The secret of this data directory, made on first use, whole or not at all."""
    if not path.exists():
        fresh = path.with_name(f"pepper.{secrets.token_hex(8)}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(PEPPER_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was faster: its one holds
            os.link(fresh, path)
        fresh.unlink()
    pepper = path.read_bytes()
    if len(pepper) != PEPPER_BYTES:
        raise StoreError(
            f"{path} is damaged ({len(pepper)} bytes instead of {PEPPER_BYTES}): put back a copy;"
            " without it no key of this directory can be used."
        )
    return pepper
