"""An audit stream that is really full: what is refused, what still works, and how it recovers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import pytest
from kcm import Admin
from kcm_auditor.journal.verify import verify
from kcm_devsystem.configs import config_file
from kcm_runtime.audit.stream_size import audit_config
from kcm_runtime.nats.provision import CORE_STREAMS, VAULT_STREAMS, provision_region
from kcm_runtime.nats.streams import StoreFull, last, put
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from nats.js import errors as js_errors

from tests.audit_rig import REGION, until
from tests.integration.auditor_rig import Broker
from tests.integration.living import (
    EU,
    US,
    Living,
    connected,
    decrypt,
    encrypt,
    eventually,
)

pytestmark = pytest.mark.slow

ROOM = 192 * 1024
CORE = f"core-{EU}-1"


@pytest.fixture
def small():
    """A system whose audit streams have hardly any room."""
    with Living.started(cores=1, audit_bytes=ROOM) as made:
        yield made


async def region_of(living, name=EU):
    async with Admin.open(living.context) as admin:
        status = await admin.audit_status(EU)
    return next(entry for entry in status.regions if entry.region == name)


async def messages(connection):
    info = await connection.jetstream().stream_info(subjects.AUDIT_STREAM)
    return info.state.messages


async def has_more(connection, before):
    return await messages(connection) > before


async def fill(living, app, tenant):
    """Encrypt until the service refuses, and return what it says.

    A message has few events here: of a stream with few large messages, a trim frees too little.
    """
    async with living.operator(EU) as connection:
        for _ in range(1000):
            before = await messages(connection)
            calls = (encrypt(app, tenant, [b"x"]) for _ in range(8))
            for done in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(done, KcmError) and "audit stream is full" in done.detail:
                    return done
            with suppress(AssertionError):  # there is no more if it is full
                await eventually(partial(has_more, connection, before), 2)
    raise AssertionError("the stream did not become full")


@pytest.mark.timeout(300)
async def test_full_refuses_data_and_not_kills_and_recovers_by_trimming(small):
    killed, spared = await small.tenant(), await small.tenant()
    async with small.app(EU) as app, small.app(US) as us:
        dark = (await encrypt(app, killed, [b"a"])).records
        kept = (await encrypt(app, spared, [b"b"])).records
        error = await fill(small, app, spared)
        assert error.code is Code.UNAVAILABLE
        assert "kcm audit status" in error.detail
        with pytest.raises(KcmError, match="audit stream is full"):
            await decrypt(app, spared, kept)
        found = await region_of(small)
        assert found.room == ROOM
        # Another region has its own stream.
        assert (await encrypt(us, spared, [b"c"], region=US)).records

        # A kill needs no room there: complete, stored in both regions, and dark.
        hold_id = await small.kill(killed)
        for region in (EU, US):
            async with small.operator(region) as connection:
                subject = subjects.control_hold(region, "tenant", hold_id)
                assert await last(connection, subjects.CONTROL_STREAM, subject) is not None

        # A Core that starts while it is full, and may trim what the Auditor has.
        small.sigkill(CORE)
        member = next(m for m in small.options.everybody if m.name == CORE)
        path = config_file(small.directory, member)
        path.write_text(path.read_text() + "\n[audit]\nkeep_s = 0.0\nkeep_full_s = 0.0\n")
        await small.restart(CORE)

        async def trimmed():
            return (await region_of(small)).trimmed > 0

        async def serves():
            try:
                return (await decrypt(app, spared, kept)).plaintexts == [b"b"]
            except KcmError:
                return False

        await eventually(trimmed, 90)
        await eventually(serves, 90)
        with pytest.raises(KcmError, match="tenant_killed"):
            await decrypt(app, killed, dark)
        found = await region_of(small)
        assert found.first == found.trimmed + 1
        assert (found.witnesses, found.lost_last) == (1, 0)
    auditor = next(m for m in small.options.everybody if m.name.startswith("auditor"))
    small.sigkill(auditor.name)
    (journal,) = small.directory.rglob("00000000000000000001.jsonl")
    text = journal.read_text()
    assert '"kind":"trimmed"' in text
    for never in ("stream-hole", "journal-lost", "trim-disputed"):
        assert never not in text
    problems = verify(journal.parent).problems
    assert [problem for problem in problems if "not finished" not in problem] == []


@pytest.fixture
async def broker(tmp_path):
    made = Broker(tmp_path / REGION)
    await made.start()
    yield made
    made.stop(kill=True)


@pytest.fixture
async def link(broker):
    async with connected(broker.address) as connection:
        yield connection


async def test_the_audit_stream_cannot_take_the_others_room(broker, link):
    await provision_region(link, REGION, vault_bus=link, audit_bytes=ROOM)
    js = link.jetstream()
    info = await js.stream_info(subjects.AUDIT_STREAM)
    acknowledged = audit_config(REGION, 1, ROOM)
    for name in ("max_bytes", "discard", "deny_delete", "deny_purge", "retention"):
        assert getattr(info.config, name) == getattr(acknowledged, name), name
    assert not info.config.max_age
    full = False
    while not full:
        try:
            await put(link, subjects.audit(REGION, "gw"), bytes(1000))
        except StoreFull:
            full = True
    assert await put(link, subjects.control_hold(REGION, "tenant", bytes(16)), b"a hold") == 1
    # Nobody can delete one message; what is trimmed makes room.
    with pytest.raises(js_errors.APIError):
        await js.delete_msg(subjects.AUDIT_STREAM, 1)
    await js.purge_stream(subjects.AUDIT_STREAM, seq=100)
    await put(link, subjects.audit(REGION, "gw"), bytes(1000))
    assert (await js.stream_info(subjects.AUDIT_STREAM)).state.first_seq == 100


async def test_no_more_is_promised_than_the_broker_has(broker, link):
    with pytest.raises(KcmError, match="max_file_store") as caught:
        await provision_region(link, REGION, vault_bus=link, audit_bytes=1 << 50)
    assert caught.value.code is Code.UNAVAILABLE
    names = {info.config.name for info in await link.jetstream().streams_info()}
    assert subjects.AUDIT_STREAM not in names
    assert names == {*CORE_STREAMS, *VAULT_STREAMS} - {subjects.AUDIT_STREAM}
    await until(lambda: link.connected)
