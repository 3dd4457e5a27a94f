"""The kill switch over real processes: everyone hears it, nobody else notices, nothing is lost."""

import asyncio
import os

import pytest
from kcm import Admin
from kcm._internal import statements
from kcm_broker.roles import Account
from kcm_devsystem.identities import SYSTEM
from kcm_runtime.files.identity_file import create_identity, load_identity
from kcm_runtime.nats.streams import last
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.signed import Kind
from kcm_trust.verify import Verifier

from tests.integration.living import EU, US, decrypt, encrypt, eventually, now_ms


async def is_dark(app, tenant, records, region=EU):
    try:
        done = await decrypt(app, tenant, records, region=region)
    except KcmError as error:
        return error.code is Code.TENANT_KILLED
    return set(done.codes) == {Code.TENANT_KILLED}


async def stored_hold(living, region, hold_id, scope="tenant"):
    async with living.operator(region) as connection:
        subject = subjects.control_hold(region, scope, hold_id)
        return await last(connection, subjects.CONTROL_STREAM, subject)


async def test_a_kill_is_heard_everywhere_and_by_nobody_else(living):
    killed, other = await living.tenant(), await living.tenant()
    async with living.app(EU) as eu, living.app(US) as us:
        at_home = (await encrypt(eu, killed, [b"a"])).records
        abroad = (await encrypt(us, killed, [b"b"], region=US)).records
        spared = (await encrypt(eu, other, [b"c"])).records
        hold_id = await living.kill(killed)
        assert await is_dark(eu, killed, at_home)
        assert await is_dark(us, killed, abroad, US)
        with pytest.raises(KcmError, match="tenant_killed"):
            await encrypt(eu, killed, [b"x"])
        assert (await decrypt(eu, other, spared)).plaintexts == [b"c"]
        # It is in both regions' streams, so no restart forgets it.
        for region in (EU, US):
            assert (await stored_hold(living, region, hold_id)) is not None
        await living.lift(hold_id)
        assert (await decrypt(eu, killed, at_home)).plaintexts == [b"a"]
        assert (await decrypt(us, killed, abroad, region=US)).plaintexts == [b"b"]


async def test_every_incarnation_sends_a_signed_receipt(living):
    tenant = await living.tenant(kind="softkey")
    verifier, seen = living.context.verifier(), {}
    async with living.as_core(Account.CONTROL) as control:

        async def on_receipt(message):
            receipt = verifier.receipt(message.data)
            seen.setdefault(receipt.hold_id, {})[receipt.instance] = receipt

        await control.subscribe(subjects.receipts(), on_receipt)
        await control.flush()
        hold_id = await living.kill(tenant)
        expected = {m.name for m in living.options.members if m.role.value != "auditor"}

        async def all_here():
            return set(seen.get(hold_id, {})) == expected

        await eventually(all_here)
    await living.lift(hold_id)


async def test_two_operators_at_once_and_each_hold_needs_its_own_lift(living):
    tenant = await living.tenant(kind="softkey")
    async with living.app() as app:
        sealed = (await encrypt(app, tenant, [b"x"])).records
        first, second = await asyncio.gather(
            living.kill(tenant, region=EU), living.kill(tenant, region=US)
        )
        await living.lift(first)
        assert await is_dark(app, tenant, sealed)
        await living.lift(second)
        assert (await decrypt(app, tenant, sealed)).plaintexts == [b"x"]


async def test_a_kill_of_a_link_reaches_its_tenants(living):
    tenant = await living.tenant(kind="softkey")
    async with living.app() as app:
        sealed = (await encrypt(app, tenant, [b"x"])).records
        hold_id = await living.kill(tenant, scope="link")
        assert await is_dark(app, tenant, sealed)
        await living.lift(hold_id)
        assert (await decrypt(app, tenant, sealed)).plaintexts == [b"x"]


async def test_a_hold_that_nobody_may_sign_changes_nothing(living, tmp_path):
    tenant = await living.tenant(kind="softkey")
    mallory = create_identity("operator", str(tmp_path / "key"), SYSTEM)
    hold_id, forged = statements.hold(
        mallory, scope="tenant", target=tenant, origin=EU, issued_ms=now_ms(), reason="",
        salt=os.urandom(16),
    )  # fmt: skip
    async with living.app() as app, living.as_core(Account.CONTROL) as control:
        sealed = (await encrypt(app, tenant, [b"x"])).records
        for raw in (forged, forged[:-1], b"", b"\xff" * 200):
            await control.publish(subjects.broadcast_hold(EU, "tenant", hold_id), raw)
        await control.flush()
        async with Admin.open(living.context) as admin:
            with pytest.raises(KcmError) as info:
                await admin.put_hold(EU, forged)
            assert info.value.code is Code.FORBIDDEN
        assert (await decrypt(app, tenant, sealed)).plaintexts == [b"x"]


async def test_a_hold_replayed_after_its_lift_changes_nothing(living):
    tenant = await living.tenant(kind="softkey")
    async with living.app() as app, living.as_core(Account.CONTROL) as control:
        sealed = (await encrypt(app, tenant, [b"x"])).records
        hold_id = await living.kill(tenant)
        held = await stored_hold(living, EU, hold_id)
        await living.lift(hold_id)
        await control.publish(subjects.broadcast_hold(EU, "tenant", hold_id), held.data)
        async with Admin.open(living.context) as admin:
            status = await admin.put_hold(US, held.data)
        assert status.lifted
        assert (await decrypt(app, tenant, sealed)).plaintexts == [b"x"]
        # Written over the lift in the stream, it is joined again and the lift is written back.
        from kcm_runtime.nats.streams import put

        async with living.operator() as connection:
            await put(connection, subjects.control_hold(EU, "tenant", hold_id), held.data)

        async def healed():
            return (await stored_hold(living, EU, hold_id)).data != held.data

        await eventually(healed)
        assert (await decrypt(app, tenant, sealed)).plaintexts == [b"x"]


async def test_a_lift_by_somebody_else_is_refused(living, tmp_path):
    tenant = await living.tenant(kind="softkey")
    hold_id = await living.kill(tenant)
    held = await stored_hold(living, EU, hold_id)
    mallory = create_identity("operator", str(tmp_path / "key"), SYSTEM)
    forged = statements.lift(mallory, held.data, issued_ms=now_ms(), reason="")
    gateway = load_identity(
        f"gateway-{EU}-1", str(living.directory / "keys" / f"gateway-{EU}-1"), SYSTEM
    )
    from kcm_schemas.control import Lift

    insider = encode(gateway.sign(Kind.LIFT, Lift(hold=held.data, issued_ms=now_ms(), reason="")))
    async with Admin.open(living.context) as admin, living.app() as app:
        for raw in (forged, insider):
            with pytest.raises(KcmError) as info:
                await admin.put_hold(EU, raw)
            assert info.value.code is Code.FORBIDDEN
        with pytest.raises(KcmError, match="tenant_killed"):
            await encrypt(app, tenant, [b"x"])
    await living.lift(hold_id)


async def test_a_preview_changes_nothing(living):
    tenant = await living.tenant(kind="softkey")
    async with Admin.open(living.context) as admin, living.app() as app:
        radius = await admin.preview(EU, "tenant", tenant)
        assert radius.tenants == [tenant]
        assert radius.regions == [EU, US]
        assert {incarnation.region for incarnation in radius.incarnations} == {EU, US}
        assert (await encrypt(app, tenant, [b"x"])).codes == []


async def test_traffic_during_kills_and_lifts_is_right_or_refused(living):
    """Many tasks, one tenant killed and lifted again and again: no wrong byte ever."""
    tenant, other = await living.tenant(kind="softkey"), await living.tenant(kind="softkey")
    stop, served, refused = asyncio.Event(), 0, 0

    async def work(app, name):
        nonlocal served, refused
        while not stop.is_set():
            try:
                sealed = (await encrypt(app, name, [b"p"] * 8)).records
                done = await decrypt(app, name, sealed)
                assert done.plaintexts == [b"p"] * 8
                served += 1
            except KcmError as error:
                assert name == tenant
                assert error.code is Code.TENANT_KILLED
                refused += 1
                await asyncio.sleep(0.001)

    async with living.app() as app, asyncio.TaskGroup() as group:
        for name in (tenant, tenant, other):
            group.create_task(work(app, name))
        for region in (EU, US, EU):
            before = served
            hold_id = await living.kill(tenant, region=region)
            with pytest.raises(KcmError, match="tenant_killed"):
                await encrypt(app, tenant, [b"x"])
            await living.lift(hold_id)

            async def served_again(before=before):
                return served > before + 3

            await eventually(served_again)
        stop.set()
    assert refused > 0


def test_the_roster_is_what_the_root_signed(living):
    assert isinstance(living.context.verifier(), Verifier)
