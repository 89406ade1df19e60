"""What is asked of an identity provider: its discovery, keys, tokens and userinfo.

The only module that speaks to identity providers.  joserfc reads their keys.
"""

import base64
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from headgate.config.checks import on_this_machine
from headgate.net.client import Client
from headgate.net.client_errors import Broken, TimedOut, Timeouts
from headgate.net.dial import NotSent
from headgate.web.auth.oidc_claims import header_of
from headgate.web.auth.oidc_identity import UNREADABLE, Flow, Provider, SignInFailed, advice

TIMEOUTS = Timeouts(connect_s=5.0, first_token_s=10.0, stall_s=5.0, total_s=15.0)
MAX_BODY_BYTES: Final = 256 << 10  # of any answer; a token with a thousand groups has some 50 KiB
DISCOVERED_S: Final = 600.0  # for which a discovery is good; no answer tells
KEYS_AGAIN_S: Final = 10.0  # how soon a provider's keys are fetched again for a key id that is new
T = TypeVar("T")


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


class Tokens(msgspec.Struct, frozen=True):
    id_token: str
    access_token: str = ""


class _Known(msgspec.Struct):
    """What is kept of a provider, and when it was fetched on a monotonic clock, in seconds."""

    discovered: Discovered
    discovered_s: float
    keys: KeySet | None = None
    keys_s: float = 0.0


_known: dict[str, _Known] = {}  # by issuer


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


async def discover(client: Client, provider: Provider, now: float) -> Discovered:
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


async def signing_keys(client: Client, provider: Provider, id_token: str, now: float) -> KeySet:
    """Return the provider's signing keys; they are fetched again for a token whose key is not among them.

    Core, 10.1.1: "The verifier knows to go back to the jwks_uri location to re-retrieve the keys when
    it sees an unfamiliar kid value."
    """
    known = _known[provider.issuer]
    if known.keys is not None:
        try:
            name = header_of(id_token).get("kid")
        except UNREADABLE:
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


async def tokens_of(
    client: Client, provider: Provider, found: Discovered, flow: Flow, code: str
) -> Tokens:
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
        except UNREADABLE:
            error = None
        raise SignInFailed(f"{where} answers {status}: {advice(error)}.")
    return _decoded(where, answer, Tokens)


async def userinfo(
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
    except UNREADABLE as error:
        raise SignInFailed(f"{where} does not answer as it should: {_reason(error)}.") from None


def _reason(error: Exception) -> str:
    """msgspec's words have types and places in them, no values; others' may."""
    return str(error) if isinstance(error, msgspec.MsgspecError) else "it is malformed"
