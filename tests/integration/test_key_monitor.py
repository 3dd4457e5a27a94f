"""A customer's key refuses, is silent, and comes back, over real processes with short leases."""

from __future__ import annotations

import pytest
from kcm import Admin
from kcm._internal.kills import Kills
from kcm_devsystem import system
from kcm_killswitch.model.timing import Timing
from kcm_schemas.codes import Code, KcmError

from tests.integration.living import EU, US, Living, decrypt, encrypt, eventually

SHORT = Timing(
    control_lease_s=6.0, renew_every_s=1.0, l1_lease_s=4.0, probe_interval_s=0.5, settle_s=2.0
)


@pytest.fixture(scope="module")
def living(tmp_path_factory):
    options = system.Options(
        tmp_path_factory.mktemp("key-monitor"),
        cores=2,
        timing=SHORT,
        die_with_parent=True,
        visitor=True,
    )
    state = system.up(options)
    try:
        made = Living(options, state)
        made.allow()
        yield made
    finally:
        system.down(options.directory)


def say(living: Living, tenant: str, state: str) -> None:
    (living.directory / "l1" / tenant / "state").write_text(f"{state}\n")


async def code(app, tenant, records, region=EU) -> Code:
    """What a tenant's records answer in a region."""
    try:
        done = await decrypt(app, tenant, records, region=region)
    except KcmError as error:
        return error.code
    return done.codes[0] if done.codes else Code.OK


async def holds_of(living: Living, link: str) -> list[bool]:
    """Whether each hold on a link was lifted."""
    async with Admin.open(living.context) as admin:
        kills = Kills(admin, list(living.context.regions))
        listing = await kills.listing(everything=True)
    return [view.lifted for view in listing if view.target == link]


async def test_a_key_that_refuses_darkens_every_region_and_one_that_settles_opens_it(living):
    killed = await living.tenant(kind="softkey")
    other = await living.tenant(kind="softkey")
    async with living.app(EU) as eu, living.app(US) as us:
        at_home = (await encrypt(eu, killed, [b"a"])).records
        abroad = (await encrypt(us, killed, [b"b"], region=US)).records
        spared = (await encrypt(eu, other, [b"c"])).records
        say(living, killed, "disabled")

        async def dark() -> bool:
            found = {await code(eu, killed, at_home), await code(us, killed, abroad, US)}
            return found == {Code.TENANT_KILLED}

        await eventually(dark)
        assert await code(eu, other, spared) is Code.OK
        assert not all(await holds_of(living, killed))
        say(living, killed, "enabled")

        async def open_again() -> bool:
            found = {await code(eu, killed, at_home), await code(us, killed, abroad, US)}
            return found == {Code.OK}

        await eventually(open_again, within_s=40)
        assert all(await holds_of(living, killed))


async def test_a_key_that_is_silent_unloads_and_holds_nobody(living):
    tenant = await living.tenant(kind="softkey")
    async with living.app(EU) as eu:
        records = (await encrypt(eu, tenant, [b"a"])).records
        say(living, tenant, "unreachable")

        async def sealed() -> bool:
            return await code(eu, tenant, records) is Code.TENANT_UNAVAILABLE

        await eventually(sealed, within_s=40)
        assert await holds_of(living, tenant) == []
        say(living, tenant, "enabled")

        async def open_again() -> bool:
            return await code(eu, tenant, records) is Code.OK

        await eventually(open_again, within_s=40)
