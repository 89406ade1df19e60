"""Reloads of a running gateway: what changes, what stays, and that no request notices."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from played import PlayedUpstream
from reloading import Reloadable, ask, chat, under_load
from waiting import wait_for


@pytest.fixture(scope="module")
def served(
    upstream: PlayedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reloadable]:
    running = Reloadable(tmp_path_factory.mktemp("reload"), upstream)
    yield running
    running.end()


def test_a_reload_prints_what_has_changed_and_puts_it_in_force(served: Reloadable) -> None:
    served.write("", before="body_bytes = 2048\n")
    done = served.command("reload")
    assert done.returncode == 0, done.stderr
    assert "body_bytes: 33554432 -> 2048" in done.stdout
    assert served.gate.post("/v1/chat/completions", chat("x" * 4000)).status_code == 413
    served.write("")
    assert "body_bytes: 2048 -> 33554432" in served.command("reload").stdout
    assert served.gate.post("/v1/chat/completions", chat("x" * 4000)).status_code == 200
    wait_for(lambda: len(served.generations()) == 1)


def test_a_secret_in_a_file_is_read_anew_and_shown_nowhere(served: Reloadable) -> None:
    upstream = served.gate.upstream
    assert upstream is not None
    served.secret.write_text("second-secret")
    done = served.command("reload")
    assert "upstreams.custom.key: another value" in done.stdout
    assert "secret" not in done.stdout.replace(str(served.secret), "")
    assert ask(served.gate).status_code == 200
    assert upstream.last.headers["authorization"] == "Bearer second-secret"


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("body_bytes = 1\n", "Expected `int` >= 1024"),
        ("no_such_key = 1\n", "unknown key `no_such_key`"),
        ("= =\n", "not valid TOML"),
    ],
)
def test_a_file_that_is_not_valid_changes_nothing_and_is_reported(
    served: Reloadable, before: str, words: str
) -> None:
    generations = served.generations()
    text = served.file.read_text()
    served.file.write_text(before + text)
    done = served.command("reload")
    served.file.write_text(text)
    assert done.returncode == 1
    assert words in done.stderr
    assert served.generations() == generations
    assert ask(served.gate).status_code == 200


def test_what_only_an_edge_can_see_is_reported_and_the_old_generation_stays(
    served: Reloadable,
) -> None:
    served.write('[models."MiniMax-M2"]\nroutes = [{ upstream = "nobody" }]\n')
    done = served.command("reload")
    served.write("")
    assert done.returncode == 1
    assert "nobody" in done.stderr
    assert ask(served.gate).status_code == 200
    wait_for(lambda: len(served.generations()) == 1)


def test_sighup_reloads_and_ends_nothing(served: Reloadable) -> None:
    (before,) = served.generations()
    os.kill(served.gate.process.pid, signal.SIGHUP)
    wait_for(lambda: served.generations() == {before + 1})
    assert served.gate.process.poll() is None
    assert f"generation {before + 1} serves" in served.log


def reload(served: Reloadable) -> None:
    done = served.command("reload")
    assert done.returncode == 0, done.stderr


def test_reloads_under_load_refuse_and_cut_nothing(served: Reloadable) -> None:
    asyncio.run(under_load(served, [lambda: reload(served)] * 2, streams=12, clients=6))


@pytest.mark.long
def test_ten_reloads_under_load_refuse_and_cut_nothing(served: Reloadable) -> None:
    asyncio.run(under_load(served, [lambda: reload(served)] * 10, streams=50, clients=20))
