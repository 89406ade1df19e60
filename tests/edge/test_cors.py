"""Which web pages may call the API, as browsers ask for it."""

import pytest

from headgate.config import ConfigError
from headgate.config.loading import load
from headgate.edge.cors import Cors, is_preflight
from headgate.errors import Failure

APP = "https://app.example.com"
# What the SDKs of OpenAI (JavaScript), Anthropic and Google send from a browser, as Chromium asks for it.
SDK_HEADERS = {
    "openai": "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,"
    "x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,"
    "x-stainless-runtime-version,x-stainless-timeout",
    "anthropic": "anthropic-dangerous-direct-browser-access,anthropic-version,content-type,x-api-key,"
    "x-stainless-arch,x-stainless-helper-method,x-stainless-lang,x-stainless-retry-count",
    "google": "content-type,x-goog-api-client,x-goog-api-key",
    "fetch": "",
}


def asked(origin: str = APP, headers: str = "", **more: str) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": headers,
        **{n.replace("_", "-"): v for n, v in more.items()},
    }


@pytest.mark.parametrize("sdk", SDK_HEADERS)
@pytest.mark.parametrize("origins", [("*",), (APP,), ("https://*.example.com",)])
def test_a_preflight_allows_what_the_sdks_send(sdk: str, origins: tuple[str, ...]) -> None:
    found = Cors(origins).preflight(asked(headers=SDK_HEADERS[sdk]))
    assert isinstance(found, list)
    headers = dict(found)
    assert headers["access-control-allow-origin"] == ("*" if origins == ("*",) else APP)
    assert headers.get("vary") == (None if origins == ("*",) else "origin")
    assert "POST" in headers["access-control-allow-methods"]
    assert headers.get("access-control-allow-headers", "") == SDK_HEADERS[sdk]
    assert not any("credentials" in name for name in headers)


@pytest.mark.parametrize(
    ("origins", "origin", "may"),
    [
        ((), APP, False),
        ((APP,), APP, True),
        ((APP,), "HTTPS://APP.EXAMPLE.COM", True),
        ((APP,), "http://app.example.com", False),
        ((APP,), "https://app.example.com:8443", False),
        ((APP,), "https://app.example.com.evil.test", False),
        ((APP,), "null", False),
        (("*",), "null", True),
        (("https://*.example.com",), APP, True),
        (("https://*.example.com",), "https://a.b.example.com", True),
        (("https://*.example.com",), "https://example.com", False),
        (("https://*.example.com",), "https://.example.com", False),
        (("https://*.example.com",), "https://evil.test/.example.com", False),
        (("https://*.example.com",), "https://evil.test#a.example.com", False),
        (("https://*.example.com",), "https://evilexample.com", False),
        (
            ("http://localhost:3000", "https://*.example.com:8443"),
            "https://a.example.com:8443",
            True,
        ),
    ],
)
def test_an_origin_is_allowed_exactly(origins: tuple[str, ...], origin: str, may: bool) -> None:
    cors = Cors(origins)
    assert cors.allows(origin) is may
    assert bool(cors.headers(origin)) is may
    assert isinstance(cors.preflight(asked(origin)), list) is may


def test_a_refused_page_is_told_which_setting_allows_it() -> None:
    found = Cors((APP,)).preflight(asked("https://evil.test"))
    assert isinstance(found, Failure)
    assert "`cors.origins`" in found.message and "evil" not in found.message


@pytest.mark.parametrize("headers", ["a b", "x: y", "x\r\nset-cookie: a=b", "a," * 5000, "ä"])
def test_what_is_no_list_of_names_is_not_repeated(headers: str) -> None:
    found = Cors(("*",)).preflight(asked(headers=headers))
    assert isinstance(found, Failure) and found.kind == "invalid"


def test_a_page_of_the_internet_may_reach_a_gateway_in_its_visitors_network() -> None:
    found = Cors((APP,)).preflight(asked(access_control_request_private_network="true"))
    assert ("access-control-allow-private-network", "true") in found  # type: ignore[operator]


def test_only_a_browsers_question_is_a_preflight() -> None:
    assert is_preflight("OPTIONS", asked())
    assert not is_preflight("POST", asked())
    assert not is_preflight("OPTIONS", {"origin": APP})


@pytest.mark.parametrize(
    "origin",
    [
        "app.example.com",
        "https://app.example.com/",
        "https://app.example.com/x",
        "ftp://a.b",
        "https://*",
        "https://a.*.com",
        "https://u@a.b",
        "",
        "null",
        "https://*.a.b.c:x",
    ],
)
def test_a_setting_that_is_no_origin_is_refused_by_its_name(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"cors\.origins"):
        load(None, {"HOME": "/"}, cors={"origins": [origin]})


def test_origins_come_from_the_environment_too() -> None:
    env = {"HOME": "/", "HEADGATE_CORS_ORIGINS": f"{APP}, http://localhost:3000"}
    assert load(None, env).cors.origins == (APP, "http://localhost:3000")
