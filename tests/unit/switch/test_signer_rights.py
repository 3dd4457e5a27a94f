"""A roster by which more counts than before: the stream is replayed for it."""

import pytest
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Operator, OperatorRole, Roster

from tests.fakes.virtual import let_pass, until
from tests.unit.switch.roster_rig import (
    FIRST,
    removed,
    rosters,
    signed,
)
from tests.unit.switch.roster_steps import said
from tests.unit.switch.statements import LINK, held, hold, tenant
from tests.vectors.families.messages import identity

# Somebody who may say more


def joined(name: str, *, version: int = 2) -> Roster:
    """The roster on which an operator is new."""
    fresh = Operator(operator=name, roles=[OperatorRole.SECURITY], public_key=identity(name).public)
    update = {"version": version, "operators": [*FIRST.operators, fresh]}
    return FIRST.model_copy(update=update)


@pytest.fixture
async def pair(system):
    """A Core and a Gateway of one region that serve a tenant, and hear no broadcast."""
    core = system.core("core-eu-1", rosters=rosters())
    gateway = system.incarnation("gw-eu-1", rosters=rosters())
    for one in (core, gateway):
        one.learn(LINK, tenant(regions=["eu"]))
    await core.start(watch=False, regions=False)
    await gateway.start()
    system.wire.loses = lambda _sender, _receiver, subject: ".hold." in subject
    return core, gateway


async def test_a_hold_below_the_roster_by_which_it_counts_is_read_again(pair):
    core, gateway = pair
    one = hold()
    place = subjects.control_hold("eu", "tenant", one.id)
    core.stream.store(place, held(one, "fresh"))
    await until(lambda: gateway.count("trust.refused"))
    assert gateway.admission.admit("acme", gateway.clock.elapsed())
    core.me.rosters.take(signed(joined("fresh")))
    await until(lambda: gateway.revocations.killed("acme"))
    await until(lambda: core.switch.durable_at(one.id))
    assert core.stream.entries[place].data == held(one, "fresh")
    await until(lambda: said(gateway, core) == 2)


async def test_until_it_is_read_again_nobody_is_counted_out(pair):
    """The Gateway has the roster, and has not read what it lets count."""
    core, gateway = pair
    one = hold()
    core.stream.store(subjects.control_hold("eu", "tenant", one.id), held(one, "fresh"))
    await until(lambda: gateway.count("trust.refused"))
    follow = gateway.log.follow

    class Stuck:
        async def start(self) -> None:
            raise KcmError(Code.UNAVAILABLE, "no consumer is made")

        async def close(self) -> None:
            return

    gateway.log.follow = lambda _: Stuck()
    core.me.rosters.take(signed(joined("fresh")))
    await until(lambda: gateway.me.rosters.version == 2)
    await until(lambda: core.switch.durable_at(one.id))
    await let_pass(60)
    assert said(gateway, core) == 1
    assert not (await core.kills.status(one.id)).complete
    gateway.log.follow = follow
    await until(lambda: gateway.revocations.killed("acme"))
    await let_pass(10)
    assert (await core.kills.status(one.id)).complete


async def test_who_is_only_retired_or_removed_costs_no_reading(pair):
    core, gateway = pair
    core.me.rosters.take(signed(removed("security-2")))
    await until(lambda: said(gateway, core) == 2)
    assert gateway.me.rosters.more is False
    assert gateway.switch.reader.replay.begun == 0


async def test_a_receipt_from_before_a_hold_ended_is_worth_nothing(pair):
    core, gateway = pair
    one = hold()
    core.switch.issue(core.switch.verify(held(one, "security-2")))
    await until(lambda: gateway.revocations.killed("acme"))
    await until(lambda: core.kills.receipts.of(one.id))
    core.me.rosters.take(signed(removed("security-2")))
    await until(lambda: not gateway.revocations.killed("acme"))
    assert not core.kills.receipts.of(one.id)
    core.me.rosters.take(signed(FIRST.model_copy(update={"version": 3})))
    await until(lambda: core.revocations.killed("acme"))
    await until(lambda: gateway.revocations.killed("acme"))
    await until(lambda: said(gateway, core) == 3)


async def test_no_peer_lease_names_a_hold_that_nobody_believes_any_more(pair):
    core, _ = pair
    one = hold()
    core.switch.issue(core.switch.verify(held(one, "security-2")))
    await until(lambda: core.switch.highest_hold().nonce == one.id)
    core.me.rosters.take(signed(removed("security-2")))
    assert core.switch.highest_hold().nonce != one.id
    assert not core.switch.durable_at(one.id)
