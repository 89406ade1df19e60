"""An identity provider on loopback that consents to everything, and misbehaves as a test asks.

Imports nothing of ours, so that the two cannot share a mistake: it checks what a client must send by
OpenID Connect Core 1.0 and RFC 7636 itself.  Its ID tokens are signed by keys of its own, or by the
client's secret where the header's `alg` says HS256 (Core, 10.1).
"""

import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlencode, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

CLIENT_ID = "gate:way"  # its colon must be quoted in Basic
SECRET = "a secret: with % and ü"
ACCESS = "at-canary-0123456789"
Answer = tuple[int, dict[str, str], bytes]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# By the first two letters of `alg`; made once, as RSA takes its time.
KEYS: dict[str, Any] = {  # Any: the keys of joserfc
    "RS": RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}),
    "ES": ECKey.generate_key("P-256", {"kid": "ec", "use": "sig"}),
    "Ed": OKPKey.generate_key("Ed25519", {"kid": "ed", "use": "sig"}),
}
KEYS["PS"] = KEYS["RS"]
STRANGER = RSAKey.generate_key(2048, {"kid": "rsa"})  # signs what the provider did not


def jwt(header: dict[str, Any], claims: dict[str, Any], key: RSAKey | None = None) -> str:
    """Sign with the key that `alg` calls for; what has no known `alg` gets a signature of no worth."""
    algorithm = str(header.get("alg"))
    signer = key or KEYS.get(algorithm[:2])
    payload = json.dumps(claims).encode()
    if signer is not None and algorithm[2:] in ("256", "DSA", "25519", "512"):
        named = {"kid": signer.kid, **header}
        return jws.serialize_compact(named, payload, signer, algorithms=[algorithm])
    signed = f"{b64(json.dumps(header).encode())}.{b64(payload)}"
    return f"{signed}.{b64(hmac.digest(SECRET.encode(), signed.encode(), 'sha256'))}"


def stated(tree: Any, status: int = 200) -> Answer:
    return status, {"content-type": "application/json"}, json.dumps(tree).encode()


class Idp:
    """Each switch changes what is sent; None takes a claim or a field out."""

    def __init__(self) -> None:
        self.url = ""
        self.methods: list[str] | None = ["client_secret_basic", "client_secret_post"]
        self.public = False  # the client has no secret
        self.discovery: dict[str, Any] = {}
        self.claims: dict[str, Any] = {"groups": ["staff"], "name": "Ada L.", "email": "ada@x.test"}
        self.header: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.authorize: dict[str, str | None] = {}  # of the browser's query on its way back
        self.token: dict[str, Any] = {}
        self.instead: dict[str, Callable[[], Answer]] = {}  # by path
        self.heard: list[str] = []  # paths
        self.used: str = ""  # how the client told who it is
        self.keys: list[dict[str, Any]] = [
            KEYS[n].as_dict(private=False) for n in ("RS", "ES", "Ed")
        ]
        self.signer: RSAKey | None = None  # None: the provider's own
        self.open = threading.Event()  # what hangs is let go
        self._codes: dict[str, dict[str, str]] = {}

    # --- what it says

    def answer(self, method: str, path: str, query: str, headers: Any, body: str) -> Answer:
        self.heard.append(path)
        if path in self.instead:
            return self.instead[path]()
        match method, path:
            case "GET", "/.well-known/openid-configuration":
                return stated(self._with(self._own(), self.discovery))
            case "GET", "/authorize":
                return self._authorize(dict(parse_qsl(query)))
            case "POST", "/token":
                return self._token(dict(parse_qsl(body)), headers)
            case "GET", "/userinfo":
                if headers["authorization"] != f"Bearer {ACCESS}":
                    return stated({"error": "invalid_token"}, 401)
                return stated(self._with({"sub": "u-1"}, self.userinfo))
            case "GET", "/jwks":
                return stated({"keys": self.keys})
            case _:
                return stated({}, 404)

    def _own(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize?tenant=7",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            **(
                {"token_endpoint_auth_methods_supported": self.methods}
                if self.methods is not None
                else {}
            ),
        }

    def _authorize(self, asked: dict[str, str]) -> Answer:
        ok = (
            asked["response_type"] == "code"
            and asked["client_id"] == CLIENT_ID
            and "openid" in asked["scope"].split()
            and asked["code_challenge_method"] == "S256"
            and len(asked["code_challenge"]) == 43
            and asked["tenant"] == "7"  # of the endpoint's own query
        )
        if not ok:
            return stated({"error": "invalid_request"}, 400)
        code = f"code-canary-{secrets.token_hex(8)}"
        self._codes[code] = asked
        back = self._with({"code": code, "state": asked["state"], "iss": self.url}, self.authorize)
        return 302, {"location": f"{asked['redirect_uri']}?{urlencode(back)}"}, b""

    def _token(self, form: dict[str, str], headers: Any) -> Answer:
        if not self._authentic(form, headers):
            return stated({"error": "invalid_client"}, 401)
        asked = self._codes.pop(form.get("code", ""), None)
        proof = b64(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            asked is None
            or form["grant_type"] != "authorization_code"
            or form["redirect_uri"] != asked["redirect_uri"]
            or proof != asked["code_challenge"]
        ):
            return stated({"error": "invalid_grant", "error_description": f"{form}"}, 400)
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": "u-1",
            "aud": CLIENT_ID,
            "exp": now + 300,
            "iat": now,
            "nonce": asked["nonce"],
            "at_hash": b64(hashlib.sha256(ACCESS.encode()).digest()[:16]),
        }
        token = jwt(
            self._with({"alg": "RS256", "typ": "JWT"}, self.header),
            self._with(claims, self.claims),
            self.signer,
        )
        fields = {"access_token": ACCESS, "token_type": "Bearer", "id_token": token}
        return stated(self._with(fields, self.token))

    def _authentic(self, form: dict[str, str], headers: Any) -> bool:
        basic = headers["authorization"] or ""
        if self.public:
            self.used = "none"
            return not basic and "client_secret" not in form and form["client_id"] == CLIENT_ID
        if basic:
            self.used = "client_secret_basic"
            pair = base64.b64decode(basic.removeprefix("Basic ")).decode("ascii")
            given = tuple(unquote_plus(p) for p in pair.split(":"))
        else:
            self.used = "client_secret_post"
            given = (form.get("client_id", ""), form.get("client_secret", ""))
        allowed = self.methods or ["client_secret_basic"]
        return self.used in allowed and given == (CLIENT_ID, SECRET)

    @staticmethod
    def _with(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in (tree | changes).items() if v is not None}

    # --- the browser

    def visit(self, url: str) -> dict[str, str]:
        """What the browser brings back from there: the query of the redirect."""
        opener = urllib.request.build_opener(_Still, urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=60) as answer:
                raise AssertionError(f"no redirect but {answer.status}")
        except urllib.error.HTTPError as answer:
            assert answer.code == 302, answer.read()
            query = urlsplit(answer.headers["location"]).query
            return {k: v[0] for k, v in parse_qs(query).items()}

    @contextlib.contextmanager
    def running(self) -> Iterator["Idp"]:
        idp = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"] or 0)).decode()
                parts = urlsplit(self.path)
                status, headers, data = idp.answer(
                    self.command, parts.path, parts.query, self.headers, body
                )
                with contextlib.suppress(ConnectionError):
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.open.set()
            server.shutdown()
            server.server_close()
            thread.join(60)


class _Still(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None
