"""Signing in by an identity provider: OpenID Connect's code flow, with PKCE.

The only place that speaks to identity providers.  Follows OpenID Connect Core 1.0 and Discovery 1.0
(https://openid.net/specs/openid-connect-core-1_0.html, -discovery-1_0.html), RFC 6749 and RFC 7636 for
the code, RFC 9207 for `iss` in the answer, RFC 9700 for the rest (all read 2026-11-25).

    start    discovery -> the address to send the browser to, and a Flow to keep
    finish   the browser's query -> state, iss, code -> tokens -> claims -> groups -> Identity

What will surprise: the ID token's signature is not looked at.  Core, 3.1.3.7: "If the ID Token is
received via direct communication between the Client and the Token Endpoint (which it is in this flow),
the TLS server validation MAY be used to validate the issuer in place of checking the token signature."
So plain http is refused for every address of a provider that is not on this machine, and no token is
taken from a browser.  No message here holds a code, a token or a secret: people send them on.
"""

import base64
import binascii
import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit, urlunsplit

import msgspec

from headgate.config import Oidc, on_this_machine
from headgate.net.client import Broken, Client, NotSent, TimedOut, Timeouts
from headgate.policy.access import ROLES, Role

TIMEOUTS = Timeouts(connect_s=5.0, first_token_s=10.0, stall_s=5.0, total_s=15.0)
MAX_BODY_BYTES: Final = 256 << 10  # of any answer; a token with a thousand groups has some 50 KiB
MAX_CODE: Final = 4096
DISCOVERED_S: Final = 600.0  # for which a discovery is good; no answer tells
SKEW_S: Final = 60.0  # by which the clocks of the provider and of this machine may differ
MAX_AGE_S: Final = 600.0  # of an ID token that was asked for just now
MAX_NAME: Final = 64  # characters; the store adds the subject when a name is taken
_SIGNATURES: Final = re.compile("(?:RS|PS|ES|HS)(256|384|512)|EdDSA|Ed25519")  # RFC 7518, 3.1; 8037
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
    """Who signed in; found again by issuer and subject only, the rest can change hands."""

    issuer: str
    subject: str
    name: str
    email: str  # "" when the provider says that it is not verified
    groups: tuple[str, ...]
    role: Role
    account: str


Provider = Oidc  # with an issuer


class Discovered(msgspec.Struct, frozen=True):
    """What the provider says of itself; its own words (Discovery, 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str = ""
    # Discovery, 3: "If omitted, the default is client_secret_basic".
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False  # RFC 9207, 3


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str
    access_token: str = ""


class _Header(msgspec.Struct, frozen=True):
    alg: str = ""


class _Claims(msgspec.Struct, frozen=True):
    """The claims that are checked, as Core, 2 has them."""

    iss: str
    sub: str
    aud: str | tuple[str, ...]
    exp: float
    iat: float
    nonce: str = ""
    azp: str = ""
    at_hash: str = ""


# By issuer, with when it was asked (a monotonic clock): each sign-in has a client and an event loop of
# its own, and a discovery outlives them.
_discovered: dict[str, tuple[float, Discovered]] = {}


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
    """Who came back from the provider; SignInFailed.

    That the flow is this browser's, and how old it may be, is the caller's business.
    """
    if not _same(query.get("state", ""), flow.state):
        raise SignInFailed("The answer is not to this sign-in (`state`): begin again.")
    found = await _discover(client, provider, time.monotonic())
    code = _code(provider, found, query)
    tokens = await _tokens(client, provider, found, flow, code)
    claims, said = checked(provider, flow, tokens.id_token, tokens.access_token, time.time())
    groups = _groups(provider, said)
    if groups is None and found.userinfo_endpoint and tokens.access_token:
        said |= await _userinfo(client, found, tokens.access_token, claims.sub)
        groups = _groups(provider, said)
    role, account = granted(provider, groups)
    return Identity(
        issuer=claims.iss,
        subject=claims.sub,
        name=_name(said, claims.sub),
        email=_line(said, "email", 254) if said.get("email_verified") not in _NO else "",
        groups=groups or (),
        role=role,
        account=account,
    )


# --- the decisions ----------------------------------------------------------------------------


def checked(
    provider: Provider, flow: Flow, id_token: str, access_token: str, now_s: float
) -> tuple[_Claims, dict[str, Any]]:
    """The claims of an ID token that is this provider's, for us, fresh, and of this flow.

    In the order of Core, 3.1.3.7.  Any: claims are whatever JSON the provider puts there.
    """
    parts = id_token.split(".")
    if len(parts) == 5:
        raise SignInFailed("The ID token is encrypted: turn its encryption off at the provider.")
    if len(parts) != 3:
        raise SignInFailed("The ID token is no JWT: is `oidc.issuer` an OpenID provider?")
    try:
        alg = msgspec.json.decode(_unbase64url(parts[0]), type=_Header).alg
        body = _unbase64url(parts[1])
        said = msgspec.json.decode(body, type=dict[str, Any])
        claims = msgspec.json.decode(body, type=_Claims)
    except _UNREADABLE as error:
        raise SignInFailed(f"The ID token cannot be read: {_reason(error)}.") from None
    signature = _SIGNATURES.fullmatch(alg)
    if signature is None:
        raise SignInFailed(
            "The ID token's `alg` is none, or unknown: let the provider sign with RS256 or ES256."
        )
    if claims.iss != provider.issuer:
        raise SignInFailed(
            "The ID token's `iss` is not `oidc.issuer`: write there what the provider calls itself."
        )
    if not 1 <= len(claims.sub) <= 255:
        raise SignInFailed("The ID token's `sub` must have 1 to 255 characters.")
    audience = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
    if provider.client_id not in audience:
        raise SignInFailed(
            "The ID token's `aud` has no `oidc.client_id`: it is for another client."
        )
    # "If the ID Token contains multiple audiences, the Client SHOULD verify that an azp Claim is
    # present", and what is there must be us.
    if (len(audience) > 1 or claims.azp) and claims.azp != provider.client_id:
        raise SignInFailed("The ID token's `azp` is not `oidc.client_id`: another client asked.")
    if not claims.exp + SKEW_S > now_s:
        raise SignInFailed("The ID token has expired (`exp`): set the clocks, here and there.")
    if not now_s - MAX_AGE_S - SKEW_S < claims.iat < now_s + SKEW_S:
        raise SignInFailed("The ID token was not made just now (`iat`): set the clocks.")
    if not _same(claims.nonce, flow.nonce):
        raise SignInFailed("The ID token is of another sign-in (`nonce`): begin again.")
    if claims.at_hash and not _same(claims.at_hash, _at_hash(access_token, signature[1])):
        raise SignInFailed("The ID token's `at_hash` is of another access token: begin again.")
    return claims, said


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
    """The code that the browser brought."""
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


def _groups(provider: Provider, said: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The groups among the claims; None when there is no such claim."""
    name = provider.groups_claim
    found: Any = said.get(name)
    if found is None and "." in name:  # Keycloak's roles are in `realm_access.roles`
        found = said
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


def _name(said: Mapping[str, Any], subject: str) -> str:
    """What to call them: short and known to them first."""
    for claim in ("preferred_username", "name", "email"):
        if found := _line(said, claim, MAX_NAME):
            return found
    return subject[:MAX_NAME] if subject.isprintable() and subject.strip() else "somebody"


def _line(said: Mapping[str, Any], claim: str, most: int) -> str:
    text = said.get(claim)
    if not isinstance(text, str):
        return ""
    return "".join(c for c in text if c.isprintable())[:most].strip()


def _at_hash(access_token: str, bits: str | None) -> str:
    """Core, 3.1.3.6: the left half of the hash that `alg` uses; Ed25519 uses SHA-512."""
    digest = hashlib.new(f"sha{bits or '512'}", access_token.encode()).digest()
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
    """What the provider says of itself, at most DISCOVERED_S ago."""
    kept = _discovered.get(provider.issuer)
    if kept is not None and now - kept[0] < DISCOVERED_S:
        return kept[1]
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
    if found.userinfo_endpoint:
        _check_endpoint(provider, "userinfo_endpoint", found.userinfo_endpoint)
    _discovered[provider.issuer] = (now, found)
    return found


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
    """The claims of the userinfo endpoint.  Any: whatever JSON the provider puts there."""
    where = "The provider's userinfo endpoint"
    headers = {"authorization": f"Bearer {access_token}"}
    status, answer = await _send(client, where, "GET", found.userinfo_endpoint, headers)
    if status != 200:
        raise SignInFailed(f"{where} answers {status}: check `oidc.scopes`, or its log.")
    said = _decoded(where, answer, dict[str, Any])
    # Core, 5.3.2: "The sub Claim in the UserInfo Response MUST be verified to exactly match the sub
    # Claim in the ID Token; if they do not match, the UserInfo Response values MUST NOT be used."
    if said.get("sub") != subject:
        raise SignInFailed(f"{where} speaks of somebody else (`sub`): look into it there.")
    return said


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


def _unbase64url(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64url") from None
