"""What a file of evidence shows, and that no changed copy of one is believed."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from kcm._internal.evidence_file import FILE_MAX, Evidence, Unreadable, read, written
from kcm_schemas.admin.kill_status import IncarnationStatus, RegionStatus
from kcm_schemas.control import Receipt
from kcm_schemas.kill_result import Result
from kcm_schemas.roster import Role, Roster
from kcm_schemas.signed import Kind, united
from kcm_trust.endorsements import Endorsements
from kcm_trust.evidence import Statements, examine
from kcm_trust.identity import ROOT
from kcm_trust.result_statements import CLOCKS_APART_MS

from tests.unit.switch.rig import identity
from tests.unit.switch.statements import held, hold, lifted, roster, signed

HOLD = hold()
INCARNATIONS = {"core-eu-1": Role.CORE, "gw-eu-1": Role.GATEWAY}
ROOT_KEY = identity(ROOT).public


def receipt(name: str, **changes: object) -> bytes:
    content = Receipt(
        hold_id=HOLD.id,
        instance=name,
        incarnation=b"b" * 16,
        role=INCARNATIONS[name],
        region="eu",
        keys=3,
        purge_us=7,
        unkept="",
        reached=bytes(32),
    )
    return signed(Kind.RECEIPT, content.model_copy(update=changes), name)


def incarnation(name: str) -> IncarnationStatus:
    return IncarnationStatus(
        instance=name,
        incarnation=b"b" * 16,
        role=INCARNATIONS[name],
        region="eu",
        how="receipt",
        keys=3,
        purge_us=7,
        after_ms=2,
        trouble="",
        retired=False,
        left_ms=0,
    )


def result(**changes: object) -> Result:
    content = Result(
        hold_id=HOLD.id,
        region="eu",
        instance="core-eu-1",
        heard_ms=1,
        concluded_ms=2,
        roster=1,
        regions=[RegionStatus(region="eu", durable_at=4, how="durable", left_ms=0)],
        incarnations=[incarnation(name) for name in INCARNATIONS],
        receipts=[receipt(name) for name in INCARNATIONS],
        left_out=0,
    )
    return content.model_copy(update=changes)


def by_cores(content: Result) -> bytes:
    return united(*(signed(Kind.RESULT, content, name) for name in ("core-eu-1", "core-eu-2")))


def evidence(**changes: object) -> Statements:
    good = Statements(
        root=ROOT_KEY, system="test", hold_id=HOLD.id, hold=held(HOLD), lift=lifted(HOLD),
        result=by_cores(result()), roster=signed(Kind.ROSTER, roster(), ROOT), lists={},
    )  # fmt: skip
    return replace(good, **changes)


def failed(given: Statements, **known: object) -> dict[str, str]:
    found = examine(given, ROOT_KEY, **known)
    assert found.good is all(one.state == "ok" for one in found.checks)
    return {one.check: one.detail for one in found.checks if one.state == "failed"}


def retired(*names: str):
    known = roster()
    left = [
        one.model_copy(update={"retired": Endorsements().retirement()})
        if one.instance in names
        else one
        for one in known.instances
    ]
    return known.model_copy(update={"version": 2, "instances": left})


def test_good_evidence_is_good_with_and_without_a_lift():
    assert failed(evidence()) == {}
    found = examine(evidence(lift=b""), ROOT_KEY)
    assert found.good
    assert any("not lifted" in one for one in found.attested)


@pytest.mark.parametrize("name", ["hold", "lift", "result", "roster"])
def test_no_byte_of_a_statement_can_be_changed(name):
    raw = getattr(evidence(), name)
    for at in {*range(0, len(raw), 7), len(raw) - 1}:
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        found = examine(evidence(**{name: changed}), ROOT_KEY)
        # Another name on one of two signatures is one that does not count, and is told.
        told = any("1 not counted" in one.detail for one in found.checks)
        assert told if found.good else not told, at
    assert not examine(evidence(**{name: raw + b"!"}), ROOT_KEY).good


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"root": identity("security").public}, "roster"),
        ({"system": "other"}, "roster"),
        ({"hold_id": bytes(16)}, "hold"),
        ({"hold": held(hold())}, "hold"),
        ({"lift": lifted(hold())}, "lift"),
        ({"result": b""}, "result"),
        ({"lists": {"gw-eu-1": bytes(32)}}, "roster"),
    ],
)
def test_what_belongs_to_something_else_is_refused(change, check):
    assert check in failed(evidence(**change))


def test_every_part_of_the_evidence_has_a_test_that_changes_it():
    assert {one.name for one in fields(Statements)} == {
        "root", "system", "hold_id", "hold", "lift", "result", "roster", "lists",
    }  # fmt: skip


def test_a_foreign_root_is_refused_and_both_are_named():
    other = identity("security").public
    found = examine(evidence(), other)
    assert [one.state for one in found.checks] == ["failed"] + ["not checked"] * 5
    assert ROOT_KEY.hex() in found.checks[0].detail
    assert other.hex() in found.checks[0].detail


@pytest.mark.parametrize(
    ("content", "check"),
    [
        (result(receipts=[receipt("core-eu-1")]), "receipts"),
        (result(receipts=[receipt("core-eu-1")] * 2), "receipts"),
        (result(receipts=[receipt("core-eu-1"), receipt("gw-eu-1", keys=4)]), "receipts"),
        (
            result(receipts=[receipt("core-eu-1"), receipt("gw-eu-1", hold_id=b"x" * 16)]),
            "receipts",
        ),
        (
            result(receipts=[receipt("core-eu-1"), receipt("gw-eu-1", incarnation=bytes(16))]),
            "receipts",
        ),
        (result(incarnations=[incarnation("core-eu-1")]), "receipts"),
        (result(hold_id=hold().id), "result"),
        (result(receipts=[], left_out=2), "receipts"),
        (result(roster=2), "result"),
        (result(heard_ms=3), "completeness"),
        (
            result(regions=[RegionStatus(region="eu", durable_at=0, how="waiting", left_ms=0)]),
            "completeness",
        ),
    ],
)
def test_a_result_by_cores_that_does_not_add_up_is_refused(content, check):
    assert list(failed(evidence(result=by_cores(content)))) == [check]


def test_times_are_those_of_the_hold_as_far_as_clocks_can_tell():
    other = hold(issued_ms=CLOCKS_APART_MS + 5)
    receipts = [receipt(name, hold_id=other.id) for name in INCARNATIONS]
    for heard, wrong in ((5, []), (4, ["completeness"])):
        content = result(hold_id=other.id, receipts=receipts, heard_ms=heard, concluded_ms=2**40)
        given = evidence(
            hold_id=other.id, hold=held(other), lift=lifted(other), result=by_cores(content)
        )
        assert list(failed(given)) == wrong


def test_who_is_on_the_list_and_not_on_the_roster_is_named():
    gone = incarnation("core-eu-1").model_copy(update={"instance": "nobody", "how": "lease-ended"})
    content = result(incarnations=[*result().incarnations, gone])
    assert (
        "not on the roster: nobody"
        in examine(evidence(result=by_cores(content)), ROOT_KEY).attested
    )


def test_a_region_that_is_on_no_roster_is_named():
    status = RegionStatus(region="nowhere", durable_at=0, how="leases-ended", left_ms=0)
    content = result(regions=[*result().regions, status])
    found = examine(evidence(result=by_cores(content)), ROOT_KEY)
    assert "regions that are not on the roster: nowhere" in found.attested


def test_regions_of_the_roster_that_the_list_has_not_are_named():
    told = "that the hold reaches no instance in other regions of the roster: ap, us"
    assert told in examine(evidence(), ROOT_KEY).attested
    gone = [one.instance for one in roster().instances if one.region == "us"]
    told = "that the hold reaches no instance in other regions of the roster: ap"
    assert told in examine(evidence(), ROOT_KEY, known=retired(*gone)).attested


def test_a_retired_cores_key_signs_no_result_also_with_an_older_roster():
    given = evidence(result=signed(Kind.RESULT, result(), "core-eu-1"))
    assert failed(given) == {}
    assert list(failed(given, known=retired("core-eu-1"))) == ["result"]
    newer = replace(given, roster=signed(Kind.ROSTER, retired("core-eu-1"), ROOT))
    assert list(failed(newer)) == ["result"]
    assert failed(evidence(), known=retired("core-eu-1")) == {}, "another Core signed it, too"


def test_what_only_a_core_says_is_told():
    silent = incarnation("gw-eu-1").model_copy(update={"how": "lease-ended"})
    told = result(incarnations=[incarnation("core-eu-1"), silent], receipts=[receipt("core-eu-1")])
    found = examine(evidence(result=by_cores(told)), ROOT_KEY)
    assert found.good
    assert "lease-ended: gw-eu-1" in found.attested


def test_what_one_core_alone_has_signed_is_told():
    told = "the whole result: core-eu-1 alone has signed it"
    given = evidence(result=signed(Kind.RESULT, result(), "core-eu-1"))
    assert told in examine(given, ROOT_KEY).attested
    assert told not in examine(evidence(), ROOT_KEY).attested


def test_who_is_on_the_roster_and_not_on_the_list_is_named():
    found = examine(evidence(), ROOT_KEY)
    told = "on the roster, and not running: core-eu-2, core-eu-3, gw-eu-2"
    assert told in found.attested
    assert told not in examine(evidence(), ROOT_KEY, known=retired("gw-eu-2")).attested


def without(name: str) -> Roster:
    """The next roster, from which somebody is removed altogether."""
    left = [one for one in roster().instances if one.instance != name]
    return roster().model_copy(update={"version": 2, "instances": left})


def test_a_result_without_the_signature_of_who_concluded_it_is_refused():
    alone = signed(Kind.RESULT, result(), "core-eu-2")
    told = "core-eu-1, which concluded the kill, has not signed the result"
    assert failed(evidence(result=alone)) == {"result": told}
    assert failed(evidence(result=alone), known=retired("core-eu-1")) == {"result": told}


def test_who_concluded_it_and_is_not_on_the_roster_any_more_is_named():
    gone = result(incarnations=[incarnation("gw-eu-1")], receipts=[receipt("gw-eu-1")])
    given = evidence(result=by_cores(gone), roster=signed(Kind.ROSTER, without("core-eu-1"), ROOT))
    found = examine(given, ROOT_KEY)
    assert found.good, found.checks
    assert "that core-eu-1, which is not on the roster, concluded it" in found.attested


def file() -> Evidence:
    given = evidence()
    return Evidence(
        format="kcm-hold-evidence", version=2, system="test", root=ROOT_KEY.hex(),
        hold_id=HOLD.id.hex(), hold=given.hold, lift=given.lift, result=given.result,
        roster=given.roster, lists={"a": b"x"},
    )  # fmt: skip


def test_a_file_is_read_as_it_was_written():
    assert read(written(file())) == file()


@pytest.mark.parametrize("name", [*Evidence.model_fields, "a"])
def test_a_file_with_a_field_twice_is_refused(name):
    """One reader would take the first of them, another one the last."""
    raw = written(file())
    field = f'"{name}": '.encode()
    at = raw.index(field) + len(field)
    value = b"{}" if name == "lists" else raw[at : raw.index(b"\n", at)].rstrip(b",")
    twice = raw.replace(field, field + value + b", " + field, 1)
    assert json.loads(twice) == json.loads(raw)
    with pytest.raises(Unreadable, match="twice"):
        read(twice)


@pytest.mark.parametrize("name", Evidence.model_fields)
def test_a_file_with_a_wrong_or_missing_field_is_named(name):
    content = json.loads(written(file()))
    for wrong in (None, 7, [], "zz?", "x" * 65):
        if name == "system" and wrong == "zz?":
            continue
        with pytest.raises(Unreadable, match=name):
            read(json.dumps(content | {name: wrong}).encode())
    del content[name]
    with pytest.raises(Unreadable, match=f"{name} is missing"):
        read(json.dumps(content).encode())


def test_a_file_of_the_version_before_is_refused_by_its_version():
    """Version 1 held a result with `boots`: its fields are not read at all."""
    content = json.loads(written(file())) | {"version": 1, "lists": {"a": "not base64"}}
    with pytest.raises(Unreadable, match="has version 1 of the format; this kcm reads version 2"):
        read(json.dumps(content).encode())
    other = content | {"format": "something-else"}
    with pytest.raises(Unreadable, match="format"):
        read(json.dumps(other).encode())


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[" * 100_000, b"\xff", b"[]", b"7", b" " * (FILE_MAX + 1)]
)
def test_a_hostile_file_is_a_clear_error(raw):
    with pytest.raises(Unreadable):
        read(raw)
    with pytest.raises(Unreadable, match="unknown field"):
        read(json.dumps(json.loads(written(file())) | {"more": 1}).encode())
