"""What can be wrong with storage, whatever it is kept in."""


class StoreError(Exception):
    """What is wrong with the data directory, and what to do about it."""


class StoreFault(StoreError):
    """The disk, or a lock of somebody else: nothing that whoever asks did, or could put right."""


class LedgerFault(StoreFault):
    """The disk did not take it: full, failing, or locked by another process for too long."""


class LedgerRefused(StoreError):
    """A row that no disk would take, as it breaks the schema: a bug of ours; its intent stays."""
