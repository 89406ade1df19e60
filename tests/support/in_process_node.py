"""A node without sockets and without a disk, and the ledger of an edge that asks it.

Both sides' own code encodes, decodes and decides; only what lies between them is left out.
"""

from typing import Any

import msgspec

from headgate.node.admission import Admissions
from headgate.node.state import Edge, Node
from headgate.node.wire import Question
from headgate.storage.rows import LedgerRow
from headgate.storage.sqlite.entries import encode_row
from headgate.storage.sqlite.writer import Durable, WriterConfig

_decode = msgspec.json.Decoder(Durable | Question).decode


class InProcessLedger:
    """Commits whatever it is given, and asks a node with these admissions for the rest."""

    instance = "i"
    hello: Any = None

    def __init__(self, admissions: Admissions) -> None:
        self.rows: list[LedgerRow] = []
        self.node = Node("/nowhere", WriterConfig("/nowhere/headgate.db", 0, 0, 0, 0))
        self.node._admissions = admissions
        self.edge = Edge()

    def _decided(self, data: bytes) -> bytes:
        answer, _ = self.node.decide(self.edge, _decode(data))
        return b"" if answer is None else msgspec.json.encode(answer)

    async def ask(self, kind: int, id: str, data: bytes, undo: object = None) -> bytes:
        return self._decided(data)

    async def open_with(self, id: str, kind: int, data: bytes) -> bytes:
        return self._decided(data)

    def notify(self, kind: int, id: str, data: bytes) -> None:
        self._decided(data)

    async def settle(self, row: LedgerRow) -> bytes:
        self.rows.append(row)
        return self._decided(encode_row(row))
