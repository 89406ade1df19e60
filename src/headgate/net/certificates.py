"""The certificate, key and client CA of a listener: read from files, checked, and read again when renewed.

Note: files are often renewed one after the other, so a pair that does not fit together is tried again
in the next round, and the old pair stays in force until the new one is right.
"""

import os
import ssl
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
LOOK_S = 5.0  # between two looks at the files
PROTOCOLS = ["http/1.1"]  # offered by ALPN (RFC 7301); HTTP/2 is not served


class CertificateError(Exception):
    """What is wrong with which file, by the name of its setting, and what to do about it."""


class CertificateFiles(msgspec.Struct, frozen=True):
    """Holds the paths of PEM files."""

    cert: str  # the server's certificate, and behind it those of its issuers
    key: str
    client_ca: str = ""  # who signs the certificates of clients; "": clients need none


_Version = tuple[tuple[int, int, int, int], ...]


class Certificates:
    """Keeps the TLS context in force; `renew` replaces it when the files have changed."""

    def __init__(self, files: CertificateFiles) -> None:
        """CertificateError when the files cannot be used."""
        self.files = files
        self._version = _version(files)
        self.context = context_of(files)
        self.expires_s = expires_s(files.cert)
        self.asks_clients = bool(files.client_ca)
        self.fault = ""  # why the files of the last look could not be used

    def renew(self) -> bool:
        """Look at the files and load them if they are new; whether the context is another one.

        This reads files, so it runs in a thread.  Afterwards `fault` says why new files were not taken.
        """
        try:
            version = _version(self.files)
            if version == self._version and not self.fault:
                return False
            context, expires = context_of(self.files), expires_s(self.files.cert)
        except CertificateError as error:
            self.fault = str(error)
            return False
        renewed = version != self._version
        self._version, self.fault = version, ""
        self.context, self.expires_s = context, expires
        return renewed


class Renewal:
    """One round of looking for renewed files, for a supervised task; it reports what is worth knowing."""

    def __init__(self, certificates: Certificates, report: Callable[[str, str], None]) -> None:
        """`report` gets a level (`info`, `error`) and a sentence."""
        self._certificates = certificates
        self._report = report
        self._faults = 0  # in a row
        self._warned = 0.0

    def round(self) -> None:
        """Look once.  A fault is reported when it is still there in the round after."""
        found = self._certificates
        if found.renew():
            self._report(
                "info",
                f"The TLS certificate was renewed; it is valid until {day(found.expires_s)}.",
            )
        self._faults = self._faults + 1 if found.fault else 0
        if self._faults == 2:
            self._report("error", f"The renewed TLS files are not used: {found.fault}")
        now_s = time.time()
        if found.expires_s < now_s and now_s - self._warned > 3600:
            self._warned = now_s
            self._report(
                "error", f"The TLS certificate in `tls.cert` expired on {day(found.expires_s)}."
            )


def day(at_s: float) -> str:
    """Return the moment for a person, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_s))


def context_of(files: CertificateFiles) -> ssl.SSLContext:
    """Return the context of a server with these files; CertificateError names what is wrong.

    Clients are asked for a certificate when there is a CA for them, and one that it did not sign is
    refused in the handshake.  One without any is refused by the application, in words (edge/app.py).
    """
    if not files.cert or not files.key:
        missing = "key" if files.cert else "cert"
        raise CertificateError(f"`tls.{missing}` is missing: TLS needs a certificate and its key.")
    cert, key = _pem("cert", files.cert), _pem("key", files.key)
    if _BEGIN.encode() not in cert:
        raise CertificateError(_holds("cert", files.cert, "certificate"))
    if b"PRIVATE KEY-----" not in key:
        raise CertificateError(_holds("key", files.key, "private key"))
    if b"ENCRYPTED" in key:
        raise CertificateError(
            f"`tls.key` names the file {files.key}, which is encrypted with a password. Write it without"
            " one, readable for this user only: `openssl pkey -in OLD -out NEW`."
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client that negotiates anew again and again would cost a handshake each time.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(PROTOCOLS)
    context.num_tickets = 1  # of TLS 1.3; a client keeps one connection, or resumes once
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError(
                f"`tls.key` names the file {files.key}, which is not the key of the certificate in"
                f" `tls.cert`, {files.cert}."
            ) from None
        weak = error.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "CA_KEY_TOO_SMALL")
        why = "its key or signature is too weak" if weak else "it is damaged"
        raise CertificateError(
            f"`tls.cert` or `tls.key` cannot be used, {files.cert} and {files.key}: {why}"
            f" ({error.reason or 'PEM'})."
        ) from None
    except OSError as error:
        raise CertificateError(f"`tls.cert` or `tls.key`: {error.strerror}.") from None
    if files.client_ca:
        _ask_clients(context, files.client_ca)
    return context


def _ask_clients(context: ssl.SSLContext, path: str) -> None:
    if _BEGIN.encode() not in _pem("client_ca", path):
        raise CertificateError(_holds("client_ca", path, "certificate"))
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError):
        raise CertificateError(
            f"`tls.client_ca` names the file {path}, which is damaged."
        ) from None
    context.verify_mode = ssl.CERT_OPTIONAL


def expires_s(path: str) -> float:
    """Return when the first certificate of the file ends, in Unix seconds."""
    text = _pem("cert", path).decode("ascii", "replace")
    first = text[text.find(_BEGIN) : text.find(_END) + len(_END)]
    try:
        return _not_after(ssl.PEM_cert_to_DER_cert(first))
    except (ValueError, IndexError):
        raise CertificateError(f"`tls.cert` names the file {path}, which is damaged.") from None


def _not_after(der: bytes) -> float:
    """Return the end of the validity of an X.509 certificate (RFC 5280, 4.1): its fifth field.

    The standard library shows it of a peer's certificate only.
    """
    start, _ = _field(der, 0)  # Certificate
    at, _ = _field(der, start)  # TBSCertificate
    if der[at] == 0xA0:  # the version, which may be missing
        at = _field(der, at)[1]
    for _ in range(3):  # serial number, signature algorithm, issuer
        at = _field(der, at)[1]
    start, _ = _field(der, at)  # validity: two times
    at = _field(der, start)[1]
    start, end = _field(der, at)
    text = der[start:end].decode("ascii")
    if der[at] == 0x17:  # UTCTime has two digits of the year: "50 and above are 19YY"
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _field(der: bytes, at: int) -> tuple[int, int]:
    """Return where the contents of the DER field at `at` begin and end."""
    size, start = der[at + 1], at + 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[at + 2 : start], "big")
    if start + size > len(der):
        raise ValueError("a field is longer than the certificate")
    return start, start + size


def readable_by_others(path: str) -> bool:
    """Whether users other than its owner and group may read the file."""
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False


def _pem(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CertificateError(f"`tls.{name}` names the file {path}: {error.strerror}.") from None
    except ValueError:  # a zero byte in the path
        raise CertificateError(f"`tls.{name}` is not the path of a file.") from None


def _holds(name: str, path: str, what: str) -> str:
    return (
        f"`tls.{name}` names the file {path}, which holds no {what} in PEM form"
        f" (`-----BEGIN {what.upper()}-----`)."
    )


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted")  # else the library asks for one on the terminal


def _version(files: CertificateFiles) -> _Version:
    """Return what changes when a file is replaced, also behind a symbolic link."""
    out = []
    for name in ("cert", "key", "client_ca"):
        path = getattr(files, name)
        if not path:
            continue
        try:
            found = os.stat(path)
        except OSError as error:
            raise CertificateError(
                f"`tls.{name}` names the file {path}: {error.strerror}."
            ) from None
        except ValueError:
            raise CertificateError(f"`tls.{name}` is not the path of a file.") from None
        out.append((found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size))
    return tuple(out)
