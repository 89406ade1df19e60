"""Ids of requests: the only place that makes them."""

import secrets


class _Ids:
    """Random ids, 96 bits each, drawn many at a time: the system call costs more than the id."""

    def __init__(self) -> None:
        self._drawn: list[str] = []

    def __call__(self) -> str:
        if not self._drawn:
            text = secrets.token_hex(12 * 256)
            self._drawn = [text[i : i + 24] for i in range(0, len(text), 24)]
        return self._drawn.pop()


new_id = _Ids()
