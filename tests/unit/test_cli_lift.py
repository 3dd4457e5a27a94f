"""Lifting: by tenant, several at once, and never a hold that nobody named."""

import io
import json

import pytest
from kcm.exit_codes import Exit
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.codec import Message
from kcm_schemas.codes import Code, KcmError

from tests.unit.operator_rig import Cores, Desk, row


@pytest.fixture
def cores(desk: Desk) -> Cores:
    made = Cores(desk.system)
    desk.system.everywhere("tenant", "find", lambda *_: row(link="acme-root"))
    for target in (("acme",), ("acme",), ("other",), ("--link", "acme-root")):
        desk.run("kill", *target, "--reason", f"number {len(made.held)}")
        desk.system.clock.now += 1
    return made


def on(cores: Cores, scope: str, target: str) -> list[bytes]:
    return [
        hold_id
        for hold_id, held in cores.held.items()
        if (held.hold.scope, held.hold.target) == (scope, target)
    ]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr("kcm.cli.lift.at_a_terminal", lambda: True)
    return monkeypatch


BY_TENANT = ("lift", "--tenant", "acme", "--reason", "over")


@pytest.mark.parametrize("form", ["json", "table"])
def test_all_holds_on_a_tenant_are_lifted_and_no_other_one(
    desk: Desk, cores: Cores, form: str
) -> None:
    code, out, err = desk.run(*BY_TENANT, "--yes", "-o", form)
    assert code == Exit.OK
    assert set(cores.lifted) == set(on(cores, "tenant", "acme"))
    assert len(cores.lifted) == 2
    (link,) = on(cores, "link", "acme-root")
    if form == "json":
        assert {one["hold_id"] for one in json.loads(out)} == {one.hex() for one in cores.lifted}
        assert {"hold_id": link.hex(), "stays": True} in map(json.loads, err.splitlines())
    else:
        assert (
            f"`kcm lift {link.hex()[:16]} --reason TEXT` lifts it for all tenants of that key"
            in err
        )
        assert "number 0" in err
        assert on(cores, "tenant", "other")[0].hex()[:16] not in out + err


def test_somebody_is_asked_before_a_tenant_is_opened(
    desk: Desk, cores: Cores, typed: pytest.MonkeyPatch
) -> None:
    typed.setattr("sys.stdin", io.StringIO("n\n"))
    code, _, err = desk.run(*BY_TENANT, "-o", "table")
    assert (code, cores.lifted) == (Exit.OK, {})
    for hold_id in on(cores, "tenant", "acme"):
        assert hold_id.hex()[:16] in err
    assert "nothing was changed" in err
    typed.setattr("sys.stdin", io.StringIO("y\n"))
    assert desk.run(*BY_TENANT, "-o", "table")[0] == Exit.OK
    assert len(cores.lifted) == 2


def test_where_nobody_can_be_asked_nothing_is_lifted(desk: Desk, cores: Cores) -> None:
    code, _, err = desk.run(*BY_TENANT, "-o", "json")
    assert (code, cores.lifted) == (Exit.USAGE, {})
    assert "give --yes" in json.loads(err)["detail"]


def test_a_tenant_without_holds_is_told_and_an_unknown_one_refused(
    desk: Desk, cores: Cores
) -> None:
    arguments = ("lift", "--tenant", "quiet", "--yes", "--reason", "over", "-o")
    code, _, err = desk.run(*arguments, "table")
    assert (code, cores.lifted) == (Exit.OK, {})
    assert "tenant quiet itself has no hold" in err
    cores.tenants = []
    code, _, err = desk.run(*arguments, "json")
    assert (code, json.loads(err)["error"]) == (Exit.REFUSED, "unknown_tenant")


def test_several_ids_are_lifted_at_once_and_each_once(desk: Desk, cores: Cores) -> None:
    first, second = on(cores, "tenant", "acme")
    ids = (first.hex(), second.hex(), first.hex().upper()[:12])
    code, out, _ = desk.run("lift", *ids, "--reason", "over", "-o", "json")
    assert (code, set(cores.lifted)) == (Exit.OK, {first, second})
    assert [one["lifted"] for one in json.loads(out)] == [True, True]


def test_nothing_is_lifted_when_one_id_is_wrong(desk: Desk, cores: Cores) -> None:
    (first, _) = on(cores, "tenant", "acme")
    for wrong, code in (("f" * 32, Exit.REFUSED), ("xyz", Exit.USAGE)):
        assert desk.run("lift", first.hex(), wrong, "--reason", "over")[0] == code
    assert cores.lifted == {}


def test_a_lift_that_fails_says_which_holds_are_left(desk: Desk, cores: Cores) -> None:
    first, second = on(cores, "tenant", "acme")
    put = desk.system.cores["eu"].handlers["hold", "put"]

    def once(request: AdminRequest, operator: str) -> Message:
        if cores.lifted:
            raise KcmError(Code.FORBIDDEN, "not any more")
        return put(request, operator)

    desk.system.everywhere("hold", "put", once)
    arguments = ("lift", first.hex(), second.hex(), "--reason", "over", "-o", "json")
    code, out, err = desk.run(*arguments)
    assert code == Exit.REFUSED
    assert [one["hold_id"] for one in json.loads(out)] == [first.hex()]
    error = json.loads(err.splitlines()[-1])
    assert error["detail"].startswith(f"1 of 2 lifted, not {second.hex()[:16]}: ")


def test_the_holds_of_one_tenant_are_listed_and_those_of_its_root_key(
    desk: Desk, cores: Cores
) -> None:
    code, out, _ = desk.run("hold", "list", "acme", "-o", "json")
    own, (key,) = on(cores, "tenant", "acme"), on(cores, "link", "acme-root")
    assert (code, [one["hold_id"] for one in json.loads(out)]) == (
        Exit.OK, [*(one.hex() for one in own), key.hex()],
    )  # fmt: skip
    desk.run("lift", own[0].hex(), "--reason", "over")
    assert desk.run("hold", "list", "acme", "--ids")[1].split() == [own[1].hex(), key.hex()]
    assert desk.run("hold", "list", "acme", "--ids", "--all")[1].count("\n") == 3
    cores.tenants = []
    code, _, err = desk.run("hold", "list", "nobody", "-o", "json")
    assert (code, json.loads(err)["error"]) == (Exit.REFUSED, "unknown_tenant")


@pytest.mark.parametrize(
    "arguments", [(), ("abc", "--tenant", "acme"), ("abc", "--yes")], ids=["none", "both", "yes"]
)
def test_ids_or_a_tenant_are_wanted(desk: Desk, cores: Cores, arguments: tuple[str, ...]) -> None:
    assert desk.run("lift", *arguments, "--reason", "over")[0] == Exit.USAGE
    assert cores.lifted == {}
