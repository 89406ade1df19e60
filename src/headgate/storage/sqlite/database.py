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
from typing import Any, Literal, TypeVar, Unpack

import apsw
import msgspec

from headgate.policy import keys
from headgate.policy import terms as terms_rules
from headgate.policy.key_snapshot import KeySnapshot
from headgate.policy.key_terms import BudgetTerms
from headgate.policy.keys import Account, AccountChanges, Changes, Key, Terms
from headgate.policy.upstream_keys import OwnedKey, OwnedKeys, OwnerKind
from headgate.policy.upstream_keys import fault_of as upstream_key_fault
from headgate.storage.errors import StoreError as StoreError
from headgate.storage.errors import StoreFault as StoreFault
from headgate.storage.sharing import Sharing, check_pepper, writing
from headgate.storage.sqlite import shared, upstream_keys
from headgate.storage.sqlite.statements import insert, update
from headgate.storage.sqlite.transactions import transaction

T = TypeVar("T")
BUSY_MS = 5000
PEPPER_BYTES = 32

_KEY = ", ".join(Key.__struct_fields__)  # the columns have the same names
_ACCOUNT = ", ".join(Account.__struct_fields__)
_LISTS = ("models", "allowed_cidrs")  # of Key; their columns are JSON


# One owner's, so that they are those of all of its keys
_SHARED = ("account", *terms_rules.TERMS)


_Own = Literal["own_models", "own_upstreams"]  # tables of the operator's own


class Store:
    """Opens, and on first use makes, the directory, the pepper and the database."""

    def __init__(
        self,
        data: str | Path,
        *,
        create: bool = True,
        database: str = "",
        pepper_file: str = "",
    ) -> None:
        """`create` False: nothing is created or migrated, so that a look changes nothing.

        `database`: through which keys, accounts and people are shared with other nodes.  A directory
        without any of its own joins it.  `pepper_file`: what the pepper of a new directory is copied of.
        """
        self._directory = Path(data)
        self._sharing = Sharing(database) if database else None
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
            if create and database and not (pepper_file or pepper.exists()):
                check_pepper(database, self._directory)
            self._pepper = _pepper(pepper, pepper_file if create else "")
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
            if create and self._sharing is not None and shared.joined(self._db) is None:
                self._join(self._sharing)
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
    def sharing(self) -> Sharing | None:
        """The database through which nodes share keys and people; None: this directory does not."""
        return self._sharing

    @property
    def directory(self) -> Path:
        return self._directory

    def derived(self, purpose: str) -> bytes:
        """Return a secret of this data directory for one purpose: 32 bytes, the same after a restart."""
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

            self._write_here(step)

    def _join(self, sharing: Sharing) -> None:
        if shared.empty(self._db):
            sharing.join(self._db, fingerprint_of(self._pepper))

    @property
    def shares(self) -> bool:
        """Whether keys, accounts and people are shared with other nodes."""
        with self._faults():
            return shared.joined(self._db) is not None

    def follows(self) -> bool:
        """Whether what is shared is in the database that is set, and not in one that is gone; StoreError."""
        assert self._sharing is not None
        with self._faults():
            here = shared.joined(self._db)
            return here is not None and here.cluster == self._sharing.state().cluster

    def bring(self) -> None:
        """Copy the rows of this directory into a database without any, and share them; StoreError."""
        assert self._sharing is not None
        with self._faults():
            self._sharing.join(self._db, fingerprint_of(self._pepper), bring=True)

    def pull(self) -> None:
        """Bring the copy of the shared rows up to date, if there is one; StoreError."""
        if self._sharing is not None and self.shares:
            with self._faults():
                self._sharing.pull(self._db)

    def shared_rows(self) -> list[shared.SharedRow]:
        """Return the rows that are shared, or would be."""
        with self._faults(), transaction(self._db, keep=False):
            return shared.everything(self._db)

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
            self._write_here(
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
        """Run `work`, which changes rows that may be shared, in one transaction."""
        with self._faults(), writing(self._db, self._sharing):
            return work()

    def _write_here(self, work: Callable[[], T]) -> T:
        """Run `work`, which changes what is this directory's only, in one transaction."""
        with self._faults(), transaction(self._db):
            return work()

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

    # models and upstreams of the operator's own

    def own_models(self) -> dict[str, str]:
        """Return the stored models by id: the fields of each as JSON."""
        return self._own("own_models")

    def put_own_model(self, id: str, text: str, *, now_s: float) -> None:
        """Store a model, in place of one of the same name; whoever calls has checked it."""
        self._put_own("own_models", id, text, now_s)

    def remove_own_model(self, id: str) -> bool:
        """Take a stored model out; False when there is none of this name."""
        return self._remove_own("own_models", id)

    def own_upstreams(self) -> dict[str, str]:
        """Return the stored upstreams by name: the fields of each as JSON, the key sealed."""
        return self._own("own_upstreams")

    def put_own_upstream(self, id: str, text: str, *, now_s: float) -> None:
        """Store an upstream, in place of one of the same name; whoever calls has checked it."""
        self._put_own("own_upstreams", id, text, now_s)

    def remove_own_upstream(self, id: str) -> bool:
        """Take a stored upstream out; False when there is none of this name."""
        return self._remove_own("own_upstreams", id)

    def _own(self, table: _Own) -> dict[str, str]:
        with self._faults():
            rows = self._db.execute(f"select id, settings from {table} order by id")
            return {str(id): str(text) for id, text in rows}

    def _put_own(self, table: _Own, id: str, text: str, now_s: float) -> None:
        self._write(
            lambda: self._db.execute(
                f"insert into {table} values (:id, :settings, :now_s)"
                " on conflict (id) do update set settings = :settings, changed_s = :now_s",
                {"id": id, "settings": text, "now_s": now_s},
            )
        )

    def _remove_own(self, table: _Own, id: str) -> bool:
        def work() -> bool:
            self._db.execute(f"delete from {table} where id = ?", (id,))
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
        insert(self._db, "keys", {**_columns(key), "mac": keys.mac(self._pepper, secret)})

    def change_key(self, id: str, *, now_s: float, **changes: Unpack[Changes]) -> Key | None:
        """Return the key with some of its fields replaced; None when it is not good any more.

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
            update(self._db, "keys", _columns(new))
            terms = ", ".join(_SHARED)
            self._db.execute(
                f"update keys set ({terms}) = (select {terms} from keys where id = :id)"
                " where (id = :owner or rotation_group = :owner) and id <> :id",
                {"id": id, "owner": new.owner},
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

    # upstream keys of owners

    def upstream_keys(self) -> list[OwnedKey]:
        """Return what may be shown of all owners' upstream keys."""
        with self._faults():
            return [row.shown for row in upstream_keys.rows(self._db)]

    def owned_keys(self) -> OwnedKeys:
        """Return all owners' upstream keys, encrypted, with what opens them."""
        with self._faults():
            rows = upstream_keys.rows(self._db)
        cipher_key = self.derived(upstream_keys.PURPOSE)
        if rows:
            upstream_keys.load()
        return OwnedKeys(rows, lambda row: upstream_keys.opened(cipher_key, row))

    def put_upstream_key(
        self,
        kind: OwnerKind,
        owner: str,
        upstream: str,
        secret: str,
        *,
        fallback: bool = False,
        now_s: float,
    ) -> OwnedKey:
        """Store an owner's key for an upstream, in place of the one before; StoreError for a bad one.

        `owner` is the id of a gateway key, whose rotations have it too, or of an account.
        """
        _refuse(upstream_key_fault(secret))
        cipher_key = self.derived(upstream_keys.PURPOSE)

        def work() -> OwnedKey:
            owned_by = self._owning(kind, owner, now_s)
            return upstream_keys.put(
                self._db, cipher_key, secret, kind, owned_by, upstream, fallback, now_s
            )

        return self._write(work)

    def _owning(self, kind: OwnerKind, owner: str, now_s: float) -> str:
        if kind == "account":
            if not owner:
                raise StoreError("an account's id is missing.")
            self._must_be_open(owner, now_s)
            return owner
        key = next((k for k in self.keys() if k.id == owner), None)
        if key is None or not key.good(now_s):
            what = "is closed" if key is not None else "does not exist"
            raise StoreError(f"the key `{owner[:64]}` {what}; see: headgate keys list")
        return key.owner

    def remove_upstream_key(self, kind: OwnerKind, owner: str, upstream: str) -> bool:
        """Delete an owner's key for an upstream; False when there is none."""

        def work() -> bool:
            id = owner
            if kind == "key":
                id = next((k.owner for k in self.keys() if k.id == owner), owner)
            return upstream_keys.remove(self._db, kind, id, upstream)

        return self._write(work)

    def revoke(self, id: str, *, now_s: float) -> bool:
        """Close a key for good; False when there is none with this id that is open."""

        def work() -> bool:
            self._db.execute(
                "update keys set revoked_s = :now_s"
                " where id = :id and (revoked_s is null or revoked_s > :now_s)",
                {"now_s": now_s, "id": id},
            )
            done = self._db.changes() == 1
            upstream_keys.forget_unusable(self._db, now_s)
            return done

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
                "update keys set revoked_s = min(coalesce(revoked_s, :ends_s), :ends_s) where id = :id",
                {"ends_s": now_s + overlap_s, "id": id},
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
        """Return a new account; StoreError for a bad or taken id, a bad name or term."""
        account = Account(id, name, now_s, None, **terms)
        _refuse(terms_rules.account_id_fault(id))
        _refuse(terms_rules.fault_of(account))

        def work() -> None:
            if self._account(id) is not None:
                raise StoreError(f"there is an account `{id}` already.")
            insert(self._db, "accounts", msgspec.structs.asdict(account))

        self._write(work)
        return account

    def change_account(
        self, id: str, *, now_s: float, **changes: Unpack[AccountChanges]
    ) -> Account | None:
        """Return the account with some of its fields replaced; None when it is not open any more.

        StoreError when the fields cannot be so, and then nothing is changed.
        """

        def work() -> Account | None:
            old = self._account(id)
            if old is None or not old.good(now_s):
                return None
            new = msgspec.structs.replace(old, **changes)
            _refuse(terms_rules.fault_of(new))
            update(self._db, "accounts", msgspec.structs.asdict(new))
            return new

        return self._write(work)

    def close_account(self, id: str, *, now_s: float) -> bool:
        """From now on its keys open nothing, for good; False when no open account has this id."""

        def work() -> bool:
            self._db.execute(
                "update accounts set closed_s = :now_s"
                " where id = :id and (closed_s is null or closed_s > :now_s)",
                {"now_s": now_s, "id": id},
            )
            done = self._db.changes() == 1
            upstream_keys.forget_unusable(self._db, now_s)
            return done

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
    """Return the migrations, oldest first: number and script."""
    return sorted(
        (int(f.name.removesuffix(".sql")), f.read_text("utf-8"))
        for f in files("headgate.storage.sqlite").joinpath("schema").iterdir()
        if f.name.endswith(".sql")
    )


def _identity(path: Path) -> tuple[int, int]:
    """Which file is at the path; a copy that was put in its place is another one."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _columns(key: Key) -> dict[str, object]:
    """Return a key's columns by name, but for what proves its secret."""
    fields = msgspec.structs.asdict(key)
    lists = {name: msgspec.json.encode(fields[name]).decode() for name in _LISTS}
    return {**fields, **lists}


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


def _pepper(path: Path, source: str = "") -> bytes:
    """The secret of this data directory, made or copied on first use, whole or not at all."""
    if source and path.exists() and Path(source).read_bytes() != path.read_bytes():
        raise StoreError(
            f"{path} is not the pepper in {source}, which `pepper_file` names; remove the setting, or"
            " begin with an empty data directory."
        )
    if not path.exists():
        secret = Path(source).read_bytes() if source else secrets.token_bytes(PEPPER_BYTES)
        fresh = path.with_name(f"pepper.{secrets.token_hex(8)}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
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
