"""Who interrupts a change is told what has been done, and how to look."""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from kcm._internal.transport import Transport
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.codec import Message
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Tenant

from tests.unit import roster_rig, test_cli_registry
from tests.unit.operator_rig import Cores, Desk
from tests.unit.test_cli_change import Registry

SIGNALS = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)


@pytest.fixture
def cores(desk: Desk) -> Cores:
    return Cores(desk.system, looks=10**6)


def interrupt(cores: Cores, verb: str, number: int, *, before: bool = False) -> None:
    """Send this process a signal when a region is asked."""
    asked: Callable[[AdminRequest, str], Message] = cores.system.cores["eu"].handlers["hold", verb]

    def handler(request: AdminRequest, operator: str) -> Message:
        if before:
            os.kill(os.getpid(), number)
        answer = asked(request, operator)
        os.kill(os.getpid(), number)
        return answer

    cores.system.everywhere("hold", verb, handler)


@pytest.fixture
def rosters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> roster_rig.Desk:
    return roster_rig.Desk(tmp_path, capsys)


def said(err: str) -> dict[str, str]:
    report: dict[str, str] = json.loads(err.splitlines()[-1])
    return report


@SIGNALS
def test_a_kill_that_stands_is_said_to_stand(
    desk: Desk, cores: Cores, number: int, code: int
) -> None:
    interrupt(cores, "status", number)
    ended, _, err = desk.run("kill", "acme", "-o", "json")
    ((hold_id, _),) = cores.held.items()
    assert ended == code
    report = said(err)
    assert report["error"] == "interrupted"
    assert report["detail"] == f"interrupted: the hold {hold_id.hex()} on tenant acme is in force"
    assert f"`kcm hold show {hold_id.hex()}" in report["hint"]


@SIGNALS
def test_a_kill_that_nobody_confirmed_is_not_said_to_be_anything(
    desk: Desk, cores: Cores, number: int, code: int
) -> None:
    interrupt(cores, "put", number, before=True)
    ended, _, err = desk.run("kill", "acme", "-o", "json")
    report = said(err)
    assert ended == code
    assert "it is not known whether the hold" in report["detail"]
    assert "kcm hold show" in report["hint"]


@SIGNALS
def test_a_kill_that_was_not_sent_changed_nothing(
    desk: Desk, cores: Cores, number: int, code: int
) -> None:
    interrupt(cores, "preview", number)
    ended, _, err = desk.run("kill", "acme", "-o", "json")
    assert (ended, cores.held) == (code, {})
    assert said(err)["detail"] == "interrupted: no hold was placed"


def test_a_person_reads_it_as_text(desk: Desk, cores: Cores) -> None:
    interrupt(cores, "status", signal.SIGINT)
    _, _, err = desk.run("kill", "acme", "-o", "table")
    (hold_id,) = cores.held
    assert f"error: interrupted: the hold {hold_id.hex()} on tenant acme is in force" in err
    assert f"hint: `kcm hold show {hold_id.hex()} --wait 60`" in err


def test_retiring_a_region_is_a_hold_like_any_other(desk: Desk, cores: Cores) -> None:
    interrupt(cores, "status", signal.SIGINT)
    code, _, err = desk.run("region", "retire", "us", "--reason", "lost", "-o", "json")
    assert code == Exit.INTERRUPTED
    assert "on region us is in force" in said(err)["detail"]


@SIGNALS
def test_a_lift_says_what_is_lifted_and_what_is_not_known(
    desk: Desk, cores: Cores, number: int, code: int
) -> None:
    cores.looks = 0
    for _ in range(3):
        desk.run("kill", "acme")
        desk.system.clock.now += 1
    ids = [hold_id.hex() for hold_id in cores.held]
    put = cores.system.cores["eu"].handlers["hold", "put"]

    def second(request: AdminRequest, operator: str) -> Message:
        if len(cores.lifted) == 1:
            os.kill(os.getpid(), number)
        return put(request, operator)

    cores.system.everywhere("hold", "put", second)
    ended, _, err = desk.run("lift", *ids, "--reason", "over", "-o", "json")
    assert ended == code
    report = said(err)
    assert f"lifted: {ids[0]}" in report["detail"]
    assert f"not known of: {ids[1]}" in report["detail"]
    assert f"not lifted: {ids[2]}" in report["detail"]
    assert f"`kcm hold show {ids[1]}`" in report["hint"]


@SIGNALS
def test_a_roster_that_one_region_has_can_be_brought_to_the_others(
    rosters: roster_rig.Desk, number: int, code: int
) -> None:
    cores, path = rosters.cores, rosters.system.directory / "roster"
    cores.signed["eu"] = [roster_rig.entry("lift 01", 5)]
    put = rosters.system.cores["us"].handlers["roster", "put"]

    def second(request: AdminRequest, operator: str) -> Message:
        if cores.put:
            os.kill(os.getpid(), number)
        return put(request, operator)

    rosters.system.everywhere("roster", "put", second)
    ended, _, err = rosters.run("roster", "retire", "bob", "--yes")
    assert (ended, set(cores.put)) == (code, {"eu", "us"} if number == signal.SIGINT else {"eu"})
    assert "the roster may be in some regions only" in said(err)["detail"]
    assert f"`kcm roster put {path}`" in said(err)["hint"]
    rosters.system.everywhere("roster", "put", put)
    cores.put.clear()
    assert rosters.run("roster", "put", str(path), key=False)[0] == Exit.OK
    assert set(cores.put) == {"eu", "us"}
    assert roster_rig.bob_of(rosters.kept).retired is not None


def test_a_retirement_that_was_not_sent_changed_nothing(rosters: roster_rig.Desk) -> None:
    def ends(request: AdminRequest, operator: str) -> Message:
        raise KeyboardInterrupt

    rosters.system.everywhere("roster", "signed", ends)
    code, _, err = rosters.run("roster", "retire", "bob", "--yes")
    assert (code, rosters.cores.put) == (Exit.INTERRUPTED, {})
    assert said(err)["detail"].startswith("interrupted: bob is not retired")
    assert roster_rig.bob_of(rosters.kept).retired is None


ORDERS = {
    ("tenant", "create", "acme", "--link", "root"): (("tenant", "put"), "kcm tenant show acme"),
    ("tenant", "relink", "acme", "--link", "new"): (("tenant", "put"), "kcm tenant show acme"),
    ("service", "create", "acme", "crm"): (("service", "put"), "kcm service list acme"),
    ("l1", "link", "root", "softkey:/x"): (("link", "put"), "kcm l1 list"),
}


@SIGNALS
@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_an_order_to_several_regions_says_where_it_is_done(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    order: tuple[str, ...],
    number: int,
    code: int,
) -> None:
    desk = Desk(tmp_path, capsys)
    registry = Registry(desk.system)
    for region in ("eu", "us"):
        registry.tenants[region, "acme"] = Tenant(
            tenant="acme", revision=1, link="root", regions=["eu", "us"], region_quorum="all"
        )
    place, shows = ORDERS[order]
    put = desk.system.cores["us"].handlers[place]
    first = threading.Event()

    def eu(request: AdminRequest, operator: str) -> Message:
        first.set()
        return put(request, operator)

    def us(request: AdminRequest, operator: str) -> Message:
        os.kill(os.getpid(), number)
        raise KcmError(Code.UNAVAILABLE)

    desk.system.cores["eu"].handlers[place] = eu
    desk.system.cores["us"].handlers[place] = us
    ended, out, err = desk.run(*order, "-o", "json")
    assert (ended, out, first.is_set()) == (code, "", True)
    report = said(err)
    assert report["error"] == "interrupted"
    assert "not known of" in report["detail"]
    assert "us" in report["detail"].partition("not known of")[2]
    assert f"`{shows} --region " in report["hint"]


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_an_order_that_was_not_sent_changed_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], order: tuple[str, ...]
) -> None:
    desk = Desk(tmp_path, capsys)
    Registry(desk.system)

    async def opener(*_: object) -> Transport:
        raise KeyboardInterrupt

    words = [*order, "--context", str(desk.system.context_file), "-o", "json"]
    assert run(words, opener, desk.system.clock.around()) == Exit.INTERRUPTED
    assert "nothing was" in said(capsys.readouterr().err)["detail"]


def test_an_adoption_that_nobody_confirmed_is_not_said_to_be_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = test_cli_registry.Desk(tmp_path, capsys)

    def ends(request: AdminRequest, operator: str) -> Message:
        raise KeyboardInterrupt

    desk.system.everywhere("registry", "adopt", ends)
    code, _, err = desk.run("adopt", "--region", "eu", "--yes")
    assert code == Exit.INTERRUPTED
    assert "it is not known whether core-eu adopted" in said(err)["detail"]
    assert said(err)["hint"] == "`kcm registry show --region eu` shows it"


def test_what_cannot_be_done_is_not_said_to_be_left_in_half(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a fault of this machine says nothing of the order."""
    desk = Desk(tmp_path, capsys)
    code, _, err = desk.run("tenant", "create", "acme", "--link", "root", "--region", "mars")
    assert (code, said(err)["detail"]) == (Exit.USAGE, "the context has no region mars")


def test_an_interruption_before_the_command_began_says_that_nothing_was_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kcm.cli.main.cli.main", interrupted)
    assert run(["kill", "acme"]) == Exit.INTERRUPTED
    assert capsys.readouterr().err == "interrupted: nothing was done\n"
