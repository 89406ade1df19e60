"""The parts of a reply that are not complete yet: a run of text, or a tool call that comes in pieces."""

from headgate import jsontext


class Run:
    """Keeps a stretch of text or thinking that has not ended."""

    __slots__ = ("kind", "pieces", "signature")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.signature: list[str] = []


class Call:
    """A tool call: `stated` is all of its arguments so far, `pieces` what was not passed on yet."""

    __slots__ = (
        "_credit",
        "_cumulative",
        "_empty",
        "_size",
        "_whole",
        "id",
        "index",
        "name",
        "number",
        "opened",
        "pieces",
        "quoted",
        "stated",
    )

    def __init__(self, number: int, index: int | None, id: str) -> None:
        self.number = number  # among the calls of the reply, from 0
        self.index = index
        self.id = id
        self.name = ""
        self.opened = False
        self.pieces: list[str] = []
        self.stated: list[str] = []
        self.quoted: bool | None = None  # the arguments are a JSON string: encoded twice
        # Each piece begins with all before it; None: not known before the second piece.
        self._cumulative: bool | None = None
        self._empty = False  # all that came was an empty object
        self._size = 0  # characters of `stated`
        self._whole: bool | None = False  # None: not known since the last piece
        self._credit = 0  # characters that may be read to find out

    def fresh(self, arguments: str) -> str:
        """Return what a piece adds to the arguments before it: some servers repeat them with each piece.

        Two pieces that begin with the same brace or quote are no JSON together, so that nothing else is taken for it.
        """
        if not self._size:
            # An empty object before the real one, as some servers begin: it is held back until more or the end comes.
            self._empty = arguments.strip() in ("{}", "null")
            return "" if self._empty else arguments
        if self._cumulative is False:
            return arguments
        before = "".join(self.stated)
        if not before.lstrip().startswith(("{", '"')) or not arguments.startswith(before):
            self._cumulative = False
            return arguments
        self._cumulative = True
        return arguments[self._size :]

    def add(self, arguments: str) -> None:
        self.stated.append(arguments)
        self.pieces.append(arguments)
        self._size += len(arguments)
        self._credit += 16 * len(arguments)
        self._whole = None
        if self.quoted is None and (start := arguments.lstrip()[:1]):
            self.quoted = start == '"'

    def repeated(self, arguments: str) -> bool:
        """Whether a piece is all of the arguments once more, as a summary at the end."""
        return len(arguments) == self._size and self.whole() and arguments == "".join(self.stated)

    def whole(self) -> bool:
        """Whether the arguments are surely one JSON object.

        Who asks at each of many pieces gets it late rather than at the cost of a square.
        """
        if self._empty and not self._size:
            return True
        if self._whole is None:
            self._credit += 256
            if self._credit >= self._size:
                self._credit -= self._size
                stated = "".join(self.stated)
                self._whole = jsontext.is_object(stated) or (
                    bool(self.quoted) and jsontext.decoded_once(stated) is not None
                )
        return bool(self._whole)
