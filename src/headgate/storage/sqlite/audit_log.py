"""Records who changed what in the console, by the admin API or on the command line; rows are only added."""

from typing import Any

import apsw
import msgspec

from headgate.policy.access import Change
from headgate.storage.sqlite.statements import insert

_COLUMNS = ", ".join(Change.__struct_fields__)


def add(db: apsw.Connection, change: Change) -> None:
    """Add a change; its `seq` is the database's."""
    row: dict[str, Any] = msgspec.structs.asdict(change)  # Any: of its fields
    row.pop("seq")
    insert(db, "audit_log", {**row, "detail": msgspec.json.encode(change.detail).decode()})


def page(db: apsw.Connection, account: str | None, before: int | None, most: int) -> list[Change]:
    """Return the newest first: of one account or of all, from below `before`."""
    rows = db.execute(
        f"select {_COLUMNS} from audit_log"
        " where (:account is null or account = :account) and (:before is null or seq < :before)"
        " order by seq desc limit :most",
        {"account": account, "before": before, "most": most},
    )
    # Any: the columns are as the schema, a strict table, and the query say
    found: list[tuple[Any, ...]] = list(rows)
    return [Change(*(*columns[:-1], msgspec.json.decode(columns[-1]))) for columns in found]
