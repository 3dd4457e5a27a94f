"""Credentials files, and the callbacks of the client library."""

import base64

import pytest
from kcm_broker.claims import User, user_token
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.nats import credentials
from kcm_runtime.nats.credentials import Credentials, FileLogin, UnusableCredentialsError
from kcm_runtime.nats.nkeys import check_signature
from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors

from tests.unit.broker_rig import NOW, account, user


def some():
    key = user()
    token = user_token(account(), account().public, User(key.public, "shop"), NOW)
    return Credentials(token, key)


def test_the_text_is_the_one_of_the_tools():
    one = some()
    assert credentials.to_text(one) == (
        "-----BEGIN NATS USER JWT-----\n"
        f"{one.token}\n"
        "------END NATS USER JWT------\n"
        "\n"
        "-----BEGIN USER NKEY SEED-----\n"
        f"{one.key.seed()}\n"
        "------END USER NKEY SEED------\n"
    )
    read = credentials.from_text(credentials.to_text(one))
    assert (read.token, read.key.public) == (one.token, one.key.public)
    assert one.key.seed() not in repr(one)


def test_text_of_the_nsc_tool_is_read():
    one = some()
    text = credentials.to_text(one).replace("\n\n", "\n\n*** IMPORTANT ***\nNKEY is secret.\n\n")
    assert credentials.from_text(text.replace("\n", "\r\n")).key.public == one.key.public


def broken():
    text = credentials.to_text(some())
    token, seed = text.splitlines()[1], text.splitlines()[5]
    return {
        "empty": "",
        "the token twice": text.replace(token, f"{token}\n{token}"),
        "no token": text.replace(token, ""),
        "no seed": text.replace(seed, ""),
        "no end": text.replace("------END USER NKEY SEED------", ""),
        "two files": text + text,
        "the other order of marks": "\n".join(reversed(text.splitlines())),
        "a bad seed": text.replace(seed, seed[:-1]),
        "an account's seed": text.replace(seed, account().seed()),
        "a token of two parts": text.replace(token, "a.b"),
        "a token with a space": text.replace(token, "a.b. c"),
    }


BROKEN = broken()


@pytest.mark.parametrize("case", BROKEN)
def test_broken_text_is_refused_without_its_secret(case):
    with pytest.raises(KcmError) as caught:
        credentials.from_text(BROKEN[case])
    assert caught.value.code is Code.MALFORMED
    assert "SU" not in str(caught.value)


def test_a_file_of_any_size_is_not_read(tmp_path):
    path = tmp_path / "big.creds"
    path.write_bytes(b"x" * (credentials.FILE_MAX + 1))
    path.chmod(0o600)
    with pytest.raises(KcmError) as caught:
        credentials.read(path)
    assert caught.value.code is Code.TOO_LARGE


def test_a_file_is_written_for_its_owner_only(tmp_path):
    path, one = tmp_path / "shop.creds", some()
    credentials.write(path, one)
    assert path.stat().st_mode & 0o777 == 0o600
    assert credentials.read(path).token == one.token
    again = some()
    credentials.write(path, again)
    assert credentials.read(path).token == again.token


def test_files_that_others_may_read_or_that_are_none_are_refused(tmp_path):
    path = tmp_path / "shop.creds"
    with pytest.raises(SecretFileError):
        credentials.read(path)
    credentials.write(path, some())
    path.chmod(0o644)
    with pytest.raises(SecretFileError):
        credentials.read(path)
    with pytest.raises(SecretFileError):
        credentials.read(tmp_path)
    path.write_bytes(b"\xff")
    path.chmod(0o600)
    with pytest.raises(KcmError):
        credentials.read(path)


def test_each_login_reads_the_file_and_both_parts_are_of_one_reading(tmp_path):
    path, first, second = tmp_path / "shop.creds", some(), some()
    login = FileLogin(path)
    for order in ("signature first", "token first"):
        credentials.write(path, first)
        if order == "signature first":
            signature = login.signature("nonce")
            credentials.write(path, second)
            token = login.user_jwt()
        else:
            token = login.user_jwt()
            credentials.write(path, second)
            signature = login.signature("nonce")
        assert token.decode() == first.token
        check_signature(first.key.public, b"nonce", base64.b64decode(signature))
        assert login.user_jwt().decode() == second.token  # the next login
        login.signature("nonce")


def test_a_login_that_ended_after_its_first_part_is_forgotten(tmp_path):
    path, first, second = tmp_path / "shop.creds", some(), some()
    login = FileLogin(path)
    credentials.write(path, first)
    login.signature("one")
    credentials.write(path, second)
    check_signature(second.key.public, b"two", base64.b64decode(login.signature("two")))
    assert login.user_jwt().decode() == second.token


def test_a_missing_file_is_an_error_after_which_the_library_tries_again(tmp_path):
    login = FileLogin(tmp_path / "none.creds")
    for part in (login.user_jwt, lambda: login.signature("nonce")):
        with pytest.raises(UnusableCredentialsError) as caught:
            part()
        assert isinstance(caught.value, nats_errors.Error)
