"""A plugin for pytestthat records how each test ended and what passed through the proxy meanwhile.

Loaded by name (`-p witness`) into the suites' own environment; nothing of the suites is changed.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from recording_proxy import RecordingProxy

SWAPS = "SUITES_SWAPS"  # JSON: a header's value as the tests send it, and what it becomes
PORT, RESULTS = "SUITES_PORT", "SUITES_RESULTS"
_LONGEST = 4000  # of a traceback, characters


class Witness:
    def __init__(self, proxy: RecordingProxy) -> None:
        self.proxy = proxy
        self.tests: list[dict[str, object]] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.proxy.passed.clear()
        self.tests.append({"test": item.nodeid, "outcome": "passed", "why": "", "asked": []})
        result = yield
        self.tests[-1]["asked"] = [dataclasses.asdict(e) for e in self.proxy.passed]
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.tests[-1]["outcome"] = report.outcome
            self.tests[-1]["why"] = str(report.longrepr)[-_LONGEST:]

    def pytest_sessionfinish(self) -> None:
        Path(os.environ[RESULTS]).write_text(json.dumps(self.tests))


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before the suites' own conftest reads the address."""
    proxy = RecordingProxy(int(os.environ[PORT]), json.loads(os.environ[SWAPS]))
    early_config.pluginmanager.register(Witness(proxy))
    url = os.environ["TEST_API_BASE_URL"]
    os.environ["TEST_API_BASE_URL"] = url.replace("<proxy>", f"127.0.0.1:{proxy.server_port}")
