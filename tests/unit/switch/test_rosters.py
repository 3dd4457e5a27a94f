"""A new roster is taken over while everything runs, and everybody judges anew at once."""

import asyncio
from typing import Any

import pytest
from kcm_runtime.config import ConfigError
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.ports import Entry
from kcm_runtime.roster.store import RosterFiles, Rosters
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Operator, OperatorRole, Roster
from kcm_schemas.signed import Kind, read_signed
from kcm_trust.endorsements import Endorsements, pages
from kcm_trust.envelopes import statement_digest
from kcm_trust.identity import ROOT, Identity
from kcm_trust.statements import lift
from kcm_trust.verify import Untrusted

from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch import rig
from tests.unit.switch.rig import LINK, VERIFIER, Incarnation, held, hold, lifted, tenant
from tests.vectors.families.messages import identity

ROOT_KEY = identity(ROOT)
FIRST = rig.roster()


def signed(roster: Roster) -> bytes:
    return encode(ROOT_KEY.sign(Kind.ROSTER, roster))


def without(name: str, lasting: Endorsements | None = None, *, known: Roster = FIRST) -> Roster:
    """The next roster, in which ``name`` is retired."""
    entry = (lasting or Endorsements()).retirement()
    return known.model_copy(
        update={
            "version": known.version + 1,
            "instances": [
                one.model_copy(update={"retired": entry}) if one.instance == name else one
                for one in known.instances
            ],
            "operators": [
                one.model_copy(update={"retired": entry}) if one.operator == name else one
                for one in known.operators
            ],
        }
    )


def removed(name: str) -> Roster:
    return FIRST.model_copy(
        update={
            "version": 2,
            "operators": [one for one in FIRST.operators if one.operator != name],
            "instances": [one for one in FIRST.instances if one.instance != name],
        }
    )


def listing(*statements: bytes) -> Endorsements:
    return Endorsements(statement_digest(read_signed(raw)) for raw in statements)


def follows_rosters(incarnation: Incarnation, path: Any = None) -> Incarnation:
    """Let an incarnation of the rig take rosters over, as one does that was started from a file."""
    rosters = incarnation.me.rosters
    rosters._root, rosters._raw = ROOT_KEY.public, signed(FIRST)  # type: ignore[misc]
    if path is not None:
        rosters._files = RosterFiles(path)  # type: ignore[misc]
    return incarnation


@pytest.fixture
def incarnation(system):
    made = follows_rosters(system.incarnation("core-eu-1"))
    made.learn(LINK, tenant())
    return made


def stored(incarnation):
    entry = incarnation.stream.entries.get(subjects.control_roster("eu"))
    return None if entry is None else entry.data


async def test_a_core_puts_the_roster_into_the_stream(incarnation):
    await incarnation.start()
    await until(lambda: stored(incarnation) == signed(FIRST))


async def test_an_instance_takes_over_what_a_core_has(system, incarnation):
    gateway = follows_rosters(system.incarnation("gw-eu-1"))
    await asyncio.gather(incarnation.start(), gateway.start())
    incarnation.me.rosters.take(signed(without("security-2")))
    await until(lambda: gateway.me.rosters.version == 2)
    assert stored(incarnation) == signed(without("security-2"))
    assert gateway.live()
    assert incarnation.live()
    assert gateway.count("roster.taken") == 1


@pytest.mark.parametrize("rubbish", [b"", b"\xff" * 9, held(hold()), signed(FIRST)])
async def test_what_somebody_puts_in_its_place_is_replaced(incarnation, rubbish):
    await incarnation.start()
    new = signed(without("security-2"))
    incarnation.me.rosters.take(new)
    await until(lambda: stored(incarnation) == new)
    incarnation.stream.store(subjects.control_roster("eu"), rubbish)
    await until(lambda: stored(incarnation) == new)
    assert incarnation.me.rosters.version == 2


async def test_a_stream_that_lost_the_roster_gets_it_and_the_lists_again(incarnation):
    one = hold()
    lasting = listing(lifted(one, "security-2"))
    new = signed(without("security-2", lasting))
    page = subjects.control_lasting("eu", "security-2", 0)
    await incarnation.start()
    incarnation.switch.rosters.stage("security-2", 0, lasting.raw())
    incarnation.me.rosters.take(new)
    await until(lambda: stored(incarnation) == new and page in incarnation.stream.entries)
    incarnation.stream.recreate()
    assert stored(incarnation) is None
    await until(lambda: stored(incarnation) == new and page in incarnation.stream.entries)


async def test_a_boot_reads_the_roster_before_anything_else(system, incarnation):
    """A hold by somebody who is new on it lies at a lower place in the stream."""
    one = hold()
    incarnation.stream.store(subjects.control_hold("eu", "tenant", one.id), held(one, "security-2"))
    incarnation.stream.store(
        subjects.control_roster("eu"), signed(FIRST.model_copy(update={"version": 2}))
    )
    late = follows_rosters(system.incarnation("gw-eu-1"))
    older = removed("security-2").model_copy(update={"version": 1})
    rosters = late.me.rosters
    rosters._verifier = type(VERIFIER)(older)
    rosters._raw = signed(older)
    await late.start()
    assert late.revocations.killed("acme")


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
    lasting = listing(lifted(one))
    incarnation.switch.learn(lifted(one))
    for page, raw in enumerate(pages(lasting)):
        incarnation.stream.store(subjects.control_lasting("eu", "security", page), raw)
    await settled()
    incarnation.purged.clear()
    incarnation.stream.store(subjects.control_roster("eu"), signed(without("security", lasting)))
    await until(lambda: incarnation.me.rosters.version == 2)
    assert not incarnation.revocations.killed("acme")
    assert incarnation.purged == []


async def test_a_new_lift_of_somebody_retired_counts_nowhere(system, incarnation):
    other = follows_rosters(system.incarnation("gw-eu-1"))
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
    gateway = follows_rosters(system.incarnation("gw-eu-1"))
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
    lasting = listing(lifted(one))
    said: dict[str, Any] = {
        "roster": lambda to: to.me.rosters.take(signed(without("security", lasting))),
        "list": lambda to: to.me.rosters.take_list("security", lasting.raw()),
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
        to = follows_rosters(system.incarnation("gw-eu-1"))
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
    lasting = listing(lifted(one))
    incarnation.switch.learn(lifted(one))
    incarnation.me.rosters.take(signed(without("security", lasting)))
    assert incarnation.revocations.killed("acme")
    incarnation.stream.store(subjects.control_lasting("eu", "security", 0), lasting.raw())
    await until(lambda: not incarnation.revocations.killed("acme"))


async def test_pages_that_are_not_the_list_bring_nothing_to_life(incarnation):
    await incarnation.start()
    one = hold()
    incarnation.switch.learn(lifted(one))
    incarnation.me.rosters.take(signed(without("security", listing(lifted(hold())))))
    for name, raw in (("security", listing(lifted(one)).raw()), ("nobody", b"\0" * 32)):
        incarnation.stream.store(subjects.control_lasting("eu", name, 0), raw)
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
    again = follows_rosters(system.incarnation("core-eu-1"))
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


def test_a_membership_asks_for_the_roster_of_now():
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
    lasting = listing(*lifts[1:])
    incarnation.me.rosters.lists_from(lambda _name, _said: lasting.raw())
    Counting.checked = 0
    incarnation.me.rosters.take(signed(without("security", lasting)))
    assert incarnation.revocations.killed("acme")
    assert sum(record.lifted for record in incarnation.revocations.holds) == 4
    # All of them for the one that is left out.
    assert Counting.checked <= 6


async def test_a_key_that_changed_with_the_retirement_takes_everything_back(incarnation):
    one = hold()
    incarnation.switch.learn(lifted(one))
    lasting = listing(lifted(one))
    new = without("security", lasting)
    other = [
        o.model_copy(update={"public_key": identity("other").public})
        if o.operator == "security"
        else o
        for o in new.operators
    ]
    incarnation.me.rosters.lists_from(lambda _name, _said: lasting.raw())
    incarnation.me.rosters.take(signed(new.model_copy(update={"operators": other})))
    assert len(incarnation.revocations.holds) == 0


def countersigned(one, *signers):
    """A hold that several have signed, as it is stored when each of them placed it."""
    first, *others = sorted(signers)
    statement = identity(first).sign(Kind.HOLD, one)
    for name in others:
        statement = identity(name).countersign(statement)
    return encode(statement)


@pytest.mark.parametrize("honest", ["security", "security-2"])
async def test_who_signs_a_kill_once_more_does_not_take_it_along(incarnation, honest):
    thief = "security" if honest == "security-2" else "security-2"
    one = hold()
    for name in (honest, thief):
        incarnation.switch.learn(held(one, name))
    assert incarnation.revocations.holds.get(one.id).raw == countersigned(one, honest, thief)
    incarnation.me.rosters.take(signed(removed(thief)))
    assert incarnation.revocations.killed("acme")
    assert incarnation.revocations.holds.get(one.id).raw == held(one, honest)


async def test_a_kill_outlives_a_lift_and_the_form_in_it_by_somebody_removed(incarnation):
    one = hold()
    incarnation.switch.learn(held(one))
    incarnation.switch.learn(lifted(one, "security-2"))
    assert not incarnation.revocations.killed("acme")
    incarnation.me.rosters.take(signed(removed("security-2")))
    assert incarnation.revocations.killed("acme")


async def test_a_boot_that_begins_later_believes_who_is_left_of_the_signers(system):
    late = follows_rosters(system.incarnation("gw-eu-1"))
    late.learn(LINK, tenant())
    late.me.rosters.take(signed(removed("security-2")))
    one = hold()
    late.switch.learn(countersigned(one, "security", "security-2"))
    assert late.revocations.killed("acme")


async def test_a_judgement_of_before_the_removal_is_not_remembered(incarnation):
    """Two lift a hold, one form is kept. One is removed, the other one retires."""
    one = hold()
    incarnation.switch.learn(held(one))
    forms = [lifted(one), lift_of(one, "security-2")]
    for raw in sorted(forms):
        incarnation.switch.learn(raw)
    incarnation.me.rosters.take(signed(removed("security-2")))
    incarnation.me.rosters.take(signed(without("security", known=removed("security-2"))))
    assert incarnation.revocations.killed("acme")
    for raw in forms:
        incarnation_learns(incarnation, raw)
    assert incarnation.revocations.killed("acme")


def lift_of(one, signer):
    return lift(identity(signer), held(one), issued_ms=9, reason="over")


def incarnation_learns(incarnation, raw):
    try:
        incarnation.switch.learn(raw)
    except Untrusted:
        return


async def test_a_core_that_cannot_take_a_higher_roster_does_not_write_over_it(incarnation):
    """Who begins meanwhile would read the one of before."""
    await incarnation.start()
    left = signed(without("security-2"))
    incarnation.me.rosters.take(left)
    await until(lambda: stored(incarnation) == left)
    back = signed(FIRST.model_copy(update={"version": 3}))
    incarnation.stream.store(subjects.control_roster("eu"), back)
    await settled()
    assert incarnation.me.rosters.version == 2
    assert stored(incarnation) == back


# Somebody who may say more


def joined(name: str, *, version: int = 2) -> Roster:
    """The roster on which an operator is new."""
    fresh = Operator(operator=name, roles=[OperatorRole.SECURITY], public_key=identity(name).public)
    update = {"version": version, "operators": [*FIRST.operators, fresh]}
    return FIRST.model_copy(update=update)


def said(incarnation, core):
    """The version of the roster by which an incarnation says that it judges."""
    found = core.switch.registered.on_record(core.clock.elapsed())
    return next(one.roster for one in found if one.instance == incarnation.me.name)


@pytest.fixture
async def pair(system):
    """A Core and a Gateway of one region that serve a tenant, and hear no broadcast."""
    core = follows_rosters(system.core("core-eu-1"))
    gateway = follows_rosters(system.incarnation("gw-eu-1"))
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
    assert gateway.switch.reader.replay._task is None


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


async def test_no_fence_names_a_hold_that_nobody_believes_any_more(pair):
    core, _ = pair
    one = hold()
    core.switch.issue(core.switch.verify(held(one, "security-2")))
    await until(lambda: core.switch.highest_hold().nonce == one.id)
    core.me.rosters.take(signed(removed("security-2")))
    assert core.switch.highest_hold().nonce != one.id
    assert not core.switch.durable_at(one.id)


async def test_a_roster_of_another_system_of_the_same_root_is_written_over(incarnation):
    other = FIRST.model_copy(update={"version": 9, "system": "staging"})
    key = Identity(ROOT, ROOT_KEY._key, "staging")
    await incarnation.start()
    await until(lambda: stored(incarnation) == signed(FIRST))
    foreign = encode(key.sign(Kind.ROSTER, other))
    incarnation.stream.store(subjects.control_roster("eu"), foreign)
    assert incarnation.me.rosters.outbid_by(foreign) == 0
    await until(lambda: stored(incarnation) == signed(FIRST))
    assert incarnation.switch.rosters.highest == FIRST.version


# Between regions


def fenced(incarnation, other):
    return any(
        e.subject == subjects.control_peer_lease("eu", other) for e in incarnation.stream.history
    )


async def test_a_region_with_a_higher_roster_is_not_fenced_until_it_is_here(system):
    """By the roster that counts there a hold is in force that this region takes for lifted."""
    eu, us = (follows_rosters(system.core(f"core-{region}-1")) for region in ("eu", "us"))
    next_one = signed(without("security-2"))
    us.me.rosters.take(next_one)
    await us.start(watch=False)
    await eu.start(watch=False)
    await until(lambda: us.freshness.knows("eu"))
    await let_pass(20)
    assert not fenced(eu, "us")
    assert not eu.freshness.knows("us")
    assert eu.count("roster.behind") == 1
    eu.me.rosters.take(next_one)
    await until(lambda: eu.freshness.knows("us"))


async def test_a_region_that_judges_by_a_lower_roster_has_no_hold_durable(system):
    """It may take the hold for lifted tomorrow, when it hears of a lift that counts there."""
    eu, us = (follows_rosters(system.core(f"core-{region}-1")) for region in ("eu", "us"))
    await us.start(watch=False)
    await eu.start(watch=False)
    one = hold()
    eu.switch.learn(held(one))

    async def durable_in_us() -> bool:
        regions = (await eu.kills.status(one.id)).regions
        return any(said.durable_at for said in regions if said.region == "us")

    await until(lambda: us.switch.durable_at(one.id))
    assert await durable_in_us()
    eu.me.rosters.take(signed(without("security-2")))
    assert not await durable_in_us()
    us.me.rosters.take(eu.me.rosters.raw)
    await until(lambda: us.switch.rosters.stored)
    assert await durable_in_us()


async def test_a_higher_roster_in_the_stream_counts_between_regions_though_it_must_not_follow(
    system,
):
    """Other Cores of the region may have it: who asks hears of the highest."""
    eu, us = (follows_rosters(system.core(f"core-{region}-1")) for region in ("eu", "us"))
    us.me.rosters.take(signed(without("security-2")))
    strange = signed(FIRST.model_copy(update={"version": 3}))  # who left is there once more
    us.stream.store(subjects.control_roster("us"), strange)
    await us.start(watch=False)
    assert us.me.rosters.version == 2
    assert us.switch.rosters.highest == 3
    eu.me.rosters.take(signed(without("security-2")))
    await eu.start(watch=False)
    await let_pass(20)
    assert not eu.freshness.knows("us")


async def test_a_hold_counts_between_regions_from_when_the_stream_has_its_roster(incarnation):
    """Before that, another Core of the region may have said that it is lifted."""
    one = hold()
    await incarnation.start()
    incarnation.switch.learn(held(one))
    await until(lambda: incarnation.switch.durable_at(one.id))
    await let_pass(60)
    assert (await incarnation.switch.facts(one.id))[1].since_s >= 50
    slow, put = asyncio.Event(), incarnation.log.before

    async def no_rosters(operation: str, subject: str) -> None:
        if operation == "put" and subject == subjects.control_roster("eu") and not slow.is_set():
            raise KcmError(Code.UNAVAILABLE)

    incarnation.log.before = no_rosters
    incarnation.me.rosters.take(signed(without("security-2")))
    await let_pass(5)
    assert (await incarnation.switch.facts(one.id))[1].durable_at == 0
    slow.set()
    await until(lambda: stored(incarnation) == incarnation.me.rosters.raw)
    await settled()
    facts = (await incarnation.switch.facts(one.id))[1]
    assert facts.durable_at > 0
    assert facts.since_s < 50
    incarnation.log.before = put


def refused(incarnation: Incarnation) -> list[str]:
    return [fields["detail"] for kind, fields in incarnation.events if kind == "trust.refused"]


async def test_an_honest_retirement_is_no_event_for_who_runs_and_who_begins(system, incarnation):
    other = follows_rosters(system.incarnation("core-eu-2"))
    gateway = follows_rosters(system.incarnation("gw-eu-1"))
    await asyncio.gather(incarnation.start(), other.start(), gateway.start())
    await until(lambda: stored(incarnation) == signed(FIRST))
    new = signed(without("core-eu-2"))
    incarnation.me.rosters.take(new)
    await until(lambda: stored(incarnation) == new and gateway.me.rosters.version == 2)
    await settled()
    # What it wrote while it acted, and what it wrote before it heard, is still there.
    place = subjects.control_lease("eu", "core-eu-2", other.me.incarnation)
    incarnation.stream.entries[place] = Entry(
        incarnation.stream.sequence, place, incarnation.stream.entries[place].data
    )
    late = follows_rosters(system.incarnation("core-eu-1"))
    late.me.rosters.take(new)
    await late.start()
    await settled()
    assert [refused(one) for one in (incarnation, gateway, late)] == [[], [], []]


async def test_who_has_a_newer_roster_than_the_stream_is_refused_nothing(incarnation):
    incarnation.stream.store(subjects.control_roster("eu"), signed(FIRST))
    new = signed(without("security-2"))
    incarnation.me.rosters.take(new)
    await incarnation.start()
    await until(lambda: stored(incarnation) == new)
    assert refused(incarnation) == []


async def test_what_somebody_retired_writes_later_is_refused_by_name(system, incarnation):
    other = follows_rosters(system.incarnation("core-eu-2"))
    await asyncio.gather(incarnation.start(), other.start())
    new = signed(without("core-eu-2"))
    incarnation.me.rosters.take(new)
    await until(lambda: stored(incarnation) == new)
    await settled()
    place = subjects.control_lease("eu", "core-eu-2", other.me.incarnation)
    incarnation.stream.store(place, incarnation.stream.entries[place].data)
    await until(lambda: refused(incarnation) == ["control: the signer core-eu-2 is retired"])


@pytest.mark.parametrize("way", ["written over", "set back"])
async def test_a_stream_that_steps_back_behind_a_roster_is_told(incarnation, way):
    await incarnation.start()
    await until(lambda: stored(incarnation) == signed(FIRST))
    before = incarnation.stream.snapshot()
    new = signed(without("security-2"))
    incarnation.me.rosters.take(new)
    await until(lambda: stored(incarnation) == new and incarnation.switch.rosters.stored)
    if way == "set back":
        incarnation.stream.go_back(before)
    else:
        incarnation.stream.store(subjects.control_roster("eu"), signed(FIRST))
    await until(lambda: stored(incarnation) == new)
    assert refused(incarnation) == ["control: the roster is older than one seen before"]
