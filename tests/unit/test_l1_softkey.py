import logging

import pytest
from kcm_core.providers.catalog import open_provider, warm
from kcm_core.providers.softkey import provider as softkey
from kcm_core.providers.state import L1Error, L1State
from kcm_core.providers.uri import SoftkeyUri, parse

BLOB = bytes(range(72))
CONTEXT = b"context"


@pytest.fixture
def directory(tmp_path):
    softkey.create(tmp_path / "key")
    return tmp_path / "key"


def provider(directory):
    return open_provider(parse(f"softkey:{directory}"), development=True)


def failure(operation):
    with pytest.raises(L1Error) as caught:
        operation()
    return caught.value


def test_what_is_wrapped_opens(directory):
    made = provider(directory).wrap(memoryview(BLOB), CONTEXT)
    opened = provider(directory).unwrap(made.blob, CONTEXT, made.mechanism)
    assert bytes(opened.plaintext) == BLOB
    assert (opened.key_version, opened.principal) == (made.key_version, made.principal)
    assert BLOB not in made.blob
    assert "plaintext" not in repr(opened)


def test_two_keys_have_two_versions(directory, tmp_path):
    softkey.create(tmp_path / "other")
    first = provider(directory).wrap(BLOB, CONTEXT)
    second = provider(tmp_path / "other").wrap(BLOB, CONTEXT)
    assert first.key_version != second.key_version
    other = provider(tmp_path / "other")
    state = failure(lambda: other.unwrap(first.blob, CONTEXT, first.mechanism)).state
    assert state is L1State.INVALID


@pytest.mark.parametrize("state", sorted(set(L1State) - {L1State.ENABLED, L1State.INVALID}))
def test_the_state_file_decides_for_wrap_and_unwrap(directory, state):
    made = provider(directory).wrap(BLOB, CONTEXT)
    (directory / "state").write_text(f"{state.value}\n")
    assert failure(lambda: provider(directory).wrap(BLOB, CONTEXT)).state is state
    unwrap = failure(lambda: provider(directory).unwrap(made.blob, CONTEXT, made.mechanism))
    assert unwrap.state is state
    (directory / "state").write_text("enabled")
    opened = provider(directory).unwrap(made.blob, CONTEXT, made.mechanism)
    assert bytes(opened.plaintext) == BLOB


@pytest.mark.parametrize("content", [b"", b"yes", b"invalid", b"\xff\xfe", b"enabled" * 100])
def test_a_garbage_state_is_unreachable(directory, content):
    (directory / "state").write_bytes(content)
    error = failure(lambda: provider(directory).wrap(BLOB, CONTEXT))
    assert (error.state, error.detail) == (
        L1State.UNREACHABLE,
        "the state file has no known word",
    )


def test_a_missing_state_is_unreachable(directory):
    (directory / "state").unlink()
    error = failure(lambda: provider(directory).wrap(BLOB, CONTEXT))
    assert (error.state, error.cls) == (L1State.UNREACHABLE, "FileNotFoundError")
    assert str(directory) not in str(error)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_length_is_refused(directory, size):
    (directory / "key").write_bytes(bytes(size))
    assert failure(lambda: provider(directory).wrap(BLOB, CONTEXT)).state is L1State.UNREACHABLE


def test_a_key_that_others_may_read_is_refused(directory):
    (directory / "key").chmod(0o640)
    error = failure(lambda: provider(directory).wrap(BLOB, CONTEXT))
    assert error.state is L1State.UNREACHABLE
    assert "0600" in error.detail


def test_a_key_behind_a_link_is_refused(directory, tmp_path):
    (directory / "key").rename(tmp_path / "moved")
    (directory / "key").symlink_to(tmp_path / "moved")
    assert failure(lambda: provider(directory).wrap(BLOB, CONTEXT)).state is L1State.UNREACHABLE


@pytest.mark.parametrize("cut", [0, 27, 28, 50])
def test_a_cut_blob_does_not_authenticate(directory, cut):
    made = provider(directory).wrap(BLOB, CONTEXT)
    error = failure(lambda: provider(directory).unwrap(made.blob[:cut], CONTEXT, made.mechanism))
    assert error.state is L1State.INVALID


def test_another_context_does_not_authenticate(directory):
    made = provider(directory).wrap(BLOB, CONTEXT)
    error = failure(lambda: provider(directory).unwrap(made.blob, b"other", made.mechanism))
    assert error.state is L1State.INVALID


def test_another_mechanism_is_not_tried(directory):
    made = provider(directory).wrap(BLOB, CONTEXT)
    error = failure(lambda: provider(directory).unwrap(made.blob, CONTEXT, "rsa-oaep-sha1"))
    assert error.state is L1State.UNREACHABLE


def test_without_development_there_is_no_softkey(directory):
    error = failure(lambda: open_provider(SoftkeyUri(str(directory)), development=False))
    assert error.state is L1State.UNREACHABLE
    assert "development" in error.detail


def test_create_makes_a_private_key_and_never_replaces_one(directory):
    before = (directory / "key").read_bytes()
    assert len(before) == 32
    assert (directory / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        softkey.create(directory)
    assert (directory / "key").read_bytes() == before


def test_create_goes_on_where_it_was_cut_off_and_leaves_a_key_s_state(tmp_path):
    (tmp_path / "state").write_text("enabled\n")
    softkey.create(tmp_path)
    assert len((tmp_path / "key").read_bytes()) == 32
    (tmp_path / "state").write_text("disabled\n")
    with pytest.raises(FileExistsError):
        softkey.create(tmp_path)
    assert (tmp_path / "state").read_text() == "disabled\n"


def test_its_use_is_announced_loudly_once(directory, caplog):
    softkey.announce.cache_clear()
    uri = parse(f"softkey:{directory}")
    with caplog.at_level(logging.WARNING):
        warm(uri, development=True)
        warm(uri, development=True)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Development only" in caplog.text
