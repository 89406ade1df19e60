"""What an ID token must say, and which role and account its groups give.

joserfc verifies the signature and the registered claims.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from joserfc import jwt
from joserfc.errors import (
    ClaimError,
    DecodeError,
    InvalidPayloadError,
    JoseError,
    MissingClaimError,
)
from joserfc.jwk import KeySet, OctKey

from headgate.policy.access import ROLES, Role
from headgate.web.auth.oidc_identity import (
    SKEW_S,
    UNREADABLE,
    Flow,
    Provider,
    SignInFailed,
    base64url,
    same,
)

MAX_AGE_S: Final = 600.0  # of an ID token that was asked for just now
MAX_NAME: Final = 64  # characters; the store adds the subject when a name is taken
# RFC 7518, 3.1, and RFC 8037: by the provider's public keys, or by the client's secret (Core, 10.1).
_PUBLIC_KEY: Final = (
    *(f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)),
    "EdDSA",
    "Ed25519",
)
_SECRET: Final = ("HS256", "HS384", "HS512")
NO: Final = (False, "false")  # Core, 5.1 has a boolean; Cognito's userinfo has a string


def checked(
    provider: Provider,
    flow: Flow,
    keys: KeySet,
    id_token: str,
    access_token: str,
    now_s: float,
) -> dict[str, Any]:
    """Return the claims of an ID token that is this provider's, for us, fresh, and of this flow.

    It raises SignInFailed otherwise.  Core, 3.1.3.7 lists what must be checked.  Any: claims are
    whatever JSON the provider puts there.
    """
    if id_token.count(".") == 4:
        raise SignInFailed("The ID token is encrypted: turn its encryption off at the provider.")
    if id_token.count(".") != 2:
        raise SignInFailed("The ID token is no JWT: is `oidc.issuer` an OpenID provider?")
    try:
        algorithm = header_of(id_token).get("alg")
    except UNREADABLE:
        raise SignInFailed("The ID token cannot be read: it is malformed.") from None
    if algorithm not in _PUBLIC_KEY and not (algorithm in _SECRET and provider.client_secret):
        raise SignInFailed(
            "The ID token's `alg` is none, or unknown: let the provider sign with RS256 or ES256."
        )
    try:
        if algorithm in _SECRET:
            secret = OctKey.import_key(provider.client_secret)
            token = jwt.decode(id_token, secret, algorithms=_SECRET)
        else:
            token = jwt.decode(id_token, keys, algorithms=_PUBLIC_KEY)
    except (DecodeError, InvalidPayloadError, RecursionError):
        raise SignInFailed("The ID token cannot be read: it is malformed.") from None
    except (JoseError, ValueError):
        raise SignInFailed(
            "The ID token's signature is of none of the provider's keys (`jwks_uri`): look at the"
            " signing keys there, then sign in again."
        ) from None
    claims = token.claims
    try:
        _registry(provider, flow, claims, now_s).validate(claims)
    except ClaimError as error:
        missing = isinstance(error, MissingClaimError)
        raise SignInFailed(_claim_advice(str(error.claim), missing)) from None
    if not now_s - MAX_AGE_S - SKEW_S < claims["iat"]:
        raise SignInFailed(_claim_advice("iat"))
    if not 1 <= len(claims["sub"]) <= 255:
        raise SignInFailed("The ID token's `sub` must have 1 to 255 characters.")
    if (at_hash := claims.get("at_hash")) and not (
        isinstance(at_hash, str) and same(at_hash, _at_hash(access_token, str(algorithm)))
    ):
        raise SignInFailed("The ID token's `at_hash` is of another access token: begin again.")
    return claims


def _registry(
    provider: Provider, flow: Flow, claims: Mapping[str, Any], now_s: float
) -> jwt.JWTClaimsRegistry:
    """Return what the registered claims of this ID token must be."""
    audience = claims.get("aud")
    several = isinstance(audience, list) and len(audience) > 1
    expected: dict[str, jwt.ClaimsOption] = {
        "iss": {"essential": True, "value": provider.issuer},
        "sub": {"essential": True},
        "aud": {"essential": True, "value": provider.client_id},
        "exp": {"essential": True},
        "iat": {"essential": True},
        # An empty nonce of a flow would match an empty one; `start` never makes such a flow.
        "nonce": {"essential": True, "value": flow.nonce},
    }
    # "If the ID Token contains multiple audiences, the Client SHOULD verify that an azp Claim is
    # present", and what is there must be us.
    if several or "azp" in claims:
        expected["azp"] = {"essential": True, "value": provider.client_id}
    return jwt.JWTClaimsRegistry(now=int(now_s), leeway=int(SKEW_S), **expected)


def _claim_advice(claim: str, missing: bool = False) -> str:
    """Return which claim is wrong and what to do about it."""
    text = {
        "iss": "is not `oidc.issuer`: write there what the provider calls itself",
        "aud": "has no `oidc.client_id`: it is for another client",
        "azp": "is not `oidc.client_id`: another client asked",
        "exp": "has passed, so it has expired: set the clocks, here and there",
        "iat": "is not of just now: set the clocks, here and there",
        "nonce": "is of another sign-in: begin again",
        "sub": "must have 1 to 255 characters",
    }.get(claim, "is not as it should be: look at the client's settings at the provider")
    return f"The ID token's `{claim}` {'is missing, or ' if missing else ''}{text}."


def header_of(token: str) -> dict[str, Any]:
    """Return a token's header, unverified; it raises one of UNREADABLE when it is malformed."""
    text = token.partition(".")[0]
    raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
    return msgspec.json.decode(raw, type=dict[str, Any])


def granted(provider: Provider, groups: tuple[str, ...] | None) -> tuple[Role, str]:
    """The role and the account of who is in these groups; SignInFailed when there is none.

    None: the provider named no groups.
    """
    given = {provider.roles[g] for g in groups or () if g in provider.roles}
    role: Role | None = next((r for r in ROLES if r in given), provider.default_role or None)
    if role is None and groups is None:
        raise SignInFailed(
            f"The provider sent no claim `{provider.groups_claim}` (`oidc.groups_claim`): let it send"
            " one, perhaps by a further scope in `oidc.scopes`, or set `oidc.default_role`."
        )
    if role is None:
        raise SignInFailed(
            "You are in no group that may come in: `oidc.roles` names none of yours, and"
            " `oidc.default_role` is not set."
        )
    account = next((a for g, a in provider.accounts.items() if g in (groups or ())), "")
    if provider.accounts and not account and role != "admin":
        # Without an account one sees the keys that have none, which are somebody's.
        raise SignInFailed("You have no account here: `oidc.accounts` names none of your groups.")
    return role, account


def groups_of(provider: Provider, stated: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The groups among the claims; None when there is no such claim."""
    name = provider.groups_claim
    found: Any = stated.get(name)
    if found is None and "." in name:  # Keycloak's roles are in `realm_access.roles`
        found = stated
        for step in name.split("."):
            found = found.get(step) if isinstance(found, dict) else None
    if found is None:
        return None
    groups = [found] if isinstance(found, str) else found
    if not isinstance(groups, list) or not all(isinstance(g, str) for g in groups):
        raise SignInFailed(
            f"The claim `{name}` (`oidc.groups_claim`) is no list of names: name another one."
        )
    return tuple(groups)


def name_of(stated: Mapping[str, Any], subject: str) -> str:
    """What to call them: short and known to them first."""
    for claim in ("preferred_username", "name", "email"):
        if found := line_of(stated, claim, MAX_NAME):
            return found
    return subject[:MAX_NAME] if subject.isprintable() and subject.strip() else "somebody"


def line_of(stated: Mapping[str, Any], claim: str, most: int) -> str:
    text = stated.get(claim)
    if not isinstance(text, str):
        return ""
    return "".join(c for c in text if c.isprintable())[:most].strip()


def _at_hash(access_token: str, algorithm: str) -> str:
    """Return the left half of the hash that the algorithm uses (Core, 3.1.3.6); Ed25519 uses SHA-512."""
    bits = algorithm[-3:] if algorithm[-3:] in ("256", "384") else "512"
    digest = hashlib.new(f"sha{bits}", access_token.encode()).digest()
    return base64url(digest[: len(digest) // 2])
