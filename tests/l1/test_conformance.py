"""What every provider has to do, whatever its make. It only uses the key, and changes nothing.

Runs against all five providers, and with ``KCM_L1_URI`` (``make conformance URI=…``) against a real
account, with the credentials of the environment.
"""

from __future__ import annotations

import asyncio
import hashlib
import os

import pytest
from kcm_core.providers.context import provider_context
from kcm_core.providers.port import BINDS_CONTEXT
from kcm_core.providers.state import L1State

from tests.integration.unsealing import failure

CONTEXT = provider_context("acme", "eu-de", 1)
OTHERS = [
    provider_context("acme", "eu-de", 2),
    provider_context("acme", "eu-d", 1),
    provider_context("acm", "eeu-de", 1),
    provider_context("globex", "eu-de", 1),
    b"",
]
INNER = bytes(range(72))
D = 30.0


async def wrapped(unsealer, stand, plaintext=INNER, context=CONTEXT):
    return await unsealer.wrap(stand.uri, plaintext, context, deadline_s=D)


async def opened(unsealer, stand, made, *, context=CONTEXT, size=72, blob=None, how=None):
    out = bytearray(b"\xaa" * size)
    told = await unsealer.unwrap_into(
        stand.uri,
        made.blob if blob is None else blob,
        context,
        how or made.mechanism,
        memoryview(out),
        deadline_s=D,
    )
    return bytes(out), told


@pytest.mark.parametrize("size", [1, 32, 72])
async def test_what_was_wrapped_opens_and_says_by_whom(unsealer, stand, size):
    plaintext = os.urandom(size)
    made = await wrapped(unsealer, stand, plaintext)
    assert plaintext not in made.blob or size == 1
    got, told = await opened(unsealer, stand, made, size=size)
    assert got == plaintext
    assert (told.key_version, told.principal) == (made.key_version, made.principal)
    assert made.key_version
    assert made.principal


async def test_the_same_is_never_wrapped_alike(unsealer, stand):
    first, second = [await wrapped(unsealer, stand) for _ in range(2)]
    if first.mechanism != "aes-key-wrap":
        assert first.blob != second.blob
    assert first.mechanism == second.mechanism


async def test_a_probe_of_the_canary_shows_the_key_state(unsealer, stand):
    made = await wrapped(unsealer, stand)
    digest = hashlib.sha256(INNER).digest()
    told = await unsealer.probe(stand.uri, made.blob, CONTEXT, made.mechanism, digest, deadline_s=D)
    assert told.state is L1State.ENABLED
    assert (told.key_version, told.principal) == (made.key_version, made.principal)
    wrong = unsealer.probe(stand.uri, made.blob, CONTEXT, made.mechanism, bytes(32), deadline_s=D)
    assert (await failure(wrong)).state is L1State.INVALID


@pytest.mark.parametrize("context", OTHERS, ids=range(len(OTHERS)))
async def test_another_context_opens_nothing_where_the_mechanism_has_one(unsealer, stand, context):
    made = await wrapped(unsealer, stand)
    if made.mechanism in BINDS_CONTEXT:
        error = await failure(opened(unsealer, stand, made, context=context))
        assert error.state is L1State.INVALID
    else:
        assert (await opened(unsealer, stand, made, context=context))[0] == INNER


@pytest.mark.parametrize("at", [0, 0.5, 1])
async def test_a_blob_that_was_changed_is_invalid_and_refuses_nothing(unsealer, stand, at):
    made = await wrapped(unsealer, stand)
    changed = bytearray(made.blob)
    changed[int(at * (len(changed) - 1))] ^= 1
    error = await failure(opened(unsealer, stand, made, blob=bytes(changed)))
    assert not error.state.refused
    assert error.state is L1State.INVALID or made.mechanism.startswith("rsa")


async def test_an_empty_or_foreign_blob_refuses_nothing(unsealer, stand):
    made = await wrapped(unsealer, stand)
    for blob in (b"x", made.blob[:-1], bytes(len(made.blob))):
        assert not (await failure(opened(unsealer, stand, made, blob=blob))).state.refused


async def test_a_mechanism_that_is_not_known_refuses_nothing(unsealer, stand):
    made = await wrapped(unsealer, stand)
    error = await failure(opened(unsealer, stand, made, how="rot13"))
    assert error.state is L1State.UNREACHABLE


async def test_many_at_once_are_all_served(unsealer, stand):
    made = await wrapped(unsealer, stand)
    done = await asyncio.gather(*(opened(unsealer, stand, made) for _ in range(12)))
    assert {plaintext for plaintext, _ in done} == {INNER}
