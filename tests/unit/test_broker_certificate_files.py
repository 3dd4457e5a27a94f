"""The authority of a broker and its servers' certificates, as files."""

import datetime as dt
import shutil

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from kcm_broker.certificate_files import CA_DAYS, RENEWED, SERVER_DAYS, CertificateFiles
from kcm_runtime.files.secret_file import SecretFileError
from kcm_schemas.codes import KcmError

from tests.unit.broker_rig import NOW, StoppedClock

ADDRESSES = ("nats-1.example", "127.0.0.1")
DAY = 86_400


@pytest.fixture
def clock():
    return StoppedClock()


def opened(directory, clock):
    return CertificateFiles(directory / "certificates", "eu-ca", clock)


def tree(directory):
    return {
        path: (path.read_bytes(), path.stat().st_ino)
        for path in directory.rglob("*")
        if path.is_file()
    }


def read(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def fits(path):
    key = load_pem_private_key(path.with_suffix(".key").read_bytes(), None)
    return key.public_key() == read(path).public_key()


def test_a_repetition_changes_nothing(tmp_path, clock):
    assert opened(tmp_path, clock).server("nats-1", ADDRESSES)
    before = tree(tmp_path)
    assert len(before) == 4
    clock.now += DAY
    again = opened(tmp_path, clock)
    assert not again.server("nats-1", ADDRESSES)
    assert tree(tmp_path) == before


def test_a_certificate_is_one_of_the_authority_and_the_keys_are_private(tmp_path, clock):
    files = opened(tmp_path, clock)
    files.server("nats-1", ADDRESSES)
    path = files.certificate("nats-1")
    read(path).verify_directly_issued_by(read(files.ca))
    assert fits(path)
    assert fits(files.ca)
    for one in (path, files.ca):
        assert one.with_suffix(".key").stat().st_mode & 0o777 == 0o600
    assert files.ca.parent.stat().st_mode & 0o777 == 0o700
    assert read(files.ca).not_valid_after_utc - dt.datetime.fromtimestamp(
        NOW, dt.UTC
    ) == dt.timedelta(days=CA_DAYS)


def test_a_certificate_is_renewed_with_a_new_key_when_a_third_is_left(tmp_path, clock):
    files = opened(tmp_path, clock)
    files.server("nats-1", ADDRESSES)
    path = files.certificate("nats-1")
    ca, key = files.ca.read_bytes(), path.with_suffix(".key").read_bytes()
    begin, end = read(path).not_valid_before_utc, read(path).not_valid_after_utc
    last = end.timestamp() - (end - begin).total_seconds() * RENEWED
    clock.now = int(last) - 5
    assert not opened(tmp_path, clock).server("nats-1", ADDRESSES)
    clock.now = int(last) + 5
    assert opened(tmp_path, clock).server("nats-1", ADDRESSES)
    assert path.with_suffix(".key").read_bytes() != key
    assert fits(path)
    assert read(path).not_valid_after_utc.timestamp() == clock.now + SERVER_DAYS * DAY
    assert files.ca.read_bytes() == ca


@pytest.mark.parametrize(
    "other", [("nats-2.example", "127.0.0.1"), ADDRESSES[:1], (*ADDRESSES, "::1")]
)
def test_other_addresses_give_another_certificate(tmp_path, clock, other):
    files = opened(tmp_path, clock)
    files.server("nats-1", ADDRESSES)
    assert files.server("nats-1", other)
    names = read(files.certificate("nats-1")).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert [str(one.value) for one in names.value] == list(other)
    assert not files.server("nats-1", other)


def test_each_server_has_a_certificate_of_its_own(tmp_path, clock):
    files = opened(tmp_path, clock)
    files.server("nats-1", ADDRESSES)
    before = tree(tmp_path)
    assert files.server("nats-2", ADDRESSES)
    assert {path: tree(tmp_path)[path] for path in before} == before


def test_after_a_crash_between_the_two_files_of_a_server_both_are_made(tmp_path, clock):
    files = opened(tmp_path, clock)
    files.server("nats-1", ADDRESSES)
    path = files.certificate("nats-1")
    shutil.copy(files.ca.with_suffix(".key"), path.with_suffix(".key"))
    assert not fits(path)
    assert files.server("nats-1", ADDRESSES)
    assert fits(path)
    path.unlink()
    assert files.server("nats-1", ADDRESSES)
    assert fits(path)
    path.with_suffix(".key").unlink()
    assert files.server("nats-1", ADDRESSES)
    assert fits(path)


@pytest.mark.parametrize("suffix", [".pem", ".key"])
@pytest.mark.parametrize("content", [b"", b"no PEM", b"\xff" * 64])
def test_a_damaged_file_of_a_server_is_replaced(tmp_path, clock, suffix, content):
    files = opened(tmp_path, clock)
    files.server("nats-1", ADDRESSES)
    path = files.certificate("nats-1")
    path.with_suffix(suffix).write_bytes(content)
    assert files.server("nats-1", ADDRESSES)
    assert fits(path)


def test_a_certificate_of_another_authority_is_replaced(tmp_path, clock):
    files, other = opened(tmp_path, clock), opened(tmp_path / "other", clock)
    other.server("nats-1", ADDRESSES)
    for suffix in (".pem", ".key"):
        place = files.certificate("nats-1").with_suffix(suffix)
        shutil.copy(other.certificate("nats-1").with_suffix(suffix), place)
    assert files.server("nats-1", ADDRESSES)
    read(files.certificate("nats-1")).verify_directly_issued_by(read(files.ca))


def test_after_a_crash_between_the_two_files_of_the_authority_it_is_made_again(tmp_path, clock):
    """The key was first: no certificate of it exists, so nothing trusts it yet."""
    files = opened(tmp_path, clock)
    files.ca.unlink()
    again = opened(tmp_path, clock)
    assert fits(again.ca)
    assert again.server("nats-1", ADDRESSES)


def test_an_authority_whose_key_is_lost_or_another_one_is_not_replaced(tmp_path, clock):
    files = opened(tmp_path, clock)
    ca, key = files.ca.read_bytes(), files.ca.with_suffix(".key")
    good = key.read_bytes()
    key.unlink()
    with pytest.raises(FileNotFoundError, match=r"ca\.key"):
        opened(tmp_path, clock)
    key.touch(mode=0o600)
    key.write_bytes(opened(tmp_path / "other", clock).ca.with_suffix(".key").read_bytes())
    with pytest.raises(KcmError, match="not the one of the certificate"):
        opened(tmp_path, clock)
    key.write_bytes(good)
    key.chmod(0o644)
    with pytest.raises(SecretFileError, match="can be read by others"):
        opened(tmp_path, clock)
    key.chmod(0o600)
    assert opened(tmp_path, clock).ca.read_bytes() == ca


@pytest.mark.parametrize("name", ["ca", "", "../nats", "a.b", "A", "x" * 64])
def test_a_server_cannot_have_every_name(tmp_path, clock, name):
    files = opened(tmp_path, clock)
    before = tree(tmp_path)
    with pytest.raises(KcmError):
        files.server(name, ADDRESSES)
    assert tree(tmp_path) == before
