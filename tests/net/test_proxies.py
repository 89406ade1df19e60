"""Whose address a request comes from, and that a client cannot choose it."""

import pytest

from headgate.net.proxies import MAX_HOPS, Proxies

TRUSTED = Proxies(("10.0.0.0/8", "2001:db8::/32"))


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("198.51.100.7, 192.0.2.1", "192.0.2.1"),  # the left one is the client's invention
        ("192.0.2.1, 10.1.1.1", "192.0.2.1"),
        ("10.1.1.1,10.2.2.2", "10.1.1.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("[2001:db9::1]:4711", "2001:db9::1"),
        ("2001:DB9::1", "2001:db9::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, unknown", "10.0.0.1"),
        ('192.0.2.1, fe80::1%x"y', "10.0.0.1"),
        ("192.0.2.1, " + "1" * 100, "10.0.0.1"),
        ("192.0.2.1, nonsense, 10.1.1.1", "10.1.1.1"),
        ("", "10.0.0.1"),
        (",", "10.0.0.1"),
    ],
)
def test_the_rightmost_address_that_is_no_proxys_is_the_client(forwarded: str, client: str) -> None:
    assert TRUSTED.client("10.0.0.1", {"x-forwarded-for": forwarded}) == client


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("for=192.0.2.1", "192.0.2.1"),
        ("For=198.51.100.7, for=192.0.2.1", "192.0.2.1"),
        ('for=192.0.2.1;proto=https, for="10.1.1.1:99";by=10.2.2.2', "192.0.2.1"),
        ('proto=http ; for="[2001:db9::1]:4711" ;host="a,b"', "2001:db9::1"),
        ('for="[2001:DB9::1]"', "2001:db9::1"),
        ("for=192.0.2.1, for=unknown", "10.0.0.1"),
        ("for=192.0.2.1, for=_hidden", "10.0.0.1"),
        ("for=192.0.2.1, proto=https", "10.0.0.1"),
        ("for=192.0.2.1, xfor=192.0.2.9", "10.0.0.1"),
        ('host="x, for=192.0.2.9;y=", for=192.0.2.1', "192.0.2.1"),
        ('for=192.0.2.1;host="x, for=192.0.2.9;y="', "192.0.2.1"),
        ('host="x;for=192.0.2.9;y=";for=192.0.2.1', "192.0.2.1"),
        (r'host="x\";for=192.0.2.9;y=\"";for=192.0.2.1', "192.0.2.1"),
        ('for=192.0.2.1;host="x, for=192.0.2.9', "10.0.0.1"),
        ("," * 60_000 + "for=192.0.2.1", "192.0.2.1"),
        ("", "10.0.0.1"),
    ],
)
def test_forwarded_is_read_where_there_is_no_x_forwarded_for(forwarded: str, client: str) -> None:
    headers = {"forwarded": forwarded}
    assert TRUSTED.client("10.0.0.1", headers) == client
    named = Proxies(("10.0.0.0/8", "2001:db8::/32"), "forwarded")
    assert named.client("10.0.0.1", {"x-forwarded-for": "192.0.2.66", **headers}) == client


def test_a_client_cannot_send_the_other_header_through_its_proxy() -> None:
    both = {"x-forwarded-for": "192.0.2.1", "forwarded": "for=192.0.2.66"}
    assert TRUSTED.client("10.0.0.1", both) == "192.0.2.1"
    only = Proxies(("10.0.0.0/8",), "x-forwarded-for")
    assert only.client("10.0.0.1", {"forwarded": "for=192.0.2.66"}) == "10.0.0.1"


def test_only_so_many_hops_are_read() -> None:
    forwarded = "192.0.2.1, " + ", ".join(["10.9.9.9"] * 10_000)
    assert TRUSTED.client("10.0.0.1", {"x-forwarded-for": forwarded}) == "10.9.9.9"
    short = "192.0.2.1, " + ", ".join(["10.9.9.9"] * (MAX_HOPS - 1))
    assert TRUSTED.client("10.0.0.1", {"x-forwarded-for": short}) == "192.0.2.1"


def test_a_proxy_is_trusted_by_its_network() -> None:
    assert TRUSTED.trusts("10.200.0.1") and TRUSTED.trusts("::ffff:10.0.0.1")
    assert TRUSTED.trusts("2001:db8::1") and not TRUSTED.trusts("192.0.2.1")
    assert not TRUSTED.trusts("") and not Proxies().trusts("127.0.0.1")
