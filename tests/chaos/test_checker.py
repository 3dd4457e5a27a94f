"""The judge finds each broken promise in a history made by hand, and none in one that keeps all."""

import pytest
from kcm_killswitch.model.timing import Timing
from kcm_schemas.control import Scope

from tests.chaos.checker import bound, check, ends_at
from tests.chaos.history import Accepted, Damage, Flip, History, Kill, Refused, TenantSpec

EU, US, AP = REGIONS = ("eu", "us", "ap")
TIMING = Timing(
    control_lease_s=6, renew_every_s=1.5, partition_grace_s=10, hyok_grace_s=10, pull_every_s=2,
    l1_lease_s=12, probe_interval_s=3, settle_s=6,
)  # fmt: skip
TENANTS = (
    TenantSpec("strict", "key", "all", "byok", REGIONS),
    TenantSpec("most", "key", "majority", "byok", REGIONS),
    TenantSpec("alone", "key", "local", "byok", REGIONS),
    TenantSpec("other", "another", "all", "byok", REGIONS, spared=True),
)
OWN, ABROAD, KEY = bound(6, TIMING), bound(10, TIMING), bound(12, TIMING)


def history(**changes):
    return History(TIMING, TENANTS, REGIONS, **changes)


def answer(tenant, at, region=EU):
    return Accepted(tenant, region, "decrypt", at - 0.1, at)


def kill(target="strict", scope: Scope = "tenant", **changes):
    facts = {"requested": 100.0, "region": EU, "durable": {EU: 101.0}, "held_until": 200.0}
    return Kill("ab" * 16, scope, target, "operator", **(facts | changes))


def rules(found):
    return [violation.rule for violation in found]


def judge(kills=(), accepted=(), **more):
    kills = {one.hold_id: one for one in kills}
    return rules(check(history(kills=kills, accepted=list(accepted), **more)))


def test_a_quiet_history_breaks_nothing():
    assert judge() == []
    before, after = answer("strict", 100.5), answer("strict", 201.0)
    assert judge([kill(complete=102.0)], [before, after, answer("other", 150.0)]) == []


def test_nothing_is_accepted_between_complete_and_the_lift():
    assert judge([kill(complete=102.0)], [answer("strict", 102.001)]) == [1]
    assert judge([kill(complete=102.0)], [answer("strict", 101.999)]) == []
    assert judge([kill(complete=102.0, held_until=None)], [answer("strict", 9999.0)]) == [1, 2]


def test_a_kill_of_a_key_reaches_its_tenants_and_no_others():
    of_key = kill("key", "link", complete=102.0)
    assert judge([of_key], [answer("most", 103.0, AP), answer("alone", 103.0)]) == [1, 1]
    assert judge([of_key], [answer("other", 103.0)]) == []


def test_two_holds_and_one_lift_are_not_enough():
    first = kill(complete=102.0, held_until=110.0)
    second = kill(complete=103.0, held_until=150.0)
    second.hold_id = "cd" * 16
    assert judge([first, second], [answer("strict", 120.0)]) == [1, 2]


def test_nothing_is_accepted_in_a_region_later_than_its_own_bound():
    limit = 101.0 + OWN
    assert judge([kill()], [answer("strict", limit + 0.01)]) == [2]
    assert judge([kill()], [answer("strict", limit - 0.01)]) == []


def test_other_regions_follow_by_the_tenants_policy():
    late = 101.0 + ABROAD
    assert judge([kill()], [answer("strict", late + 0.01, US)]) == [2]
    assert judge([kill()], [answer("strict", late - 0.01, US)]) == []
    assert judge([kill("most")], [answer("most", late + 0.01, US)]) == []
    in_most = kill("most", durable={EU: 101.0, AP: 103.0})
    assert judge([in_most], [answer("most", 103.0 + ABROAD + 0.01, US)]) == [2]
    assert judge([in_most], [answer("most", late + 0.01, US)]) == []
    assert judge([kill("alone")], [answer("alone", 199.0, US)]) == []
    assert judge([kill("alone")], [answer("alone", 199.0, EU)]) == [2]


def test_the_bound_of_a_region_that_has_the_hold_is_its_own():
    everywhere = kill(durable={EU: 101.0, US: 102.0})
    assert ends_at(TIMING, everywhere, TENANTS[0], US) == 102.0 + OWN
    assert ends_at(TIMING, everywhere, TENANTS[0], AP) == 101.0 + ABROAD


@pytest.mark.parametrize("state", ["disabled", "unreachable"])
def test_a_key_that_does_not_open_ends_service_with_its_lease(state):
    flip = Flip("key", state, 100.0, 100_000, 160.0, 160_000)
    late = answer("alone", 100.0 + KEY + 0.01, US)
    assert judge(accepted=[late], flips=[flip]) == [2]
    assert judge(accepted=[answer("alone", 100.0 + KEY - 0.01)], flips=[flip]) == []
    assert judge(accepted=[answer("alone", 160.1)], flips=[flip]) == []


def test_what_was_lost_or_wrong_breaks_the_fourth():
    assert judge(lost=["a record"], wrong=["another"]) == [4, 4]


def test_a_key_that_was_only_silent_makes_no_hold():
    hold = Kill("ef" * 16, "link", "key", "l1", issued_ms=105_000, held_until=0.0)
    silent = Flip("key", "unreachable", 100.0, 100_000, 120.0, 120_000)
    refused = Flip("key", "disabled", 100.0, 100_000, 120.0, 120_000)
    elsewhere = Flip("another", "disabled", 100.0, 100_000, 120.0, 120_000)
    assert judge([hold]) == [5]
    assert judge([hold], flips=[silent, elsewhere]) == [5]
    assert judge([hold], flips=[silent, refused]) == []


def test_regions_that_do_not_agree_are_found():
    same = {"ab": True, "cd": False}
    assert judge(held={EU: same, US: dict(same)}) == []
    assert judge(held={EU: same, US: {"ab": True}}) == [6]
    assert judge(held={EU: same, US: {"ab": False, "cd": False}}) == [6]


def test_other_tenants_are_refused_for_passing_reasons_only():
    def refused(tenant, code):
        return Refused(tenant, EU, "decrypt", code, 100.0)

    assert judge(refused=[refused("other", "busy"), refused("strict", "tenant_killed")]) == []
    assert judge(refused=[refused("other", "tenant_killed")] * 3) == [7]
    assert judge(refused=[refused("strict", "tampered")]) == [7]
    assert judge(unhealed=["other in eu"]) == [7]


def test_a_hold_that_was_acknowledged_and_is_gone_is_found():
    known = {"ab" * 16: True}
    assert judge([kill()], held={EU: known, US: dict(known)}) == []
    assert judge([kill()], held={EU: {}, US: {}}) == [8, 8]
    assert sorted(judge([kill()], held={EU: known, US: {}})) == [6, 8]
    assert judge([kill(durable={})], held={EU: {}, US: {}}) == []
    assert judge([kill(durable={}, complete=102.0)], held={EU: {}}) == [8]


def test_a_tenant_that_a_broken_disk_made_unknown_is_excused_there_and_from_then_on():
    def refused(code, at, region=EU):
        return Refused("other", region, "decrypt", code, at)

    damages = [Damage(EU, 100.0, "eu-1", "a disk")]
    for code in ("unknown_tenant", "unknown_service"):
        assert judge(refused=[refused(code, 101.0)], damages=damages) == []
        assert judge(refused=[refused(code, 99.0)], damages=damages) == [7]
        assert judge(refused=[refused(code, 101.0, US)], damages=damages) == [7]
    assert judge(refused=[refused("tampered", 101.0)], damages=damages) == [7]
    assert judge(unhealed=["other in eu"], damages=damages) == [7]


def test_whatever_is_wrong_with_the_journal_is_found():
    assert judge(journal_wrong=["the journal lost what was in a file"]) == [9]
