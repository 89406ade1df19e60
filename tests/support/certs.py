"""Certificates for tests: an authority of its own, and what it has signed."""

import subprocess
from pathlib import Path

from programs import needs


class Authority:
    """Signs certificates; all files are in `place`."""

    def __init__(self, place: Path, name: str = "authority") -> None:
        needs("openssl")
        self.place = place
        self.cert, self._key = place / f"{name}.pem", place / f"{name}.key"
        _openssl(
            "req",
            "-x509",
            *_NEW_KEY,
            "-days",
            "3",
            "-subj",
            f"/CN={name}",
            "-keyout",
            str(self._key),
            "-out",
            str(self.cert),
        )

    def issue(self, name: str, days: int = 2, client: bool = False) -> tuple[Path, Path]:
        """Return the paths of a new certificate and of its key; `days` may be negative."""
        cert, key, asked = (self.place / f"{name}.{end}" for end in ("pem", "key", "csr"))
        use = "clientAuth" if client else "serverAuth"
        extensions = self.place / f"{name}.ext"
        extensions.write_text(
            f"subjectAltName=DNS:{name}.test,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={use}\n"
        )
        _openssl("req", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(asked))
        _openssl(
            "x509",
            "-req",
            "-in",
            str(asked),
            "-CA",
            str(self.cert),
            "-CAkey",
            str(self._key),
            "-days",
            str(days),
            "-extfile",
            str(extensions),
            "-out",
            str(cert),
        )
        return cert, key


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    assert not done.returncode, done.stderr
