"""Signing in by an identity provider on loopback that plays by the rules, or breaks one at a time."""

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from headgate import config
from headgate.config import ConfigError, Oidc, explain, loading
from headgate.net.client import Client
from headgate.net.client_errors import Timeouts
from headgate.web.auth import oidc, oidc_claims, oidc_identity, oidc_provider
from headgate.web.auth.oidc_identity import Flow, Identity, SignInFailed
from idp import ACCESS, CLIENT_ID, SECRET, STRANGER, Answer, Idp, stated

BACK = "https://gate.test/sign-in/callback"
DEEP = b'{"a": ' + b"[" * 90_000
RS256 = base64.b64encode(b'{"alg":"RS256"}').rstrip(b"=").decode()
DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
def idp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Idp]:
    monkeypatch.setattr(oidc_provider, "_known", {})
    with Idp().running() as running:
        yield running


def settings(idp: Idp, **changes: Any) -> Oidc:
    given = {
        "issuer": idp.url,
        "client_id": CLIENT_ID,
        "client_secret": SECRET,
        "roles": {"staff": "member", "ops": "admin", "guests": "viewer"},
    }
    return Oidc(**(given | changes))


def sign_in(
    provider: Oidc, visit: Callable[[str], dict[str, str]], flow: dict[str, Any] | None = None
) -> Identity:
    """From the link to the identity; `flow`: what is not as it was when the browser returns."""

    async def main() -> Identity:
        client = Client(proxies={})
        try:
            url, kept = await oidc.start(client, provider, BACK)
            query = await asyncio.to_thread(visit, url)
            return await oidc.finish(
                client, provider, msgspec.structs.replace(kept, **flow or {}), query
            )
        finally:
            await client.close()

    return asyncio.run(main())


def refused(idp: Idp, flow: dict[str, Any] | None = None, **changes: Any) -> str:
    """What the user is told; never a secret of the flow's."""
    queries: list[dict[str, str]] = []

    def visit(url: str) -> dict[str, str]:
        queries.append(idp.visit(url))
        return queries[-1]

    with pytest.raises(SignInFailed) as caught:
        sign_in(settings(idp, **changes), visit, flow)
    text = str(caught.value)
    assert caught.value.__cause__ is None or "canary" not in str(caught.value.__cause__)
    assert "canary" not in text and SECRET not in text and "eyJ" not in text
    return text


# --- as it should be ---------------------------------------------------------------------------


def test_who_signs_in_has_the_role_and_the_account_of_their_groups(idp: Idp) -> None:
    idp.claims |= {"preferred_username": "ada", "groups": ["guests", "staff", "lab"]}
    provider = settings(idp, accounts={"lab": "acct_lab", "staff": "acct_staff"})
    assert sign_in(provider, idp.visit) == Identity(
        issuer=idp.url,
        subject="u-1",
        name="ada",
        email="ada@x.test",
        groups=("guests", "staff", "lab"),
        role="member",
        account="acct_lab",
    )
    assert idp.heard == [DISCOVERY, "/authorize", "/token", "/jwks"]  # nothing of userinfo


def test_the_link_asks_for_a_code_with_a_challenge_and_keeps_the_endpoints_query(idp: Idp) -> None:
    async def main() -> tuple[str, Flow]:
        client = Client(proxies={})
        try:
            return await oidc.start(client, settings(idp, scopes="openid  groups"), BACK)
        finally:
            await client.close()

    url, flow = asyncio.run(main())
    asked = {k: v[0] for k, v in parse_qs(urlsplit(url).query).items()}
    assert urlsplit(url).path == "/authorize" and asked["tenant"] == "7"
    assert (asked["redirect_uri"], asked["scope"]) == (BACK, "openid groups")
    assert (asked["state"], asked["nonce"]) == (flow.state, flow.nonce)
    assert len(flow.verifier) == 64 and flow.verifier not in url and SECRET not in url
    assert msgspec.json.decode(msgspec.json.encode(flow), type=Flow) == flow


def test_the_challenge_is_the_one_of_rfc_7636() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # appendix B
    challenge = oidc_identity.base64url(hashlib.sha256(verifier.encode()).digest())
    assert challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.parametrize(
    ("methods", "used"),
    [
        (None, "client_secret_basic"),
        (["client_secret_post"], "client_secret_post"),
        (["private_key_jwt", "client_secret_basic"], "client_secret_basic"),
    ],
)
def test_the_secret_goes_as_the_provider_takes_it(
    idp: Idp, methods: list[str] | None, used: str
) -> None:
    idp.methods = methods
    sign_in(settings(idp), idp.visit)
    assert idp.used == used


def test_a_public_client_sends_no_secret(idp: Idp) -> None:
    idp.public = True
    sign_in(settings(idp, client_secret=""), idp.visit)
    assert idp.used == "none"


def test_groups_that_the_token_lacks_are_asked_of_userinfo(idp: Idp) -> None:
    idp.claims = {}
    idp.userinfo = {"groups": "ops", "name": "Ada", "email": "a@x.test", "email_verified": "false"}
    who = sign_in(settings(idp), idp.visit)
    assert (who.role, who.groups, who.name, who.email) == ("admin", ("ops",), "Ada", "")
    assert idp.heard[-1] == "/userinfo"


def test_groups_may_be_inside_another_claim(idp: Idp) -> None:
    idp.claims = {"realm_access": {"roles": ["ops"]}}
    assert sign_in(settings(idp, groups_claim="realm_access.roles"), idp.visit).role == "admin"
    idp.claims = {"https://x.test/groups": ["ops"]}
    assert sign_in(settings(idp, groups_claim="https://x.test/groups"), idp.visit).role == "admin"


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"name": "  A\x00d\u202ea \n"}, "Ada"),
        ({"name": "x" * 500}, "x" * 64),
        ({"name": 7, "email": "a@x.test"}, "a@x.test"),
        ({"name": None, "email": None}, "u-1"),
    ],
)
def test_a_name_is_one_short_printable_line(idp: Idp, claims: dict[str, Any], name: str) -> None:
    idp.claims |= claims
    assert sign_in(settings(idp), idp.visit).name == name


def test_a_discovery_is_asked_for_once(idp: Idp) -> None:
    for _ in range(3):
        sign_in(settings(idp), idp.visit)
    assert idp.heard.count(DISCOVERY) == 1


def test_a_discovery_grows_old(idp: Idp) -> None:
    async def main() -> None:
        client = Client(proxies={})
        try:
            for now in (0.0, oidc_provider.DISCOVERED_S - 1, oidc_provider.DISCOVERED_S):
                await oidc_provider.discover(client, settings(idp), now)
        finally:
            await client.close()

    asyncio.run(main())
    assert idp.heard.count(DISCOVERY) == 2


def test_a_provider_of_old_need_not_say_iss_but_must_not_say_another(idp: Idp) -> None:
    idp.discovery = {"authorization_response_iss_parameter_supported": None}
    idp.authorize = {"iss": None}
    assert sign_in(settings(idp), idp.visit).subject == "u-1"
    idp.authorize = {"iss": "https://other.test"}
    assert "`iss`" in refused(idp)


def test_fractions_small_skews_and_further_audiences_are_no_mistakes(idp: Idp) -> None:
    now = time.time()
    idp.claims |= {"aud": [CLIENT_ID, "b"], "azp": CLIENT_ID, "exp": now - 30.5, "iat": now + 30.5}
    assert sign_in(settings(idp), idp.visit).subject == "u-1"
    idp.claims |= {"aud": [CLIENT_ID], "azp": None, "at_hash": None}
    assert sign_in(settings(idp), idp.visit).subject == "u-1"


# --- what is refused ---------------------------------------------------------------------------


class InSeconds(float):
    """A time so many seconds after the test began, not after the tests were collected."""


def from_now(claims: dict[str, Any]) -> dict[str, Any]:
    now = time.time()
    return {k: int(now + v) if isinstance(v, InSeconds) else v for k, v in claims.items()}


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"iss": "https://other.test"}, "`iss`"),
        ({"iss": None}, "`iss` is missing"),
        ({"sub": None}, "`sub` is missing"),
        ({"iat": None}, "`iat` is missing"),
        ({"aud": "another"}, "`aud`"),
        ({"aud": []}, "`aud`"),
        ({"aud": [CLIENT_ID, "another"]}, "`azp`"),
        ({"azp": "another"}, "`azp`"),
        ({"exp": InSeconds(-61)}, "`exp`"),
        ({"exp": "never"}, "`exp`"),
        ({"exp": None}, "`exp` is missing"),
        ({"iat": InSeconds(-700)}, "`iat`"),
        ({"iat": InSeconds(900)}, "`iat`"),
        ({"nonce": "another"}, "`nonce`"),
        ({"nonce": None}, "`nonce`"),
        ({"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}, "`at_hash`"),
        ({"sub": ""}, "`sub`"),
        ({"sub": "x" * 256}, "`sub`"),
        ({"groups": {"a": 1}}, "`groups`"),
        ({"groups": [1]}, "`groups`"),
    ],
)
def test_a_wrong_claim_is_named(idp: Idp, claims: dict[str, Any], told: str) -> None:
    idp.claims |= from_now(claims)
    assert told in refused(idp)


@pytest.mark.parametrize("alg", ["none", "None", "", None, "RS1", "HS256x"])
def test_an_unsigned_token_is_refused(idp: Idp, alg: str | None) -> None:
    idp.header = {"alg": alg}
    assert "`alg`" in refused(idp)


def test_a_token_that_the_provider_did_not_sign_is_refused(idp: Idp) -> None:
    idp.signer = STRANGER
    assert "signature" in refused(idp)


@pytest.mark.parametrize("alg", ["HS256", "HS512"])
def test_a_token_signed_by_a_secret_that_nobody_has_is_refused(idp: Idp, alg: str) -> None:
    idp.public, idp.header = True, {"alg": alg}
    assert "`alg`" in refused(idp, client_secret="")


def test_a_public_key_is_never_taken_for_a_secret(idp: Idp) -> None:
    """An attacker who signs with HS256 and the provider's public key must not pass."""
    idp.keys = [{"kty": "oct", "k": base64.urlsafe_b64encode(SECRET.encode()).decode()}]
    assert "signature" in refused(idp)


def test_keys_are_fetched_again_for_a_new_key_and_not_for_each_token(
    idp: Idp, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, idp.keys = idp.keys, [k | {"kid": f"old-{k['kid']}"} for k in idp.keys]
    assert "signature" in refused(idp)
    idp.keys = ours
    assert "signature" in refused(idp)  # the keys were fetched a moment ago
    monkeypatch.setattr(oidc_provider, "KEYS_AGAIN_S", 0.0)
    assert sign_in(settings(idp), idp.visit).subject == "u-1"
    assert sign_in(settings(idp), idp.visit).subject == "u-1"
    assert idp.heard.count("/jwks") == 2


def test_keys_of_kinds_that_are_not_known_are_passed_over(idp: Idp) -> None:
    idp.keys = [{"kty": "quantum", "kid": "q"}, {}, 7, *idp.keys]  # type: ignore[list-item]
    assert sign_in(settings(idp), idp.visit).subject == "u-1"


@pytest.mark.parametrize("keys", [[], {"a": 1}, None])
def test_a_provider_without_keys_is_named(idp: Idp, keys: Any) -> None:
    idp.instead["/jwks"] = lambda: stated({"keys": keys})
    assert "signature" in refused(idp)


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("nonsense", "no JWT"),
        ("a.b.c.d.e", "encrypted"),
        ("!!.e30.x", "malformed"),
        ("e30.e30", "no JWT"),
        (f"{RS256}.{base64.b64encode(DEEP).decode()}.x", "The ID token"),
        (f"{RS256}./w.x", "cannot be read"),
        (f"{base64.b64encode(DEEP).decode()}.e30.x", "cannot be read"),
        (None, "missing required field `id_token`"),
    ],
)
def test_what_is_no_token_is_refused(idp: Idp, token: str | None, told: str) -> None:
    idp.token = {"id_token": token}
    assert told in refused(idp)


@pytest.mark.parametrize("state", ["", "another", "ü"])
def test_the_answer_to_another_sign_in_is_refused_before_anything_is_asked(
    idp: Idp, state: str
) -> None:
    idp.authorize = {"state": state}
    assert "`state`" in refused(idp)
    assert "/token" not in idp.heard


def test_the_answer_of_another_provider_is_refused(idp: Idp) -> None:
    for iss in ("https://other.test", None):
        idp.authorize = {"iss": iss}
        assert "`iss`" in refused(idp)
    assert "/token" not in idp.heard


def test_an_empty_state_matches_no_empty_state() -> None:
    assert not oidc_identity.same("", "")


def test_another_verifier_is_refused_by_the_provider(idp: Idp) -> None:
    assert "invalid_grant" in refused(idp, {"verifier": "x" * 64})


def test_a_code_serves_once(idp: Idp) -> None:
    queries: list[dict[str, str]] = []

    async def main() -> None:
        client = Client(proxies={})
        try:
            url, flow = await oidc.start(client, settings(idp), BACK)
            query = await asyncio.to_thread(idp.visit, url)
            queries.append(query)
            await oidc.finish(client, settings(idp), flow, query)
            with pytest.raises(SignInFailed, match="invalid_grant"):
                await oidc.finish(client, settings(idp), flow, query)
        finally:
            await client.close()

    asyncio.run(main())


def test_the_providers_error_is_told_with_what_to_do(idp: Idp) -> None:
    idp.authorize = {"code": None, "error": "access_denied", "error_description": "canary"}
    assert "access_denied, the provider, or the user, said no" in refused(idp)
    idp.authorize = {"code": None, "error": "<b>canary"}
    assert "does not say why" in refused(idp)
    idp.authorize = {"code": None}
    assert "`code`" in refused(idp)


def test_a_wrong_secret_names_its_setting(idp: Idp) -> None:
    assert "`oidc.client_secret`" in refused(idp, client_secret="canary")


def test_a_provider_that_takes_no_secret_is_told_of(idp: Idp) -> None:
    idp.methods = ["private_key_jwt"]
    assert "client_secret_post" in refused(idp)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"issuer": "https://other.test"}, "`oidc.issuer`"),
        ({"token_endpoint": "http://id.example.test/token"}, "`token_endpoint`"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "`authorization_endpoint`"),
        ({"userinfo_endpoint": "https://user@id.example.test/"}, "`userinfo_endpoint`"),
        ({"token_endpoint": "http://[::1/"}, "`token_endpoint`"),
        ({"token_endpoint": None}, "missing required field `token_endpoint`"),
    ],
)
def test_a_wrong_discovery_is_refused_and_not_kept(
    idp: Idp, changes: dict[str, Any], told: str
) -> None:
    idp.discovery = changes
    assert told in refused(idp)
    idp.discovery = {}
    assert sign_in(settings(idp), idp.visit).subject == "u-1"


def test_plain_http_to_another_machine_is_refused_before_it_is_sent(idp: Idp) -> None:
    assert "https" in refused(idp, issuer="http://id.example.test")


def test_userinfo_of_somebody_else_is_refused(idp: Idp) -> None:
    idp.claims = {}
    idp.userinfo = {"sub": "u-2", "groups": ["ops"]}
    assert "somebody else" in refused(idp)


@pytest.mark.parametrize("path", [DISCOVERY, "/token", "/userinfo"])
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((302, {"location": "http://127.0.0.1:1/"}, b""), "leads elsewhere (302)"),
        ((500, {}, b"canary"), "answers 500"),
        ((200, {}, b"<html>"), "does not answer as it should"),
        ((200, {}, b'{"a": "\xff"}'), "does not answer as it should"),
        ((200, {}, DEEP), "does not answer as it should"),
        ((200, {}, b" " * (oidc_provider.MAX_BODY_BYTES + 1)), "larger than"),
    ],
)
def test_an_answer_that_cannot_be_used_is_told_of(
    idp: Idp, path: str, answer: Answer, told: str
) -> None:
    idp.claims = {}
    idp.instead[path] = lambda: answer
    assert told in refused(idp)


@pytest.mark.parametrize("path", [DISCOVERY, "/token", "/userinfo"])
def test_a_provider_that_hangs_is_not_waited_for(
    idp: Idp, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang() -> Answer:
        idp.open.wait(600)
        return stated({})

    monkeypatch.setattr(oidc_provider, "TIMEOUTS", Timeouts(5, 0.3, 0.3, 5))
    idp.claims = {}
    idp.instead[path] = hang
    assert "cannot be used: timed out" in refused(idp)


def test_a_provider_that_is_not_there_is_told_of(idp: Idp) -> None:
    with Idp().running() as gone:
        url = gone.url
    assert "cannot be used" in refused(idp, issuer=url)


# --- roles and accounts ------------------------------------------------------------------------


def test_who_is_in_no_group_that_counts_is_refused_or_has_the_default(idp: Idp) -> None:
    idp.claims["groups"] = ["others"]
    assert "`oidc.roles`" in refused(idp)
    assert sign_in(settings(idp, default_role="viewer"), idp.visit).role == "viewer"
    idp.claims["groups"] = None
    assert "`oidc.groups_claim`" in refused(idp)
    assert sign_in(settings(idp, default_role="viewer"), idp.visit).groups == ()


def test_a_default_takes_no_role_away() -> None:
    provider = Oidc(roles={"g": "viewer", "ops": "admin"}, default_role="member")
    assert oidc_claims.granted(provider, ("g",)) == ("viewer", "")
    assert oidc_claims.granted(provider, ("g", "ops")) == ("admin", "")
    assert oidc_claims.granted(provider, None) == ("member", "")


def test_with_accounts_set_only_an_admin_needs_none() -> None:
    provider = Oidc(roles={"g": "member", "ops": "admin"}, accounts={"lab": "acct_lab"})
    assert oidc_claims.granted(provider, ("g", "lab")) == ("member", "acct_lab")
    assert oidc_claims.granted(provider, ("ops",)) == ("admin", "")
    with pytest.raises(SignInFailed, match=r"`oidc\.accounts`"):
        oidc_claims.granted(provider, ("g",))


@pytest.mark.parametrize(
    ("alg", "bits"),
    [("RS256", 256), ("ES256", 256), ("PS512", 512), ("EdDSA", 512), ("HS256", 256)],
)
def test_at_hash_is_by_the_hash_of_the_signature(idp: Idp, alg: str, bits: int) -> None:
    digest = hashlib.new(f"sha{bits}", ACCESS.encode()).digest()
    half = base64.urlsafe_b64encode(digest[: bits // 16]).rstrip(b"=").decode()
    idp.header, idp.claims["at_hash"] = {"alg": alg}, half
    assert sign_in(settings(idp), idp.visit).subject == "u-1"


# --- the settings ------------------------------------------------------------------------------


def loaded(tmp_path: Path, text: str, **env: str) -> config.Settings:
    file = tmp_path / "headgate.toml"
    file.write_text(text, encoding="utf-8")
    return loading.load(str(file), env)


def test_the_settings_are_read_and_the_secret_is_not_shown(tmp_path: Path) -> None:
    text = """
[oidc]
issuer = "https://id.example.test/realms/a"
client_id = "gate"
client_secret = "env:OIDC"
default_role = "viewer"
roles = { "headgate-admins" = "admin" }
accounts = { "lab.x" = "acct_1" }
"""
    settings = loaded(tmp_path, text, OIDC="canary")
    assert settings.oidc.client_secret == "canary" and settings.oidc.roles == {
        "headgate-admins": "admin"
    }
    assert "canary" not in repr(settings) + json.dumps(explain.show(settings))
    assert ("oidc.issuer", "https://id.example.test/realms/a", "file") in explain.show(settings)
    assert oidc.provider(settings.oidc) == settings.oidc
    assert oidc.provider(loading.load(None, {}).oidc) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("client_id = 'x'", "`oidc.issuer` is missing"),
        ("issuer = 'http://id.test'\nclient_id = 'x'", "plain http"),
        ("issuer = 'http://10.0.0.1'\nclient_id = 'x'", "plain http"),
        ("issuer = 'HTTP://idp'\nclient_id = 'x'", "plain http"),
        ("issuer = 'https://id.test?a=b'\nclient_id = 'x'", "no user, query"),
        ("issuer = 'id.test'\nclient_id = 'x'", "https://"),
        ("issuer = 'https://id.test'", "`oidc.client_id`"),
        ("issuer = 'https://id.test'\nclient_id = 'x'\nscopes = 'email'", "`openid`"),
        ("issuer = 'https://id.test'\nclient_id = 'x'\nclient_secret = 'env:NO'", "NO"),
        ("issuer = 'https://id.test'\nclient_id = 'x'\nclient_secret = 'env:a b'", "variable"),
        ("isuer = 'https://id.test'", "Did you mean `issuer`"),
        ("roles = { a = 'owner' }", "oidc.roles"),
        ("default_role = 'admin'", "oidc.default_role"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, f"[oidc]\n{text}")
    assert told in str(caught.value)


def test_a_secret_of_the_wrong_type_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, "[oidc]\nclient_secret = 4711")
    assert "oidc.client_secret" in str(caught.value) and "4711" not in str(caught.value)


def test_a_secret_in_the_file_makes_a_note(tmp_path: Path) -> None:
    text = "[oidc]\nissuer = 'http://127.0.0.1:1'\nclient_id = 'x'\nclient_secret = 'canary'"
    notes = " ".join(loaded(tmp_path, text).notes)
    assert "`oidc.client_secret`" in notes and "canary" not in notes
