"""Passwords of the console's users: how they are kept, which are taken, how often one may guess.

The only place that knows argon2.  Kept is what argon2id makes with RFC 9106's second recommended
parameters (4: t=3, 64 MiB, 4 lanes; https://www.rfc-editor.org/rfc/rfc9106).  Which are taken follows
NIST SP 800-63B (https://pages.nist.gov/800-63-4/sp800-63b.html): length counts, no rules of
composition, nothing expires, a block list.  Their text is prepared as the OpaqueString of RFC 8265, 4.2
(https://www.rfc-editor.org/rfc/rfc8265; all read 2026-11-25).

Note: a hash takes some 50 ms and 64 MiB, so at most HASHES_AT_ONCE are made at a time and
other threads wait for their turn; never call `hash` or `matches` on an event loop.
"""

import ipaddress
import threading
import unicodedata
from collections import OrderedDict
from hashlib import blake2b
from typing import Any, Final

import argon2
import msgspec
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

MIN_CHARACTERS: Final = 12
MAX_CHARACTERS: Final = (
    512  # NIST wants 64 at least to be taken; a bound, so that nobody sends a book
)
HASHES_AT_ONCE: Final = 2
_HASHER: Final = argon2.PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
_SLOTS: Final = threading.BoundedSemaphore(HASHES_AT_ONCE)
# Kept for nobody: to compare with it is as much work as with a real one, and never succeeds.
_NOBODY: Final = (
    f"$argon2id$v=19$m={_HASHER.memory_cost},t={_HASHER.time_cost},p={_HASHER.parallelism}"
    f"${'A' * 22}${'A' * 43}"
)
# What guessers try first, in parts: at 12 characters and more the favourites are made of these.
# XX: a list of leaked passwords would be better, and too large to carry.
_COMMON: Final = (
    "password",
    "passwort",
    "passw0rd",
    "p@ssw0rd",
    "motdepasse",
    "changeme",
    "letmein",
    "welcome",
    "iloveyou",
    "administrator",
    "admin",
    "qwertyuiop",
    "qwertzuiop",
    "azertyuiop",
    "qwerty",
    "asdfghjkl",
    "zxcvbnm",
    "1q2w3e4r5t6y",
    "1q2w3e4r",
    "1qaz2wsx3edc",
    "1qaz2wsx",
    "abcdefghijklmnopqrstuvwxyz",
    "abcdefghijkl",
    "1234567890",
    "123456789",
    "0123456789",
    "987654321",
    "12345678",
    "123456",
    "12345",
    "1234",
    "123",
    "headgate",
    "minimax",
)
_OWN_CHARACTERS: Final = 6  # what must be left of a password beside those parts
_FEW: Final = 5  # different characters


def hash(password: str) -> str:
    """What to keep of it: parameters, salt and argon2id's result, as one text."""
    with _SLOTS:
        return _HASHER.hash(_prepared(password))


def matches(kept: str, password: str) -> bool:
    """Whether this is the password; the same work whatever is wrong.

    `kept` is "" for a user who is unknown or has no password: nothing matches that.
    """
    too_long = len(password) > MAX_CHARACTERS
    given = _prepared(password[:MAX_CHARACTERS])
    with _SLOTS:
        try:
            return _HASHER.verify(kept or _NOBODY, given) and bool(kept) and not too_long
        except (VerificationError, InvalidHashError):
            return False


def stale(kept: str) -> bool:
    """Whether it was made with other parameters than today's, and should be made anew."""
    return bool(kept) and _HASHER.check_needs_rehash(kept)


def problem(password: str, name: str) -> str:
    """Why a new password is not taken; "" when it is."""
    if any(unicodedata.category(c) in ("Cc", "Cs", "Cn") for c in password):
        # RFC 8264, 4.3: controls and unassigned code points are in no password; the latter may be
        # normalised otherwise by a later Unicode.
        return "The password has characters that are not text."
    if len(password) < MIN_CHARACTERS:
        return "A password has at least 12 characters."
    if len(password) > MAX_CHARACTERS:
        return "A password has at most 512 characters."
    plain = unicodedata.normalize("NFKC", password).casefold()
    if len(set(plain)) < _FEW:
        return "The password has too few different characters."
    named = unicodedata.normalize("NFKC", name).strip().casefold()
    if named and len(plain.replace(named, "")) < _OWN_CHARACTERS:
        return "The password is little more than the user's name."
    for part in (*((named,) if named else ()), *_COMMON):
        plain = plain.replace(part, "")
    if len(plain) < _OWN_CHARACTERS:
        return "This password is too common."
    return ""


def _prepared(password: str) -> bytes:
    """One form for what looks alike, however a keyboard made it.

    RFC 8265, 4.2.2: "any instances of non-ASCII space MUST be mapped to SPACE (U+0020)", and
    "Unicode Normalization Form C (NFC) MUST be applied".  NIST has NFKC or NFKD in revision 3; NFC
    keeps apart what the user sees as different.
    """
    spaced = "".join(" " if unicodedata.category(c) == "Zs" else c for c in password)
    return unicodedata.normalize("NFC", spaced).encode("utf-8", "surrogatepass")


# --- guessing ---------------------------------------------------------------------------------


FREE: Final = 5  # failures; from that one on there is a wait
FIRST_WAIT_S: Final = 2.0  # and twice as much after each further one
NAME_WAIT_S: Final = 60.0  # at most: whoever knows a name can hold up its owner for so long
PEER_WAIT_S: Final = 900.0
FORGET_S: Final = 3600.0  # of silence, after which failures count no more
MOST: Final = 20_000  # things remembered, some 3 MB


class _Failures(msgspec.Struct, frozen=True):
    count: int
    last_s: float
    wait_s: float

    def left_s(self, now_s: float) -> float:
        return max(0.0, self.last_s + self.wait_s - now_s)


class Throttle:
    """Who has failed to sign in, by user name and by address; of one process, for all its threads.

    Times are seconds of one clock that does not go back.  Who signed in from an address before is not
    held up by failures with the same name from elsewhere, so that a stranger cannot lock them out for
    long.  A loopback address is a proxy's on this machine and stands for everybody: it is never held
    up, only the names are.
    XX: nor can a proxy on another machine be distinguished from a single visitor; all behind it wait together.
    XX: as many tries as there are threads can be under way before the first is counted.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._failures: OrderedDict[bytes, _Failures] = OrderedDict()  # the latest last
        self._known: OrderedDict[bytes, None] = OrderedDict()  # name and address of who came in
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._failures) + len(self._known)

    def wait_s(self, name: str, peer: str, now_s: float) -> float:
        """How long this one has to wait before the next try; 0: not at all."""
        with self._lock:
            held = [key for key, _ in self._counted(name, peer)]
            found = (self._failures[key] for key in held if key in self._failures)
            return max((f.left_s(now_s) for f in found), default=0.0)

    def failed(self, name: str, peer: str, now_s: float) -> None:
        with self._lock:
            for key, most_s in self._counted(name, peer):
                before = self._failures.pop(key, None)
                fresh = before is None or now_s - before.last_s > FORGET_S
                count = 1 if before is None or fresh else before.count + 1
                wait_s = 0.0
                if count >= FREE:
                    # The exponent is bounded, as a float is.
                    wait_s = min(FIRST_WAIT_S * 2.0 ** min(count - FREE, 30), most_s)
                self._failures[key] = _Failures(count, now_s, wait_s)
            _shorten(self._failures, self._most)

    def passed(self, name: str, peer: str) -> None:
        """They are who they said: forget the name's failures; the address's stay.

        Otherwise somebody with a name of their own could guess at others' forever.
        """
        with self._lock:
            self._failures.pop(_key("name", name), None)
            if place := _place(peer):
                pair = _key("pair", name, place)
                self._known[pair] = None
                self._known.move_to_end(pair)
                _shorten(self._known, self._most)

    def _counted(self, name: str, peer: str) -> list[tuple[bytes, float]]:
        """What a try counts against, each with its longest wait."""
        place = _place(peer)
        keys = []
        if not place or _key("pair", name, place) not in self._known:
            keys.append((_key("name", name), NAME_WAIT_S))
        if place:
            keys.append((_key("peer", place), PEER_WAIT_S))
        return keys


def _key(kind: str, name: str, place: str = "") -> bytes:
    """Of one length, whatever was typed; how a name is written in capitals does not matter."""
    plain = unicodedata.normalize("NFKC", name).strip().casefold()
    text = f"{kind}\0{plain}\0{place}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=16).digest()


def _place(peer: str) -> str:
    """The address, or the network of an IPv6 address, as one subscriber has 2^64; "" for loopback."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback:
        return ""
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _shorten(kept: OrderedDict[bytes, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
