"""Keys of upstreams as the database keeps them: encrypted by a secret of the data directory.

A copy of the database, such as a backup, shows no key without the pepper of its directory.  The form is
JWE (RFC 7516), `dir` with A256GCM; the upstream's name is in its header, so that no sealed key can be
moved to another upstream.
"""

from headgate.config import ConfigError

PURPOSE = "upstream keys"  # of the data directory's derived secret


def seal(secret: bytes, name: str, key: str) -> str:
    """Return the key of the upstream `name` as text that only `secret` opens."""
    # Imported here, as most gateways have no stored upstream and the library takes 20 ms.
    from joserfc import jwe
    from joserfc.jwk import OctKey

    header = {"alg": "dir", "enc": "A256GCM", "kid": name}
    return jwe.encrypt_compact(header, key.encode(), OctKey.import_key(secret))


def opened(secret: bytes, name: str, sealed: str) -> str:
    """Return the key; ConfigError when it was sealed by another secret or for another upstream."""
    from joserfc import jwe
    from joserfc.errors import JoseError
    from joserfc.jwk import OctKey

    try:
        found = jwe.decrypt_compact(
            sealed, OctKey.import_key(secret), algorithms=["dir", "A256GCM"]
        )
        if found.protected.get("kid") == name and found.plaintext is not None:
            return found.plaintext.decode()
    except (JoseError, ValueError):
        pass
    raise ConfigError(
        f"`upstreams.{name}.key` cannot be decrypted with the pepper of this data directory. Enter it again."
    )
