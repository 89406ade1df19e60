"""Sign-in by an identity provider: OpenID Connect's authorization code flow with PKCE.

It follows OpenID Connect Core 1.0 and Discovery 1.0
(https://openid.net/specs/openid-connect-core-1_0.html, -discovery-1_0.html), RFC 6749 and RFC 7636 for
the code, RFC 9207 for `iss` in the response, RFC 9700 for the rest (all read 2026-11-25).  oidc_provider.py asks
the provider, oidc_claims.py judges what its ID token says, and oidc_identity.py has the values of both.

    start    discovery -> the address to send the browser to, and a Flow to keep
    finish   the browser's query -> state, iss, code -> tokens -> claims -> groups -> Identity

Note: plain http is refused for every address of a provider that is not on this machine.  No message
here holds a code, a token or a secret, because people forward messages.
"""

import hashlib
import secrets
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from headgate.config import Oidc
from headgate.net.client import Client
from headgate.web.auth.oidc_claims import NO, checked, granted, groups_of, line_of, name_of
from headgate.web.auth.oidc_identity import (
    Flow,
    Identity,
    Provider,
    SignInFailed,
    advice,
    base64url,
    same,
)
from headgate.web.auth.oidc_provider import Discovered, discover, signing_keys, tokens_of, userinfo

MAX_CODE: Final = 4096


def provider(settings: Oidc) -> Provider | None:
    """The provider that the settings name, if they name one."""
    return settings if settings.issuer else None


async def start(client: Client, provider: Provider, redirect_uri: str) -> tuple[str, Flow]:
    """Where to send the browser, and what `finish` must get back; SignInFailed."""
    found = await discover(client, provider, time.monotonic())
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
        "code_challenge": base64url(hashlib.sha256(flow.verifier.encode()).digest()),
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
    if not same(query.get("state", ""), flow.state):
        raise SignInFailed("The answer is not to this sign-in (`state`): begin again.")
    found = await discover(client, provider, time.monotonic())
    code = _code(provider, found, query)
    tokens = await tokens_of(client, provider, found, flow, code)
    keys = await signing_keys(client, provider, tokens.id_token, time.monotonic())
    claims = checked(provider, flow, keys, tokens.id_token, tokens.access_token, time.time())
    groups = groups_of(provider, claims)
    if groups is None and found.userinfo_endpoint and tokens.access_token:
        claims |= await userinfo(client, found, tokens.access_token, claims["sub"])
        groups = groups_of(provider, claims)
    role, account = granted(provider, groups)
    return Identity(
        issuer=claims["iss"],
        subject=claims["sub"],
        name=name_of(claims, claims["sub"]),
        email=line_of(claims, "email", 254) if claims.get("email_verified") not in NO else "",
        groups=groups or (),
        role=role,
        account=account,
    )


def _code(provider: Provider, found: Discovered, query: Mapping[str, str]) -> str:
    """Return the code that the browser brought."""
    # RFC 9207, 2.4: clients "MUST compare the result to the issuer identifier", also when the answer
    # is an error, and reject answers without one of servers that are known to send it.
    iss = query.get("iss", "")
    if (iss or found.authorization_response_iss_parameter_supported) and iss != provider.issuer:
        raise SignInFailed("The answer is another provider's (`iss`): begin again.")
    if "error" in query:
        raise SignInFailed(f"The provider refused: {advice(query['error'])}.")
    code = query.get("code", "")
    if not 1 <= len(code) <= MAX_CODE:
        raise SignInFailed("The answer has no `code`: begin again.")
    return code
