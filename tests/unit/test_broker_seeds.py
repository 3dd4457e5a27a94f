"""Files with seeds: one key, and the keys with which an operator lets applications in."""

import json

import pytest
from kcm_broker import signers
from kcm_broker.key_files import kept_key, read_key
from kcm_broker.roles import Role
from kcm_broker.signers import Signers
from kcm_runtime.files.private_files import make_directory
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.nats.nkeys import KeyKind
from kcm_schemas.codes import Code, KcmError

from tests.unit.broker_rig import account, operator, user


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "deep" / "down" / "key.seed"
    key = kept_key(path, KeyKind.ACCOUNT)
    assert kept_key(path, KeyKind.ACCOUNT).seed() == key.seed()
    assert read_key(path, KeyKind.ACCOUNT).public == key.public
    assert path.stat().st_mode & 0o777 == 0o600
    assert {one.stat().st_mode & 0o777 for one in (path.parent, path.parent.parent)} == {0o700}


def test_a_directory_that_is_there_keeps_its_mode(tmp_path):
    (tmp_path / "there").mkdir(mode=0o755)
    make_directory(tmp_path / "there" / "new")
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o755
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        make_directory(tmp_path / "file" / "new")


@pytest.mark.parametrize("other", [operator, user])
def test_a_key_of_another_kind_is_refused_and_stays(tmp_path, other):
    path, seed = tmp_path / "key.seed", other().seed()
    path.write_text(f"{seed}\n")
    path.chmod(0o600)
    with pytest.raises(KcmError, match="no key of the kind account") as caught:
        kept_key(path, KeyKind.ACCOUNT)
    assert seed not in str(caught.value)
    assert path.read_text() == f"{seed}\n"


@pytest.mark.parametrize("content", [b"", b"x", b"S" * 59, b"S" * 58 + b"\n", b"\xff" * 59])
def test_a_file_without_a_key_is_refused(tmp_path, content):
    path = tmp_path / "key.seed"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KcmError, match=r"key\.seed has no key of the kind account"):
        kept_key(path, KeyKind.ACCOUNT)
    assert path.read_bytes() == content


def test_a_key_that_others_can_read_or_that_is_no_file_is_refused(tmp_path):
    path = tmp_path / "key.seed"
    with pytest.raises(SecretFileError, match="cannot read"):
        read_key(path, KeyKind.ACCOUNT)
    path.write_bytes(b"S" * 60)
    path.chmod(0o600)
    with pytest.raises(KcmError, match=r"key\.seed has more than 59 bytes"):
        read_key(path, KeyKind.ACCOUNT)
    path.unlink()
    kept_key(path, KeyKind.ACCOUNT)
    path.chmod(0o604)
    with pytest.raises(SecretFileError, match="chmod 600"):
        kept_key(path, KeyKind.ACCOUNT)
    with pytest.raises(SecretFileError, match="not a file"):
        read_key(tmp_path, KeyKind.ACCOUNT)


def some():
    return Signers(account().public, {role: account() for role in signers.SIGNED})


def test_signers_are_read_as_they_were_written(tmp_path):
    path, one = tmp_path / "deep" / "signers", some()
    signers.write(path, one)
    read = signers.read(path)
    assert read.account == one.account
    assert {role: key.seed() for role, key in read.keys.items()} == {
        role: key.seed() for role, key in one.keys.items()
    }
    assert path.stat().st_mode & 0o777 == 0o600
    again = some()
    signers.write(path, again)
    assert signers.read(path).account == again.account


def test_no_seed_of_signers_shows():
    one = some()
    assert not [key for key in one.keys.values() if key.seed() in repr(one)]


def changed(**changes):
    return json.dumps(json.loads(signers.to_text(some())) | changes)


def seeds(**changes):
    return json.loads(signers.to_text(some()))["seeds"] | changes


BAD = {
    "nothing": "",
    "no JSON": "{",
    "a list": "[]",
    "a number": "1",
    "null": "null",
    "deep": "[" * 4000,
    "bytes": "\xff",
    "no account": changed(account=None),
    "an account of another kind": changed(account=user().public),
    "a seed as account": changed(account=account().seed()),
    "no seeds": changed(seeds={}),
    "seeds of no kind": changed(seeds=[]),
    "one seed": changed(seeds={Role.PLAIN.value: account().seed()}),
    "a number as seed": changed(seeds=seeds(plain=1)),
    "a seed of a user": changed(seeds=seeds(plain=user().seed())),
    "a seed of an operator": changed(seeds=seeds(application=operator().seed())),
    "half a seed": changed(seeds=seeds(plain=account().seed()[:-1])),
}


@pytest.mark.parametrize("case", BAD)
def test_what_has_no_signers_is_refused_without_its_content(tmp_path, case):
    path = tmp_path / "signers"
    path.write_text(BAD[case], "latin-1")
    path.chmod(0o600)
    with pytest.raises(KcmError, match="has no keys for the credentials") as caught:
        signers.read(path)
    assert caught.value.code is Code.MALFORMED
    assert "SA" not in str(caught.value).replace(str(path), "")


def test_signers_that_others_can_read_or_of_any_size_are_refused(tmp_path):
    path = tmp_path / "signers"
    with pytest.raises(SecretFileError, match="cannot read"):
        signers.read(path)
    signers.write(path, some())
    path.chmod(0o604)
    with pytest.raises(SecretFileError, match="chmod 600"):
        signers.read(path)
    path.write_text(" " * 5000)
    path.chmod(0o600)
    with pytest.raises(KcmError, match="more than 4096 bytes") as caught:
        signers.read(path)
    assert caught.value.code is Code.TOO_LARGE
    with pytest.raises(SecretFileError, match="not a file"):
        signers.read(tmp_path)
