"""TLS, proxies and who is reached without them, as the client sees it."""

import asyncio
import contextlib
import ssl
import subprocess
from pathlib import Path

import pytest

from headgate.net.client import Client
from headgate.net.dial import NotSent, Proxies
from loopback import CALM, CHUNKED, OK, Play, Run, answering, client, hear, post, upstream
from programs import needs


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("openssl")
    at = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=upstream.test",
            "-addext",
            "subjectAltName=DNS:upstream.test,IP:127.0.0.1",
            "-keyout",
            str(at) + ".key",
            "-out",
            str(at),
        ],
        check=True,
        capture_output=True,
    )
    return at


def contexts(certificate: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, str(certificate) + ".key")
    return server, ssl.create_default_context(cafile=str(certificate))


def test_tls_connections_serve_again(run: Run, certificate: Path) -> None:
    server, trusting = contexts(certificate)

    async def main() -> None:
        async with (
            upstream(answering(OK, OK), server) as up,
            client(ssl_context=trusting) as c,
        ):
            for _ in range(2):
                response = await post(c, f"https://127.0.0.1:{up.port}/")
                assert await response.read_all() == b"hi"
            assert up.connections == 1

    run(main())


def test_leaving_closes_a_tls_connection_at_once(run: Run, certificate: Path) -> None:
    server, trusting = contexts(certificate)

    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            writer.write(CHUNKED + b"2\r\nhi\r\n")
            await up.wait_gone(reader)

        async with upstream(play, server) as up, client(ssl_context=trusting) as c:
            response = await post(c, f"https://127.0.0.1:{up.port}/")
            assert await response.read() == b"hi"
            task = asyncio.create_task(response.read())
            await asyncio.sleep(0)  # it has begun to read
            task.cancel()
            await up.gone.wait()

    run(main())


def test_a_certificate_nobody_vouches_for_is_not_sent(run: Run, certificate: Path) -> None:
    server, _ = contexts(certificate)

    async def main() -> None:
        async with upstream(answering(OK), server) as up, client() as c:
            with pytest.raises(NotSent, match="TLS"):
                await post(c, f"https://127.0.0.1:{up.port}/")

    run(main())


def connecting(port: int, heard: list[bytes], answer: bytes = b"HTTP/1.1 200 Yes\r\n\r\n") -> Play:
    """A CONNECT proxy whose every name leads to one port."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await hear(reader))
        writer.write(answer)
        if b" 200 " in answer:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
            finally:
                far_writer.transport.abort()

    return play


def test_https_goes_through_a_proxys_tunnel(run: Run, certificate: Path) -> None:
    server, trusting = contexts(certificate)
    heard: list[bytes] = []

    async def main() -> None:
        async with (
            upstream(answering(OK, OK), server) as up,
            upstream(connecting(up.port, heard)) as proxy,
            client(
                ssl_context=trusting, proxies={"https": f"http://u:p%40@127.0.0.1:{proxy.port}"}
            ) as c,
        ):
            for _ in range(2):
                response = await post(c, "https://upstream.test/v1")
                assert await response.read_all() == b"hi"
            assert heard == [
                b"CONNECT upstream.test:443 HTTP/1.1\r\nhost: upstream.test:443\r\n"
                b"proxy-authorization: Basic dTpwQA==\r\n\r\n"
            ]

    run(main())


def test_a_tunnel_to_the_wrong_name_is_not_sent(run: Run, certificate: Path) -> None:
    server, trusting = contexts(certificate)

    async def main() -> None:
        async with (
            upstream(answering(OK), server) as up,
            upstream(connecting(up.port, [])) as proxy,
            client(ssl_context=trusting, proxies={"https": f"127.0.0.1:{proxy.port}"}) as c,
        ):
            with pytest.raises(NotSent, match="TLS"):
                await post(c, "https://other.test/v1")

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 No\r\n\r\n",
        b"HTTP/1.1 200 Yes\r\n\r\nearly",
        b"hello\r\n\r\n",
        b"",
        b"x" * 20000,
    ],
)
def test_a_proxy_that_refuses_is_not_sent_and_its_password_is_not_told(
    run: Run, answer: bytes
) -> None:
    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hear(reader)
            writer.write(answer)

        async with (
            upstream(play) as proxy,
            client(proxies={"https": f"http://user:secret@127.0.0.1:{proxy.port}"}) as c,
        ):
            with pytest.raises(NotSent) as refused:
                await post(c, "https://upstream.test/v1")
            assert "secret" not in repr(refused.value)

    run(main())


def test_plain_http_goes_to_a_proxy_in_absolute_form(run: Run) -> None:
    heard: list[bytes] = []

    async def main() -> None:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await hear(reader))
            writer.write(OK)

        async with (
            upstream(play) as proxy,
            client(proxies={"http": f"http://u:p@127.0.0.1:{proxy.port}"}) as c,
        ):
            response = await c.send("GET", "http://upstream.test:81/v1?a=b", {}, b"", CALM)
            assert await response.read_all() == b"hi"
            assert heard[0].startswith(
                b"GET http://upstream.test:81/v1?a=b HTTP/1.1\r\nhost: upstream.test:81\r\n"
                b"proxy-authorization: Basic dTpw\r\n"
            )

    run(main())


def test_loopback_is_never_proxied(run: Run) -> None:
    async def main() -> None:
        async with (
            upstream(answering(OK)) as up,
            client(proxies={"http": "http://no-such-host.invalid"}) as c,
        ):
            assert (await post(c, up.url)).status == 200
            assert (await post(c, f"http://localhost:{up.port}/")).status == 200

    run(main())


@pytest.mark.parametrize(
    ("no", "proxied"),
    [
        ("", True),
        ("*", False),
        ("upstream.test", False),
        (".test", False),
        ("*.test", False),
        ("am.test", True),
        ("upstream.test:443", False),
        ("upstream.test:444", True),
        ("a.b, UPSTREAM.test", False),
        ("10.0.0.0/8", True),
        (".", True),
    ],
)
def test_no_proxy_names_who_is_reached_directly(no: str, proxied: bool) -> None:
    proxies = Proxies({"https": "http://p:1", "no": no})
    assert (proxies.before(("https", "upstream.test", 443)) is not None) is proxied
    assert proxies.before(("http", "upstream.test", 80)) is None


def test_no_proxy_takes_ranges_of_addresses() -> None:
    proxies = Proxies({"https": "http://p:1", "no": "10.0.0.0/8,fd00::/8"})
    assert proxies.before(("https", "10.1.2.3", 443)) is None
    assert proxies.before(("https", "fd00::1", 443)) is None
    assert proxies.before(("https", "11.1.2.3", 443)) is not None


def test_the_environment_names_the_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://p:3128")
    monkeypatch.setenv("NO_PROXY", "b.test")
    proxies = Proxies(None)
    found = proxies.before(("https", "a.test", 443))
    assert found is not None and (found.host, found.port) == ("p", 3128)
    assert proxies.before(("https", "b.test", 443)) is None


@pytest.mark.parametrize(
    "url", ["socks5://u:secret@h:1", "http://u:secret@", "http://u:secret@h:x"]
)
def test_a_proxy_of_an_unknown_kind_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError) as refused:
        Client(proxies={"https": url})
    assert "secret" not in str(refused.value)
