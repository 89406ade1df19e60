"""Sign-in by an identity provider: OpenID Connect's authorization code flow with PKCE.

Only this module speaks to identity providers.  It follows OpenID Connect Core 1.0 and Discovery 1.0
(https://openid.net/specs/openid-connect-core-1_0.html, -discovery-1_0.html), RFC 6749 and RFC 7636 for
the code, RFC 9207 for `iss` in the response, RFC 9700 for the rest (all read 2026-11-25).  joserfc
reads the provider's keys, verifies the ID token's signature and checks its registered claims.

    start    discovery -> the address to send the browser to, and a Flow to keep
    finish   the browser's query -> state, iss, code -> tokens -> claims -> groups -> Identity

Note: plain http is refused for every address of a provider that is not on this machine.  No message
here holds a code, a token or a secret, because people forward messages.
"""

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit, urlunsplit

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

from headgate.config import Oidc
from headgate.config.checks import on_this_machine
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut, Timeouts
from headgate.net.dial import NotSent
from headgate.policy.access import ROLES, Role

TIMEOUTS = Timeouts(connect_s=5.0, first_token_s=10.0, stall_s=5.0, total_s=15.0)
MAX_BODY_BYTES: Final = 256 << 10  # of any answer; a token with a thousand groups has some 50 KiB
MAX_CODE: Final = 4096
DISCOVERED_S: Final = 600.0  # for which a discovery is good; no answer tells
SKEW_S: Final = 60.0  # by which the clocks of the provider and of this machine may differ
MAX_AGE_S: Final = 600.0  # of an ID token that was asked for just now
MAX_NAME: Final = 64  # characters; the store adds the subject when a name is taken
# RFC 7518, 3.1, and RFC 8037: by the provider's public keys, or by the client's secret (Core, 10.1).
_PUBLIC_KEY: Final = (
    *(f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)),
    "EdDSA",
    "Ed25519",
)
_SECRET: Final = ("HS256", "HS384", "HS512")
KEYS_AGAIN_S: Final = 10.0  # how soon a provider's keys are fetched again for a key id that is new
_NO: Final = (False, "false")  # Core, 5.1 has a boolean; Cognito's userinfo has a string
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
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)

T = TypeVar("T")


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


class Discovered(msgspec.Struct, frozen=True):
    """Reads what the provider publishes of itself (OpenID Connect Discovery, 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    # Discovery, 3: "If omitted, the default is client_secret_basic".
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False  # RFC 9207, 3


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str
    access_token: str = ""


class _Known(msgspec.Struct):
    """What is kept of a provider, and when it was fetched on a monotonic clock, in seconds."""

    discovered: Discovered
    discovered_s: float
    keys: KeySet | None = None
    keys_s: float = 0.0


_known: dict[str, _Known] = {}  # by issuer


def provider(settings: Oidc) -> Provider | None:
    """The provider that the settings name, if they name one."""
    return settings if settings.issuer else None


async def start(client: Client, provider: Provider, redirect_uri: str) -> tuple[str, Flow]:
    """Where to send the browser, and what `finish` must get back; SignInFailed."""
    found = await _discover(client, provider, time.monotonic())
    # RFC 7636, 4.1: 43 to 128 characters; 48 octets make 64.
    flow = Flow(
        state=secrets.token_urlsafe(32),
        nonce=secrets.token_urlsafe(32),
        verifier=secrets.token_urlsafe(48),
        redirect_uri=redirect_uri,
        made_s=time.time(),
    )
    asked = {
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(provider.scopes.split()),
        "state": flow.state,
        "nonce": flow.nonce,
        "code_challenge": _base64url(hashlib.sha256(flow.verifier.encode()).digest()),
        "code_challenge_method": "S256",
    }
    # RFC 6749, 3.1: the endpoint's own query "MUST be retained when adding additional query
    # parameters".
    parts = urlsplit(found.authorization_endpoint)
    query = "&".join(q for q in (parts.query, urlencode(asked)) if q)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, "")), flow


async def finish(
    client: Client, provider: Provider, flow: Flow, query: Mapping[str, str]
) -> Identity:
    """Return who came back from the provider; SignInFailed.

    That the flow is this browser's, and how old it may be, is the caller's business.
    """
    if not _same(query.get("state", ""), flow.state):
        raise SignInFailed("The answer is not to this sign-in (`state`): begin again.")
    found = await _discover(client, provider, time.monotonic())
    code = _code(provider, found, query)
    tokens = await _tokens(client, provider, found, flow, code)
    keys = await _keys(client, provider, tokens.id_token, time.monotonic())
    claims = checked(provider, flow, keys, tokens.id_token, tokens.access_token, time.time())
    groups = _groups(provider, claims)
    if groups is None and found.userinfo_endpoint and tokens.access_token:
        claims |= await _userinfo(client, found, tokens.access_token, claims["sub"])
        groups = _groups(provider, claims)
    role, account = granted(provider, groups)
    return Identity(
        issuer=claims["iss"],
        subject=claims["sub"],
        name=_name(claims, claims["sub"]),
        email=_line(claims, "email", 254) if claims.get("email_verified") not in _NO else "",
        groups=groups or (),
        role=role,
        account=account,
    )


# --- the decisions ----------------------------------------------------------------------------


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
        algorithm = _header(id_token).get("alg")
    except _UNREADABLE:
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
        isinstance(at_hash, str) and _same(at_hash, _at_hash(access_token, str(algorithm)))
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


def _header(token: str) -> dict[str, Any]:
    """Return a token's header, unverified; it raises one of _UNREADABLE when it is malformed."""
    text = token.partition(".")[0]
    raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
    return msgspec.json.decode(raw, type=dict[str, Any])


def granted(provider: Provider, groups: tuple[str, ...] | None) -> tuple[Role, str]:
    """The role and the account of who is in these groups; SignInFailed when there is none.

    None: the provider said nothing of groups.
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


def _code(provider: Provider, found: Discovered, query: Mapping[str, str]) -> str:
    """Return the code that the browser brought."""
    # RFC 9207, 2.4: clients "MUST compare the result to the issuer identifier", also when the answer
    # is an error, and reject answers without one of servers that are known to send it.
    iss = query.get("iss", "")
    if (iss or found.authorization_response_iss_parameter_supported) and iss != provider.issuer:
        raise SignInFailed("The answer is another provider's (`iss`): begin again.")
    if "error" in query:
        raise SignInFailed(f"The provider refused: {_advice(query['error'])}.")
    code = query.get("code", "")
    if not 1 <= len(code) <= MAX_CODE:
        raise SignInFailed("The answer has no `code`: begin again.")
    return code


def _groups(provider: Provider, stated: Mapping[str, Any]) -> tuple[str, ...] | None:
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


def _name(stated: Mapping[str, Any], subject: str) -> str:
    """What to call them: short and known to them first."""
    for claim in ("preferred_username", "name", "email"):
        if found := _line(stated, claim, MAX_NAME):
            return found
    return subject[:MAX_NAME] if subject.isprintable() and subject.strip() else "somebody"


def _line(stated: Mapping[str, Any], claim: str, most: int) -> str:
    text = stated.get(claim)
    if not isinstance(text, str):
        return ""
    return "".join(c for c in text if c.isprintable())[:most].strip()


def _at_hash(access_token: str, algorithm: str) -> str:
    """Return the left half of the hash that the algorithm uses (Core, 3.1.3.6); Ed25519 uses SHA-512."""
    bits = algorithm[-3:] if algorithm[-3:] in ("256", "384") else "512"
    digest = hashlib.new(f"sha{bits}", access_token.encode()).digest()
    return _base64url(digest[: len(digest) // 2])


def _check_endpoint(provider: Provider, name: str, url: str) -> None:
    """Where codes and tokens go: https, or this machine if the issuer is on it."""
    try:
        parts = urlsplit(url)
        ok = bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        ok = False
    local = ok and on_this_machine(url) and on_this_machine(provider.issuer)
    if not ok or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise SignInFailed(f"The provider's `{name}` is no https address: put it right there.")


# --- the provider -----------------------------------------------------------------------------


async def _discover(client: Client, provider: Provider, now: float) -> Discovered:
    """Return what the provider says of itself, at most DISCOVERED_S ago."""
    known = _known.get(provider.issuer)
    if known is not None and now - known.discovered_s < DISCOVERED_S:
        return known.discovered
    _check_endpoint(provider, "issuer", provider.issuer)
    # Discovery, 4.1: "any terminating / MUST be removed before appending".
    url = f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration"
    where = "The provider's discovery (`oidc.issuer` and /.well-known/openid-configuration)"
    status, body = await _send(client, where, "GET", url, {})
    if status != 200:
        raise SignInFailed(f"{where} answers {status}: is `oidc.issuer` right?")
    found = _decoded(where, body, Discovered)
    # Discovery, 4.3: it "MUST be identical to the Issuer URL that was used as the prefix".
    if found.issuer != provider.issuer:
        raise SignInFailed(
            "The provider calls itself otherwise than `oidc.issuer`: write exactly its own `issuer`,"
            " with or without the last slash."
        )
    _check_endpoint(provider, "authorization_endpoint", found.authorization_endpoint)
    _check_endpoint(provider, "token_endpoint", found.token_endpoint)
    _check_endpoint(provider, "jwks_uri", found.jwks_uri)
    if found.userinfo_endpoint:
        _check_endpoint(provider, "userinfo_endpoint", found.userinfo_endpoint)
    _known[provider.issuer] = _Known(found, now)
    return found


async def _keys(client: Client, provider: Provider, id_token: str, now: float) -> KeySet:
    """Return the provider's signing keys; they are fetched again for a token whose key is not among them.

    Core, 10.1.1: "The verifier knows to go back to the jwks_uri location to re-retrieve the keys when
    it sees an unfamiliar kid value."
    """
    known = _known[provider.issuer]
    if known.keys is not None:
        try:
            name = _header(id_token).get("kid")
        except _UNREADABLE:
            name = None
        familiar = name is None or any(key.kid == name for key in known.keys.keys)
        if familiar or now - known.keys_s < KEYS_AGAIN_S:
            return known.keys
    where = "The provider's keys (`jwks_uri`)"
    status, body = await _send(client, where, "GET", known.discovered.jwks_uri, {})
    if status != 200:
        raise SignInFailed(f"{where} answer {status}: look into it there.")
    fields = _decoded(where, body, dict[str, Any]).get("keys")
    usable = []
    for field in fields if isinstance(fields, list) else ():
        # RFC 7517, 5: "Implementations SHOULD ignore JWKs within a JWK Set that use "kty" (key type)
        # values that are not understood by them".
        try:
            usable += KeySet.import_key_set({"keys": [field]}).keys
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            continue
    known.keys, known.keys_s = KeySet(usable), now
    return known.keys


async def _tokens(
    client: Client, provider: Provider, found: Discovered, flow: Flow, code: str
) -> _Tokens:
    """What the code is worth, once."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": flow.redirect_uri,
        "code_verifier": flow.verifier,
    }
    headers = {"content-type": "application/x-www-form-urlencoded"}
    methods = found.token_endpoint_auth_methods_supported
    if not provider.client_secret:
        form["client_id"] = provider.client_id
    elif "client_secret_basic" in methods:
        # RFC 6749, 2.3.1: both "encoded using the "application/x-www-form-urlencoded" encoding".
        pair = f"{quote_plus(provider.client_id)}:{quote_plus(provider.client_secret)}"
        headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    elif "client_secret_post" in methods:
        form |= {"client_id": provider.client_id, "client_secret": provider.client_secret}
    else:
        raise SignInFailed(
            "The provider takes no client secret: allow client_secret_basic or client_secret_post"
            " there, or leave `oidc.client_secret` out."
        )
    where = "The provider's token endpoint"
    body = urlencode(form).encode()
    status, answer = await _send(client, where, "POST", found.token_endpoint, headers, body)
    if status != 200:
        try:
            error = msgspec.json.decode(answer, type=dict[str, Any]).get("error")
        except _UNREADABLE:
            error = None
        raise SignInFailed(f"{where} answers {status}: {_advice(error)}.")
    return _decoded(where, answer, _Tokens)


async def _userinfo(
    client: Client, found: Discovered, access_token: str, subject: str
) -> dict[str, Any]:
    """Return the claims of the userinfo endpoint.  Any: whatever JSON the provider puts there."""
    where = "The provider's userinfo endpoint"
    headers = {"authorization": f"Bearer {access_token}"}
    status, answer = await _send(client, where, "GET", found.userinfo_endpoint, headers)
    if status != 200:
        raise SignInFailed(f"{where} answers {status}: check `oidc.scopes`, or its log.")
    stated = _decoded(where, answer, dict[str, Any])
    # Core, 5.3.2: "The sub Claim in the UserInfo Response MUST be verified to exactly match the sub
    # Claim in the ID Token; if they do not match, the UserInfo Response values MUST NOT be used."
    if stated.get("sub") != subject:
        raise SignInFailed(f"{where} speaks of somebody else (`sub`): look into it there.")
    return stated


async def _send(
    client: Client, where: str, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
) -> tuple[int, bytes]:
    try:
        asked = {"accept": "application/json", **headers}
        response = await client.send(method, url, asked, body, TIMEOUTS)
        if 300 <= response.status < 400:
            response.abort()
            raise SignInFailed(
                f"{where} leads elsewhere ({response.status}): name the address itself."
            )
        return response.status, await response.read_all(MAX_BODY_BYTES)
    except (NotSent, Broken, TimedOut) as error:
        raise SignInFailed(f"{where} cannot be used: {error}.") from None
    except ValueError:  # an address or a token with characters that cannot go on the wire
        raise SignInFailed(f"{where} cannot be asked: its address or token is malformed.") from None


def _decoded(where: str, body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except _UNREADABLE as error:
        raise SignInFailed(f"{where} does not answer as it should: {_reason(error)}.") from None


def _reason(error: Exception) -> str:
    """msgspec's words have types and places in them, no values; others' may."""
    return str(error) if isinstance(error, msgspec.MsgspecError) else "it is malformed"


def _advice(error: object) -> str:
    """The provider's error with what to do; only a code of the usual form is repeated."""
    if not isinstance(error, str) or not _ERROR.fullmatch(error):
        return "it does not say why; its log may"
    return f"{error}, {_ADVICE.get(error, 'see its log')}"


def _same(a: str, b: str) -> bool:
    """Whether they are equal and not empty, in a time that does not tell how far they are."""
    return bool(b) and secrets.compare_digest(
        a.encode("utf-8", "surrogatepass"), b.encode("utf-8", "surrogatepass")
    )


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
