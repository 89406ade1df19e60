"""What a request holds from before its body is read until it ends."""

from headgate.edge.overload import Place
from headgate.node.client import Admission, Admissions
from headgate.policy.keys import Key


class Entry:
    """What a request holds from before its body is read until it ends: its key's limits and its place."""

    __slots__ = ("_admissions", "admission", "key", "place")

    def __init__(
        self, key: Key, place: Place, admissions: Admissions, admission: Admission
    ) -> None:
        self.key = key
        self.place = place
        self.admission = admission
        self._admissions = admissions

    def leave(self) -> None:
        """Give everything back; a second time changes nothing."""
        self.place.leave()
        self._admissions.leave(self.admission)
