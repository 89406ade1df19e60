"""Fixtures of all tests: the played upstream, and a gateway in front of it."""

from collections.abc import Iterator

import httpx2
import pytest
from hypothesis import settings

from gateway import Gateway, start, stop
from played import PlayedUpstream
from waiting import PATIENCE_S

# httpx2 waits 5 s unless a call says otherwise, which a busy machine can take for anything.
_CLIENTS = httpx2._config.DEFAULT_TIMEOUT_CONFIG
_CLIENTS.connect = _CLIENTS.read = _CLIENTS.write = _CLIENTS.pool = PATIENCE_S

# On a busy machine any example may take longer than Hypothesis' 200 ms.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the attacks marked `long` as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        skip = pytest.mark.skip(reason="a long one: `make attack` runs it")
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def upstream() -> Iterator[PlayedUpstream]:
    with PlayedUpstream().running() as played:
        yield played


@pytest.fixture(scope="module", params=["openai", "anthropic", "responses"])
def gateway(
    request: pytest.FixtureRequest,
    upstream: PlayedUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """In front of each upstream dialect in turn; one for each file, as failures pause upstreams."""
    running = start(
        tmp_path_factory.mktemp("gate") / "data",
        HEADGATE_UPSTREAM_URL=upstream.url(request.param),
        HEADGATE_UPSTREAM_KEY="upstream-secret",
        HEADGATE_UPSTREAM_DIALECT=request.param,
    )
    running.upstream = upstream
    yield running
    assert stop(running) == 0
