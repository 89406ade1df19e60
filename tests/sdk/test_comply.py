"""PyPI llm-comply: a public suite that checks replies against the protocols' own specifications."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import Gateway

COMPLY = Path(sys.executable).with_name("llm-comply")
FORMATS = {"openai-chat": "/v1", "open-responses": "/v1", "anthropic": "/v1", "google-genai": ""}


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_fails(format: str, gateway: Gateway) -> None:
    done = subprocess.run(
        [
            COMPLY,
            "run",
            "-u",
            gateway.url + FORMATS[format],
            "-k",
            gateway.key,
            "-m",
            "MiniMax-M3",
            "--format",
            format,
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    results = json.loads(done.stdout)
    tests = results["results"] if isinstance(results, dict) else results
    failed = [t for t in tests if t.get("status") not in ("passed", "skipped", "pass", "skip")]
    assert len(tests) >= 8
    assert not failed, json.dumps(failed, indent=1)[:4000]
