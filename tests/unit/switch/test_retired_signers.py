"""What a retired signer signed: it counts as far as the endorsements list it."""

import asyncio
from typing import Any

import pytest
from kcm_runtime.config import ConfigError
from kcm_runtime.instance import InstanceContext
from kcm_runtime.roster.store import Rosters
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_trust.endorsements import pages
from kcm_trust.statements import lift
from kcm_trust.verify import Untrusted

from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.roster_rig import (
    ROOT_KEY,
    listing,
    removed,
    rosters,
    signed,
    without,
)
from tests.unit.switch.statements import LINK, VERIFIER, held, hold, lifted, tenant
from tests.vectors.families.messages import identity


async def test_a_lift_that_is_not_listed_makes_its_hold_held_again(incarnation):
    await incarnation.start()
    one = hold()
    incarnation.switch.learn(lifted(one))
    await until(lambda: incarnation.switch.durable_at(one.id))
    assert not incarnation.revocations.killed("acme")
    incarnation.purged.clear()
    incarnation.me.rosters.take(signed(without("security")))
    # At once: nothing was waited for.
    assert incarnation.purged == ["acme"]
    assert incarnation.revocations.killed("acme")
    place = subjects.control_hold("eu", "tenant", one.id)
    await until(lambda: incarnation.stream.entries[place].data == held(one))
    assert incarnation.switch.durable_at(one.id)


async def test_a_lift_that_is_listed_stays_and_nobody_is_purged(incarnation):
    await incarnation.start()
    one = hold()
    endorsements = listing(lifted(one))
    incarnation.switch.learn(lifted(one))
    for page, raw in enumerate(pages(endorsements)):
        incarnation.stream.store(subjects.control_endorsements("eu", "security", page), raw)
    await settled()
    incarnation.purged.clear()
    incarnation.stream.store(
        subjects.control_roster("eu"), signed(without("security", endorsements))
    )
    await until(lambda: incarnation.me.rosters.version == 2)
    assert not incarnation.revocations.killed("acme")
    assert incarnation.purged == []


async def test_a_new_lift_of_somebody_retired_counts_nowhere(system, incarnation):
    other = system.incarnation("gw-eu-1", rosters=rosters())
    other.learn(LINK, tenant())
    await asyncio.gather(incarnation.start(), other.start())
    one = hold()
    incarnation.switch.learn(held(one))
    await until(lambda: other.revocations.killed("acme"))
    incarnation.me.rosters.take(signed(without("security")))
    await until(lambda: other.me.rosters.version == 2)
    await system.wire.join("thief").publish(
        subjects.broadcast_hold("eu", "tenant", one.id), lifted(one)
    )
    incarnation.stream.store(subjects.control_hold("eu", "tenant", one.id), lifted(one))
    await settled()
    assert incarnation.revocations.killed("acme")
    assert other.revocations.killed("acme")
    place = subjects.control_hold("eu", "tenant", one.id)
    await until(lambda: incarnation.stream.entries[place].data == held(one))
    assert incarnation.count("trust.refused")


async def test_cores_with_different_rosters_do_not_write_over_each_other_at_once(
    system, incarnation
):
    """One of them judges by a roster that the other one cannot take."""
    other = system.incarnation("core-eu-2")
    other.learn(LINK, tenant())
    await asyncio.gather(incarnation.start(), other.start())
    incarnation.me.rosters.take(signed(without("security")))
    one = hold()
    raw = held(one, "security-2")
    by_retired = lift(identity("security"), raw, issued_ms=9, reason="")
    for core in (incarnation, other):
        core.switch.learn(raw)
        core.switch.learn(by_retired)
    assert incarnation.revocations.killed("acme")
    assert not other.revocations.killed("acme")
    began = asyncio.get_running_loop().time()
    place = subjects.control_hold("eu", "tenant", one.id)
    await let_pass(60)
    wrote = [entry for entry in incarnation.stream.history if entry.subject == place]
    assert asyncio.get_running_loop().time() - began >= 60
    assert len(wrote) <= 64
    for core in (incarnation, other):
        await until(lambda core=core: core.switch.durable_at(one.id))


async def test_who_hears_a_lift_alone_that_does_not_count_knows_the_hold(system):
    """Else an incarnation that began now would serve whom every other one holds."""
    gateway = system.incarnation("gw-eu-1", rosters=rosters())
    gateway.learn(LINK, tenant())
    one = hold()
    gateway.stream.store(subjects.control_roster("eu"), signed(without("security")))
    gateway.stream.store(subjects.control_hold("eu", "tenant", one.id), lifted(one))
    await gateway.start()
    assert gateway.revocations.killed("acme")


async def test_a_hold_of_somebody_retired_counts_and_one_of_somebody_removed_does_not(incarnation):
    await incarnation.start()
    one = hold()
    incarnation.switch.learn(held(one))
    incarnation.me.rosters.take(signed(without("security")))
    assert incarnation.revocations.killed("acme")
    later = hold(target="beta")
    incarnation.switch.learn(held(later))
    assert incarnation.revocations.killed("beta")
    gone = removed("security").model_copy(update={"version": 3})
    incarnation.me.rosters.take(signed(gone))
    assert not incarnation.revocations.killed("acme")
    assert not incarnation.revocations.killed("beta")
    with pytest.raises(Untrusted):
        incarnation.switch.learn(held(later))


async def test_the_order_of_roster_list_hold_and_lift_does_not_matter(system, incarnation):
    """Belief is a function of the statements and the highest roster."""
    one, other = hold(), hold()
    endorsements = listing(lifted(one))
    said: dict[str, Any] = {
        "roster": lambda to: to.me.rosters.take(signed(without("security", endorsements))),
        "list": lambda to: to.me.rosters.take_list("security", endorsements.raw()),
        "listed": lambda to: to.switch.learn(lifted(one)),
        "unlisted": lambda to: to.switch.learn(lifted(other)),
    }
    orders = (
        ("roster", "list", "listed", "unlisted"),
        ("listed", "unlisted", "roster", "list"),
        ("roster", "unlisted", "listed", "list"),
        ("listed", "roster", "list", "unlisted"),
        ("unlisted", "roster", "listed", "list"),
    )
    ends = set()
    for order in orders:
        to = system.incarnation("gw-eu-1", rosters=rosters())
        for what in order:
            said[what](to)
        ends.add(to.revocations.holds.digest)
        assert [r.lifted for r in map(to.revocations.holds.get, (one.id, other.id)) if r] == [
            True,
            False,
        ]
    assert len(ends) == 1


async def test_a_list_that_comes_after_its_roster_is_fetched(incarnation):
    await incarnation.start()
    one = hold()
    endorsements = listing(lifted(one))
    incarnation.switch.learn(lifted(one))
    incarnation.me.rosters.take(signed(without("security", endorsements)))
    assert incarnation.revocations.killed("acme")
    incarnation.stream.store(subjects.control_endorsements("eu", "security", 0), endorsements.raw())
    await until(lambda: not incarnation.revocations.killed("acme"))


async def test_pages_that_are_not_the_list_bring_nothing_to_life(incarnation):
    await incarnation.start()
    one = hold()
    incarnation.switch.learn(lifted(one))
    incarnation.me.rosters.take(signed(without("security", listing(lifted(hold())))))
    for name, raw in (("security", listing(lifted(one)).raw()), ("nobody", b"\0" * 32)):
        incarnation.stream.store(subjects.control_endorsements("eu", name, 0), raw)
    await settled()
    assert incarnation.revocations.killed("acme")


async def test_who_is_retired_purges_and_serves_nothing_any_more(system, incarnation):
    await incarnation.start()
    assert incarnation.live()
    incarnation.purged.clear()
    incarnation.me.rosters.take(signed(without("core-eu-1")))
    assert incarnation.purged == ["acme"]
    assert not incarnation.live()
    assert not incarnation.me.acts
    assert incarnation.count("instance.retired") == 1
    await settled()
    with pytest.raises(KcmError) as refused:
        await incarnation.switch.renew()
    assert refused.value.code is Code.UNAVAILABLE
    assert not incarnation.live()
    again = system.incarnation("core-eu-1", rosters=rosters())
    again.stream.store(subjects.control_roster("eu"), signed(without("core-eu-1")))
    with pytest.raises(ConfigError, match="retired"):
        await again.start()


async def test_holds_are_compared_between_equal_rosters_only(system, incarnation):
    """Else a roster on its way would have everybody read everything again."""
    other = system.incarnation("core-eu-2")
    await asyncio.gather(incarnation.start(), other.start())
    incarnation.learn(LINK)
    incarnation.switch.learn(lifted(hold()))
    incarnation.me.rosters.take(signed(without("security")))
    lease = VERIFIER.lease(
        incarnation.stream.entries[
            subjects.control_lease("eu", "core-eu-2", other.me.incarnation)
        ].data
    )
    assert lease.roster == 1
    assert not incarnation.switch.reader.leases.differs(lease, 0.0)
    assert not incarnation.switch.reader.leases.differs(lease, 100.0)


def test_an_instance_context_asks_for_the_roster_of_now():
    rosters = Rosters(VERIFIER, root_public=ROOT_KEY.public)
    me = InstanceContext(identity("gw-eu-1"), VERIFIER.instance("gw-eu-1"), rosters, bytes(16))
    gone = removed("gw-eu-1")
    assert me.acts
    assert me.verifier is VERIFIER
    rosters.take(signed(gone))
    assert not me.acts
    assert me.verifier.roster == gone
    assert me.entry == me.joined


class Counting(type(VERIFIER)):
    """Counts signatures that are checked."""

    checked = 0

    def _holds(self, public, signature, message):
        Counting.checked += 1
        return super()._holds(public, signature, message)


async def test_what_lasts_is_not_verified_again(incarnation, monkeypatch):
    """An operator may have lifted thousands; while they are looked at, a kill waits."""
    monkeypatch.setattr("kcm_runtime.roster.store.Verifier", Counting)
    lifts = [lifted(hold()) for _ in range(5)]
    for raw in lifts:
        incarnation.switch.learn(raw)
    endorsements = listing(*lifts[1:])
    incarnation.me.rosters.lists_from(lambda _name, _said: endorsements.raw())
    Counting.checked = 0
    incarnation.me.rosters.take(signed(without("security", endorsements)))
    assert incarnation.revocations.killed("acme")
    assert sum(record.lifted for record in incarnation.revocations.holds) == 4
    # All of them for the one that is left out.
    assert Counting.checked <= 6


async def test_a_key_that_changed_with_the_retirement_takes_everything_back(incarnation):
    one = hold()
    incarnation.switch.learn(lifted(one))
    endorsements = listing(lifted(one))
    new = without("security", endorsements)
    other = [
        o.model_copy(update={"public_key": identity("other").public})
        if o.operator == "security"
        else o
        for o in new.operators
    ]
    incarnation.me.rosters.lists_from(lambda _name, _said: endorsements.raw())
    incarnation.me.rosters.take(signed(new.model_copy(update={"operators": other})))
    assert len(incarnation.revocations.holds) == 0
