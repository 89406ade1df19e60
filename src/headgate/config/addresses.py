"""Addresses that the settings ask to listen on, and those by which this machine reaches them."""

from typing import Literal

from msgspec import Struct, structs

from headgate.config import Settings

AddressName = Literal["api", "admin", "metrics"]


class Address(Struct, frozen=True):
    """One address to listen on."""

    name: AddressName
    host: str
    port: int  # 0: any free one
    setting: str  # that moves it elsewhere


def of_settings(settings: Settings) -> list[Address]:
    """Where the settings ask to listen, the API's address first."""
    out = [Address("api", settings.host, settings.port, "--port")]
    if settings.admin.listen:
        out.append(Address("admin", *host_and_port(settings.admin.listen), "`admin.listen`"))
    if settings.metrics not in ("key", "open"):
        out.append(Address("metrics", *host_and_port(settings.metrics), "`metrics`"))
    return out


def base_url(host: str, port: int, scheme: str = "http") -> str:
    """Return the address by which this machine reaches a listener on the host."""
    # Listening on "::" is IPv6 only, so not 127.0.0.1
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://{f'[{shown}]' if ':' in shown else shown}:{port}"


def own_url(settings: Settings, port: int | None = None) -> str:
    """Return the gateway's address: on this machine, or, with TLS, by the name in its certificate.

    `port`: the one that the system chose, for settings with port 0.
    """
    port = settings.port if port is None else port
    if settings.tls.cert:
        return settings.public_url.rstrip("/") or base_url(settings.host, port, "https")
    return base_url(settings.host, port)


def console_url(settings: Settings, base: str) -> str:
    """Return the address at which browsers reach the console; `base`: that of the API."""
    if not settings.admin.listen:
        return base
    scheme = "https" if settings.tls.cert else "http"
    url = settings.admin.public_url.rstrip("/")
    return url or base_url(*host_and_port(settings.admin.listen), scheme)


def host_and_port(text: str) -> tuple[str, int]:
    """Return the parts of a setting that is `HOST:PORT`."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def with_local_url(settings: Settings, url: str) -> Settings:
    """The settings with the local model's address, which is known only once it runs."""
    upstreams = {
        name: structs.replace(u, base_url=url) if u.preset == "local" else u
        for name, u in settings.upstreams.items()
    }
    return structs.replace(settings, upstreams=upstreams)


def stands_in(settings: Settings) -> bool:
    """Return whether the embedded model answers only because no upstream is configured."""
    return (
        not any(key.split(".")[0] == "upstreams" for key in settings.origins)
        and bool(settings.upstreams)
        and all(u.preset == "local" for u in settings.upstreams.values())
    )


def configured(settings: Settings) -> tuple[str, ...]:
    """Return the names of the upstreams without the embedded model that only stands in."""
    return () if stands_in(settings) else tuple(settings.upstreams)
