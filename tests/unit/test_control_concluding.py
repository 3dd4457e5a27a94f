"""What goes into a result, of which period of its hold it is, and whom it must not leave out."""

import pytest
from kcm_killswitch.model.completeness import Arrival, RegionFacts
from kcm_killswitch.model.kill_result import conclude, covers, earliest, of_this_period
from kcm_schemas import limits
from kcm_schemas.admin.kill_status import HoldStatus, IncarnationStatus, RegionStatus
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Incarnation, Receipt
from kcm_schemas.kill_result import ENVELOPE_MAX, ITEM_MAX, room_for_receipts
from kcm_schemas.roster import Role
from kcm_trust.result_statements import accounted, finished
from kcm_trust.verify import Untrusted

RAW = 600
"""Bytes of a receipt here."""


def incarnation_of(name, how="receipt"):
    return IncarnationStatus(
        instance=name, incarnation=bytes(16), role=Role.GATEWAY, region="eu", how=how, keys=1,
        purge_us=1, after_ms=1, trouble="", retired=False, left_ms=0,
    )  # fmt: skip


def receipt_of(name):
    return Receipt(
        hold_id=bytes(16),
        instance=name,
        incarnation=bytes(16),
        role=Role.GATEWAY,
        region="eu",
        keys=1,
        purge_us=1,
        unkept="",
        reached=bytes(32),
    )


def status_of(*incarnations, regions=("eu",), place=4):
    return HoldStatus(
        hold_id=bytes(16), scope="tenant", target="acme", cause="operator", lifted=False,
        complete=True, incarnations=list(incarnations),
        regions=[
            RegionStatus(region=name, durable_at=place, how="durable", left_ms=0)
            for name in regions
        ],
    )  # fmt: skip


def result_of(status, receipts=None, **changes):
    fields = {"heard_ms": 1, "now_ms": 2, "roster": 1, **changes}
    return conclude(status, receipts or {}, region="eu", instance="core-eu", **fields)


def crowd(count):
    names = [f"gw-{number}" for number in range(count)]
    receipts = {(name, bytes(16)): Arrival(receipt_of(name), 1, raw=bytes(RAW)) for name in names}
    return status_of(*map(incarnation_of, names)), receipts


@pytest.mark.parametrize("count", [1, 800, limits.RESULT_INCARNATIONS_MAX])
def test_as_many_receipts_go_with_it_as_there_is_room_for(count):
    status, receipts = crowd(count)
    found = result_of(status, receipts)
    assert len(found.receipts) + found.left_out == count
    assert len(encode(found)) <= limits.RESULT_MAX - ENVELOPE_MAX
    assert not found.left_out or room_for_receipts(found) < RAW + ITEM_MAX
    kept = [receipt_of(f"gw-{number}") for number in range(len(found.receipts))]
    finished(found)
    accounted(found, kept)
    if count == 800:
        assert found.left_out == 0


def test_no_more_incarnations_go_into_one_than_there_is_room_for():
    status, receipts = crowd(limits.RESULT_INCARNATIONS_MAX + 1)
    with pytest.raises(KcmError) as refused:
        result_of(status, receipts)
    assert refused.value.code is Code.TOO_LARGE


def test_receipts_are_left_out_for_want_of_room_alone():
    status, receipts = crowd(800)
    found = result_of(status, receipts)
    few = found.model_copy(update={"receipts": found.receipts[:700], "left_out": 100})
    with pytest.raises(Untrusted, match="there is room"):
        accounted(few, [receipt_of(f"gw-{number}") for number in range(700)])


def test_a_result_is_of_the_period_in_which_its_hold_lies_where_it_lay():
    here = result_of(status_of(incarnation_of("gw"), place=4))
    assert of_this_period(here, "eu", {"eu": 4}, 9)
    assert of_this_period(here, "eu", {"eu": 5}, 1)
    assert not of_this_period(here, "eu", {"eu": 5}, 9)
    assert not of_this_period(here, "eu", {}, 1)
    # A region that the result is not of, by what the others say.
    assert of_this_period(here, "us", {"us": 7, "eu": 4}, 9)
    assert not of_this_period(here, "us", {"us": 7, "eu": 5}, 9)
    assert not of_this_period(here, "us", {"us": 7}, 9)
    # The own place is what counts where the result has one.
    both = result_of(status_of(incarnation_of("gw"), regions=("eu", "us"), place=4))
    assert not of_this_period(both, "us", {"us": 7, "eu": 4}, 9)


def facts_of(*incarnations, place=4):
    return {"eu": RegionFacts(place, [
        Incarnation(
            instance=name, incarnation=bytes(16), role=Role.GATEWAY, first=first, latest=latest,
            lease_ms=1, silent_ms=0, quiet_ms=0, roster=1,
        )
        for name, first, latest in incarnations
    ])}  # fmt: skip


@pytest.mark.parametrize(
    ("first", "latest", "how", "good"),
    [
        (1, 9, "receipt", False),
        (0, 3, "receipt", False),
        (5, 9, "receipt", True),
        (0, 9, "receipt", True),
        (1, 3, "lease-ended", True),
    ],
)
def test_a_result_of_another_region_leaves_out_nobody_who_was_there_and_purged(
    first, latest, how, good
):
    theirs = result_of(status_of(incarnation_of("gw-1")))
    mine = status_of(incarnation_of("gw-1"), incarnation_of("gw-2", how))
    facts = facts_of(("gw-1", 1, 9), ("gw-2", first, latest))
    assert covers(theirs, mine, facts) is good
    assert covers(result_of(mine), mine, facts)


def test_a_result_of_fewer_regions_is_not_taken():
    theirs = result_of(status_of(incarnation_of("gw-1")))
    mine = status_of(incarnation_of("gw-1"), regions=("eu", "us"))
    assert not covers(theirs, mine, {"us": None})


def test_the_earliest_is_the_same_whoever_chooses():
    status = status_of(incarnation_of("gw"))
    some = [result_of(status, now_ms=at, roster=by) for at in (3, 2) for by in (1, 2)]
    assert earliest(some) == earliest(reversed(some))
    assert earliest(some).concluded_ms == 2
