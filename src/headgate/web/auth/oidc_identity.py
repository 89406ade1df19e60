"""What a sign-in by an identity provider passes on: its flow, the identity, and why it failed."""

import base64
import re
import secrets
from typing import Final

import msgspec

from headgate.config import Oidc
from headgate.policy.access import Role

SKEW_S: Final = 60.0  # by which the clocks of the provider and of this machine may differ
_ERROR: Final = re.compile("[a-z_]{1,40}")
# RFC 6749, 5.2 and 4.1.2.1, and Core, 3.1.2.6: what each asks of the operator, or of the user.
_ADVICE: Final = {
    "invalid_client": "check `oidc.client_id` and `oidc.client_secret`",
    "unauthorized_client": "allow this client the authorization code flow at the provider",
    "invalid_grant": "begin again; if it stays, check the redirect URI at the provider",
    "invalid_scope": "check `oidc.scopes`",
    "access_denied": "the provider, or the user, said no",
    "login_required": "sign in at the provider first",
    "consent_required": "give consent at the provider first",
    "server_error": "try again; its own log says more",
    "temporarily_unavailable": "try again in a while",
}
# By msgspec, by base64, and for brackets without end.
UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class SignInFailed(Exception):
    """Which setting or claim is wrong, and what to do; fit to be shown to who signs in."""


class Flow(msgspec.Struct, frozen=True):
    """What must be kept between the two halves of a sign-in, where only this browser can use it."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    made_s: float  # Unix time


class Identity(msgspec.Struct, frozen=True):
    """Identifies who signed in, by issuer and subject only; the rest can change hands."""

    issuer: str
    subject: str
    name: str
    email: str  # "" when the provider says that it is not verified
    groups: tuple[str, ...]
    role: Role
    account: str


Provider = Oidc  # with an issuer


def advice(error: object) -> str:
    """The provider's error with what to do; only a code of the usual form is repeated."""
    if not isinstance(error, str) or not _ERROR.fullmatch(error):
        return "it does not say why; its log may"
    return f"{error}, {_ADVICE.get(error, 'see its log')}"


def same(a: str, b: str) -> bool:
    """Whether they are equal and not empty, in a time that does not tell how far they are."""
    return bool(b) and secrets.compare_digest(
        a.encode("utf-8", "surrogatepass"), b.encode("utf-8", "surrogatepass")
    )


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
