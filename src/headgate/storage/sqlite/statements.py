"""Statements that write one row, made of its columns: their names come from our own types, never from outside."""

from collections.abc import Mapping

import apsw


def insert(
    db: apsw.Connection, table: str, row: Mapping[str, object], on_conflict: str = ""
) -> None:
    """Insert a row, each value into the column of its name."""
    columns = ", ".join(f'"{name}"' for name in row)
    values = ", ".join(f":{name}" for name in row)
    db.execute(f"insert into {table} ({columns}) values ({values}) {on_conflict}", row)


def update(db: apsw.Connection, table: str, row: Mapping[str, object]) -> None:
    """Give the row with this `id` these values."""
    changed = ", ".join(f'"{name}" = :{name}' for name in row if name != "id")
    db.execute(f"update {table} set {changed} where id = :id", row)
