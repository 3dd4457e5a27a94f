"""Completeness is computed from records on file, never from who was heard."""

import pytest
from kcm_killswitch.model.completeness import Arrival, QuorumNeed, Reach, RegionFacts, hold_status
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.timing import Timing
from kcm_schemas.control import Hold, Incarnation, Receipt
from kcm_schemas.roster import Role

HOLD = HoldState(
    Hold(
        id=b"h" * 16, salt=bytes(16), scope="tenant", target="acme", cause="operator",
        origin="eu", issued_ms=1, reason="",
    ),
    b"raw",
)  # fmt: skip


TIMING = Timing()
WATCHED = TIMING.incarnation_bound_s(0)


def incarnation(name, first, latest=9, silent_ms=0, lease_ms=10_000, roster=1, quiet_ms=0):
    return Incarnation(
        instance=name,
        incarnation=name.encode().ljust(16),
        role=Role.CORE,
        first=first,
        latest=latest,
        lease_ms=lease_ms,
        silent_ms=silent_ms,
        quiet_ms=quiet_ms,
        roster=roster,
    )


def status_of(facts, arrivals):
    return hold_status(HOLD, facts, arrivals, Reach(), Timing())


def receipts(*names, unkept="", reached=bytes(32)):
    return {
        (name, name.encode().ljust(16)): Arrival(
            Receipt(
                hold_id=HOLD.hold.id, instance=name, incarnation=name.encode().ljust(16),
                role=Role.CORE, region="eu", keys=2, purge_us=10, unkept=unkept, reached=bytes(32),
            ),
            after_ms=3,
        )
        for name in names
    }  # fmt: skip


def test_complete_when_every_registered_incarnation_has_sent_a_receipt():
    facts = {"eu": RegionFacts(10, [incarnation("a", 1), incarnation("b", 2)], watched_s=WATCHED)}
    status = status_of(facts, receipts("a", "b"))
    assert status.complete
    assert [b.how for b in status.incarnations] == ["receipt", "receipt"]


def test_one_missing_receipt_is_not_complete():
    facts = {"eu": RegionFacts(10, [incarnation("a", 1), incarnation("b", 2)], watched_s=WATCHED)}
    status = status_of(facts, receipts("a"))
    assert not status.complete
    assert [b.how for b in status.incarnations] == ["receipt", "waiting"]


def how_of(one, *, since=0.0, watched=WATCHED, arrivals=None):
    """How one incarnation counts, and whether the kill is complete with it."""
    facts = {"eu": RegionFacts(10, [one], since, watched)}
    status = status_of(facts, arrivals or {})
    return status.incarnations[0].how, status.complete


SILENT_MS = int(WATCHED * 1000 / (1 - TIMING.clock_error)) + 1
"""Milliseconds of silence, told by a clock that may run fast, in which a lease surely ends."""


def test_an_incarnation_with_no_entry_below_the_hold_began_after_it():
    assert how_of(incarnation("b", 11, silent_ms=SILENT_MS)) == ("started-after", True)


def test_an_incarnation_that_was_silent_for_its_lease_has_ended_whenever_the_hold_came():
    assert how_of(incarnation("a", 1, silent_ms=SILENT_MS)) == ("lease-ended", True)
    assert how_of(incarnation("a", 1, silent_ms=SILENT_MS - 20)) == ("waiting", False)


def test_an_incarnation_s_own_statement_that_it_began_after_the_hold_does_not_suffice():
    """It may have begun in a stream that was lost, where sequences were higher."""
    assert how_of(incarnation("b", 11)) == ("waiting", False)


@pytest.mark.parametrize("name", ["receipt", "silence", "later start"])
def test_outside_of_a_watch_nothing_is_complete_before_every_lease_has_ended(name):
    arrivals = receipts("a") if name == "receipt" else {}
    one = incarnation("a", 11 if name == "later start" else 1, silent_ms=SILENT_MS)
    for watched in (0.0, WATCHED - 0.01):
        assert not how_of(one, watched=watched, arrivals=arrivals)[1]
        assert not how_of(one, watched=watched, arrivals=arrivals, since=WATCHED - 0.01)[1]
        assert how_of(one, watched=watched, arrivals=arrivals, since=WATCHED)[1]


def test_a_region_that_cannot_tell_who_is_missing_says_so():
    facts = {"eu": RegionFacts(10, [incarnation("a", 1)])}
    assert [one.how for one in status_of(facts, receipts("a")).regions] == ["watching"]


def test_the_longest_stated_lease_has_to_have_ended():
    """An incarnation that is missing may have had one as long."""
    longer = incarnation("a", 1, lease_ms=20_000)
    assert not how_of(longer, watched=WATCHED, arrivals=receipts("a"))[1]
    assert how_of(longer, watched=TIMING.incarnation_bound_s(20), arrivals=receipts("a"))[1]


def test_a_receipt_of_another_incarnation_of_the_same_instance_does_not_count():
    facts = {"eu": RegionFacts(10, [incarnation("a", 1)])}
    other = {("a", b"incarnation-two-"): receipts("a")["a", b"a".ljust(16)]}
    assert not status_of(facts, other).complete


@pytest.mark.parametrize(
    "facts",
    [
        {"eu": RegionFacts(0, [incarnation("a", 1)])},
        {"eu": RegionFacts(10, [incarnation("a", 1)]), "us": None},
        {"eu": RegionFacts(10, [incarnation("a", 1)]), "us": RegionFacts(0, [])},
        {"eu": RegionFacts(10, [])},
        {"eu": RegionFacts(10, [incarnation("a", 1)]), "us": RegionFacts(10, [])},
        {},
    ],
    ids=[
        "not durable", "a region is silent", "a region has it not", "nobody on record",
        "nobody on record elsewhere", "no region",
    ],
)  # fmt: skip
def test_without_durability_everywhere_nothing_is_complete(facts):
    assert not status_of(facts, receipts("a")).complete


def test_a_receipt_by_somebody_else_for_this_incarnation_does_not_count():
    """An instance signs its own name, and may write any incarnation id beside it."""
    facts = {"eu": RegionFacts(10, [incarnation("a", 1)])}
    foreign = {("mallory", b"a".ljust(16)): receipts("a")["a", b"a".ljust(16)]}
    assert not status_of(facts, foreign).complete


def test_an_incarnation_that_has_not_stated_its_start_began_before():
    assert how_of(incarnation("a", 0)) == ("waiting", False)
    assert how_of(incarnation("a", 0, silent_ms=SILENT_MS)) == ("lease-ended", True)


def test_a_late_starter_needs_the_hold_to_be_durable():
    facts = {"eu": RegionFacts(0, [incarnation("b", 11)])}
    assert status_of(facts, {}).incarnations[0].how == "waiting"


@pytest.mark.parametrize("unkept", ["pending", "disk full"])
def test_a_core_that_does_not_keep_the_hold_is_waited_for_with_the_reason(unkept):
    """A power cut would make it forget, and the stream may be lost in the same one."""
    facts = {"eu": RegionFacts(10, [incarnation("a", 1), incarnation("b", 2)])}
    arrivals = receipts("a") | receipts("b", unkept=unkept, reached=bytes(32))
    status = status_of(facts, arrivals)
    assert not status.complete
    reason = "" if unkept == "pending" else unkept
    assert [(b.how, b.trouble) for b in status.incarnations] == [
        ("receipt", ""),
        ("waiting", reason),
    ]


def test_a_core_that_lives_and_does_not_keep_the_hold_is_not_counted_out_by_the_clock():
    facts = {
        "eu": RegionFacts(10, [incarnation("a", 1), incarnation("b", 2, latest=11)], since_s=3600.0)
    }
    status = status_of(facts, receipts("a") | receipts("b", unkept="disk full", reached=bytes(32)))
    assert [b.how for b in status.incarnations] == ["receipt", "waiting"]


def test_a_core_that_died_without_keeping_the_hold_is_counted_out_as_any_other():
    facts = {
        "eu": RegionFacts(10, [incarnation("a", 1), incarnation("b", 2, latest=9)], since_s=3600.0)
    }
    status = status_of(facts, receipts("a") | receipts("b", unkept="disk full", reached=bytes(32)))
    assert status.complete
    assert [b.how for b in status.incarnations] == ["receipt", "lease-ended"]


def test_a_core_that_started_later_and_does_not_keep_the_hold_is_waited_for():
    facts = {"eu": RegionFacts(10, [incarnation("a", 1), incarnation("b", 11)])}
    assert not status_of(
        facts, receipts("a") | receipts("b", unkept="disk full", reached=bytes(32))
    ).complete


def test_who_judges_by_a_lower_roster_is_waited_for_however_long():
    """By the lower one a stolen key's lift of this very hold may count."""
    late = incarnation("a", 1, latest=11, roster=1)
    for since in (0.0, 3600.0):
        facts = {"eu": RegionFacts(10, [late], since, WATCHED, roster=2)}
        assert [b.how for b in status_of(facts, receipts("a")).incarnations] == ["waiting"]
    facts = {"eu": RegionFacts(10, [late.model_copy(update={"roster": 2})], roster=2)}
    assert [b.how for b in status_of(facts, receipts("a")).incarnations] == ["receipt"]


def test_who_writes_above_the_hold_is_not_silent_for_having_written_nothing_below():
    """Silence counts from the last record below the hold, also of an incarnation that lives."""
    late = incarnation("a", 1, latest=11, silent_ms=SILENT_MS, roster=1)
    facts = {"eu": RegionFacts(10, [late], 3600.0, WATCHED, roster=2)}
    assert [b.how for b in status_of(facts, receipts("a")).incarnations] == ["waiting"]
    assert [b.how for b in status_of(facts, {}).incarnations] == ["waiting"]
    full = {"eu": RegionFacts(10, [late], 3600.0, WATCHED, roster=1)}
    unkept = receipts("a", unkept="disk full", reached=bytes(32))
    assert [b.how for b in status_of(full, unkept).incarnations] == ["waiting"]


@pytest.mark.parametrize("since", [0.0, 3600.0])
@pytest.mark.parametrize("unkept", ["", "disk full"])
def test_who_judged_otherwise_and_is_silent_has_ended(since, unkept):
    """It may die before it takes a roster over, or before its disk has room."""
    said = receipts("a", unkept=unkept)
    for quiet_ms, how in ((SILENT_MS - 20, "waiting"), (SILENT_MS, "lease-ended")):
        late = incarnation("a", 1, latest=11, silent_ms=SILENT_MS, quiet_ms=quiet_ms)
        facts = {"eu": RegionFacts(10, [late], since, WATCHED, roster=1 if unkept else 2)}
        (found,) = status_of(facts, said).incarnations
        assert found.how == how
        assert 0 < found.left_ms <= 21 if how == "waiting" else found.left_ms == 0


def test_who_began_above_the_hold_and_judges_by_a_lower_roster_is_waited_for():
    late = incarnation("a", 11, latest=12, silent_ms=SILENT_MS, roster=1)
    facts = {"eu": RegionFacts(10, [late], 3600.0, WATCHED, roster=2)}
    assert [b.how for b in status_of(facts, {}).incarnations] == ["waiting"]


def test_who_lives_and_has_reached_others_is_not_counted_out_by_the_clock():
    """A hold that does not count there, or tenants of another registry."""
    facts = {"eu": RegionFacts(10, [incarnation("a", 1, latest=11)], 3600.0, WATCHED, b"r" * 32)}
    assert [b.how for b in status_of(facts, receipts("a")).incarnations] == ["waiting"]
    silent = incarnation("a", 1, latest=11, silent_ms=SILENT_MS)
    facts = {"eu": RegionFacts(10, [silent], 3600.0, WATCHED, b"r" * 32)}
    assert [b.how for b in status_of(facts, receipts("a")).incarnations] == ["lease-ended"]


def test_a_lift_is_complete_when_every_region_has_it():
    over = HoldState(HOLD.hold, b"raw", b"lift")
    facts = {"eu": RegionFacts(10, [incarnation("a", 1)]), "us": None}
    status = hold_status(over, facts, {}, Reach(), TIMING)
    assert (status.lifted, status.complete, status.incarnations) == (True, False, [])
    assert [one.how for one in status.regions] == ["durable", "waiting"]
    facts["us"] = RegionFacts(12, [incarnation("b", 1)])
    assert hold_status(over, facts, {}, Reach(), TIMING).complete


def test_who_is_retired_is_named():
    facts = {"eu": RegionFacts(10, [incarnation("a", 1), incarnation("b", 2)], watched_s=WATCHED)}
    status = hold_status(HOLD, facts, {}, Reach(), TIMING, lambda name: name == "b")
    assert [(one.instance, one.retired) for one in status.incarnations] == [
        ("a", False),
        ("b", True),
    ]


def test_for_how_long_is_waited_at_most_is_told():
    facts = {"eu": RegionFacts(10, [incarnation("a", 1)], since_s=WATCHED - 3)}
    status = status_of(facts, {})
    assert [(one.how, one.left_ms) for one in status.regions] == [("watching", 3000)]
    assert [(one.how, one.left_ms) for one in status.incarnations] == [("waiting", 3000)]
    facts = {"eu": RegionFacts(10, [incarnation("a", 1)], WATCHED, WATCHED)}
    status = status_of(facts, receipts("a"))
    assert {one.left_ms for one in [*status.regions, *status.incarnations]} == {0}


@pytest.mark.parametrize(("policy", "left_s"), [("all", 50), ("local", 0)])
def test_a_region_that_is_cut_off_is_waited_for_until_its_peer_leases_end(policy, left_s):
    reach = Reach([QuorumNeed(frozenset({"eu", "us"}), policy, "byok")], closed=True)
    since = TIMING.peer_lease_bound_s("byok") - 50
    facts = {"eu": RegionFacts(10, [incarnation("a", 1)], since, since), "us": None}
    status = hold_status(HOLD, facts, receipts("a"), reach, TIMING)
    assert [one.left_ms for one in status.regions] == [0, left_s * 1000]
