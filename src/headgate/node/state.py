"""What the node knows, and how it decides each message: admission, and what goes to the ledger.

There are no sockets here (server.py), and time passes only through Admissions.  A message is decided
when it comes; what it writes is committed with the group that it came in, and `undo` takes back what a
disk has not taken.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from headgate.errors import Failure
from headgate.node.admission import Admissions, Admitted, Demand, Place, Spent
from headgate.node.handover import HandedOver
from headgate.node.leasing import Leasing, Waiting
from headgate.node.shared import Shared, Sharer
from headgate.node.wire import (
    Enter,
    Entered,
    Extend,
    Extended,
    Hello,
    Leave,
    Open,
    Opened,
    Question,
    Settled,
    Standing,
    Standings,
)
from headgate.policy.limit_kinds import LIMITS, Limit
from headgate.policy.limits import LimitRefusal
from headgate.storage.errors import StoreError
from headgate.storage.sqlite import recovery
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.process_lock import Lives
from headgate.storage.sqlite.reports import UsageReader
from headgate.storage.sqlite.writer import (
    Durable,
    Intent,
    Row,
    Withdrawal,
    Writer,
    WriterConfig,
)

_encode = msgspec.json.Encoder().encode
SHARED_REFUSAL_S = 1.0  # an edge repeats the refusal of a limit over all nodes no longer


class Entrance(msgspec.Struct, eq=False):
    """A request that has entered and is not open yet."""

    owner: str
    limits: tuple[Limit, ...]
    admission: Place


class Edge:
    """One connection's process, and its requests that have entered."""

    def __init__(self) -> None:
        self.instance = ""
        self.entered: dict[int, Entrance] = {}
        self.sharer = Sharer()


class _Reserved(msgspec.Struct):
    """Reads from an intent on the disk what was reserved for it."""

    request_id: str
    key_id: str
    model: str
    started_at: float
    account: str = ""
    owner: str = ""
    reserved_nano: int = 0


_decode_reserved = msgspec.json.Decoder(_Reserved).decode


class _Keys(msgspec.Struct, frozen=True):
    """The keys of one moment, as far as the node needs them."""

    version: int
    owners: dict[str, str]  # by the key's id
    spent: Spent


class Node:
    """The state of one machine."""

    def __init__(self, data: str | Path, orders: WriterConfig) -> None:
        self.writer = Writer(orders)
        self.shared = Shared()
        self.leasing: Leasing | None = None  # set before the first request
        self._data = Path(data)
        self._tickets: dict[str, Admitted] = {}  # of open exchanges, by id
        self._instances: dict[str, str] = {}  # of open exchanges, by id
        self._store: Store | None = None
        self._usage: UsageReader | None = None
        self._admissions: Admissions | None = None
        self._version = -1  # of the keys that are in force
        self._owners: dict[str, str] = {}  # by the key's id
        self._polled: Store | None = None

    # --- keys and budgets

    @property
    def admissions(self) -> Admissions:
        """The limits and budgets; StoreError when the keys cannot be read."""
        if self._admissions is None:
            self._store = Store(self._data, create=False)
            self._usage = UsageReader(self._data)
            self._admissions = Admissions(self._usage, self.leasing)
        return self._admissions

    def refresh(self) -> None:
        """Read the keys anew if they have changed; StoreError."""
        admissions = self.admissions
        assert self._store is not None
        if self._store.data_version() != self._version:
            with admissions.reading():
                found = self._read(self._store, admissions)
                if found is not None:
                    self._apply(found)

    async def keep_fresh(self) -> bool:
        """Read the keys anew if they have changed, in a thread, for one caller at a time; whether they had."""
        admissions = self.admissions
        if self._polled is None:  # a connection of its own: `refresh` may be called meanwhile
            self._polled = Store(self._data, create=False)
        store = self._polled
        if store.data_version() != self._version:
            with admissions.reading():
                found = await asyncio.to_thread(self._read, store, admissions)
                if found is not None and found.version > self._version:
                    self._apply(found)
                    return True
        return False

    def _read(self, store: Store, admissions: Admissions) -> "_Keys | None":
        version = store.data_version()  # before the keys: a change in between is seen
        if version == self._version:
            return None
        snapshot = store.ring()
        keys = snapshot.keys()
        spent = admissions.read(keys, snapshot.accounts())
        return _Keys(version, {key.id: key.owner for key in keys}, spent)

    def _apply(self, found: "_Keys") -> None:
        self.admissions.apply(found.spent)
        self._owners = found.owners
        self._version = found.version  # last: what failed on the way is tried again

    # --- one message

    def decide(self, edge: Edge, message: Durable | Question) -> tuple[Any, Durable | None]:
        """The answer to a message (None: plain success), and what it writes.

        Any: one of the answers of wire.py.
        """
        match message:
            case Open():
                return self._open(edge, message)
            case Row():
                return self._settle(message), message
            case Enter():
                return self._enter(edge, message), None
            case Leave():
                found = edge.entered.pop(message.number, None)
                if found is not None:
                    self.admissions.leave(found.admission)
                return None, None
            case Withdrawal():
                self._release(message.request_id)
                return None, message
            case Extend():
                return self._extend(message), None
            case Standing():
                return self._standing(message), None
            case Intent():
                return None, message
        return self.shared.decide(edge.sharer, message), None

    def undo(self, entry: Durable) -> None:
        """Take back what an intent has reserved, as the disk has not taken it."""
        if isinstance(entry, Intent):
            self._release(entry.request_id)

    def committed(self, entry: Durable) -> None:
        """Note that the disk has it."""
        if type(entry) is Row and self._admissions is not None:
            self._admissions.committed(str(entry.request_id))

    def _enter(self, edge: Edge, asked: Enter) -> Entered:
        admissions = self.admissions
        request = f"{id(edge):x} {asked.number}"
        found = admissions.enter(asked.owner, asked.limits, request, asked.waited_s)
        if isinstance(found, Waiting):
            return Entered(None, {}, again=True)
        if isinstance(found, LimitRefusal):
            exact_s = found.retry_after_s if LIMITS[found.limit.kind].takes == "request" else 0.0
            refused: Failure | None = found.failure()
            if exact_s == float("inf"):
                exact_s = 0.0
            if self.leasing is not None:  # rights that lie idle elsewhere may come back
                exact_s = min(exact_s, SHARED_REFUSAL_S)
        elif isinstance(found, Failure):
            refused, exact_s = found, 0.0
        else:
            edge.entered[asked.number] = Entrance(asked.owner, asked.limits, found)
            refused, exact_s = None, 0.0
        return Entered(refused, admissions.standings(asked.owner, asked.limits), exact_s)

    def _open(self, edge: Edge, asked: Open) -> tuple[Opened | None, Durable | None]:
        if asked.version > self._version:
            self.refresh()
        if asked.id in self._tickets:  # sent again, and committed by the node before this one
            return None, Intent(asked.id, asked.instance, asked.intent)
        admissions = self.admissions
        entrance = edge.entered.get(asked.number) if asked.number else None
        admission = entrance.admission if entrance is not None else None
        demand = Demand(
            asked.id,
            asked.owner,
            asked.account,
            asked.model,
            asked.began_s,
            asked.nano,
            asked.bounds,
        )
        found = admissions.admit(demand, admission, asked.tokens, asked.waited_s)
        if isinstance(found, Waiting):
            return Opened(again=True), None
        edge.entered.pop(asked.number, None)
        standings = (
            admissions.standings(asked.owner, entrance.limits) if entrance is not None else {}
        )
        if isinstance(found, Failure):
            return Opened(found, None, standings), None
        if entrance is not None:
            found.limits = entrance.limits
        self._tickets[asked.id] = found
        self._instances[asked.id] = asked.instance
        intent = Intent(asked.id, asked.instance, _with_reservation(asked.intent, found))
        if found.max_tokens is None and not standings:
            return None, intent
        return Opened(None, found.max_tokens, standings), intent

    def _extend(self, asked: Extend) -> Extended:
        ticket = self._tickets.get(asked.id)
        if ticket is None:
            return Extended(False)
        if asked.version > self._version:
            self.refresh()
        demand = msgspec.structs.replace(ticket.demand, nano=asked.nano, bounds=asked.bounds)
        granted = self.admissions.extend(ticket, demand, asked.spent_nano)
        return Extended(False) if granted is None else Extended(True, granted.max_tokens)

    def _standing(self, asked: Standing) -> Standings:
        self.refresh()
        key = self.admissions.standing(("key", asked.owner))
        account = None
        if asked.account:
            account = self.admissions.standing(("account", asked.account))
        return Standings(key, account)

    def _settle(self, row: Row) -> Settled | None:
        """Give back what an exchange has reserved and not used; its row is on its way."""
        ticket = self._tickets.pop(row.request_id, None) if type(row.request_id) is str else None
        if ticket is None:
            return None
        self._instances.pop(row.request_id, None)
        output, cost = _whole(row.output_tokens), row.cost_nano_usd
        if row.basis == "upstream":
            self.admissions.replied(ticket.demand.owner, ticket.demand.model, output)
        nano = cost if type(cost) is int else None
        self.admissions.settle(ticket, _whole(row.input_tokens) + output, nano)
        if not ticket.limits:
            return None
        return Settled(self.admissions.standings(ticket.demand.owner, ticket.limits))

    def _release(self, id: str) -> None:
        ticket = self._tickets.pop(id, None)
        self._instances.pop(id, None)
        if ticket is not None:
            self.admissions.settle(ticket, 0, 0)

    # --- processes

    def hand_over(self) -> HandedOver:
        """What the next node should know and cannot read from the disk."""
        state = HandedOver()
        if self._admissions is not None:
            state.limits, state.outputs = self._admissions.handed_over()
        self.shared.hand_over(state)
        return state

    def take_over(self, state: HandedOver) -> None:
        """Go on where the node before this one has ended; StoreError."""
        self.admissions.take_over(state.limits, state.outputs)
        self.shared.take_over(state)

    def hello(self, edge: Edge, stated: Hello) -> bytes:
        """Take over what an edge holds in flight, of which the node before this one knew.

        The answer is what it should know of the upstreams.
        """
        edge.instance = stated.instance
        for held in stated.held:
            admission = self.admissions.resume(held.owner, held.limits)
            ticket = self._tickets.get(held.id) if held.id else None
            if ticket is None:
                edge.entered[held.number] = Entrance(held.owner, held.limits, admission)
            elif ticket.admission is None:
                ticket.admission, ticket.limits = admission, held.limits
            else:  # the connection broke, and not the node
                self.admissions.leave(admission)
        return self.shared.hello(edge.sharer, stated)

    def gone(self, edge: Edge) -> None:
        """End what has entered on a connection that has ended."""
        for entrance in edge.entered.values():
            self.admissions.leave(entrance.admission)
        edge.entered.clear()
        self.shared.gone(edge.sharer)

    def start(self, lives: Lives) -> tuple[int, set[str]]:
        """Recover the dead, and hold what the living have reserved.

        The answer is how many exchanges were recovered, and which processes live, as far as the locks
        tell.  StoreError.
        """
        db = self.writer.db()
        recovered, living = 0, set()
        for instance in recovery.instances(db, lives):
            rows = recovery.recover(db, lives, instance)
            if rows is None:
                living.add(instance)
            else:
                recovered += len(rows)
        self.refresh()
        for instance in living:
            for intent in recovery.intents(db, instance):
                self._hold(_decode_reserved(intent), instance)
        return recovered, living

    def _hold(self, found: _Reserved, instance: str) -> None:
        owner = found.owner or self._owners.get(found.key_id, found.key_id)
        demand = Demand(
            found.request_id,
            owner,
            found.account,
            found.model,
            found.started_at,
            found.reserved_nano,
        )
        self._tickets[found.request_id] = self.admissions.held_before(demand, found.reserved_nano)
        self._instances[found.request_id] = instance

    def recover(self, lives: Lives, instance: str) -> int | None:
        """Make rows of what a dead process left open; None: it lives, or the disk fails."""
        try:
            rows = recovery.recover(self.writer.db(), lives, instance)
        except StoreError:
            return None
        if rows is None:
            return None
        for row in rows:
            self._settle(row)
            self.committed(row)
        left = [id for id, owner in self._instances.items() if owner == instance]
        self._forget(left)
        return len(rows)

    def _forget(self, ids: Iterable[str]) -> None:
        for id in ids:
            self._release(id)

    def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(StoreError):
            if self._usage is not None:
                self._usage.close()
            for store in (self._store, self._polled):
                if store is not None:
                    store.close()


def _with_reservation(intent: msgspec.Raw, ticket: Admitted) -> msgspec.Raw:
    """An intent with what it has reserved, for the node that comes after this one."""
    more = _encode({"owner": ticket.demand.owner, "reserved_nano": ticket.hold.nano})
    return msgspec.Raw(bytes(intent)[:-1] + b"," + more[1:])


def _whole(value: object) -> int:
    return value if type(value) is int else 0
