"""The files of TLS: what is wrong with them, by the name of the setting, and how they are renewed."""

import os
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from certs import Authority
from headgate.net.certificates import (
    CertificateError,
    CertificateFiles,
    Certificates,
    Renewal,
    expires_s,
    readable_by_others,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def issued(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("one")


@pytest.fixture(scope="module")
def other(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("two", days=30)


def files(pair: tuple[Path, Path], client_ca: str = "") -> CertificateFiles:
    return CertificateFiles(str(pair[0]), str(pair[1]), client_ca)


def test_the_context_takes_tls_1_2_and_1_3_and_offers_http_1_1(issued: tuple[Path, Path]) -> None:
    context = Certificates(files(issued)).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.verify_mode == ssl.CERT_NONE


def test_clients_are_asked_for_a_certificate_when_there_is_an_authority_for_them(
    issued: tuple[Path, Path], authority: Authority
) -> None:
    found = Certificates(files(issued, str(authority.cert)))
    assert found.asks_clients and found.context.verify_mode == ssl.CERT_OPTIONAL


WRONG = {
    "no key": ("cert", "", "", "`tls.key` is missing"),
    "no certificate": ("", "key", "", "`tls.cert` is missing"),
    "only an authority": ("", "", "cert", "`tls.cert` is missing"),
    "no such certificate": (
        "/nowhere/a.pem",
        "key",
        "",
        "`tls.cert` names the file /nowhere/a.pem: No such",
    ),
    "no such key": (
        "cert",
        "/nowhere/a.key",
        "",
        "`tls.key` names the file /nowhere/a.key: No such",
    ),
    "no such authority": (
        "cert",
        "key",
        "/nowhere/ca",
        "`tls.client_ca` names the file /nowhere/ca: No such",
    ),
    "a directory": ("/", "key", "", "`tls.cert` names the file /: Is a directory"),
    "a key as the certificate": ("key", "key", "", "which holds no certificate in PEM form"),
    "a certificate as the key": ("cert", "cert", "", "which holds no private key in PEM form"),
    "a key as the authority": ("cert", "key", "key", "`tls.client_ca` names the file"),
    "another key": ("cert", "other key", "", "is not the key of the certificate in `tls.cert`"),
    "a damaged certificate": ("damaged", "key", "", "`tls.cert`"),
    "an encrypted key": ("cert", "encrypted", "", "encrypted with a password"),
    "a zero byte": ("a\0b", "key", "", "`tls.cert` is not the path of a file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named_with_its_setting(
    name: str, issued: tuple[Path, Path], other: tuple[Path, Path], tmp_path: Path
) -> None:
    damaged, encrypted = tmp_path / "damaged.pem", tmp_path / "encrypted.key"
    damaged.write_text(issued[0].read_text()[:200] + "\n-----END CERTIFICATE-----\n")
    if name == "an encrypted key":
        subprocess.run(
            [
                "openssl",
                "pkey",
                "-in",
                str(issued[1]),
                "-aes256",
                "-passout",
                "pass:secret",
                "-out",
                str(encrypted),
            ],
            check=True,
            capture_output=True,
        )
    known = {
        "cert": issued[0],
        "key": issued[1],
        "other key": other[1],
        "damaged": damaged,
        "encrypted": encrypted,
    }
    *given, said = WRONG[name]
    cert, key, client_ca = (str(known.get(text, text)) for text in given)
    with pytest.raises(CertificateError) as error:
        Certificates(CertificateFiles(cert, key, client_ca))
    assert said in str(error.value) and "PRIVATE KEY-----\n" not in str(error.value)


def test_the_end_of_a_certificate_is_read_as_openssl_reads_it(other: tuple[Path, Path]) -> None:
    shown = subprocess.run(
        ["openssl", "x509", "-in", str(other[0]), "-noout", "-enddate"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert expires_s(str(other[0])) == ssl.cert_time_to_seconds(shown.strip().partition("=")[2])


def test_files_that_are_renewed_one_by_one_are_taken_once_they_fit(
    issued: tuple[Path, Path], other: tuple[Path, Path], tmp_path: Path
) -> None:
    pair = tmp_path / "cert.pem", tmp_path / "key.pem"
    for source, target in zip(issued, pair, strict=True):
        shutil.copy(source, target)
    found = Certificates(files(pair))
    first, said = found.context, []
    renewal = Renewal(found, lambda level, text: said.append((level, text)))
    renewal.round()
    assert found.context is first and said == []
    replace(other[0], pair[0])
    renewal.round()  # half of the pair: no fault yet
    assert found.context is first and "not the key" in found.fault and said == []
    renewal.round()
    assert [level for level, _ in said] == ["error"] and "not the key" in said[0][1]
    renewal.round()
    assert len(said) == 1  # not again and again
    replace(other[1], pair[1])
    renewal.round()
    assert found.context is not first and not found.fault
    assert found.expires_s == expires_s(str(other[0]))
    assert said[-1][0] == "info" and "renewed" in said[-1][1]


def test_a_file_that_vanishes_leaves_the_old_one_in_force(
    issued: tuple[Path, Path], tmp_path: Path
) -> None:
    pair = tmp_path / "cert.pem", tmp_path / "key.pem"
    for source, target in zip(issued, pair, strict=True):
        shutil.copy(source, target)
    found = Certificates(files(pair))
    first = found.context
    pair[0].unlink()
    assert found.renew() is False and found.context is first and "No such file" in found.fault
    shutil.copy(issued[0], pair[0])
    found.renew()
    assert not found.fault


def test_a_link_that_points_elsewhere_is_a_renewal(
    issued: tuple[Path, Path], other: tuple[Path, Path], tmp_path: Path
) -> None:
    """As Kubernetes does: the files are links into a directory that is itself a link."""
    for name, source in (("v1", issued), ("v2", other)):
        (tmp_path / name).mkdir()
        shutil.copy(source[0], tmp_path / name / "tls.crt")
        shutil.copy(source[1], tmp_path / name / "tls.key")
    (tmp_path / "data").symlink_to("v1")
    found = Certificates(files((tmp_path / "data" / "tls.crt", tmp_path / "data" / "tls.key")))
    (tmp_path / "new").symlink_to("v2")
    os.rename(tmp_path / "new", tmp_path / "data")
    assert found.renew() is True
    assert found.expires_s == expires_s(str(other[0]))


def test_an_expired_certificate_is_reported_once_an_hour(authority: Authority) -> None:
    found = Certificates(files(authority.issue("old")))
    found.expires_s = time.time() - 1
    said: list[str] = []
    renewal = Renewal(found, lambda level, text: said.append(text))
    renewal.round()
    renewal.round()
    assert len(said) == 1 and "expired" in said[0]


def test_a_key_that_everybody_can_read_is_noticed(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("")
    key.chmod(0o644)
    assert readable_by_others(str(key))
    key.chmod(0o640)
    assert not readable_by_others(str(key))


def replace(source: Path, target: Path) -> None:
    """As certbot and its like do: a new file takes the name."""
    fresh = target.with_suffix(".new")
    shutil.copy(source, fresh)
    os.replace(fresh, target)
