"""Control as a child: it comes back also when it could not be started."""

import asyncio
from typing import Any

import pytest

from headgate.supervisor import control
from headgate.supervisor.control import Control
from headgate.tasks import Tasks
from waiting import until


def test_a_control_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tries = 0
    started = asyncio.create_subprocess_exec

    async def scarce(*words: Any, **options: Any) -> asyncio.subprocess.Process:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await started("sleep", "60", **options)

    async def watched() -> int | None:
        tasks = Tasks()
        control = Control(["--help"])
        control.start(tasks)
        try:
            await until(lambda: control.pid is not None)
            return control.pid
        finally:
            await tasks.stop()
            await control.stop()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", scarce)
    monkeypatch.setattr(control, "AGAIN_S", (0.01,))
    assert asyncio.run(watched()) is not None
    assert "Resource temporarily unavailable" in capsys.readouterr().err
