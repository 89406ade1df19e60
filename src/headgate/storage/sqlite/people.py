"""People of the console, their sessions, management keys, and the record of who changed what.

The rows of each are in a module of their own (users.py, sessions.py, saved_views.py, management_keys.py,
audit_log.py); here are the connection and what is one transaction.  Of a session, a setup link and a
management key only an HMAC is kept, each under a secret of its own purpose.

Note: the database must be up to date, so a Store has opened it before; passwords come here hashed.
"""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import apsw

from headgate.policy import keys
from headgate.policy.access import SETUP_S, Change, ManagementKey, Role, User, Via
from headgate.storage.errors import StoreError, StoreFault
from headgate.storage.interface import Keys
from headgate.storage.sharing import writing
from headgate.storage.sqlite import audit_log, management_keys, saved_views, sessions, users
from headgate.storage.sqlite.database import BUSY_MS

SEEN_BUSY_MS = 250  # for a note that can wait
SEEN_EVERY_S = 60.0  # a session's last use is written at most so often


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
            if not self._db.changes() or users.anybody(self._db):
                return None
            return users.create(self._db, name, password, "admin", "", now_s=now_s)

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
        with self._faults():
            return users.everybody(self._db)

    def user(self, id: str) -> User | None:
        with self._faults():
            return users.by_id(self._db, id)

    def anybody(self) -> bool:
        """Whether there is a user; every visitor of the sign-in page asks."""
        with self._faults():
            return users.anybody(self._db)

    def sign_in(self, name: str) -> tuple[User, str] | None:
        """An open user and the hash of their password; "" when they have none."""
        with self._faults():
            return users.with_password(self._db, name)

    def create_user(
        self, name: str, password: str, role: Role, account: str = "", *, now_s: float
    ) -> User:
        """StoreError when the name is taken."""
        with self._transaction():
            return users.create(self._db, name, password, role, account, now_s=now_s)

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
        """Who signs in by OIDC, made or brought up to date; None when they were closed here."""
        with self._transaction():
            return users.from_provider(
                self._db, issuer, subject, name, email, role, account, now_s=now_s
            )

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
            return users.change(self._db, id, role, account, password, closed_s)

    # --- sessions

    def open_session(self, user: str, *, now_s: float) -> str:
        """Return a new session's token: 256 bits, nowhere kept."""
        token = secrets.token_urlsafe(32)
        with self._transaction():
            sessions.begin(self._db, keys.mac(self._session_key, token), user, now_s)
        return token

    def session(self, token: str, *, now_s: float) -> User | None:
        """Whose session this is; None once it has ended, was idle too long, or its user is closed."""
        mac = keys.mac(self._session_key, token)
        with self._faults():
            found = sessions.user_of(self._db, mac, now_s)
        if found is None:
            return None
        user, seen_s = found
        if now_s - seen_s > SEEN_EVERY_S:
            # A full disk, or a lock, must not keep people from looking: it is tried again next time.
            self._db.set_busy_timeout(SEEN_BUSY_MS)
            try:
                with contextlib.suppress(StoreError):
                    self._changed(
                        "update sessions set seen_s = :now_s where mac = :mac", now_s=now_s, mac=mac
                    )
            finally:
                self._db.set_busy_timeout(BUSY_MS)
        return user

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
        with self._faults():
            return management_keys.rows(self._db)

    def create_management_key(
        self,
        name: str,
        role: Literal["admin", "viewer"],
        expires_s: float | None = None,
        *,
        now_s: float,
    ) -> tuple[ManagementKey, str]:
        """A new one and its text, which is nowhere kept."""
        with self._transaction():
            return management_keys.create(
                self._db, self._management_key, name, role, expires_s, now_s
            )

    def revoke_management_key(self, id: str, *, now_s: float) -> bool:
        with self._transaction():
            return management_keys.revoke(self._db, id, now_s)

    def manager(self, text: str, *, now_s: float) -> ManagementKey | None:
        """The management key that was presented, if it is right and good now."""
        key = self.presented_manager(text)
        return key if key is not None and key.good(now_s) else None

    def presented_manager(self, text: str) -> ManagementKey | None:
        """The management key with this secret, also when it has expired or was revoked."""
        with self._faults():
            return management_keys.presented(self._db, self._management_key, text)

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
