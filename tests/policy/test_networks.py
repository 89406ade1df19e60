"""From which addresses a key may be used."""

import pytest

from headgate.policy import networks


@pytest.mark.parametrize(
    ("allowed", "address", "may"),
    [
        ((), "203.0.113.9", True),
        ((), "", True),
        (("10.0.0.0/8",), "10.255.0.1", True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("10.0.0.0/8", "192.0.2.7/32"), "192.0.2.7", True),
        (("10.0.0.0/8",), "::ffff:10.0.0.1", True),  # a socket for both families writes it so
        (("2001:db8::/32",), "2001:db8::1", True),
        (("2001:db8::/32",), "10.0.0.1", False),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("0.0.0.0/0",), "", False),  # a peer that is not known
        (("0.0.0.0/0",), "unknown", False),
        (("0.0.0.0/0",), "::1", False),
    ],
)
def test_an_address_must_be_in_one_of_the_networks(
    allowed: tuple[str, ...], address: str, may: bool
) -> None:
    assert networks.allows(allowed, address) is may


def test_networks_are_kept_in_their_usual_form_and_once() -> None:
    texts = ["192.0.2.7", " 10.0.0.0/8", "10.0.0.0/255.0.0.0", "::ffff:192.0.2.0/120"]
    assert networks.checked(texts) == ("192.0.2.7/32", "10.0.0.0/8", "192.0.2.0/24")
    assert networks.split("10.0.0.0/8, 192.0.2.7\n2001:DB8::/32") == (
        "10.0.0.0/8",
        "192.0.2.7/32",
        "2001:db8::/32",
    )
    assert networks.split(" ") == ()


@pytest.mark.parametrize(
    "text", ["10.0.0.1/8", "10.0.0.0/33", "example.org", "10.0", "fe80::1%eth0", "", "1" * 10_000]
)
def test_what_is_no_network_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a network") as error:
        networks.checked([text])
    assert f"`{text[:64]}`" in str(error.value) and len(str(error.value)) < 250


def test_a_key_has_a_bounded_number_of_networks() -> None:
    most = [f"10.0.{n}.0/24" for n in range(networks.MAX_NETWORKS)]
    assert len(networks.checked([*most, *most])) == networks.MAX_NETWORKS
    with pytest.raises(ValueError, match="at most 64"):
        networks.checked([*most, "192.0.2.7"])
