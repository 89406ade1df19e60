"""People of the console, their sessions, management keys, and the record of who changed what.

The only place with their SQL, with audit_log.py and saved_views.py.  Of a session, a setup link and a management key only an HMAC is kept,
each under a secret of its own purpose.  Note: the database must be up
to date, so a Store has opened it before; passwords come here hashed.
"""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import apsw
import msgspec

from headgate.policy import keys
from headgate.policy.access import (
    IDLE_S,
    MANAGEMENT_PREFIX,
    SESSION_S,
    SETUP_S,
    Change,
    ManagementKey,
    Role,
    User,
    Via,
)
from headgate.policy.terms import MAX_NAME_CHARS, name_fault
from headgate.storage.errors import StoreError, StoreFault
from headgate.storage.interface import Keys
from headgate.storage.sharing import writing
from headgate.storage.sqlite import audit_log, saved_views
from headgate.storage.sqlite.database import BUSY_MS
from headgate.storage.sqlite.statements import insert

SEEN_BUSY_MS = 250  # for a note that can wait
SEEN_EVERY_S = 60.0  # a session's last use is written at most so often

_USER = ", ".join(User.__struct_fields__)
_MANAGEMENT = ", ".join(ManagementKey.__struct_fields__)


class People:
    def __init__(self, store: Keys, data: str | Path) -> None:
        self._sharing = store.sharing
        self._name = f"{data}/headgate.db"
        self._session_key = store.derived("sessions")
        self._setup_key = store.derived("setup")
        self._management_key = store.derived("management")
        with self._faults():
            self._db = apsw.Connection(self._name, flags=apsw.SQLITE_OPEN_READWRITE)
            self._db.set_busy_timeout(BUSY_MS)
            self._db.execute("pragma synchronous = full")
            self._db.execute("pragma foreign_keys = on")

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except apsw.ConstraintError as error:
            raise StoreError(f"that cannot be written: {error}.") from None
        except apsw.Error as error:
            raise StoreFault(f"{self._name}: {error}.") from None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._faults(), writing(self._db, self._sharing):
            yield

    def _all(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        # Any: the columns are as the schema (strict tables) and the query say
        with self._faults():
            return list(self._db.execute(sql, values))

    def _changed(self, sql: str, **values: object) -> bool:
        with self._transaction():
            self._db.execute(sql, values)
            return self._db.changes() > 0

    # --- the first admin

    def setup_link(self, *, now_s: float) -> str | None:
        """Return a fresh token for making the first admin; None once there is anybody."""
        token = secrets.token_urlsafe(32)
        mac = keys.mac(self._setup_key, token)
        made = self._changed(
            "insert into setup select 1, :mac, :expires_s where not exists (select 1 from users)"
            " on conflict do update set mac = :mac, expires_s = :expires_s",
            mac=mac,
            expires_s=now_s + SETUP_S,
        )
        return token if made else None

    def setup_open(self, token: str, *, now_s: float) -> bool:
        mac = keys.mac(self._setup_key, token)
        query = "select 1 from setup where mac = :mac and expires_s > :now_s"
        return bool(self._all(query, mac=mac, now_s=now_s))

    def first_admin(self, token: str, name: str, password: str, *, now_s: float) -> User | None:
        """The first admin, by the setup link: it works once, whoever else tries; None otherwise."""
        mac = keys.mac(self._setup_key, token)
        with self._transaction():
            self._db.execute(
                "delete from setup where mac = :mac and expires_s > :now_s",
                {"mac": mac, "now_s": now_s},
            )
            if not self._db.changes() or self._all("select 1 from users limit 1"):
                return None
            return self._insert(name, password, "admin", "", now_s)

    # --- saved views of the log

    def views(self, user: str) -> dict[str, str]:
        """The views that a user has saved: the query of each, by its name."""
        with self._faults():
            return saved_views.of(self._db, user)

    def save_view(self, user: str, name: str, query: str) -> None:
        """Save a view in place of one of the same name; StoreError for one too many."""
        with self._transaction():
            saved_views.save(self._db, user, name, query)

    def remove_view(self, user: str, name: str) -> bool:
        with self._transaction():
            return saved_views.remove(self._db, user, name)

    # --- users

    def users(self) -> list[User]:
        return [User(*c) for c in self._all(f"select {_USER} from users order by name")]

    def user(self, id: str) -> User | None:
        found = self._all(f"select {_USER} from users where id = :id", id=id)
        return User(*found[0]) if found else None

    def anybody(self) -> bool:
        """Whether there is a user; every visitor of the sign-in page asks."""
        return bool(self._all("select 1 from users limit 1"))

    def sign_in(self, name: str) -> tuple[User, str] | None:
        """An open user and the hash of their password; "" when they have none."""
        found = self._all(
            f"select password, {_USER} from users where name = :name and closed_s is null",
            name=name,
        )
        return (User(*found[0][1:]), str(found[0][0])) if found else None

    def create_user(
        self, name: str, password: str, role: Role, account: str = "", *, now_s: float
    ) -> User:
        """StoreError when the name is taken."""
        with self._transaction():
            return self._insert(name, password, role, account, now_s)

    def _insert(
        self,
        name: str,
        password: str,
        role: Role,
        account: str,
        now_s: float,
        email: str = "",
        issuer: str = "",
        subject: str = "",
    ) -> User:
        if fault := name_fault("a user", name):
            raise StoreError(fault)
        user = User(
            secrets.token_hex(8), name, email, issuer, subject, role, account, now_s, None, None
        )
        if self._all("select 1 from users where name = :name", name=name):
            raise StoreError(f"there is a user {name} already.")
        insert(self._db, "users", {**msgspec.structs.asdict(user), "password": password})
        return user

    def from_provider(
        self,
        issuer: str,
        subject: str,
        name: str,
        email: str,
        role: Role,
        account: str,
        *,
        now_s: float,
    ) -> User | None:
        """Who signs in by OIDC, made or brought up to date; None when they were closed here.

        Found by issuer and subject only: a name or an address can change hands.
        """
        with self._transaction():
            found = self._all(
                f"select {_USER} from users where issuer = :issuer and subject = :subject",
                issuer=issuer,
                subject=subject,
            )
            if not found:
                taken = self._all("select 1 from users where name = :name", name=name)
                shown = f"{name} ({subject})"[:MAX_NAME_CHARS] if taken else name
                return self._insert(shown, "", role, account, now_s, email, issuer, subject)
            user = User(*found[0])
            if user.closed_s is not None:
                return None
            self._db.execute(
                "update users set email = :email, role = :role, account = :account where id = :id",
                {"email": email, "role": role, "account": account, "id": user.id},
            )
            return msgspec.structs.replace(user, email=email, role=role, account=account)

    def change_user(
        self,
        id: str,
        *,
        role: Role | None = None,
        account: str | None = None,
        password: str | None = None,
        closed_s: float | None = None,
    ) -> bool:
        """Change what is given; whatever it is ends the user's sessions.

        StoreError when nobody would be left who can manage.
        """
        with self._transaction():
            user = self.user(id)
            if user is None or user.closed_s is not None:
                return False
            loses = closed_s is not None or role not in (None, "admin")
            others = "role = 'admin' and closed_s is null and id <> :id"
            if (
                user.role == "admin"
                and loses
                and not self._all(f"select 1 from users where {others}", id=id)
            ):
                raise StoreError("this is the last admin; make another one first.")
            self._db.execute(
                "update users set role = coalesce(:role, role), account = coalesce(:account, account),"
                " password = coalesce(:password, password), closed_s = coalesce(:closed_s, closed_s)"
                " where id = :id",
                {
                    "role": role,
                    "account": account,
                    "password": password,
                    "closed_s": closed_s,
                    "id": id,
                },
            )
            self._db.execute("delete from sessions where user = :id", {"id": id})
            return True

    # --- sessions

    def open_session(self, user: str, *, now_s: float) -> str:
        """Return a new session's token: 256 bits, nowhere kept."""
        token = secrets.token_urlsafe(32)
        with self._transaction():
            self._db.execute("delete from sessions where ends_s <= :now_s", {"now_s": now_s})
            session = {
                "mac": keys.mac(self._session_key, token),
                "user": user,
                "began_s": now_s,
                "seen_s": now_s,
                "ends_s": now_s + SESSION_S,
            }
            insert(self._db, "sessions", session)
            self._db.execute(
                "update users set seen_s = :now_s where id = :id", {"now_s": now_s, "id": user}
            )
        return token

    def session(self, token: str, *, now_s: float) -> User | None:
        """Whose session this is; None once it has ended, was idle too long, or its user is closed."""
        mac = keys.mac(self._session_key, token)
        columns = ", ".join(f"users.{c}" for c in User.__struct_fields__)
        found = self._all(
            f"select sessions.seen_s, {columns} from sessions join users on users.id = sessions.user"
            " where mac = :mac and ends_s > :now_s and sessions.seen_s > :idle_since_s"
            " and users.closed_s is null",
            mac=mac,
            now_s=now_s,
            idle_since_s=now_s - IDLE_S,
        )
        if not found:
            return None
        if now_s - found[0][0] > SEEN_EVERY_S:
            # A full disk, or a lock, must not keep people from looking: it is tried again next time.
            self._db.set_busy_timeout(SEEN_BUSY_MS)
            try:
                with contextlib.suppress(StoreError):
                    self._changed(
                        "update sessions set seen_s = :now_s where mac = :mac", now_s=now_s, mac=mac
                    )
            finally:
                self._db.set_busy_timeout(BUSY_MS)
        return User(*found[0][1:])

    def close_session(self, token: str) -> None:
        mac = keys.mac(self._session_key, token)
        self._changed("delete from sessions where mac = :mac", mac=mac)

    def form_token(self, token: str) -> str:
        """What a form of this session must carry; it tells nothing about the session's token."""
        return keys.mac(self._session_key, f"form:{token}").hex()

    def sealed(self, purpose: str, data: bytes) -> str:
        """The data, with a proof that it is ours; not hidden."""
        return f"{data.hex()}.{keys.mac(self._session_key, f'{purpose}:{data.hex()}').hex()}"

    def opened(self, purpose: str, text: str) -> bytes | None:
        """What was sealed for this purpose; None when it was not, or changed since."""
        data, _, proof = text.partition(".")
        right = keys.mac(self._session_key, f"{purpose}:{data}").hex()
        try:
            return bytes.fromhex(data) if secrets.compare_digest(right, proof) else None
        except (ValueError, TypeError):
            return None

    # --- keys of the admin API

    def management_keys(self) -> list[ManagementKey]:
        rows = self._all(f"select {_MANAGEMENT} from management_keys order by created_s, id")
        return [ManagementKey(*c) for c in rows]

    def create_management_key(
        self,
        name: str,
        role: Literal["admin", "viewer"],
        expires_s: float | None = None,
        *,
        now_s: float,
    ) -> tuple[ManagementKey, str]:
        """A new one and its text, which is nowhere kept."""
        if fault := name_fault("a key", name):
            raise StoreError(fault)
        text, parsed = keys.new_text(secrets.token_bytes(38))
        key = ManagementKey(parsed.id, name, role, now_s, expires_s, None)
        mac = keys.mac(self._management_key, parsed.secret)
        with self._transaction():
            insert(self._db, "management_keys", {**msgspec.structs.asdict(key), "mac": mac})
        return key, MANAGEMENT_PREFIX + text.removeprefix(keys.PREFIX)

    def revoke_management_key(self, id: str, *, now_s: float) -> bool:
        return self._changed(
            "update management_keys set revoked_s = :now_s"
            " where id = :id and (revoked_s is null or revoked_s > :now_s)",
            now_s=now_s,
            id=id,
        )

    def manager(self, text: str, *, now_s: float) -> ManagementKey | None:
        """The management key that was presented, if it is right and good now."""
        key = self.presented_manager(text)
        return key if key is not None and key.good(now_s) else None

    def presented_manager(self, text: str) -> ManagementKey | None:
        """The management key with this secret, also when it has expired or was revoked."""
        known = text.startswith(MANAGEMENT_PREFIX)
        parsed = keys.parse(keys.PREFIX + text.removeprefix(MANAGEMENT_PREFIX)) if known else None
        found = (
            self._all(
                f"select mac, {_MANAGEMENT} from management_keys where id = :id", id=parsed.id
            )
            if parsed is not None
            else []
        )
        secret = parsed.secret if parsed is not None else ""
        kept = found[0][0] if found else bytes(32)
        if not secrets.compare_digest(keys.mac(self._management_key, secret), kept) or not found:
            return None
        return ManagementKey(*found[0][1:])

    # --- who changed what

    def record(
        self,
        actor: str,
        via: Via,
        action: str,
        subject: str,
        account: str = "",
        detail: dict[str, object] | None = None,
        *,
        now_s: float,
    ) -> None:
        made = (now_s, actor, via, action, subject, account, detail or {})
        with self._transaction():
            audit_log.add(self._db, Change(0, *made))

    def changes(
        self, *, account: str | None = None, before: int | None = None, most: int = 50
    ) -> list[Change]:
        """Return the newest first; `before`: the last one's seq, for the next page."""
        with self._faults():
            return audit_log.page(self._db, account, before, most)
