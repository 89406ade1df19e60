"""Who performs an operation, on which storage, and how an operation is refused."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import msgspec

from headgate.policy.access import Via
from headgate.policy.keys import Account
from headgate.storage.errors import StoreError, StoreFault
from headgate.storage.interface import Keys, People

# absent: nothing with this id that the operator sees; closed: it cannot be changed any more;
# taken: the id or name is in use; conflict: other state forbids it; invalid: a field is wrong.
Reason = Literal["absent", "closed", "taken", "conflict", "invalid"]


class Refused(Exception):
    """An operation that was not performed; `field` is the one at fault, where it is one."""

    def __init__(self, reason: Reason, text: str, field: str = "", **values: object) -> None:
        """`text` has `{names}` of `values`, so that it can be translated."""
        super().__init__(text.format(**values) if values else text)
        self.reason = reason
        self.text = text
        self.field = field
        self.values = values


class Operator(msgspec.Struct, frozen=True):
    """Who performs operations, and what storage they are performed on."""

    name: str
    via: Via
    store: Keys
    people: People
    scope: str | None = None  # the account that they are narrowed to; None: everything

    def record(self, action: str, subject: str, account: str = "", /, **detail: object) -> None:
        """Write an entry of the audit log; never a secret."""
        self.people.record(self.name, self.via, action, subject, account, detail, now_s=time.time())

    def sees(self, account: str) -> bool:
        """Return whether what belongs to this account is theirs to see."""
        return self.scope in (None, account)

    def account(self, id: str) -> Account | None:
        """Return the account with this id, seen or not."""
        return next((a for a in self.store.accounts() if a.id == id), None)

    def must_be_open(self, id: str, now_s: float) -> None:
        """Refuse an account that new keys and people cannot be part of; "" is none."""
        found = self.account(id) if id else None
        if id and found is None:
            raise Refused("invalid", "The account `{id}` does not exist.", "account", id=id[:64])
        if found is not None and not found.good(now_s):
            raise Refused("invalid", "The account `{id}` is closed.", "account", id=id[:64])


@contextmanager
def refusals(field: str = "") -> Iterator[None]:
    """Let what storage refuses be a refusal of the operation; a fault of the disk stays one."""
    try:
        yield
    except StoreFault:
        raise
    except StoreError as error:
        text = str(error)
        raise Refused("invalid", "{fault}", field, fault=text[:1].upper() + text[1:]) from None


def difference(old: msgspec.Struct, changes: Mapping[str, object]) -> dict[str, Any]:
    """Return the changes that change anything: for each field what it was and what it is.

    Any: values of fields, as JSON can hold them.
    """
    return {
        field: {"from": getattr(old, field), "to": value}
        for field, value in changes.items()
        if getattr(old, field) != value
    }
