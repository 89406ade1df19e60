"""TLS, client certificates, browsers and the console's own listener, with a real gateway."""

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from certs import Authority
from gateway import COMMAND, environment, start, stop
from headgate.storage.sqlite.database import Store
from played import PlayedUpstream
from waiting import PATIENCE_S, wait_for

M = "MiniMax-M2"
CHAT = {"model": M, "messages": [{"role": "user", "content": "hello"}]}
BODIES = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": {"model": M, "input": "hello"},
    "/v1/messages": {**CHAT, "max_tokens": 9},
    f"/v1beta/models/{M}:generateContent": {"contents": [{"parts": [{"text": "hello"}]}]},
}
APP = "https://app.example.com"


class Secured:
    """A gateway with TLS, client certificates, CORS and a listener for the console."""

    def __init__(self, place: Path, upstream: PlayedUpstream) -> None:
        self.authority = Authority(place)
        self.files = place / "server-in-use.pem", place / "server-in-use.key"
        self.use(self.authority.issue("server"))
        self.client = self.authority.issue("client", client=True)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.admin_port = sock.getsockname()[1]
        self.gateway = start(
            place / "data",
            HEADGATE_UPSTREAM_URL=upstream.url("openai"),
            HEADGATE_TLS_CERT=str(self.files[0]),
            HEADGATE_TLS_KEY=str(self.files[1]),
            HEADGATE_TLS_CLIENT_CA=str(self.authority.cert),
            HEADGATE_CORS_ORIGINS=APP,
            HEADGATE_ADMIN_LISTEN=f"127.0.0.1:{self.admin_port}",
        )
        self.port = int(re.findall(r"\d+", self.gateway.url)[-1])
        self.admin = f"https://127.0.0.1:{self.admin_port}"

    def use(self, pair: tuple[Path, Path]) -> None:
        """Put these files in place of those in use, the certificate first, as certbot does."""
        for source, target in zip(pair, self.files, strict=True):
            fresh = target.with_suffix(".new")
            shutil.copy(source, fresh)
            fresh.replace(target)

    def context(self, certified: bool = True) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.cert))
        if certified:
            context.load_cert_chain(*self.client)
        return context

    def open(self, certified: bool = True) -> httpx2.Client:
        return httpx2.Client(
            base_url=self.gateway.url,
            verify=self.context(certified),
            timeout=PATIENCE_S,
            headers={"authorization": f"Bearer {self.gateway.key}"},
        )


@pytest.fixture(scope="module")
def secured(
    upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    running = Secured(tmp_path_factory.mktemp("tls"), upstream)
    yield running
    assert stop(running.gateway) == 0


def test_the_gateway_prints_its_addresses_and_answers_over_tls(secured: Secured) -> None:
    printed = secured.gateway.printed
    assert secured.gateway.url.startswith("https://127.0.0.1:")
    assert f"OpenAI     {secured.gateway.url}/v1" in printed
    assert f"console    {secured.admin}/setup/" in printed
    with secured.open() as client:
        for path, body in BODIES.items():
            assert client.post(path, json=body).status_code == 200


@pytest.mark.parametrize("path", BODIES)
def test_who_shows_no_certificate_is_refused_in_words(secured: Secured, path: str) -> None:
    with secured.open(certified=False) as client:
        refused = client.post(path, json=BODIES[path])
        assert refused.status_code == 403
        assert "client certificate" in refused.json()["error"]["message"]
        assert client.get("/livez").status_code == 200  # balancers have none
        assert client.get("/readyz").status_code == 200
        assert client.get("/models").status_code == 403


def test_plain_http_is_told_to_use_tls(secured: Secured) -> None:
    for port in (secured.port, secured.admin_port):
        refused = httpx2.post(f"http://127.0.0.1:{port}/v1/messages", json=BODIES["/v1/messages"])
        assert refused.status_code == 400
        assert refused.json()["type"] == "error"  # Anthropic's form
        assert "https://" in refused.json()["error"]["message"]


def test_control_and_the_doctor_reach_the_gateway_without_a_client_certificate(
    secured: Secured,
) -> None:
    store = Store(secured.gateway.data, create=False)
    proof = {"x-headgate-internal": store.derived("internal").hex()}
    store.close()
    with secured.open(certified=False) as client:
        assert client.get("/internal/upstreams", headers=proof).status_code == 200
        assert client.get("/internal/upstreams").status_code == 403


def test_status_and_doctor_reach_it_over_tls(secured: Secured) -> None:
    env = {
        **environment(),
        "HEADGATE_TLS_CERT": str(secured.files[0]),
        "HEADGATE_TLS_KEY": str(secured.files[1]),
        "HEADGATE_TLS_CLIENT_CA": str(secured.authority.cert),
        "HEADGATE_PORT": str(secured.port),
        "MINIMAX_API_KEY": "k",
    }
    data = ["--data", str(secured.gateway.data)]
    for command, said in (
        ("status", "takes requests"),
        ("doctor", f"answers at {secured.gateway.url}"),
    ):
        done = subprocess.run([*COMMAND, command, *data], env=env, capture_output=True, text=True)
        assert said in done.stdout, done.stdout + done.stderr


def test_the_console_is_on_its_own_listener_only(secured: Secured) -> None:
    with secured.open() as client:
        for path in ("/sign-in", "/api_keys", "/admin/v1/keys", "/playground", "/setup/x"):
            assert client.get(path).status_code == 404, path
            assert client.get(secured.admin + path).status_code != 404, path
        assert client.post("/sign-in", data={"name": "a", "password": "b"}).status_code == 404
        assert client.post("/admin/v1/keys", json={"name": "a"}).status_code == 404
        spoofed = client.get("/sign-in", headers={"x-headgate-listener": "admin"})
        assert spoofed.status_code == 404
        for path in ("/models", "/llms.txt", "/openapi.json"):
            assert client.get(path).status_code == 200, path
        front = client.get("/", headers={"accept": "text/html"})
        assert front.status_code == 200 and "/sign-in" not in front.text
        # The playground's page calls the API where it is itself.
        assert client.post(f"{secured.admin}/v1/chat/completions", json=CHAT).status_code == 200


def test_an_admin_signs_in_on_that_listener(secured: Secured) -> None:
    link = re.search(r"https://\S+/setup/\S+", secured.gateway.printed)
    assert link is not None
    with secured.open() as client:
        page = client.get(link[0])
        assert page.status_code == 200 and "password" in page.text
        made = client.post(
            link[0],
            data={"name": "ada", "password": "a long pass phrase 17"},
            headers={"origin": secured.admin},
        )
        assert made.status_code == 303 and "__Host-headgate" in made.headers["set-cookie"]
        assert client.get(f"{secured.admin}/usage").status_code == 200
        # Its process asks the edge, which speaks TLS and wants certificates of others.
        upstreams = client.get(f"{secured.admin}/upstreams")
        assert upstreams.status_code == 200 and "custom" in upstreams.text
        assert "does not answer" not in upstreams.text
        # A cookie is sent to every port of its host.
        front = client.get("/", headers={"accept": "text/html"})
        assert front.status_code == 200
        assert client.get("/usage").status_code == 404


@pytest.mark.parametrize("path", [*BODIES, "/v1/models", "/v1/nothing"])
def test_a_page_of_an_allowed_origin_reads_answers_and_errors(secured: Secured, path: str) -> None:
    with secured.open() as client:
        asked = client.options(
            path,
            headers={
                "origin": APP,
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,content-type",
            },
        )
        assert (asked.status_code, asked.content) == (204, b"")
        assert asked.headers["access-control-allow-headers"] == "authorization,content-type"
        for body in (BODIES.get(path), {"model": 1}):
            for key in (secured.gateway.key, "wrong"):
                answer = client.post(
                    path,
                    json=body,
                    headers={"origin": APP, "authorization": f"Bearer {key}"},
                )
                assert answer.headers["access-control-allow-origin"] == APP
                assert answer.headers["access-control-expose-headers"] == "*"
                assert "access-control-allow-credentials" not in answer.headers


def test_other_pages_and_the_console_get_no_leave(secured: Secured) -> None:
    preflight = {"access-control-request-method": "POST", "origin": "https://evil.test"}
    with secured.open() as client:
        refused = client.options("/v1/messages", headers=preflight)
        assert refused.status_code == 403 and "`cors.origins`" in refused.text
        answer = client.post("/v1/messages", json=BODIES["/v1/messages"], headers=preflight)
        assert answer.status_code == 200  # the browser keeps it from the page
        for found in (refused, answer):
            assert not any(n.startswith("access-control") for n in found.headers)
        for path in ("/admin/v1/keys", "/sign-in", "/usage"):
            for base in ("", secured.admin):
                found = client.options(base + path, headers={**preflight, "origin": APP})
                assert not any(n.startswith("access-control") for n in found.headers)


def test_what_is_refused_before_it_is_read_can_be_read_by_the_page(secured: Secured) -> None:
    with (
        socket.create_connection(("127.0.0.1", secured.port)) as raw,
        secured.context().wrap_socket(raw, server_hostname="localhost") as sock,
    ):
        sock.sendall(
            b"POST /v1/messages HTTP/1.1\r\nhost: x\r\norigin: " + APP.encode() + b"\r\n"
            b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(4096):
                answer += data
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(f"access-control-allow-origin: {APP}".encode()) == 1


def test_a_renewed_certificate_is_shown_without_a_restart(secured: Secured) -> None:
    with secured.open() as client:
        assert client.get("/v1/models").status_code == 200
        secured.use(secured.authority.issue("renewed", days=30))

        def shown() -> bool:
            with (
                socket.create_connection(("127.0.0.1", secured.port)) as raw,
                secured.context().wrap_socket(raw, server_hostname="localhost") as sock,
            ):
                found = sock.getpeercert()
                return found is not None and ("DNS", "renewed.test") in found["subjectAltName"]

        wait_for(shown)
        assert client.get("/v1/models").status_code == 200  # on its old connection
        metrics = client.get("/metrics").text
    assert re.search(r'^headgate_tls_handshakes_total\{outcome="done"\} [1-9]', metrics, re.M)
    assert re.search(r"^headgate_tls_certificate_expires_seconds 1\.\d+e\+09", metrics, re.M)
    log = secured.gateway.data.parent / f"{secured.gateway.data.name}.log"
    wait_for(lambda: "was renewed" in log.read_text())


def test_wrong_files_end_the_start_with_the_name_of_the_setting(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"`tls\.cert` names the file /nowhere/a\.pem"):
        start(
            tmp_path / "data", HEADGATE_TLS_CERT="/nowhere/a.pem", HEADGATE_TLS_KEY="/nowhere/a.key"
        )
