"""How many connections a limit of open files allows."""

import subprocess
import sys

import pytest

from headgate.net.descriptors import MAX_CONNECTIONS, MIN_CONNECTIONS, OWN, most_connections


@pytest.mark.parametrize("descriptors", [256, 1024, 4096, 20_000, 1 << 20])
def test_every_connection_may_have_one_to_an_upstream(descriptors: int) -> None:
    most = most_connections(descriptors)
    assert 2 * most + OWN <= descriptors
    assert most >= descriptors // 5 or most == MAX_CONNECTIONS


def test_a_tiny_limit_still_serves_some() -> None:
    assert most_connections(64) == MIN_CONNECTIONS


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_the_limit_is_raised_to_what_the_user_may_have() -> None:
    program = (
        "import resource; from headgate.net.descriptors import raise_limit;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300));"
        "print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["300", "300", "300"]
