"""The contract of the port, held to by the real unsealer and by the fake that stands in for it."""

import hashlib

import pytest
import pytest_asyncio
from kcm_core.providers.softkey import provider as softkey
from kcm_core.providers.state import L1State
from kcm_core.unsealer.client import Unsealer
from kcm_core.unsealer.port import UnsealerPort

from tests.fakes.unsealer import FakeUnsealer
from tests.integration.unsealing import SharedServers, failure, flip

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLAINTEXT = bytes(range(72))
CONTEXT = b"context"
DIGEST = hashlib.sha256(PLAINTEXT).digest()
D = 30.0


class Real:
    """The real unsealer over a softkey."""

    def __init__(self, directory, server):
        softkey.create(directory)
        self.directory, self.uri = directory, f"softkey:{directory}"
        self.unsealer = Unsealer({}, servers=server)

    def flip(self, state):
        flip(self.directory, state)

    async def close(self):
        await self.unsealer.close()


class Fake:
    """The fake, with the same handles."""

    def __init__(self, directory, _):
        self.uri = f"softkey:{directory}"
        self.unsealer = FakeUnsealer()

    def flip(self, state):
        self.unsealer.key(self.uri).state = state

    async def close(self):
        pass


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    made = SharedServers({"KCM_DEVELOPMENT": "1"})
    yield made
    await made.end()


@pytest_asyncio.fixture(params=[Real, Fake], loop_scope="module")
async def l1(request, tmp_path, server):
    made = request.param(tmp_path / "key", server)
    yield made
    await made.close()


def port(l1) -> UnsealerPort:
    return l1.unsealer


async def wrapped(l1, plaintext=PLAINTEXT):
    return await port(l1).wrap(l1.uri, plaintext, CONTEXT, deadline_s=D)


async def unwrap(l1, blob, *, context=CONTEXT, mechanism="aes-gcm", size=72, uri=None, deadline=D):
    out = bytearray(b"\xaa" * size)
    try:
        opened = await port(l1).unwrap_into(
            uri or l1.uri, blob, context, mechanism, memoryview(out), deadline_s=deadline
        )
    except BaseException:
        assert bytes(out) == bytes(size), "a failure must leave zeros"
        raise
    return bytes(out), opened


def probe(l1, blob, *, context=CONTEXT, mechanism="aes-gcm", digest=DIGEST, deadline=D):
    return port(l1).probe(l1.uri, blob, context, mechanism, digest, deadline_s=deadline)


@pytest.mark.parametrize("plaintext", [b"x", PLAINTEXT, bytes(256)])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_what_was_wrapped_opens(l1, plaintext, kind):
    made = await wrapped(l1, kind(plaintext))
    out, opened = await unwrap(l1, made.blob, mechanism=made.mechanism, size=len(plaintext))
    assert out == plaintext
    assert (opened.key_version, opened.principal) == (made.key_version, made.principal)
    assert made.key_version
    assert made.principal


async def test_a_canary_gives_a_verdict(l1):
    made = await wrapped(l1)
    seen = await probe(l1, made.blob)
    assert (seen.state, seen.key_version, seen.principal) == (
        L1State.ENABLED,
        made.key_version,
        made.principal,
    )


async def test_a_canary_of_another_value_is_invalid(l1):
    made = await wrapped(l1, b"y" * 72)
    assert (await failure(probe(l1, made.blob))).state is L1State.INVALID


@pytest.mark.parametrize("state", sorted(set(L1State) - {L1State.ENABLED, L1State.INVALID}))
async def test_each_state_is_raised_by_every_operation_and_passes(l1, state):
    made = await wrapped(l1)
    l1.flip(state)
    for call in (wrapped(l1), unwrap(l1, made.blob), probe(l1, made.blob)):
        assert (await failure(call)).state is state
    l1.flip(L1State.ENABLED)
    assert (await unwrap(l1, made.blob))[0] == PLAINTEXT


async def test_another_context_is_invalid(l1):
    made = await wrapped(l1)
    assert (await failure(unwrap(l1, made.blob, context=b"contexu"))).state is L1State.INVALID
    assert (await failure(probe(l1, made.blob, context=b""))).state is L1State.INVALID


async def test_a_changed_or_cut_blob_is_invalid(l1):
    made = await wrapped(l1)
    changed = made.blob[:-1] + bytes([made.blob[-1] ^ 1])
    for blob in (changed, made.blob[:-1], b"x"):
        assert (await failure(unwrap(l1, blob))).state is L1State.INVALID


@pytest.mark.parametrize("size", [1, 71, 73])
async def test_memory_of_another_length_is_invalid(l1, size):
    made = await wrapped(l1)
    assert (await failure(unwrap(l1, made.blob, size=size))).state is L1State.INVALID


async def test_another_mechanism_is_unreachable(l1):
    made = await wrapped(l1)
    error = await failure(unwrap(l1, made.blob, mechanism="rsa-oaep-sha1"))
    assert error.state is L1State.UNREACHABLE


async def test_a_uri_that_is_not_understood_is_unreachable_and_not_repeated(l1):
    uri = "pkcs11:token=t;object=k?module-path=/x.so&pin-value=s3cret"
    error = await failure(unwrap(l1, b"blob", uri=uri))
    assert (error.state, error.cls) == (L1State.UNREACHABLE, "L1UriError")
    assert "s3cret" not in str(error)


@pytest.mark.parametrize("deadline", [0, -1, 61, float("nan"), float("inf")])
async def test_a_deadline_out_of_bounds_is_refused(l1, deadline):
    error = await failure(unwrap(l1, b"blob", deadline=deadline))
    assert (error.state, error.cls) == (L1State.INVALID, "FrameError")


async def test_arguments_out_of_bounds_are_refused(l1):
    made = await wrapped(l1)
    for call in (
        wrapped(l1, b""),
        wrapped(l1, bytes(257)),
        unwrap(l1, b""),
        unwrap(l1, bytes(8193)),
        unwrap(l1, made.blob, context=bytes(4097)),
        unwrap(l1, made.blob, mechanism=""),
        probe(l1, made.blob, digest=b""),
        probe(l1, made.blob, digest=bytes(33)),
    ):
        error = await failure(call)
        assert (error.state, error.cls) == (L1State.INVALID, "FrameError")
