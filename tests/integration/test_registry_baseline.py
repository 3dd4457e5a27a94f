"""Cores whose disks are new: they join by themselves, or an operator says what the registry is."""

from __future__ import annotations

import shutil
from contextlib import suppress

import pytest
from kcm import Admin
from kcm.errors import Conflict
from kcm_broker.roles import Account
from kcm_runtime.nats.streams import last, put
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.signed import Kind, read_signed

from tests.integration.living import EU, decrypt, encrypt, eventually
from tests.integration.test_hostile_store import REGISTRY, relink

pytestmark = pytest.mark.slow

ONE, TWO = f"core-{EU}-1", f"core-{EU}-2"


def forget(living, core):
    """The Core's machine gets a new disk."""
    shutil.rmtree(living.directory / "state" / core)


def floors_of(living, core):
    return living.directory / "state" / core / "registry-floors"


def second_store(living, tenant):
    return living.directory / "keystore" / EU / f"registry.tenant.{tenant}"


async def views(living, region=EU):
    async with Admin.open(living.context) as admin:
        return {core: await admin.registry(region, core) for core in admin.cores(region)}


async def remembers(living, *cores):
    found = await views(living)
    return all(found[core].baseline for core in cores)


async def set_back(living, tenant):
    """Bucket and second store go back to before a tenant's last record; returns that one."""
    subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, "tenant", tenant)
    newest = max(second_store(living, tenant).iterdir())
    async with living.as_core(Account.REGION) as bus:
        new = (await last(bus, REGISTRY, subject)).data
        newest.unlink()
        await put(bus, subject, min(second_store(living, tenant).iterdir()).read_bytes())
    return new


async def refused(app, tenant):
    """The code with which a data request is refused; none when it is served."""
    try:
        await encrypt(app, tenant, [b"x"])
    except KcmError as error:
        return error.code
    return None


async def test_a_core_with_a_new_disk_and_one_that_is_added_join_without_hands(two_cores):
    living = two_cores
    tenant = await living.tenant(kind="softkey")
    living.sigkill(TWO)
    forget(living, TWO)
    await living.restart(TWO)
    await eventually(lambda: remembers(living, ONE, TWO))
    found = await views(living)
    assert found[ONE].digest == found[TWO].digest
    assert f"tenant.{tenant} " in floors_of(living, TWO).read_text()
    living.sigkill(ONE)
    async with living.app() as app:

        async def served():
            return await refused(app, tenant) is None

        await eventually(served)  # by the one that joined, alone


async def test_both_stores_set_back_are_repaired_by_the_core_that_remembers(two_cores):
    living = two_cores
    tenant = await living.tenant(kind="softkey")
    await relink(living, tenant)
    subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, "tenant", tenant)
    living.sigkill(TWO)
    forget(living, TWO)
    new = await set_back(living, tenant)
    await living.restart(TWO)

    async def repaired():
        async with living.as_core(Account.REGION) as bus:
            found = await last(bus, REGISTRY, subject)
        return found is not None and found.data == new and await remembers(living, ONE, TWO)

    await eventually(repaired, within_s=60)

    async def copied():
        return len(list(second_store(living, tenant).iterdir())) == 2

    await eventually(copied)
    found = await views(living)
    assert found[ONE].digest == found[TWO].digest


async def test_a_region_without_any_baseline_is_dark_until_somebody_adopts(two_cores):
    living = two_cores
    tenant = await living.tenant(kind="softkey")
    async with living.app() as app:
        assert await refused(app, tenant) is None
        link = await relink(living, tenant)
        for core in (ONE, TWO):
            living.sigkill(core)
            forget(living, core)
        new = await set_back(living, tenant)
        for _ in range(2):  # a restart is no baseline
            for core in (ONE, TWO):
                await living.restart(core)
            found = await views(living)
            assert not found[ONE].baseline
            assert not found[TWO].baseline
            assert found[ONE].waits.startswith("no Core of the region")
            assert not floors_of(living, ONE).exists()
            assert not floors_of(living, TWO).exists()
            for core in (ONE, TWO):
                living.sigkill(core)
        for core in (ONE, TWO):
            await living.restart(core)

        async def dark():
            return await refused(app, tenant) is Code.UNAVAILABLE

        await eventually(dark)  # what the Gateway has in its pool ends with its lease
        hold = await living.kill(tenant)  # and a kill is complete all the same
        await living.lift(hold)

        async with Admin.open(living.context) as admin:
            with pytest.raises(Conflict, match=found[ONE].digest.hex()):
                await admin.adopt(EU, ONE, bytes(32))
            assert not (await admin.registry(EU, ONE)).baseline
            # What is missing is restored first: here the newest record, into the second store.
            (second_store(living, tenant) / f"{2:020d}").write_bytes(new)
            for core in (ONE, TWO):
                living.sigkill(core)
                await living.restart(core)
            seen = await admin.registry(EU, ONE)
            assert seen.digest != found[ONE].digest
            adopted = await admin.adopt(EU, ONE, seen.digest)
            assert (adopted.baseline, adopted.digest) == (True, seen.digest)
        await eventually(lambda: remembers(living, ONE, TWO))

        async def opens():
            try:
                sealed = (await encrypt(app, tenant, [b"x"])).records
                return (await decrypt(app, tenant, sealed)).plaintexts == [b"x"]
            except KcmError as error:
                assert error.retryable
                return False

        # What incarnations showed that were killed amid a change counts until their leases end.
        await eventually(opens, within_s=60)
        hold = await living.kill(link, scope="link")  # by the record that was adopted
        assert await refused(app, tenant) is Code.TENANT_KILLED
        await living.lift(hold)


async def test_an_answer_that_is_played_once_more_is_not_believed(two_cores):
    living = two_cores
    await living.tenant(kind="softkey")
    heard = []
    async with living.as_core(Account.REGION) as bus:

        async def overhear(message):
            with suppress(KcmError):
                if read_signed(message.data).kind is Kind.REGISTRY_ANSWER:
                    heard.append(message.data)

        async def play(message):
            await bus.publish(message.reply, heard[0])

        await bus.subscribe("_INBOX.>", overhear)
        living.sigkill(TWO)
        forget(living, TWO)
        await living.restart(TWO)
        await eventually(lambda: remembers(living, ONE, TWO))
        assert heard
        for core in (ONE, TWO):
            living.sigkill(core)
            forget(living, core)
        await bus.subscribe(subjects.registry_question(EU), play)
        await living.restart(ONE)
        async with Admin.open(living.context) as admin:

            async def disbelieved():
                return "not believed" in (await admin.registry(EU, ONE)).waits

            await eventually(disbelieved)
            assert not (await admin.registry(EU, ONE)).baseline
        assert not floors_of(living, ONE).exists()
