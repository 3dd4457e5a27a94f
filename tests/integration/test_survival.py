"""What is left after processes were killed: everything."""

import asyncio
import os
import shutil
import signal
from dataclasses import replace

import pytest
from kcm import Admin
from kcm._internal.core_calls import OPEN_S
from kcm._internal.kills import Kills
from kcm._internal.retry import AGAIN_S
from kcm_broker.roles import Account
from kcm_devsystem import processes, system
from kcm_devsystem.errors import ProcessDiedError
from kcm_runtime.nats.streams import put
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.subjects import CONTROL_STREAM, REGISTRY_BUCKET, bucket_stream

from tests.audit_rig import until
from tests.integration.living import EU, US, decrypt, encrypt, eventually

CORE, GATEWAY = f"core-{EU}-1", f"gateway-{EU}-1"


async def test_a_core_that_was_down_during_a_kill_knows_it_before_it_serves(fragile):
    tenant = await fragile.tenant()
    async with fragile.app() as app:
        sealed = (await encrypt(app, tenant, [b"x"])).records
        fragile.sigkill(CORE)
        with pytest.raises(AssertionError):
            # Its lease entry is still there, so nobody may say that the kill is complete.
            await asyncio.wait_for(_kill_without_waiting(fragile, tenant), 5)
        await fragile.restart(CORE)
        done = await _codes(app, tenant, sealed)
        assert done == {Code.TENANT_KILLED}


async def _kill_without_waiting(fragile, tenant):
    async with Admin.open(fragile.context) as admin:
        kills = Kills(admin, [US])
        hold = kills.make("tenant", tenant, "test")
        status = await kills.place(hold, admin.around.clock.elapsed() + 20)
        assert status.complete


async def _codes(app, tenant, records):
    try:
        return set((await decrypt(app, tenant, records)).codes)
    except KcmError as error:
        return {error.code}


async def test_everything_restarts_and_every_record_decrypts(one_core):
    tenant = await one_core.tenant()
    async with one_core.app() as app:
        sealed = (await encrypt(app, tenant, [b"a", b"b"])).records
        for name in (CORE, GATEWAY):
            one_core.sigkill(name)
            await one_core.restart(name)
        assert (await decrypt(app, tenant, sealed)).plaintexts == [b"a", b"b"]
    # The whole system, brokers included.
    state = await asyncio.to_thread(_down_and_up, one_core)
    assert state
    from tests.integration.living import Living

    again = Living(one_core.options, state)
    async with again.app() as app:
        assert (await decrypt(app, tenant, sealed)).plaintexts == [b"a", b"b"]


def _down_and_up(one_core):
    system.down(one_core.directory)
    options = system.Options(one_core.directory, regions=(EU,), cores=1, visitor=True)
    return system.up(options)


async def test_a_lost_bucket_is_waited_for_and_never_looks_empty(one_core):
    tenant = await one_core.tenant(kind="softkey")
    async with one_core.app() as app:
        sealed = (await encrypt(app, tenant, [b"x"])).records
        async with one_core.operator() as operator:
            broker = operator.jetstream()
            bucket = bucket_stream(REGISTRY_BUCKET)
            stored = [await broker.get_msg(bucket, seq=n) for n in await _sequences(broker, bucket)]
            await broker.delete_stream(bucket)
            one_core.sigkill(CORE)
            core = await one_core.begin(CORE)
            log = one_core.directory / "log" / f"{CORE}.log"
            said = f"the broker has no stream {bucket}: provision the region, or restore its backup"
            await until(lambda: f"waiting at the start: {said}" in log.read_text())
            with pytest.raises(KcmError) as info:
                await encrypt(app, tenant, [b"y"] * 1000)
            assert info.value.retryable
            assert processes.is_running(core.process)
            # The backup is restored, and nobody has to start anything.
            await one_core.provision()
            for message in stored:
                await put(operator, message.subject, message.data)
            await one_core.serves(core)
        assert (await decrypt(app, tenant, sealed)).plaintexts == [b"x"]


async def _sequences(broker, stream):
    state = (await broker.stream_info(stream)).state
    return range(state.first_seq, state.last_seq + 1)


async def test_a_core_does_not_serve_from_a_stream_that_may_be_emptied(one_core):
    async with one_core.operator() as operator:
        broker = operator.jetstream()
        config = (await broker.stream_info(CONTROL_STREAM)).config
        await broker.update_stream(replace(config, max_msgs=1))
        one_core.sigkill(CORE)
        with pytest.raises(ProcessDiedError, match=r"KCM_CONTROL: max_msgs .*provision the region"):
            await one_core.restart(CORE)
        await one_core.provision()
    await one_core.restart(CORE)


async def test_wrapped_keys_come_back_from_the_second_store(one_core):
    tenant = await one_core.tenant(kind="softkey")
    async with one_core.app() as app:
        sealed = (await encrypt(app, tenant, [b"x"])).records
        async with one_core.visitor(Account.VAULT) as vault:
            broker = vault.jetstream()
            config = (await broker.stream_info("KV_kcm-keys")).config
            await broker.delete_stream("KV_kcm-keys")
            await broker.add_stream(config)
        one_core.sigkill(CORE)
        await one_core.restart(CORE)

        async def opens():
            return await _codes(app, tenant, sealed) == {Code.OK} or not (
                await _codes(app, tenant, sealed)
            )

        await eventually(opens)
        assert (await decrypt(app, tenant, sealed)).plaintexts == [b"x"]


async def test_a_hold_outlives_the_stream_and_everybody_who_knew_it(fragile):
    tenant = await fragile.tenant(regions=(EU,), kind="softkey")
    async with fragile.app() as app:
        sealed = (await encrypt(app, tenant, [b"x"])).records
        async with Admin.open(fragile.context) as admin:
            kills = Kills(admin, [EU])
            hold = kills.make("tenant", tenant, "test")
            await kills.place(hold, admin.around.clock.elapsed() + 20)
        kept = fragile.directory / "state" / CORE / "holds"
        await until(lambda: any(kept.iterdir()))
        # The other region, which was told too, is gone as well.
        for name in (CORE, GATEWAY, f"core-{US}-1"):
            fragile.sigkill(name)
        async with fragile.operator() as operator:
            broker = operator.jetstream()
            config = (await broker.stream_info(CONTROL_STREAM)).config
            await broker.delete_stream(CONTROL_STREAM)
            await broker.add_stream(config)
        for name in (CORE, GATEWAY):
            await fragile.restart(name)
        assert await _codes(app, tenant, sealed) == {Code.TENANT_KILLED}


async def test_a_root_key_that_cannot_be_reached_unloads_and_comes_back(one_core):
    tenant = await one_core.tenant(kind="softkey")
    state = one_core.directory / "l1" / tenant / "state"
    async with one_core.app() as app:
        sealed = (await encrypt(app, tenant, [b"x"])).records
        state.write_text("unreachable\n")
        one_core.sigkill(CORE)
        await one_core.restart(CORE)
        assert await _codes(app, tenant, sealed) == {Code.TENANT_UNAVAILABLE}
        state.write_text("enabled\n")
        assert (await decrypt(app, tenant, sealed)).plaintexts == [b"x"]


async def test_a_stolen_store_is_no_use_in_another_region(fragile):
    """The wrapped keys of one region, copied into the other one's second store, open nothing."""
    tenant = await fragile.tenant(regions=(EU,), kind="softkey")
    store = fragile.directory / "keystore"
    for path in (store / EU).iterdir():
        shutil.copytree(path, store / US / path.name, dirs_exist_ok=True)
    async with fragile.app(US) as app:
        with pytest.raises(KcmError) as info:
            await encrypt(app, tenant, [b"x"], region=US)
        assert info.value.code is Code.UNKNOWN_TENANT


async def test_a_core_that_hangs_costs_an_operator_two_seconds(two_cores):
    """The client has sessions with both Cores: what it asks the stopped one goes to the other."""
    rows = {row["name"]: row for row in system.status(two_cores.directory)}
    hanging = f"core-{EU}-2"
    async with Admin.open(two_cores.context) as admin:
        for core in admin.cores(EU):
            await admin.key_use(EU, core)
        os.kill(rows[hanging]["pid"], signal.SIGSTOP)
        try:
            for _ in range(4):
                started = admin.around.clock.elapsed()
                await admin.tenants(EU)
                assert admin.around.clock.elapsed() - started < AGAIN_S + OPEN_S + 1
        finally:
            os.kill(rows[hanging]["pid"], signal.SIGCONT)
