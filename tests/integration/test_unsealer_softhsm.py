"""The unsealer with a PKCS#11 token: SoftHSM, in processes of its own."""

import contextlib
import hashlib

import pytest
from kcm_core.providers.remediation import fix
from kcm_core.providers.state import L1Error, L1State
from kcm_core.providers.uri import parse
from kcm_core.unsealer.client import Unsealer

from tests.integration import softhsm
from tests.integration.living import eventually
from tests.integration.unsealing import failure

BLOB = bytes(range(72))
CONTEXT = b"context"
D = 30.0


@pytest.fixture
def hsm(tmp_path):
    return softhsm.make(tmp_path / "hsm")


@pytest.fixture
async def unsealer(hsm):
    unsealer = Unsealer(hsm.environment)
    yield unsealer
    await unsealer.close()


async def opened(unsealer, uri, wrapped, *, blob=None, context=CONTEXT, mechanism=None):
    out = bytearray(b"\xaa" * 72)
    try:
        got = await unsealer.unwrap_into(
            uri,
            wrapped.blob if blob is None else blob,
            context,
            mechanism or wrapped.mechanism,
            memoryview(out),
            deadline_s=D,
        )
    except BaseException:
        assert bytes(out) == bytes(72), "a failure must leave zeros"
        raise
    assert (got.key_version, got.principal) == (wrapped.key_version, wrapped.principal)
    return bytes(out)


def wrapping(unsealer, uri):
    return unsealer.wrap(uri, BLOB, CONTEXT, deadline_s=D)


@pytest.mark.parametrize("extra", ["", ";type=secret-key", ";id=l1%20key"])
async def test_an_aes_key_wraps_with_gcm(hsm, unsealer, extra):
    hsm.run("create-aes", "l1 key")
    uri = hsm.uri("l1 key", extra=extra)
    wrapped = await wrapping(unsealer, uri)
    assert wrapped.mechanism == "aes-gcm"
    assert len(wrapped.blob) == 12 + 72 + 16
    assert wrapped.key_version.endswith(f":{b'l1 key'.hex()}")
    assert await opened(unsealer, uri, wrapped) == BLOB
    digest = hashlib.sha256(BLOB).digest()
    probe = await unsealer.probe(
        uri, wrapped.blob, CONTEXT, wrapped.mechanism, digest, deadline_s=D
    )
    assert (probe.state, probe.key_version) == (L1State.ENABLED, wrapped.key_version)


async def test_an_rsa_pair_wraps_with_the_oaep_that_the_token_has(hsm, unsealer):
    hsm.run("create-rsa", "pair")
    for extra in ("", ";type=private"):
        uri = hsm.uri("pair", extra=extra)
        wrapped = await wrapping(unsealer, uri)
        assert wrapped.mechanism == "rsa-oaep-sha1"
        assert len(wrapped.blob) == 256
        assert await opened(unsealer, uri, wrapped) == BLOB


async def test_what_does_not_authenticate_is_invalid_not_refused(hsm, unsealer):
    hsm.run("create-aes", "key")
    uri = hsm.uri("key")
    wrapped = await wrapping(unsealer, uri)
    changed = wrapped.blob[:-1] + bytes([wrapped.blob[-1] ^ 1])
    for arguments in ({"context": b"other"}, {"blob": changed}, {"blob": wrapped.blob[:30]}):
        error = await failure(opened(unsealer, uri, wrapped, **arguments))
        assert error.state is L1State.INVALID, error
    assert await opened(unsealer, uri, wrapped) == BLOB


async def test_a_changed_rsa_blob_is_never_a_refusal(hsm, unsealer):
    hsm.run("create-rsa", "pair")
    uri = hsm.uri("pair")
    wrapped = await wrapping(unsealer, uri)
    changed = wrapped.blob[:-1] + bytes([wrapped.blob[-1] ^ 1])
    error = await failure(opened(unsealer, uri, wrapped, blob=changed))
    assert not error.state.refused


async def test_a_disabled_key_is_disabled_until_it_is_enabled(hsm, unsealer):
    hsm.run("create-aes", "key")
    uri = hsm.uri("key")
    wrapped = await wrapping(unsealer, uri)
    hsm.run("disable", "key")
    assert (await failure(opened(unsealer, uri, wrapped))).state is L1State.DISABLED
    assert (await failure(wrapping(unsealer, uri))).state is L1State.DISABLED
    hsm.run("enable", "key")
    assert await opened(unsealer, uri, wrapped) == BLOB


async def test_a_disabled_private_key_is_disabled(hsm, unsealer):
    hsm.run("create-rsa", "pair")
    uri = hsm.uri("pair")
    wrapped = await wrapping(unsealer, uri)
    hsm.run("disable-rsa", "pair")
    assert (await failure(opened(unsealer, uri, wrapped))).state is L1State.DISABLED
    # The public half still wraps: only the check that follows notices.
    assert (await failure(wrapping(unsealer, uri))).state is L1State.DISABLED


async def test_a_destroyed_key_is_deleted(hsm, unsealer):
    hsm.run("create-aes", "key")
    uri = hsm.uri("key")
    wrapped = await wrapping(unsealer, uri)
    hsm.run("destroy", "key")
    assert (await failure(opened(unsealer, uri, wrapped))).state is L1State.DELETED
    hsm.run("create-aes", "key")
    assert (await failure(opened(unsealer, uri, wrapped))).state is L1State.INVALID


async def test_a_pair_without_its_public_key_is_no_deletion(hsm, unsealer):
    hsm.run("create-rsa", "pair")
    uri = hsm.uri("pair")
    wrapped = await wrapping(unsealer, uri)
    hsm.run("destroy-public", "pair")
    assert (await failure(wrapping(unsealer, uri))).state is L1State.UNREACHABLE
    assert await opened(unsealer, uri, wrapped) == BLOB


async def test_an_unplugged_token_is_unreachable_and_comes_back(hsm, unsealer):
    hsm.run("create-aes", "key")
    uri = hsm.uri("key")
    wrapped = await wrapping(unsealer, uri)
    aside = hsm.tokens().rename(hsm.directory / "aside")
    assert (await failure(opened(unsealer, uri, wrapped))).state is L1State.UNREACHABLE
    hsm.tokens().mkdir()
    assert (await failure(opened(unsealer, uri, wrapped))).state is L1State.UNREACHABLE
    hsm.tokens().rmdir()
    aside.rename(hsm.tokens())

    async def opens():
        # A key that was silent twice is not asked for a moment.
        with contextlib.suppress(L1Error):
            return await opened(unsealer, uri, wrapped) == BLOB
        return False

    await eventually(opens)


async def test_a_wrong_pin_is_forbidden_and_not_tried_again(hsm, unsealer):
    hsm.run("create-aes", "key")
    wrapped = await wrapping(unsealer, hsm.uri("key"))
    pin = hsm.directory / "other-pin"
    pin.write_text("wrong")
    uri = hsm.uri("key", pin_source=pin)
    error = await failure(opened(unsealer, uri, wrapped))
    assert (error.state, error.cls) == (L1State.FORBIDDEN, "PinIncorrect")
    assert "not tried again" not in error.detail
    again = await failure(opened(unsealer, uri, wrapped))
    assert (again.state, again.cls) == (L1State.FORBIDDEN, "PinIncorrect")
    assert "not tried again" in again.detail
    pin.write_text(softhsm.PIN)
    assert await opened(unsealer, uri, wrapped) == BLOB


async def test_a_missing_pin_file_is_unreachable(hsm, unsealer):
    hsm.run("create-aes", "key")
    uri = hsm.uri("key", pin_source=hsm.directory / "nowhere")
    error = await failure(wrapping(unsealer, uri))
    assert (error.state, error.cls) == (L1State.UNREACHABLE, "FileNotFoundError")


async def test_without_a_login_a_hidden_key_is_not_called_deleted(hsm, unsealer):
    hsm.run("create-aes", "key")
    wrapped = await wrapping(unsealer, hsm.uri("key"))
    uri = hsm.uri("key").partition("&pin-source")[0]
    error = await failure(opened(unsealer, uri, wrapped))
    assert error.state is L1State.UNREACHABLE
    assert "pin-source" in error.detail


async def test_two_keys_with_one_label_are_not_guessed_between(hsm, unsealer):
    hsm.run("create-aes", "key")
    hsm.run("create-aes", "key")
    error = await failure(wrapping(unsealer, hsm.uri("key")))
    assert (error.state, error.cls) == (L1State.UNREACHABLE, "MultipleObjectsReturned")


async def test_a_key_of_another_kind_is_said_to_be_one(hsm, unsealer):
    hsm.run("create-des", "key")
    error = await failure(wrapping(unsealer, hsm.uri("key")))
    assert (error.state, error.cls) == (L1State.UNREACHABLE, "KeyTypeInconsistent")
    assert "wrong kind" in error.detail
    assert "kcm l1 policy" in fix(parse(hsm.uri("key")), error)


async def test_a_label_or_token_that_does_not_match_finds_nothing(hsm, unsealer):
    hsm.run("create-aes", "key")
    wrapped = await wrapping(unsealer, hsm.uri("key"))
    other_serial = hsm.uri("key", extra=";serial=0000000000000000")
    assert (await failure(opened(unsealer, other_serial, wrapped))).state is L1State.UNREACHABLE
    other_model = hsm.uri("key", extra=";model=other")
    assert (await failure(opened(unsealer, other_model, wrapped))).state is L1State.UNREACHABLE
    printed = hsm.uri("key", extra=";model=SoftHSM%20v2;manufacturer=SoftHSM%20project")
    assert await opened(unsealer, printed, wrapped)
    other_label = hsm.uri("kex")
    assert (await failure(opened(unsealer, other_label, wrapped))).state is L1State.DELETED
