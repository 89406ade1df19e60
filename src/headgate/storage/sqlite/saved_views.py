"""Views of the log that people of the console have saved: a name and a query each."""

import apsw

from headgate.storage.errors import StoreError

MAX_VIEWS = 50  # of one user: a menu has no room for more


def of(db: apsw.Connection, user: str) -> dict[str, str]:
    """Return the query of each view by its name."""
    found = db.execute(
        "select name, query from views where user_id = :user order by name", {"user": user}
    )
    return {str(name): str(query) for name, query in found}


def save(db: apsw.Connection, user: str, name: str, query: str) -> None:
    """Save a view in place of one of the same name; StoreError for one too many."""
    db.execute(
        "insert into views values (:user, :name, :query) on conflict do update set query = :query",
        {"user": user, "name": name, "query": query},
    )
    if len(of(db, user)) > MAX_VIEWS:
        raise StoreError(f"there are {MAX_VIEWS} saved views already; remove one first.")


def remove(db: apsw.Connection, user: str, name: str) -> bool:
    """Delete a view; False when there is none of this name."""
    db.execute(
        "delete from views where user_id = :user and name = :name", {"user": user, "name": name}
    )
    return db.changes() > 0
