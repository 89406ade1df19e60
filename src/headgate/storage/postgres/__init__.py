"""This package implements what nodes share, in PostgreSQL."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it has what the interface asks for
    from headgate.storage import interface
    from headgate.storage.postgres.usage_reader import DatabaseReader

    _REPORTS: type[interface.Reports] = DatabaseReader
