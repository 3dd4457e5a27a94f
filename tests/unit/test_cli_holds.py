"""`kcm hold` and `kcm lift`: listed, shown, waited for and lifted."""

import json

import pytest
from kcm.exit_codes import Exit
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.codec import Message

from tests.fakes.client import NOW_MS
from tests.unit.operator_rig import Cores, Desk, unknown


def test_holds_are_listed_shown_and_lifted(desk: Desk, cores: Cores) -> None:
    desk.run("kill", "acme", "--reason", "a drill")
    (hold_id,) = cores.held
    code, out, _ = desk.run("hold", "list", "-o", "table")
    assert code == Exit.OK
    assert hold_id.hex()[:16] in out
    assert "a drill" in out
    assert desk.run("hold", "list", "--ids")[1] == f"{hold_id.hex()}\n"
    short = hold_id.hex()[:8]
    assert json.loads(desk.run("hold", "show", short)[1])["complete"] is True
    assert desk.run("hold", "show", short, "--wait", "3")[0] == Exit.OK
    assert desk.run("hold", "show", "ffff")[0] == Exit.REFUSED
    code, out, _ = desk.run("lift", short, "--reason", "over", "-o", "json")
    assert code == Exit.OK
    assert json.loads(out)["lifted"] is True
    assert cores.lifted[hold_id].lift.reason == "over"
    assert json.loads(desk.run("hold", "list")[1]) == []
    assert desk.run("hold", "list", "--all", "--ids")[1] == f"{hold_id.hex()}\n"
    told = json.loads(desk.run("hold", "list", "--all", "--ids", "-o", "json")[1])
    assert told == [hold_id.hex()]
    assert json.loads(desk.run("hold", "list", "--ids", "-o", "json")[1]) == []
    (told,) = json.loads(desk.run("hold", "list", "--all", "-o", "json")[1])
    assert (told["issued_utc"], told["lifted_utc"]) == (
        "2027-01-15 08:00:00", "1970-01-01 00:00:00",
    )  # fmt: skip
    assert told["raw"] == cores.held[hold_id].raw.hex()
    assert len(json.loads(desk.run("hold", "list", "--all")[1])) == 1
    assert desk.run("lift", short)[0] == Exit.USAGE  # a reason is needed


def test_a_hold_that_is_lifted_is_not_lifted_again(desk: Desk, cores: Cores) -> None:
    desk.run("kill", "acme")
    (hold_id,) = cores.held
    assert desk.run("lift", hold_id.hex(), "--reason", "over")[0] == Exit.OK
    first, puts = cores.lifted[hold_id], cores.puts
    code, _, err = desk.run("lift", hold_id.hex(), "--reason", "again", "-o", "table")
    assert code == Exit.OK
    assert f"hold {hold_id.hex()} was lifted already at 1970-01-01 00:00:00 by bob" in err
    assert (cores.lifted[hold_id], cores.puts) == (first, puts)
    code, out, err = desk.run("lift", hold_id.hex(), "--reason", "again", "-o", "json")
    assert (code, json.loads(out)["lifted"], json.loads(err)["already"]) == (Exit.OK, True, True)


def test_waiting_for_a_hold_that_is_not_complete_is_exit_code_6(desk: Desk, cores: Cores) -> None:
    desk.run("kill", "acme")
    cores.looks = 10**6
    (hold_id,) = cores.held
    assert desk.run("hold", "show", hold_id.hex(), "--wait", "2")[0] == Exit.NOT_COMPLETE


def test_what_a_hold_is_and_why_can_be_read(desk: Desk, cores: Cores) -> None:
    desk.run("kill", "acme", "--reason", "the \x1b[31mcontract ended")
    (hold_id,) = cores.held
    shown = json.loads(desk.run("hold", "show", hold_id.hex()[:8], "-o", "json")[1])
    told = {name: shown[name] for name in ("scope", "target", "cause", "issuer", "lifted")}
    assert told == {
        "scope": "tenant", "target": "acme", "cause": "operator", "issuer": "alice",
        "lifted": False,
    }  # fmt: skip
    assert shown["reason"] == "the \x1b[31mcontract ended"
    assert (shown["issued_ms"], shown["issued_utc"]) == (NOW_MS, "2027-01-15 08:00:00")
    assert (shown["lifted_utc"], shown["lift_reason"]) == (None, "")
    assert "raw" not in shown
    code, out, _ = desk.run("hold", "show", hold_id.hex(), "-o", "table")
    assert code == Exit.OK
    for text in ("tenant acme", "operator", "alice", "2027-01-15 08:00:00", "contract ended"):
        assert text in out
    assert "\x1b" not in out


def test_of_a_lifted_hold_it_is_told_by_whom_when_and_why(desk: Desk, cores: Cores) -> None:
    desk.run("kill", "acme", "--reason", "a drill")
    (hold_id,) = cores.held
    desk.run("lift", hold_id.hex(), "--reason", "the drill is over")
    for wait in ((), ("--wait", "2")):
        asked = ("hold", "show", hold_id.hex(), *wait)
        shown = json.loads(desk.run(*asked, "-o", "json")[1])
        assert (shown["lifted_by"], shown["lift_reason"]) == ("bob", "the drill is over")
        assert shown["lifted_utc"] == "1970-01-01 00:00:00"
        out = desk.run(*asked, "-o", "table")[1]
        for text in ("a drill", "the drill is over", "bob", "1970-01-01 00:00:00"):
            assert text in out, out


def test_an_id_that_no_hold_has_is_told_with_what_to_do(desk: Desk, cores: Cores) -> None:
    for command in (("hold", "show", "ffff"), ("lift", "ffff", "--reason", "x")):
        code, _, err = desk.run(*command, "-o", "json")
        said = json.loads(err)
        assert (code, said["error"]) == (Exit.REFUSED, "unknown_hold")
        assert "ffff" in said["detail"]
        assert "kcm hold list" in said["hint"]


def test_what_is_no_id_of_one_hold_is_wrong_usage_with_what_to_do(desk: Desk, cores: Cores) -> None:
    for number in range(17):  # two of them begin alike
        desk.run("kill", "acme", "--reason", f"{number}")
    firsts = [hold_id.hex()[0] for hold_id in cores.held]
    several = next(digit for digit in firsts if firsts.count(digit) > 1)
    for given in ("zz", several):
        code, _, err = desk.run("hold", "show", given, "-o", "json")
        said = json.loads(err)
        assert (code, said["error"]) == (Exit.USAGE, "malformed")
        assert "kcm hold list --all" in said["hint"]


def test_the_region_that_refuses_is_named(desk: Desk) -> None:
    desk.system.everywhere("tenant", "show", unknown)
    said = json.loads(desk.run("tenant", "show", "acme", "-o", "json")[2])
    assert (said["error"], said["regions"]) == ("unknown_tenant", ["eu"])
    assert said["detail"].startswith("eu: ")
    desk.system.everywhere("tenant", "find", unknown)
    for command in (
        ("service", "create", "amce", "x"),
        ("tenant", "relink", "amce", "--link", "x"),
    ):
        said = json.loads(desk.run(*command, "-o", "json")[2])
        assert said["detail"] == "no region that replies has a tenant amce"
        assert said["error"] == "unknown_tenant"


def test_a_list_of_holds_by_another_region_than_the_one_asked_says_so(
    desk: Desk, cores: Cores
) -> None:
    desk.run("kill", "acme")
    assert desk.run("hold", "list", "--region", "us", "-o", "json")[2] == ""
    desk.system.unreachable.add("us")
    code, out, err = desk.run("hold", "list", "--region", "us", "-o", "json")
    assert (code, len(json.loads(out))) == (Exit.OK, 1)
    assert json.loads(err) == {"region": "eu", "silent": "us"}
    for more in ((), ("--ids",)):
        err = desk.run("hold", "list", "--region", "us", *more, "-o", "table")[2]
        assert err == "region us did not reply in time: these are the holds that region eu knows\n"


def test_a_lift_says_which_regions_have_it(desk: Desk, cores: Cores) -> None:
    desk.run("kill", "acme")
    (hold_id,) = cores.held
    code, out, err = desk.run("lift", hold_id.hex(), "--reason", "over", "-o", "table")
    assert code == Exit.OK
    assert "lifted in eu" in err
    assert "core-eu" not in out
    cores.looks = 1
    cores.waiting = {"region": "us", "durable_at": 0, "how": "waiting"}
    err = desk.run("hold", "show", hold_id.hex(), "-o", "table")[2]
    assert "lifted in eu" in err
    cores.looks = 9
    err = desk.run("hold", "show", hold_id.hex(), "-o", "table")[2]
    assert "lifted; not confirmed yet by us" in err


@pytest.fixture
def slow(desk: Desk, cores: Cores) -> bytes:
    """A hold whose lift a region does not have yet."""
    desk.run("kill", "acme")
    (hold_id,) = cores.held
    cores.waiting = {"region": "us", "durable_at": 0, "how": "waiting"}
    desk.run("lift", hold_id.hex(), "--reason", "over")
    cores.looks = 10**6
    return hold_id


@pytest.mark.parametrize("form", ["json", "table"])
def test_waiting_for_a_lifted_hold_waits_until_its_lift_is_complete(
    desk: Desk, cores: Cores, slow: bytes, form: str
) -> None:
    asked = ("hold", "show", slow.hex(), "--wait", "9", "-o", form)
    puts, since = cores.puts, desk.system.clock.now
    code, _, err = desk.run(*asked)
    assert (code, cores.puts) == (Exit.NOT_COMPLETE, puts)
    assert desk.system.clock.now - since > 8
    assert "lifted; not confirmed yet by us" in err
    assert "in force in" not in err
    cores.looks = 5
    code, out, err = desk.run(*asked)
    assert (code, cores.looks) == (Exit.OK, 0)
    assert form == "table" or json.loads(out)["complete"] is True
    assert form == "json" or "lifted in eu" in err


def test_a_hold_that_is_lifted_while_somebody_waits_is_waited_for(
    desk: Desk, cores: Cores, slow: bytes
) -> None:
    lift = cores.lifted.pop(slow)
    say = desk.system.cores["eu"].handlers["hold", "status"]

    def look(request: AdminRequest, operator: str) -> Message:
        if cores.looks < 10**6 - 3:
            cores.lifted[slow] = lift
        if cores.looks < 10**6 - 9:
            cores.looks = 0
        return say(request, operator)

    desk.system.everywhere("hold", "status", look)
    code, out, _ = desk.run("hold", "show", slow.hex(), "--wait", "60", "-o", "json")
    told = json.loads(out)
    assert (code, told["lifted"], told["complete"]) == (Exit.OK, True, True)


def test_a_second_lift_says_that_the_first_one_is_not_complete(
    desk: Desk, cores: Cores, slow: bytes
) -> None:
    again = ("lift", slow.hex(), "--reason", "again", "-o", "table")
    code, _, err = desk.run(*again)
    assert code == Exit.NOT_COMPLETE
    assert "was lifted already" in err
    assert "lifted; not confirmed yet by us" in err
    assert f"`kcm hold show {slow.hex()[:16]} --wait 60` waits for the other regions" in err
    cores.looks = 0
    assert desk.run(*again)[0] == Exit.OK


def test_a_region_without_the_lift_does_not_complete_it(
    desk: Desk, cores: Cores, slow: bytes
) -> None:
    """Its status says that the kill is complete, which is no word about the lift."""
    say = desk.system.cores["eu"].handlers["hold", "status"]

    def look(request: AdminRequest, operator: str) -> Message:
        lift, cores.looks = cores.lifted.pop(slow), 0
        try:
            return say(request, operator)
        finally:
            cores.lifted[slow] = lift

    desk.system.everywhere("hold", "status", look)
    assert desk.run("hold", "show", slow.hex(), "--wait", "9")[0] != Exit.OK
    assert desk.run("lift", slow.hex(), "--reason", "again")[0] == Exit.NOT_COMPLETE
