"""An attacker with a broker client's rights: old records, an empty bucket, junk in the stream."""

import os

import pytest
from kcm import Admin
from kcm._internal import statements
from kcm_broker.roles import Account
from kcm_runtime.nats.streams import last, put
from kcm_schemas import limits, subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.signed import Kind, Signature, Signed

from tests.integration.living import EU, decrypt, encrypt, eventually

GATEWAY = f"gateway-{EU}-1"
REGISTRY = subjects.bucket_stream(subjects.REGISTRY_BUCKET)
BOMB = (b"\xdc" + limits.ITEMS_MAX.to_bytes(2, "big")) * 1000


async def relink(living, tenant):
    """Move a tenant to another root key, in all regions; returns the key's link."""
    regions = living.options.regions
    link = f"{tenant}-b"
    uri = living.keys.create(link, "softkey")
    async with Admin.open(living.context) as admin:
        one = statements.link(admin.identity, link, uri=uri, model="byok")
        moved = statements.tenant(
            admin.identity, tenant, link=link, regions=regions, region_quorum="all", revision=2
        )
        for region in regions:
            await admin.put_link(region, one)
            await admin.put(region, "tenant", moved)
    return link


async def restart_gateway(living):
    living.sigkill(GATEWAY)
    await living.restart(GATEWAY)


async def test_a_record_that_is_put_back_deceives_nobody(living):
    """With the old entry a Gateway that starts would not be reached by a kill of the new link."""
    tenant = await living.tenant(kind="softkey")
    subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, "tenant", tenant)
    async with living.app() as app, living.as_core(Account.REGION) as bus:
        old = await last(bus, REGISTRY, subject)
        link = await relink(living, tenant)
        new = await last(bus, REGISTRY, subject)
        sealed = (await encrypt(app, tenant, [b"x"])).records
        await put(bus, subject, old.data)
        await restart_gateway(living)

        async def repaired():
            found = await last(bus, REGISTRY, subject)
            return found is not None and found.data == new.data

        await eventually(repaired)
        hold_id = await living.kill(link, scope="link")
        for work in (encrypt(app, tenant, [b"y"]), decrypt(app, tenant, sealed)):
            with pytest.raises(KcmError) as info:
                await work
            assert info.value.code is Code.TENANT_KILLED
        await living.lift(hold_id)

        async def opens():
            try:
                return (await decrypt(app, tenant, sealed)).plaintexts == [b"x"]
            except KcmError as error:
                assert error.retryable
                return False

        await eventually(opens)


async def test_an_empty_bucket_is_no_empty_system(living):
    tenant = await living.tenant(kind="softkey")
    subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, "tenant", tenant)
    async with living.app() as app, living.as_core(Account.REGION) as bus:
        sealed = (await encrypt(app, tenant, [b"x"])).records
        good = await last(bus, REGISTRY, subject)
        await put(bus, subject, b"")  # as a delete marker is
        await restart_gateway(living)

        async def opens():
            try:
                return (await decrypt(app, tenant, sealed)).plaintexts == [b"x"]
            except KcmError as error:
                assert error.code in {Code.UNAVAILABLE, Code.UNKNOWN_TENANT}
                return False

        await eventually(opens)
        assert (await last(bus, REGISTRY, subject)).data == good.data


async def test_junk_in_the_control_stream_delays_no_incarnation_and_goes(living):
    """Bombs and forged statements, under the subjects of holds and leases."""
    tenant = await living.tenant(kind="softkey")
    signature = Signature(signer=f"core-{EU}-1", signature=os.urandom(64))
    places = []
    async with living.app() as app, living.as_core(Account.REGION) as bus:
        for number in range(100):
            hold_id = os.urandom(limits.ID_SIZE)
            places.append(subjects.control_hold(EU, "tenant", hold_id))
            await put(bus, places[-1], BOMB)
            forged = Signed(
                system="dev", kind=Kind.HOLD, body=b"%d" % number, signatures=[signature]
            )
            await put(bus, subjects.control_hold(EU, "tenant", os.urandom(16)), encode(forged))
        await restart_gateway(living)
        assert (await encrypt(app, tenant, [b"x"])).records

        async def gone():
            found = [await last(bus, subjects.CONTROL_STREAM, place) for place in places]
            return not any(one is not None and one.data for one in found)

        await eventually(gone)
        hold_id = await living.kill(tenant)
        await living.lift(hold_id)
