"""What `headgate config check` and `headgate doctor` say of the files of `[tls]`."""

import subprocess
from pathlib import Path

import pytest

from certs import Authority
from gateway import COMMAND, environment
from headgate import config
from headgate.diagnostics import machine


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def check(tmp_path: Path, **tls: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "headgate.toml"
    file.write_text("[tls]\n" + "".join(f'{name} = "{text}"\n' for name, text in tls.items()))
    return subprocess.run(
        [*COMMAND, "config", "check", "--config", str(file)],
        env={**environment(), "MINIMAX_API_KEY": "k"},
        capture_output=True,
        text=True,
    )


def test_a_right_pair_is_fine_and_a_name_for_it_is_asked_for(
    authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue("check", days=30)
    done = check(tmp_path, cert=str(cert), key=str(key))
    assert done.returncode == 0, done.stderr
    assert "set `public_url` to https" in done.stderr and "expire" not in done.stderr
    key.chmod(0o644)
    assert "chmod o-r" in check(tmp_path, cert=str(cert), key=str(key)).stderr


def test_a_wrong_file_and_a_wrong_name_of_a_setting_are_errors(
    authority: Authority, tmp_path: Path
) -> None:
    cert, _ = authority.issue("alone")
    missing = check(tmp_path, cert=str(cert), key="/nowhere/a.key")
    assert missing.returncode == 1 and "`tls.key` names the file /nowhere/a.key" in missing.stderr
    half = check(tmp_path, cert=str(cert))
    assert half.returncode == 1 and "`tls.key` is missing" in half.stderr
    unknown = check(tmp_path, certificate=str(cert))
    assert unknown.returncode == 1 and "unknown key `tls.certificate`" in unknown.stderr
    assert "Traceback" not in missing.stderr + half.stderr + unknown.stderr


@pytest.mark.parametrize(("days", "state"), [(30, "ok"), (3, "warn")])
def test_the_doctor_judges_how_long_the_certificate_holds(
    authority: Authority, days: int, state: str
) -> None:
    cert, key = authority.issue(f"doctor{days}", days=days)
    key.chmod(0o600)
    found = list(machine._tls(config.Settings(tls=config.Tls(str(cert), str(key)))))
    assert found[0].state == state
    assert found[-1].state == "ok" and "is valid until" in found[-1].result
    assert all(f.do for f in found if f.state != "ok")


def test_the_doctor_names_a_file_that_is_missing() -> None:
    (found,) = machine._tls(config.Settings(tls=config.Tls("/nowhere/a.pem", "/nowhere/a.key")))
    assert found.state == "fail" and "`tls.cert` names the file /nowhere/a.pem" in found.result
