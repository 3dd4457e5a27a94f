"""`kcm tenant relink`: a tenant moved to another root key in all of its regions."""

import json

import pytest
from kcm.exit_codes import Exit
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.codec import Message

from tests.unit.operator_rig import Desk, keep, row, unknown


def test_a_tenant_is_moved_by_the_next_revision_of_its_record(desk: Desk) -> None:
    got: list[bytes] = []
    desk.system.everywhere("tenant", "find", lambda request, operator: row(revision=3))
    desk.system.everywhere("tenant", "put", keep(got))
    assert desk.run("tenant", "relink", "acme", "--link", "new")[0] == Exit.OK
    moved = [desk.system.verifier.tenant(raw) for raw in got]
    assert {(one.link, one.revision, one.region_quorum) for one in moved} == {("new", 4, "all")}
    assert len(got) == 2


@pytest.mark.parametrize(
    "command", [("tenant", "relink", "acme", "--link", "new"), ("service", "create", "acme", "crm")]
)
def test_a_region_of_a_tenant_that_the_context_lacks_is_not_left_out_silently(
    desk: Desk, command: tuple[str, ...]
) -> None:
    got: list[bytes] = []
    desk.system.everywhere("tenant", "find", lambda request, operator: row(revision=3))
    desk.system.everywhere(command[0], "put", keep(got))
    desk.system.forget("us")
    code, out, err = desk.run(*command, "-o", "json")
    assert (code, len(got)) == (Exit.PARTIAL, 1)
    assert [(one["region"], one["result"]) for one in json.loads(out)] == [
        ("eu", "ok"), ("us", "not_in_context"),
    ]  # fmt: skip
    said = json.loads(err)
    assert said["detail"] == "us: a region of the tenant, not in this context"
    assert "a context that has it" in said["hint"]
    desk.system.cores["eu"].handlers[command[0], "put"] = unknown
    assert desk.run(*command, "-o", "json")[0] == Exit.REFUSED


def test_a_move_that_ended_early_goes_on_with_the_very_same_record(desk: Desk) -> None:
    got: list[bytes] = []

    def half(request: AdminRequest, operator: str) -> Message:
        here = request.region == "eu"
        return row(region=request.region, revision=4 if here else 3, link="new" if here else "root")

    desk.system.everywhere("tenant", "find", half)
    desk.system.everywhere("tenant", "put", keep(got))
    assert desk.run("tenant", "relink", "acme", "--link", "new")[0] == Exit.OK
    assert {desk.system.verifier.tenant(raw).revision for raw in got} == {4}


@pytest.mark.parametrize(
    ("eu", "us", "wanted"),
    [
        ((3, "new", "all"), (5, "root", "local"), (6, "local")),
        ((5, "new", "all"), (5, "root", "all"), (6, "all")),
        ((5, "new", "all"), (5, "new", "local"), (6, "all")),
        ((5, "new", "local"), (3, "root", "all"), (5, "local")),
        ((5, "new", "all"), (5, "new", "all"), (5, "all")),
    ],
)
def test_a_move_takes_the_place_of_every_record_that_is_not_moved(
    desk: Desk, eu: tuple[int, str, str], us: tuple[int, str, str], wanted: tuple[int, str]
) -> None:
    got: list[bytes] = []

    def there(request: AdminRequest, operator: str) -> Message:
        revision, link, region_quorum = eu if request.region == "eu" else us
        return row(region=request.region, revision=revision, link=link, region_quorum=region_quorum)

    desk.system.everywhere("tenant", "find", there)
    desk.system.everywhere("tenant", "put", keep(got))
    assert desk.run("tenant", "relink", "acme", "--link", "new")[0] == Exit.OK
    moved = [desk.system.verifier.tenant(raw) for raw in got]
    assert {(one.revision, one.region_quorum, one.link) for one in moved} == {(*wanted, "new")}
