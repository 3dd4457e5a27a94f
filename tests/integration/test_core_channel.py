"""The way between Gateway and Core on a real bus, to which an attacker listens and writes."""

import contextlib

import pytest
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import Failure
from kcm_schemas.session import decode_sealed_reply

from tests.integration.living import EU, decrypt, encrypt, eventually

CORES = f"kcm.v1.{EU}.core"


@pytest.fixture
async def app(living):
    async with living.app() as connection:
        yield connection


@contextlib.asynccontextmanager
async def tapped(living, *subjects):
    """Everything that a client of the region's broker hears on these subjects."""
    heard = []

    async def hear(message):
        heard.append((message.subject, message.data, message.reply))

    async with living.app() as tap:
        for subject in subjects:
            await tap.subscribe(subject, hear)
        await tap.client.flush()
        yield heard


def requests(heard):
    """The requests of sessions among what was heard."""
    return [(subject, data) for subject, data, _ in heard if subject.count(".") == 7]


async def answered(app, subject, body):
    try:
        decode_sealed_reply(await app.request(subject, body, 6))
    except KcmError as error:
        return error.code
    return Code.OK


async def test_a_captured_request_is_executed_by_no_core(living, app):
    tenant = await living.tenant(kind="softkey")
    async with tapped(living, f"{CORES}.>") as heard:
        sealed = (await encrypt(app, tenant, [b"secret of acme"])).records
        assert (await decrypt(app, tenant, sealed)).plaintexts == [b"secret of acme"]

        async def both() -> bool:
            return {subject.split(".")[5] for subject, _ in requests(heard)} >= {"wrap", "unwrap"}

        await eventually(both)
        captured = requests(heard)
        for subject, body in captured:
            for core in (f"core-{EU}-{number}" for number in (1, 2)):
                place = subject.replace(subject.split(".")[4], core)
                codes = {await answered(app, place, body) for _ in range(20)}
                assert codes <= {Code.REPLAYED, Code.UNKNOWN_SESSION}


async def test_a_forged_refusal_is_no_refusal(living, app):
    """The attacker answers every request to a Core at once, before the Core does."""
    tenant = await living.tenant(kind="softkey")
    sealed = (await encrypt(app, tenant, [b"kept"])).records
    lies = [Code.KEY_DESTROYED, Code.TENANT_KILLED, Code.TAMPERED, Code.UNKNOWN_TENANT]
    said = []

    async with living.app() as thief:

        async def lie(message):
            said.append(lies[len(said) % len(lies)])
            await thief.publish(message.reply, encode(Failure(v=1, error=said[-1], detail="")))

        await thief.subscribe(f"{CORES}.>", lie)
        await thief.client.flush()
        for _ in range(8):
            with contextlib.suppress(KcmError):
                done = await decrypt(app, tenant, sealed)
                assert set(done.codes) <= {Code.UNAVAILABLE, Code.UNKNOWN_SESSION}
    assert said
    await eventually(lambda: _serves(app, tenant, sealed))


async def _serves(app, tenant, sealed):
    try:
        return (await decrypt(app, tenant, sealed)).plaintexts == [b"kept"]
    except KcmError:
        return False
