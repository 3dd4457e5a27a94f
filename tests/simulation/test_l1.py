"""Customers' keys answer as the port says, each endpoint for itself."""

import asyncio
from hashlib import sha256

import pytest
from kcm_core.providers.state import L1Error, L1State

from tests.simulation.l1 import MECHANISM, CustomerKeys, SimUnsealer
from tests.simulation.loop import SimLoop

URI = "softkey:/k"


@pytest.fixture
def loop():
    made = SimLoop(2)
    yield made
    made.close()


def rig(loop):
    keys = CustomerKeys(loop, ["eu", "us"])
    keys.create(URI)
    return keys, SimUnsealer(keys, "eu", "core-1", b"b"), SimUnsealer(keys, "us", "core-2", b"b")


async def state_of(unsealer, blob, digest=None):
    digest = digest or sha256(b"canary").digest()
    try:
        await unsealer.probe(URI, blob, b"context", MECHANISM, digest, deadline_s=5)
    except L1Error as error:
        return error.state
    return L1State.ENABLED


def test_only_the_same_key_and_context_open(loop):
    _, eu, us = rig(loop)

    async def main():
        wrapped = await eu.wrap(URI, b"secret", b"context", deadline_s=5)
        out = bytearray(6)
        args = (wrapped.blob, b"context", wrapped.mechanism, memoryview(out))
        await us.unwrap_into(URI, *args, deadline_s=5)
        assert bytes(out) == b"secret"
        with pytest.raises(L1Error) as wrong:
            await us.unwrap_into(
                URI, wrapped.blob, b"other", MECHANISM, memoryview(out), deadline_s=5
            )
        assert wrong.value.state is L1State.INVALID
        assert bytes(out) == bytes(6)
        canary = await eu.wrap(URI, b"canary", b"context", deadline_s=5)
        assert await state_of(eu, canary.blob) is L1State.ENABLED
        assert await state_of(eu, canary.blob, bytes(32)) is L1State.INVALID

    loop.run(main())


def test_a_change_spreads_and_endpoints_disagree_meanwhile(loop):
    keys, eu, us = rig(loop)

    async def main():
        blob = (await eu.wrap(URI, b"canary", b"context", deadline_s=5)).blob
        keys.turn(URI, L1State.DISABLED, 10.0, ["eu"])
        seen = set()
        for _ in range(40):
            seen.add(await state_of(eu, blob))
            await asyncio.sleep(0.5)
        assert seen == {L1State.ENABLED, L1State.DISABLED}
        assert await state_of(eu, blob) is L1State.DISABLED
        assert await state_of(us, blob) is L1State.ENABLED
        keys.turn(URI, L1State.DELETED, 0.0, ["us"])
        await asyncio.sleep(1)
        assert await state_of(us, blob) is L1State.DELETED

    loop.run(main())


def test_what_hangs_is_unreachable_at_the_deadline(loop):
    keys, eu, _ = rig(loop)

    async def main():
        blob = (await eu.wrap(URI, b"canary", b"context", deadline_s=5)).blob
        for endpoint in keys.keys[URI]:
            endpoint.hangs = True
        began = loop.time()
        assert await state_of(eu, blob) is L1State.UNREACHABLE
        assert loop.time() - began == pytest.approx(5)

    loop.run(main())


def test_wrong_credentials_are_one_instances_own(loop):
    keys, eu, us = rig(loop)
    answers = []
    keys.on_answer.append(answers.append)

    async def main():
        blob = (await us.wrap(URI, b"canary", b"context", deadline_s=5)).blob
        eu.wrong_credentials = True
        assert await state_of(eu, blob) is L1State.FORBIDDEN
        assert await state_of(us, blob) is L1State.ENABLED

    loop.run(main())
    assert [answer.wrong for answer in answers] == [False, True, False]
