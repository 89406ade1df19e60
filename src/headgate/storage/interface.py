"""What the rest of the program asks of storage; sqlite/ has it, alone or as the copy of what nodes share.

Rules are not here: what a key or a name may be is in policy/, cookies and forms are in web/auth.
tests/storage/test_storage_contract.py runs over each implementation.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol, Unpack

from headgate.policy.access import Change, ManagementKey, Role, User, Via
from headgate.policy.key_snapshot import KeySnapshot
from headgate.policy.key_terms import BudgetTerms
from headgate.policy.keys import Account, AccountChanges, Changes, Key, Terms
from headgate.policy.upstream_keys import OwnedKey, OwnedKeys, OwnerKind
from headgate.storage.figures import (
    ALL,
    END_OF_TIME_S,
    Balance,
    By,
    Column,
    Difference,
    Measured,
    Only,
    Order,
    RequestFacts,
    SessionSum,
    Spent,
    Step,
    Where,
)
from headgate.storage.rows import IntentRecord, LedgerRow
from headgate.storage.sharing import Sharing


class Keys(Protocol):
    """Reads and writes keys and accounts."""

    @property
    def sharing(self) -> Sharing | None:
        """The database through which nodes share them; None: this directory does not."""

    def derived(self, purpose: str) -> bytes:
        """Return a secret of this data directory for one purpose: 32 bytes, the same after a restart."""

    def data_version(self) -> int:
        """Changes whenever a key has, by any connection: cheap enough to poll."""

    def own_models(self) -> dict[str, str]:
        """Return the stored models by id: the fields of each as JSON."""

    def put_own_model(self, id: str, text: str, *, now_s: float) -> None:
        """Store a model, in place of one of the same name; whoever calls has checked it."""

    def remove_own_model(self, id: str) -> bool:
        """Take a stored model out; False when there is none of this name."""

    def upstream_keys(self) -> list[OwnedKey]:
        """Return what may be shown of all owners' upstream keys."""

    def owned_keys(self) -> OwnedKeys:
        """Return all owners' upstream keys, encrypted, with what opens them."""

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
        """Store an owner's key for an upstream, in place of the one before; StoreError for a bad one."""

    def remove_upstream_key(self, kind: OwnerKind, owner: str, upstream: str) -> bool:
        """Delete an owner's key for an upstream; False when there is none."""

    def own_upstreams(self) -> dict[str, str]:
        """Return the stored upstreams by name: the fields of each as JSON, the key sealed."""

    def put_own_upstream(self, id: str, text: str, *, now_s: float) -> None:
        """Store an upstream, in place of one of the same name; whoever calls has checked it."""

    def remove_own_upstream(self, id: str) -> bool:
        """Take a stored upstream out; False when there is none of this name."""

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
        """A new key and its text, which is nowhere kept."""

    def change_key(self, id: str, *, now_s: float, **changes: Unpack[Changes]) -> Key | None:
        """Return the key with some of its fields replaced; None when it is not good any more."""

    def keys(self) -> list[Key]:
        """All keys, oldest first, also those that are revoked or expired."""

    def ring(self) -> KeySnapshot: ...

    def revoke(self, id: str, *, now_s: float) -> bool:
        """Close a key for good; False when there is none with this id that is open."""

    def rotate(self, id: str, *, now_s: float, overlap_s: float = 0) -> tuple[Key, str] | None:
        """A new key with the rights of an old one, which ends after `overlap_s` seconds."""

    def accounts(self) -> list[Account]:
        """All accounts, oldest first, also those that are closed."""

    def create_account(
        self, id: str, name: str, *, now_s: float, **terms: Unpack[BudgetTerms]
    ) -> Account:
        """Return a new account; StoreError for a bad or taken id, a bad name or term."""

    def change_account(
        self, id: str, *, now_s: float, **changes: Unpack[AccountChanges]
    ) -> Account | None:
        """Return the account with some of its fields replaced; None when it is not open any more."""

    def close_account(self, id: str, *, now_s: float) -> bool:
        """From now on its keys open nothing, for good; False when no open account has this id."""


class People(Protocol):
    """People of the console, their sessions, management keys, and the audit log."""

    def setup_link(self, *, now_s: float) -> str | None:
        """Return a fresh token for making the first admin; None once there is anybody."""

    def setup_open(self, token: str, *, now_s: float) -> bool: ...

    def first_admin(self, token: str, name: str, password: str, *, now_s: float) -> User | None:
        """The first admin, by the setup link: it works once, whoever else tries; None otherwise."""

    def users(self) -> list[User]: ...

    def user(self, id: str) -> User | None: ...

    def anybody(self) -> bool:
        """Whether there is a user; every visitor of the sign-in page asks."""

    def sign_in(self, name: str) -> tuple[User, str] | None:
        """An open user and the hash of their password; "" when they have none."""

    def create_user(
        self, name: str, password: str, role: Role, account: str = "", *, now_s: float
    ) -> User:
        """StoreError when the name is taken."""

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

    def change_user(
        self,
        id: str,
        *,
        role: Role | None = None,
        account: str | None = None,
        password: str | None = None,
        closed_s: float | None = None,
    ) -> bool:
        """Change what is given; whatever it is ends the user's sessions."""

    def open_session(self, user: str, *, now_s: float) -> str:
        """Return a new session's token: 256 bits, nowhere kept."""

    def session(self, token: str, *, now_s: float) -> User | None:
        """Whose session this is; None once it has ended, was idle too long, or its user is closed."""

    def close_session(self, token: str) -> None: ...

    def form_token(self, token: str) -> str:
        """What a form of this session must carry; it tells nothing about the session's token."""

    def sealed(self, purpose: str, data: bytes) -> str:
        """The data, with a proof that it is ours; not hidden."""

    def opened(self, purpose: str, text: str) -> bytes | None:
        """What was sealed for this purpose; None when it was not, or changed since."""

    def management_keys(self) -> list[ManagementKey]: ...

    def create_management_key(
        self,
        name: str,
        role: Literal["admin", "viewer"],
        expires_s: float | None = None,
        *,
        now_s: float,
    ) -> tuple[ManagementKey, str]:
        """A new one and its text, which is nowhere kept."""

    def revoke_management_key(self, id: str, *, now_s: float) -> bool: ...

    def manager(self, text: str, *, now_s: float) -> ManagementKey | None:
        """The management key that was presented, if it is right and good now."""

    def presented_manager(self, text: str) -> ManagementKey | None:
        """The management key with this secret, also when it has expired or was revoked."""

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
    ) -> None: ...

    def changes(
        self, *, account: str | None = None, before: int | None = None, most: int = 50
    ) -> list[Change]:
        """Return the newest first; `before`: the last one's seq, for the next page."""


class Ledger(Protocol):
    """Exactly one row for each exchange, whatever happens to the processes or to the disk."""

    @property
    def waiting(self) -> int:
        """Rows that the disk has not taken, though it had its time."""

    @property
    def fault(self) -> str:
        """Why no request can be recorded now; "" when nothing is known against it."""

    async def open(self, intent: IntentRecord) -> None:
        """Commit that an upstream is about to be contacted; LedgerFault: it must not be."""

    async def settle(self, row: LedgerRow) -> bytes:
        """Commit the row in the place of its intent.  A second one with the same id changes nothing."""

    def settle_soon(self, row: LedgerRow) -> None:
        """As `settle`, for a task that cannot wait because it is being cancelled."""


class Reports(Protocol):
    """Reports from a ledger: this node's own, or that of all nodes that share a database."""

    def generation(self, id: str) -> LedgerRow | None:
        """Return the row of one exchange; None while it runs, and when there is none."""

    def session(
        self, id: str, key: str | None = None, *, most: int = 10000, after: str = ""
    ) -> list[LedgerRow]:
        """Return the exchanges of one session, oldest first; of one key only, where others must not see."""

    def session_sum(self, id: str, key: str) -> SessionSum:
        """What the exchanges of one session and key add up to."""

    def usage(
        self,
        by: By,
        since_s: float = 0.0,
        until_s: float = END_OF_TIME_S,
        *,
        where: Where = ALL,
        most: int | None = None,
    ) -> list[Spent]:
        """Sums of the exchanges that began in [since_s, until_s): times in order, others by cost."""

    def series(
        self, split: By | None, since_s: float, until_s: float, *, step: Step, where: Where = ALL
    ) -> list[tuple[int, Spent]]:
        """As `usage`, for each hour or day (UTC) that has exchanges: its start in Unix seconds first."""

    def measured(self, since_s: float) -> dict[str, Measured]:
        """What each upstream did in the hours since then: of its errors, only its own."""

    def measured_routes(self, since_s: float) -> dict[tuple[str, str], Measured]:
        """Return the same as `measured`, by model and upstream; all upstreams of a model together are `""`."""

    def requests(
        self,
        where: Where = ALL,
        *,
        before: int | None = None,
        since_s: float = 0.0,
        until_s: float = END_OF_TIME_S,
        most: int = 50,
        only: Sequence[Only] = (),
        text: str = "",
    ) -> list[tuple[int, LedgerRow]]:
        """Exchanges as they were settled, the last one first, each with its seq."""

    def request_facts(
        self,
        where: Where = ALL,
        *,
        since_s: float = 0.0,
        until_s: float = END_OF_TIME_S,
        most: int,
        only: Sequence[Only] = (),
        text: str = "",
    ) -> list[RequestFacts]:
        """Return what figures over the last `most` exchanges of `requests` are made of."""

    def requests_in_order(
        self,
        order: Order,
        where: Where = ALL,
        *,
        descending: bool,
        skip: int = 0,
        since_s: float = 0.0,
        until_s: float = END_OF_TIME_S,
        most: int = 50,
        of: int,
        only: Sequence[Only] = (),
        text: str = "",
        names: Mapping[str, str] = {},
    ) -> tuple[list[tuple[int, LedgerRow]], int]:
        """A page of the last `of` exchanges of `requests` in another order, and how many these are."""

    def requests_after(
        self,
        seq: int,
        where: Where = ALL,
        *,
        since_s: float = 0.0,
        most: int = 1000,
        only: Sequence[Only] = (),
    ) -> list[tuple[int, LedgerRow]]:
        """Return the exchanges whose number is above `seq`, the oldest first."""

    def names(self, column: Column) -> list[str]:
        """The values there are, in order, also of rows that were deleted."""

    def balances(self) -> list[Balance]:
        """What each key has spent since ever."""

    def spent_by_key(self, id: str) -> int:
        """What one key has spent since ever, in nano-dollars."""

    def spent(
        self, since: Iterable[tuple[Literal["key", "account"], float]]
    ) -> dict[tuple[Literal["key", "account"], float], dict[str, int]]:
        """For each kind of owner and moment (Unix seconds): what each has spent since, nano-dollars."""

    def last_seq(self) -> int:
        """Return the number of the newest row; 0 when there is none."""

    def hours(
        self, since_s: float, until_s: float, upstream: str | None = None
    ) -> list[tuple[int, Spent]]:
        """Sums of each model in each hour (Unix seconds / 3600) that begins in [since_s, until_s)."""

    def disputed(
        self, since_s: float = 0.0, until_s: float = END_OF_TIME_S, upstream: str | None = None
    ) -> int:
        """Exchanges whose upstream reported more tokens than their request allowed, still kept."""

    def nodes_of(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the ids of the nodes that answered these exchanges; of a ledger of one node, none."""

    def node_names(self) -> dict[str, str]:
        """Return what each node is called that has sent rows, by its id; no two alike."""

    def close(self) -> None: ...


class OwnReports(Reports, Protocol):
    """Reports from this node's own ledger, also of exchanges that still run."""

    def begun(self, ids: Sequence[str]) -> dict[str, LedgerRow | None]:
        """Of these exchanges those that have a row, or None: an intent record."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Let all that is read in the block be of one moment."""

    def recorded(self, ids: Sequence[str]) -> set[str]:
        """Of these exchanges those that have a row."""

    def intents(self) -> int:
        """Exchanges that run now, or whose process died and that nobody has recovered yet."""

    def audit(self) -> list[Difference]:
        """Recompute everything from the rows; what is stored and differs, or nothing."""
