"""Where control listens: a name for each run, nobody else's socket taken, none left behind."""

import os
import socket
import stat
from pathlib import Path

import pytest

from headgate.web import main, socket_path


def dead(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    return path


def test_two_runs_of_one_directory_have_two_names(tmp_path: Path) -> None:
    assert socket_path.fresh_socket(str(tmp_path)) != socket_path.fresh_socket(str(tmp_path))


def test_a_path_too_long_for_the_kernel_gets_a_directory_only_we_can_open(tmp_path: Path) -> None:
    data = tmp_path / ("long" * 30)
    data.mkdir()
    path = Path(socket_path.fresh_socket(str(data)))
    assert len(os.fsencode(path)) <= socket_path.MAX_SOCKET_PATH
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    main.listen(str(path)).close()
    socket_path.clear(str(path), str(data))
    assert not path.parent.exists() and data.exists()


def test_clearing_leaves_the_data_directory_alone(tmp_path: Path) -> None:
    path = socket_path.fresh_socket(str(tmp_path))
    main.listen(path).close()
    socket_path.clear(path, str(tmp_path))
    assert tmp_path.exists() and list(tmp_path.iterdir()) == []


def test_a_dead_ones_socket_is_replaced_and_only_we_can_open_it(tmp_path: Path) -> None:
    path = dead(tmp_path / "control-1.sock")
    with main.listen(str(path)):
        assert socket_path.served(path)
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert not socket_path.served(path)


def test_a_socket_that_is_served_is_not_taken_over(tmp_path: Path) -> None:
    path = str(tmp_path / "control-1.sock")
    with main.listen(path), pytest.raises(OSError, match="another process listens"):
        main.listen(path)


def test_a_file_that_is_no_socket_is_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "headgate.toml"
    path.write_text("mine")
    with pytest.raises(OSError, match="no socket"):
        main.listen(str(path))
    assert path.read_text() == "mine"


def test_what_killed_runs_left_is_swept_and_what_lives_is_not(tmp_path: Path) -> None:
    dead(tmp_path / "control-1.sock")
    (tmp_path / "control-notes.sock").write_text("no socket")
    with main.listen(str(tmp_path / "control-2.sock")):
        socket_path.sweep(str(tmp_path))
        left = {p.name for p in tmp_path.iterdir()}
    assert left == {"control-2.sock", "control-notes.sock"}
