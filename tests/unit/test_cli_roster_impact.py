"""What stops counting when a retired signer's statement is left out."""

from pathlib import Path

import pytest
from kcm.exit_codes import Exit
from kcm_schemas.admin.holds import HoldView
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.admin.roster import SignedPage
from kcm_schemas.codec import Message
from kcm_schemas.codes import Code, KcmError

from tests.unit.roster_rig import DAY_MS, Desk, entry, lists_holds


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def held(number: int, link: str, *, lifted_by: str = "bob", origin: str = "eu") -> HoldView:
    return HoldView(
        hold_id=bytes((1, number)) + bytes(14), scope="link", target=link, cause="l1",
        origin=origin, issuer="core-eu", issued_ms=1, reason="", lifted=True, lifted_ms=2,
        lifted_by=lifted_by, lift_reason="", raw=b"",
    )  # fmt: skip


UNKNOWN_PAGE = (
    "3 holds of region eu whose ids begin with 01 are in force again; no region knows their links"
)


def test_what_goes_dark_by_leaving_something_out_is_said(desk: Desk) -> None:
    tenant_hold = held(9, "acme").model_copy(update={"scope": "tenant", "cause": "operator"})
    lists_holds(desk, [
        held(1, "root"), held(2, "root"), held(3, "other"), held(4, "x", lifted_by="core-eu"),
        held(5, "x", origin="us"), tenant_hold,
        held(6, "y").model_copy(update={"hold_id": b"\x02" * 16}),
    ])  # fmt: skip
    whats = [
        f"lift {tenant_hold.hold_id.hex()}", f"lift {held(1, 'x').hold_id.hex()}",
        "lifts eu 01 of 3 abcd", "tenant beta", "accepted tenant beta", "service beta crm",
        "link root", "root-keys beta", "service-keys beta crm",
    ]  # fmt: skip
    desk.cores.signed["eu"] = [entry(what, 5 * DAY_MS) for what in sorted(whats)]
    leave_out = [argument for what in whats for argument in ("--leave-out", what)]
    code, said, _ = desk.run("roster", "retire", "bob", "--dry-run", *leave_out, key=False)
    assert code == Exit.OK
    of_root = "tenants root-a, root-b and 7 more"
    assert {one["what"]: one["dark"] for one in said["signed"]} == {
        whats[0]: "hold on tenant acme is in force again",
        whats[1]: f"hold on link root is in force again: {of_root}",
        whats[2]: "3 holds of region eu whose ids begin with 01 are in force again, on links "
        f"root ({of_root}), other (tenants other-a, other-b and 7 more)",
        whats[3]: "tenant beta",
        whats[4]: "tenant beta",
        whats[5]: "service crm of tenant beta",
        whats[6]: of_root,
        whats[7]: "tenant beta",
        whats[8]: "service crm of tenant beta",
    }
    assert all(not one["endorsed"] for one in said["signed"])


def test_thousands_that_are_left_out_are_not_asked_for_one_by_one(desk: Desk) -> None:
    lists_holds(desk, [])
    desk.system.everywhere("roster", "signed", lambda *_: SignedPage(
        entries=[entry(f"lift {number:032x}", 5 * DAY_MS) for number in range(1000)], more=False
    ))  # fmt: skip
    code, said, _ = desk.run(
        "roster", "retire", "bob", "--dry-run", "--before", "1970-01-02", key=False
    )
    assert code == Exit.OK
    assert len(desk.system.cores["eu"].requests) < 100
    assert all("is in force again" in one["dark"] for one in said["signed"])
    assert "kcm hold show" in said["signed"][-1]["dark"]


def test_what_lasts_darkens_nothing_and_a_region_that_fails_is_said(desk: Desk) -> None:
    def silent(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.FORBIDDEN, "not you")

    for verb in ("show", "list", "preview"):
        desk.system.everywhere("hold", verb, silent)
    desk.cores.signed["eu"] = [entry("lift 01", 5), entry("lifts eu 01 of 3 x"), entry("link root")]
    said = desk.run("roster", "retire", "bob", "--dry-run", key=False)[1]
    assert [one["dark"] for one in said["signed"]] == ["", "", ""]
    left = [word for one in said["signed"] for word in ("--leave-out", one["what"])]
    said = desk.run("roster", "retire", "bob", "--dry-run", *left, key=False)[1]
    assert [one["dark"] for one in said["signed"]] == [
        "its hold is in force again; its target is not known: not you",
        UNKNOWN_PAGE,
        "the tenants of link root; they are not known: not you",
    ]
