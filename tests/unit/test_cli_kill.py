"""`kcm kill`: placed, watched and reported, also when regions do not reply."""

import json
from collections.abc import Callable

import pytest
from kcm.exit_codes import Exit
from kcm_schemas.admin.holds import HoldQuery
from kcm_schemas.admin.kill_status import RegionStatus
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.codec import Message, decode
from kcm_schemas.codes import Code, KcmError

from tests.fakes.client import REGIONS
from tests.fakes.refusals import failure
from tests.fakes.terminal import stdout_on_terminal
from tests.unit.operator_rig import Cores, Desk


def test_a_kill_ends_well_only_when_it_is_complete(desk: Desk, cores: Cores) -> None:
    code, out, err = desk.run("kill", "acme", "--reason", "a drill", "-o", "json")
    assert code == Exit.OK
    status = json.loads(out)
    assert status["complete"] is True
    (held,) = cores.held.values()
    assert (held.hold.scope, held.hold.target, held.hold.reason) == ("tenant", "acme", "a drill")
    assert json.loads(err.splitlines()[0]) == {"hold_id": held.hold.id.hex()}
    assert cores.looks == 0


def test_a_kill_of_a_root_key_names_the_link(desk: Desk, cores: Cores) -> None:
    assert desk.run("kill", "--link", "acme-root")[0] == Exit.OK
    (held,) = cores.held.values()
    assert (held.hold.scope, held.hold.target) == ("link", "acme-root")


def test_a_kill_that_is_not_complete_in_time_says_so(desk: Desk, cores: Cores) -> None:
    cores.looks = 10**6
    code, out, err = desk.run("kill", "acme", "--timeout", "3", "-o", "json")
    assert code == Exit.NOT_COMPLETE
    assert json.loads(out)["complete"] is False
    said = json.loads(err.splitlines()[-1])
    assert said["error"] == "not_complete"
    assert "kcm hold show" in said["hint"]


def test_a_core_that_cannot_store_the_hold_is_named_with_the_reason(
    desk: Desk, cores: Cores
) -> None:
    cores.looks, cores.trouble = 10**6, "disk full"
    code, out, err = desk.run("kill", "acme", "--timeout", "3", "-o", "table")
    assert code == Exit.NOT_COMPLETE
    assert "waiting: cannot store: disk full" in out
    assert "core-eu cannot store: disk full" in err


def test_a_kill_that_nobody_confirms_may_be_in_force(desk: Desk, cores: Cores) -> None:
    desk.system.unreachable |= set(REGIONS)
    code, _, err = desk.run("kill", "acme", "--timeout", "3", "-o", "table")
    assert code == Exit.UNAVAILABLE
    assert "no region confirmed the hold" in err
    assert "may be in force" in err


def test_that_no_region_answers_is_said_at_once_and_once(desk: Desk, cores: Cores) -> None:
    desk.system.unreachable |= set(REGIONS)
    _, _, err = desk.run("kill", "acme", "--timeout", "30", "-o", "table")
    placing, silent, *rest = err.splitlines()
    assert placing.startswith("placing hold")
    assert silent == (
        "no region has confirmed the hold yet: eu, us: no connection; retrying for another 30 s"
    )
    assert len(rest) == 2
    assert f"kcm hold show {placing.split()[2][:8]}" in rest[1]
    _, _, err = desk.run("kill", "acme", "--timeout", "30", "-o", "json")
    assert json.loads(err.splitlines()[1])["seconds_left"] == 30


def test_every_region_that_cannot_be_asked_is_named(desk: Desk, cores: Cores) -> None:
    desk.system.unreachable.add("eu")
    desk.system.cores["us"].down = True
    code, _, err = desk.run("hold", "list", "-o", "json")
    assert code == Exit.UNAVAILABLE
    assert (
        json.loads(err)["detail"] == "eu: no connection; us: no instance serves this at the moment"
    )


def test_one_region_is_enough_to_place_a_kill(desk: Desk, cores: Cores) -> None:
    desk.system.unreachable.add("eu")
    assert desk.run("kill", "acme")[0] == Exit.OK


def test_a_kill_needs_no_session(desk: Desk, cores: Cores) -> None:
    """An attacker on the broker refuses whatever begins a session, or comes in one."""

    async def lie(subject: str, _body: bytes) -> bytes | None:
        in_clear = subject.endswith(".admin.hold.put")
        return None if in_clear else failure(Code.FORBIDDEN, "a lie")

    cores.looks = 0
    for core in desk.system.cores.values():
        core.bend = lie
    code, out, err = desk.run("kill", "acme", "-o", "json")
    assert (code, cores.puts > 0) == (Exit.OK, True), err
    assert "a lie" not in out + err


def test_a_dry_run_signs_no_hold(desk: Desk, cores: Cores) -> None:
    code, out, _ = desk.run("kill", "acme", "--dry-run", "-o", "json")
    assert code == Exit.OK
    assert json.loads(out)["eu"]["tenants"] == ["acme"]
    assert cores.puts == 0
    for core in desk.system.cores.values():
        assert [request.verb for request in core.requests] == ["preview"]
        assert len(core.requests[0].payload) < 64
    desk.system.unreachable.add("us")
    assert desk.run("kill", "acme", "--dry-run", "-o", "table")[0] == Exit.UNAVAILABLE


def test_the_table_fills_on_a_terminal(desk: Desk, cores: Cores) -> None:
    with stdout_on_terminal() as shown:
        code, *_ = desk.run("kill", "acme")
    text = b"".join(shown).decode()
    assert code == Exit.OK
    assert "under way: waiting for core-eu (no receipt yet)" in text
    assert "complete: every registered instance" in text
    assert "receipt" in text


SILENT = RegionStatus(region="us", durable_at=0, how="waiting", left_ms=0)


def without_us(cores: Cores) -> Callable[[AdminRequest, str], Message]:
    """What a Core of eu says of a hold while us does not answer."""

    def say(request: AdminRequest, operator: str) -> Message:
        (hold_id,) = cores.held
        status = cores.status_of(hold_id)
        regions = [*status.regions, SILENT]
        return status.model_copy(update={"regions": regions, "complete": False})

    return say


@pytest.mark.parametrize("timeout", ["1", "3"])
def test_what_one_region_has_is_told_although_another_one_is_down(
    desk: Desk, cores: Cores, timeout: str
) -> None:
    desk.system.cores["us"].down = True
    eu = desk.system.cores["eu"].handlers
    put, say = eu["hold", "put"], without_us(cores)

    def placed(request: AdminRequest, operator: str) -> Message:
        put(request, operator)
        return say(request, operator)

    def no_more(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.UNAVAILABLE, "asked in vain")

    eu["hold", "put"] = placed
    for status in (say, no_more):  # what was said when it was placed counts, too
        eu["hold", "status"] = status
        cores.held.clear()
        code, out, err = desk.run("kill", "acme", "--timeout", timeout, "-o", "json")
        assert code == Exit.NOT_COMPLETE, err
        told = {one["region"]: one["how"] for one in json.loads(out)["regions"]}
        assert told == {"eu": "durable", "us": "waiting"}
        error = json.loads(err.splitlines()[-1])
        assert error["error"] == "not_complete"
        assert "in force in eu" in error["detail"]
        assert "us (no reply" in error["detail"]
    eu["hold", "status"] = say
    (hold_id,) = cores.held
    code, out, err = desk.run("hold", "show", hold_id.hex(), "-o", "json")
    assert (code, json.loads(out)["complete"]) == (Exit.OK, False)
    code, _, err = desk.run("hold", "show", hold_id.hex(), "--wait", timeout, "-o", "json")
    assert code == Exit.NOT_COMPLETE
    arguments = ("lift", hold_id.hex(), "--reason", "over", "--timeout", timeout)
    code, out, err = desk.run(*arguments, "-o", "table")
    assert code == Exit.NOT_COMPLETE
    assert "us" in out
    assert "lifted in eu; not confirmed yet by us" in err


def test_a_hold_that_was_not_confirmed_is_looked_for_before_it_is_given_up(
    desk: Desk, cores: Cores
) -> None:
    desk.system.cores["us"].down = True
    put = desk.system.cores["eu"].handlers["hold", "put"]

    def unheard(request: AdminRequest, operator: str) -> Message:
        put(request, operator)
        raise KcmError(Code.UNAVAILABLE, "the answer was lost")

    desk.system.cores["eu"].handlers["hold", "put"] = unheard
    desk.system.cores["eu"].handlers["hold", "status"] = without_us(cores)
    code, _, err = desk.run("kill", "acme", "--timeout", "1", "-o", "json")
    assert code == Exit.NOT_COMPLETE, err
    assert "in force in eu" in json.loads(err.splitlines()[-1])["detail"]


def test_a_dry_run_says_of_which_region_it_does_not_know_the_instances(
    desk: Desk, cores: Cores
) -> None:
    code, _, err = desk.run("kill", "acme", "--dry-run", "-o", "table")
    assert code == Exit.OK
    assert "the instances of us are not known" in err


def test_what_a_kill_waits_for_is_named_with_the_reason_and_the_bound(
    desk: Desk, cores: Cores
) -> None:
    cores.looks = 10**6
    cores.waiting = {"how": "watching", "left_ms": 11_200}
    code, out, err = desk.run("kill", "acme", "--timeout", "4", "-o", "table")
    assert code == Exit.NOT_COMPLETE
    assert "stored; watched too briefly; at most 12 s" in out
    placing, meanwhile, error, _ = err.splitlines()
    assert placing.startswith("placing hold")
    assert meanwhile.startswith(
        "under way: waiting for region eu (the Core that replies there started"
    )
    for text in (meanwhile, error):
        assert "cannot know yet that no instance is missing; at most 12 s" in text
        assert "core-eu (no receipt yet)" in text
    err = desk.run("kill", "acme", "--timeout", "4", "-o", "json")[2]
    assert len(json.loads(err.splitlines()[1])["waiting_for"]) == 2


def test_a_region_whose_cores_differ_is_told_with_both_reasons(desk: Desk, cores: Cores) -> None:
    cores.looks = 10**6
    cores.waiting = {"how": "differing", "left_ms": 1000}
    _, out, err = desk.run("kill", "acme", "--timeout", "4", "-o", "table")
    assert "its Cores know different tenants, or have no baseline of them" in " ".join(out.split())
    assert "the Cores there know different tenants, or have no baseline of them" in err


def test_a_retired_instance_is_said_to_be_one(desk: Desk, cores: Cores) -> None:
    desk.run("kill", "acme")

    def ended(request: AdminRequest, operator: str) -> Message:
        status = cores.status_of(decode(HoldQuery, request.payload).hold_id)
        incarnation = status.incarnations[0].model_copy(
            update={"how": "lease-ended", "retired": True}
        )
        return status.model_copy(update={"incarnations": [incarnation]})

    desk.system.everywhere("hold", "status", ended)
    (hold_id,) = cores.held
    _, out, err = desk.run("hold", "show", hold_id.hex(), "-o", "table")
    assert "lease-ended (retired)" in out
    assert "complete: core-eu (retired) did not reply" in err

    def waits(request: AdminRequest, operator: str) -> Message:
        status = cores.status_of(decode(HoldQuery, request.payload).hold_id)
        changes = {"how": "waiting", "retired": True, "left_ms": 9500}
        incarnation = status.incarnations[0].model_copy(update=changes)
        return status.model_copy(update={"incarnations": [incarnation], "complete": False})

    desk.system.everywhere("hold", "status", waits)
    _, out, err = desk.run("hold", "show", hold_id.hex(), "-o", "table")
    assert "waiting; at most 10 s (retired)" in out
    assert "core-eu (retired: until its lease ends; at most 10 s)" in err


def test_a_dry_run_that_no_region_answers_has_one_error(desk: Desk, cores: Cores) -> None:
    def silent(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.UNAVAILABLE, "not now")

    desk.system.everywhere("hold", "preview", silent)
    code, _, err = desk.run("kill", "acme", "--dry-run", "-o", "table")
    assert code == Exit.UNAVAILABLE
    assert sum(line.startswith("error:") for line in err.splitlines()) == 1
