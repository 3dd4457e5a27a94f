"""Holds on Gateways' and Cores' keys, as an application learns them from Gateways."""

from types import SimpleNamespace

import pytest
from kcm._internal.known_holds import KEPT, KnownHolds
from kcm._internal.known_roster import EVERY_S, KnownRoster
from kcm_gateway.standing import StandingApi
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_schemas import limits
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code
from kcm_schemas.names import key_target
from kcm_schemas.session import Standing, StandingQuery
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted, Verifier

from tests.fakes.bus import Clock
from tests.unit import trust_rig
from tests.unit.app_rig import ROSTER, VERIFIER
from tests.unit.core_rig import instance_context, signed
from tests.unit.refusals import refusal
from tests.unit.roster_changes import signed_roster, without
from tests.vectors.families.messages import identity

GATEWAY, CORE = "gw-eu", "core-eu"


def hold_on(name, salt=1, scope="instance"):
    target = key_target(name, identity(name).public)
    return trust_rig.hold(scope=scope, target=target, salt=salt.to_bytes(16, "big"))


def raw_hold(hold, signer="security"):
    return signed(Kind.HOLD, hold, signer)


def raw_lift(hold, signer="security"):
    return signed(Kind.LIFT, trust_rig.lift(hold, signer), signer)


def has(holds, name):
    return holds.has(name, identity(name).public)


@pytest.fixture
def holds():
    return KnownHolds("eu")


def test_a_hold_counts_from_the_moment_in_which_it_is_known(holds):
    assert not has(holds, GATEWAY)
    assert holds.take([raw_hold(hold_on(GATEWAY))], VERIFIER) == {GATEWAY}
    assert has(holds, GATEWAY)
    assert not has(holds, CORE)
    assert not holds.has(GATEWAY, identity("another").public)
    assert holds.take([raw_hold(hold_on(GATEWAY))], VERIFIER) == frozenset()


@pytest.mark.parametrize("signer", ["admin", "core-eu", "gw-eu", "stranger"])
def test_what_no_operator_with_the_role_security_signed_is_ignored(holds, signer):
    assert holds.take([raw_hold(hold_on(GATEWAY), signer)], VERIFIER) == frozenset()
    assert not has(holds, GATEWAY)


def test_other_statements_and_rubbish_are_ignored(holds):
    other = [b"", b"rubbish", raw_hold(trust_rig.hold()), raw_hold(hold_on("shop", scope="app"))]
    assert holds.take(other, VERIFIER) == frozenset()
    assert holds.ids == []


def test_a_lift_ends_its_hold_for_good_and_no_other_one(holds):
    first, second = hold_on(GATEWAY, 1), hold_on(GATEWAY, 2)
    holds.take([raw_hold(first), raw_hold(second)], VERIFIER)
    assert holds.ids == [first.id]  # one for each key is enough
    holds.take([raw_hold(second), raw_lift(first)], VERIFIER)
    assert has(holds, GATEWAY)
    assert holds.ids == [second.id]
    holds.take([raw_lift(second)], VERIFIER)
    assert not has(holds, GATEWAY)
    assert holds.take([raw_hold(first), raw_hold(second)], VERIFIER) == frozenset()
    assert not has(holds, GATEWAY)


def test_the_holds_of_a_removed_operator_count_no_more(holds):
    holds.take([raw_hold(hold_on(GATEWAY))], VERIFIER)
    roster = without("security").model_copy(update={"instances": ROSTER.instances})
    assert holds.judge(Verifier(roster)) == frozenset()
    assert has(holds, GATEWAY)  # a retired operator's holds count
    gone = [one for one in roster.operators if one.operator != "security"]
    holds.judge(Verifier(roster.model_copy(update={"operators": gone})))
    assert not has(holds, GATEWAY)


def test_lifted_holds_are_bounded(holds):
    lifts = [raw_lift(hold_on(CORE, number)) for number in range(KEPT + 5)]
    for start in range(0, len(lifts), 32):
        holds.take(lifts[start : start + 32], VERIFIER)
    assert len(holds) == KEPT
    assert holds.take([raw_hold(hold_on(GATEWAY))], VERIFIER) == {GATEWAY}


def test_old_holds_take_no_place_of_a_new_one(holds):
    """A Gateway that will be held hands out true holds on keys that no instance has any more."""
    old = [raw_hold(hold_on(f"gone-{number}", number)) for number in range(limits.STANDING_MAX)]
    other = [raw_hold(hold_on(name)) for name in ("core-us", "gw-us", "aud-eu")]
    many = [raw_hold(hold_on(CORE, number)) for number in range(limits.STANDING_MAX)]
    assert holds.take([*old, *other, *many], VERIFIER) == {CORE}
    assert len(holds.ids) == 1
    assert holds.take([raw_hold(hold_on(GATEWAY))], VERIFIER) == {GATEWAY}


def _not_believed(_raw, _seen):
    raise Untrusted("this is no roster")


class Region:
    """A Gateway's answers, and an application that asks it."""

    def __init__(self, tmp_path):
        self.me = instance_context("gw-eu")
        self.me.rosters.take(signed_roster(ROSTER.model_copy(update={"version": 9})))
        self.raw = self.me.rosters.raw
        self.revocations = Revocations(Registry(), "eu")
        self.api = StandingApi(self.me, self.revocations)
        self.answer = None
        self.clock = Clock()
        context = SimpleNamespace(
            highest=lambda: (self.raw, self.me.verifier.roster),
            believe=_not_believed,
        )
        self.known = KnownRoster(context, self, "eu", self.clock)
        self.changes = []
        self.known.listen(self.changes.append)

    async def request(self, subject, body, timeout_s):
        if isinstance(self.answer, bytes):
            return self.answer
        return await self.api.handle(subject, body)

    def learn(self, hold, lift=None):
        self.revocations.learn(HoldState(hold, raw_hold(hold), lift))

    async def asked(self):
        self.clock.now += 60
        await self.known.refresh()

    def held(self, name):
        return self.known.held(name, identity(name).public)


@pytest.fixture
def region(tmp_path):
    return Region(tmp_path)


async def test_an_application_learns_a_hold_and_its_lift_from_any_gateway(region):
    await region.asked()
    assert (region.changes, region.held(CORE)) == ([], False)
    hold = hold_on(CORE)
    region.learn(hold)
    await region.asked()
    assert (region.changes, region.held(CORE)) == ([{CORE}], True)
    region.learn(hold, lift=raw_lift(hold))
    await region.asked()
    assert not region.held(CORE)


async def test_a_gateway_answers_about_instances_of_its_region_and_nothing_else(region):
    region.learn(trust_rig.hold())
    region.learn(hold_on("shop", scope="app"))
    region.learn(hold_on("core-us"))
    region.learn(hold_on(GATEWAY))
    for known in ([], [trust_rig.hold().id, hold_on("shop", scope="app").id]):
        answer = await region.api.handle("", encode(StandingQuery(known=known)))
        assert decode(Standing, answer).holds == [raw_hold(hold_on(GATEWAY))]


async def test_an_answer_has_what_is_in_force_first_and_is_bounded(region):
    for number in range(limits.STANDING_MAX + 3):
        region.learn(hold_on(CORE, number), lift=raw_lift(hold_on(CORE, number)))
    region.learn(hold_on(GATEWAY))
    known = [hold_on(CORE, number).id for number in range(limits.STANDING_MAX)]
    answer = await region.api.handle("", encode(StandingQuery(known=known)))
    holds = decode(Standing, answer).holds
    assert holds[0] == raw_hold(hold_on(GATEWAY))
    assert len(holds) == len(set(holds)) == limits.STANDING_MAX
    assert (await refusal(region.api.handle("", b"rubbish"))).code is Code.MALFORMED


async def test_a_question_without_an_answer_does_not_use_up_the_minute(region):
    assert region.known.old
    region.answer = b"rubbish"
    await region.known.refresh()
    assert region.known.old
    region.answer = None
    region.clock.now += EVERY_S
    await region.known.refresh()
    assert not region.known.old


@pytest.mark.parametrize("answer", [b"", b"rubbish", encode(Standing(roster=b"", holds=[b"x"]))])
async def test_an_answer_that_cannot_be_used_changes_nothing(region, answer):
    region.learn(hold_on(CORE))
    await region.asked()
    region.answer = answer
    await region.asked()
    assert region.held(CORE)
    assert region.changes == [{CORE}]
