"""Pages whose signer the roster retires or removes: what they ended comes back."""

import asyncio

import pytest

from tests.fakes.virtual import let_pass, until
from tests.unit.switch.page_rig import data, held, lifted, page, put, some
from tests.unit.switch.roster_rig import (
    listing,
    removed,
    rosters,
    signed,
    without,
)
from tests.unit.switch.statements import LINK, at, tenant


async def test_a_page_of_somebody_removed_brings_its_holds_back(system, incarnation):
    """A stolen key lifts a kill and puts it into a page: when the key goes, the kill counts."""
    gateway = system.incarnation("gw-eu-1", rosters=rosters())
    gateway.learn(LINK, tenant())
    one, other = some(2)
    put(incarnation, [one, other], make=held)
    await asyncio.gather(incarnation.start(), gateway.start())
    incarnation.switch.learn(page([one, other], "core-eu-2"))
    await until(lambda: data(incarnation, at(one)) == b"")
    await until(lambda: not gateway.revocations.killed("acme"))
    incarnation.switch.learn(page([other]))
    incarnation.me.rosters.take(signed(removed("core-eu-2")))
    await until(
        lambda: incarnation.revocations.killed("acme") and gateway.revocations.killed("acme")
    )
    await until(lambda: data(incarnation, at(one)) == held(one))
    await until(lambda: incarnation.revocations.holds.digest == gateway.revocations.holds.digest)
    for member in (incarnation, gateway):
        assert [record.hold.id for record in member.revocations.holds] == [one.id]


@pytest.mark.parametrize("listed", [False, True])
async def test_of_somebody_retired_a_page_counts_that_the_root_lists(incarnation, listed):
    one = some(1)[0]
    put(incarnation, [one], make=held)
    await incarnation.start()
    incarnation.switch.learn(page([one], "core-eu-2"))
    endorsements = listing(page([one], "core-eu-2")) if listed else listing()
    incarnation.me.rosters.take(signed(without("core-eu-2", endorsements)))
    if listed:
        await until(lambda: incarnation.revocations.killed("acme"))
        incarnation.me.rosters.take_list("core-eu-2", endorsements.raw())
        assert not incarnation.revocations.killed("acme")
    await let_pass(2)
    assert incarnation.revocations.killed("acme") != listed


async def test_what_comes_back_is_stored_at_once_also_over_its_own_message(
    system, incarnation, monkeypatch
):
    """The message of a paged hold may be there still: others have read it, and read it no more."""
    gateway = system.incarnation("gw-eu-1", rosters=rosters())
    gateway.learn(LINK, tenant())
    one = some(1)[0]
    monkeypatch.setattr("kcm_killswitch.replica.entry_expiry.WAITING_MAX", 0)
    put(incarnation, [one], make=lambda one: lifted(one, "core-eu-2"))
    await asyncio.gather(incarnation.start(), gateway.start())
    incarnation.switch.learn(page([one], "core-eu-2"))
    await until(lambda: gateway.revocations.holds.paged_count)
    incarnation.me.rosters.take(signed(without("core-eu-2")))
    await until(lambda: gateway.me.rosters.version > 1)
    await until(lambda: gateway.revocations.killed("acme"))


async def test_a_hold_that_came_while_its_page_counted_is_read_again(system, incarnation):
    """A Core has the roster first and writes the hold; a Gateway reads that, and then the roster.

    It has ended for the Gateway when it comes. The Core's records show that it knows another one.
    """
    gateway = system.incarnation("gw-eu-1", rosters=rosters())
    gateway.learn(LINK, tenant())
    one = some(1)[0]
    put(incarnation, [one], make=held)
    await asyncio.gather(incarnation.start(), gateway.start())
    incarnation.switch.learn(page([one], "core-eu-2"))
    await until(lambda: data(incarnation, at(one)) == b"")
    gateway.stream.store(at(one), held(one))
    await until(lambda: data(incarnation, at(one)) == b"")
    for member in (incarnation, gateway):
        member.me.rosters.take(signed(without("core-eu-2")))
    await until(
        lambda: incarnation.revocations.killed("acme") and gateway.revocations.killed("acme")
    )
