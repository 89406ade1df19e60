"""This package implements the storage in SQLite: one file in the data directory."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # each has what the interface asks for
    from headgate.storage import interface
    from headgate.storage.sqlite.database import Store
    from headgate.storage.sqlite.ledger import Ledger
    from headgate.storage.sqlite.people import People
    from headgate.storage.sqlite.reports import UsageReader

    _KEYS: type[interface.Keys] = Store
    _PEOPLE: type[interface.People] = People
    _LEDGER: type[interface.Ledger] = Ledger
    _REPORTS: type[interface.OwnReports] = UsageReader
