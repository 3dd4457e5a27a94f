"""`kcm tenant create` and `kcm service create`: signed, sent to each region, reported by region."""

import json

import pytest
from kcm.exit_codes import Exit
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.codec import Message
from kcm_schemas.codes import Code, KcmError

from tests.unit.operator_rig import Desk, keep, row, unknown


def test_a_tenant_is_the_same_record_in_each_of_its_regions(desk: Desk) -> None:
    got: list[bytes] = []
    desk.system.everywhere("tenant", "put", keep(got))
    code, out, _ = desk.run("tenant", "create", "acme", "--link", "root", "-o", "json")
    assert code == Exit.OK
    assert [row["region"] for row in json.loads(out)] == ["eu", "us"]
    assert got[0] == got[1]
    assert desk.run("tenant", "create", "acme", "--link", "root")[0] == Exit.OK
    assert set(got) == {got[0]}
    desk.run("tenant", "create", "b", "--link", "r", "--region", "us", "--region-quorum", "local")
    tenant = desk.system.verifier.tenant(got[-1])
    assert (tenant.regions, tenant.region_quorum) == (["us"], "local")


def test_a_part_that_failed_is_told_and_decides_the_exit(desk: Desk) -> None:
    got: list[bytes] = []
    desk.system.everywhere("tenant", "put", keep(got))
    desk.system.unreachable.add("us")
    code, out, err = desk.run("tenant", "create", "acme", "--link", "root", "-o", "json")
    assert code == Exit.UNAVAILABLE
    assert [row["result"] for row in json.loads(out)] == ["ok", "unavailable"]
    assert json.loads(err)["detail"].startswith("us: ")


def test_what_all_regions_say_alike_is_said_once_with_their_names(desk: Desk) -> None:
    def refuses(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.UNKNOWN_LINK, "this region has no link rooot")

    desk.system.everywhere("tenant", "put", refuses)
    arguments = ("tenant", "create", "acme", "--link", "rooot")
    code, _, err = desk.run(*arguments, "-o", "json")
    assert code == Exit.REFUSED
    said = json.loads(err)
    assert (said["error"], said["regions"]) == ("unknown_link", ["eu", "us"])
    assert said["detail"] == "eu, us: this region has no link rooot"
    assert "kcm l1 list" in said["hint"]
    desk.system.everywhere("link", "put", refuses)
    for command in (arguments, ("l1", "link", "root", "softkey:/x")):
        err = desk.run(*command, "-o", "table")[2]
        assert err.count("error: ") == err.count("hint: ") == 1
    desk.system.unreachable.add("us")
    assert len(desk.run(*arguments, "-o", "json")[2].splitlines()) == 2


@pytest.mark.parametrize(
    ("there", "arguments", "hint"),
    [
        ({"link": "root"}, (), "`kcm tenant relink acme --link other`"),
        ({"link": "other", "revision": 3}, (), "--revision 4"),
        ({"link": "other", "revision": 3}, ("--revision", "4"), "try again"),
    ],
)
def test_a_tenant_that_exists_is_told_with_the_way_to_change_it(
    desk: Desk, there: dict[str, object], arguments: tuple[str, ...], hint: str
) -> None:
    def taken(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.CONFLICT, "the tenant acme exists already")

    desk.system.everywhere("tenant", "put", taken)
    desk.system.everywhere("tenant", "find", lambda *_: row(**there))
    code, _, err = desk.run("tenant", "create", "acme", "--link", "other", *arguments, "-o", "json")
    said = json.loads(err)
    assert (code, said["error"]) == (Exit.REFUSED, "conflict")
    assert hint in said["hint"]


def test_a_service_goes_where_its_tenant_is(desk: Desk) -> None:
    got: list[bytes] = []
    desk.system.everywhere("service", "put", keep(got))
    core = desk.system.cores["us"]
    core.handlers["tenant", "find"] = lambda request, operator: row(regions=["us"])
    desk.system.cores["eu"].handlers["tenant", "find"] = unknown
    code, out, _ = desk.run("service", "create", "acme", "crm", "-o", "json")
    assert code == Exit.OK
    assert [row["region"] for row in json.loads(out)] == ["us"]
    assert desk.system.verifier.service(got[0]).service == "crm"
