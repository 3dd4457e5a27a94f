"""``kcm l1 status``: how many root keys each Core has in use, and who was unloaded for it."""

import json

from kcm.exit_codes import Exit
from kcm_schemas.admin.key_budget import KeyUse
from kcm_schemas.admin.requests import AdminRequest, Empty
from kcm_schemas.codec import Message, decode

from tests.fakes.client import NOW_MS, REGIONS
from tests.unit.operator_rig import Desk

FIELDS: dict[str, object] = {
    "state": "free", "since_ms": 0, "in_use": 3, "most": 600, "unloaded": 0, "unloaded_all": 0,
    "unloaded_ms": 0,
}  # fmt: skip


def answers(desk: Desk, **changes: object) -> None:
    """Every Core says so of itself."""

    def say(request: AdminRequest, operator: str) -> Message:
        decode(Empty, request.payload)
        about = {"core": f"core-{request.region}", "region": request.region}
        return KeyUse.model_validate({**FIELDS, **changes, **about})

    desk.system.everywhere("key", "status", say)


def test_every_core_of_every_region_is_asked(desk: Desk) -> None:
    answers(desk)
    code, out, err = desk.run("l1", "status", "-o", "json")
    assert code == Exit.OK
    rows = json.loads(out)
    assert [(row["region"], row["core"], row["state"]) for row in rows] == [
        (region, f"core-{region}", "free") for region in REGIONS
    ]
    assert (rows[0]["in_use"], rows[0]["most"], rows[0]["since_utc"]) == (3, 600, None)
    assert err == ""
    assert len(json.loads(desk.run("l1", "status", "--region", "us", "-o", "json")[1])) == 1
    table = desk.run("l1", "status", "-o", "table")[1]
    assert "3 of 600 (0 %)" in table


def test_it_warns_before_the_room_is_used_up_and_says_what_to_do(desk: Desk) -> None:
    answers(desk, state="filling", in_use=560, since_ms=NOW_MS)
    code, out, err = desk.run("l1", "status", "-o", "table")
    assert code == Exit.OK
    assert "560 of 600 (93 %)" in out
    assert err.count("core-eu: 560 of 600") == 1
    assert "probes_per_s" in err
    said = [json.loads(line) for line in desk.run("l1", "status", "-o", "json")[2].splitlines()]
    assert [one["core"] for one in said] == ["core-eu", "core-us"]
    assert all("560 of 600" in one["warning"] for one in said)


def test_who_was_unloaded_is_told_with_since_when(desk: Desk) -> None:
    answers(
        desk, state="crowded", in_use=600, since_ms=NOW_MS, unloaded=17, unloaded_all=40,
        unloaded_ms=NOW_MS,
    )  # fmt: skip
    code, out, err = desk.run("l1", "status", "-o", "table")
    assert code == Exit.OK
    assert "crowded" in out
    assert "2027-01-15" in out
    assert "17 tenants" in err
    row = json.loads(desk.run("l1", "status", "-o", "json")[1])[0]
    assert (row["unloaded"], row["unloaded_all"]) == (17, 40)
    assert row["since_utc"] == row["unloaded_utc"] == "2027-01-15 08:00:00"


def test_a_core_that_does_not_answer_is_named(desk: Desk) -> None:
    answers(desk)
    desk.system.cores["us"].down = True
    code, out, err = desk.run("l1", "status", "-o", "json")
    assert code == Exit.PARTIAL
    assert [row["state"] for row in json.loads(out)] == ["free", "no reply"]
    silent, step = map(json.loads, err.splitlines())
    assert silent["core"] == "core-us"
    assert "`kcm region list`" in step["hint"]
    desk.system.unreachable.add("eu")
    code, out, err = desk.run("l1", "status", "-o", "table")
    assert code == Exit.UNAVAILABLE
    assert out.count("no reply") == 2


def test_who_is_retired_is_not_asked(desk: Desk) -> None:
    answers(desk)
    desk.system.retire("core-us")
    rows = json.loads(desk.run("l1", "status", "-o", "json")[1])
    assert [row["core"] for row in rows] == ["core-eu"]
