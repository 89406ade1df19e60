"""What masks the requests of a key."""

import hmac

from headgate.policy import masking
from headgate.policy.keys import Key
from headgate.policy.masking import Masker


def masker_of(key: Key, mask_secret: bytes) -> Masker | None:
    """Return what masks the requests of this key; None: nothing is masked."""
    if not key.mask:
        return None
    secret = hmac.digest(mask_secret, key.owner.encode(), "sha256")
    return Masker(masking.kinds(key.mask), secret)
