"""Lists of tenants, services and links: tables, JSON and pages."""

import json

import pytest
from kcm.exit_codes import Exit
from kcm_schemas import limits
from kcm_schemas.admin.links import LinkPage, LinkRow
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.admin.tenants import (
    ServiceListQuery,
    ServicePage,
    ServiceRow,
    ServiceView,
    TenantListQuery,
    TenantPage,
    TenantShowQuery,
)
from kcm_schemas.codec import Message, decode

from tests.unit.operator_rig import Desk, row, view


def cut(names: list[str], request: AdminRequest) -> tuple[list[str], bool]:
    """A page of names, as a Core cuts it."""
    query = decode(TenantListQuery, request.payload)
    found = [name for name in names if name > query.after]
    return found[: query.limit], len(found) > query.limit


def test_tenants_are_shown_as_table_and_json(desk: Desk) -> None:
    page = TenantPage(tenants=[row()], total=1, more=False)
    desk.system.everywhere("tenant", "list", lambda *_: page)
    desk.system.everywhere("tenant", "show", lambda *_: view(uri="x\x1b[31m"))
    assert desk.run("tenant", "list", "-o", "table")[0] == Exit.OK
    (told,) = json.loads(desk.run("tenant", "list")[1])
    assert (told["services"], told["holds"]) == (2, 1)
    assert told["core"] == "core-eu-1"
    assert "core-eu-1" in desk.run("tenant", "list", "-o", "table")[1]
    code, out, _ = desk.run("tenant", "show", "acme", "-o", "table")
    assert code == Exit.OK
    assert "crm/3" in out
    shown = json.loads(desk.run("tenant", "show", "acme", "--region", "us")[1])
    assert (shown["tenant"], shown["holds"]) == ("acme", ["01" * 16])
    assert len(desk.system.cores["us"].requests) == 1
    assert desk.run("tenant", "list", "--region", "mars")[0] == Exit.USAGE


def test_a_list_is_followed_page_by_page_to_its_end_or_its_limit(desk: Desk) -> None:
    names = [f"t{number:04}" for number in range(2 * limits.PAGE_ROWS_MAX + 1)]

    def listed(request: AdminRequest, operator: str) -> Message:
        found, more = cut(names, request)
        return TenantPage(tenants=[row(tenant=n) for n in found], total=len(names), more=more)

    desk.system.everywhere("tenant", "list", listed)
    requests = desk.system.cores["eu"].requests
    told = json.loads(desk.run("tenant", "list", "-o", "json")[1])
    assert [one["tenant"] for one in told] == names
    assert len(requests) == 3
    requests.clear()
    code, out, err = desk.run("tenant", "list", "--limit", "3", "-o", "json")
    assert [one["tenant"] for one in json.loads(out)] == names[:3]
    assert json.loads(err) == {"shown": 3, "total": len(names)}
    assert len(requests) == 1
    assert code == Exit.OK


def test_links_are_listed(desk: Desk) -> None:
    found = LinkRow(
        link="root", region="us", revision=1, uri="softkey:/\x1b[31m", model="byok", tenants=2
    )
    page = LinkPage(links=[found], total=1, more=False)
    desk.system.everywhere("link", "list", lambda *_: page)
    (told,) = json.loads(desk.run("l1", "list", "--region", "us", "-o", "json")[1])
    assert (told["link"], told["uri"], told["tenants"]) == ("root", "softkey:/\x1b[31m", 2)
    assert desk.run("link", "list", "-o", "table") == desk.run("l1", "list", "-o", "table")
    code, out, _ = desk.run("l1", "list", "-o", "table")
    assert code == Exit.OK
    assert "root" in out
    assert "\x1b" not in out


def test_services_are_followed_too(desk: Desk) -> None:
    names = [f"s{number:04}" for number in range(limits.PAGE_ROWS_MAX + 1)]

    def shown(request: AdminRequest, operator: str) -> Message:
        query = decode(TenantShowQuery, request.payload)
        found = [name for name in names if name > query.after]
        services = [ServiceView(service=name, l3_version=1) for name in found[:64]]
        return view(services=services, total=len(names), more=len(found) > 64)

    def listed(request: AdminRequest, operator: str) -> Message:
        query = decode(ServiceListQuery, request.payload)
        found = [name for name in names if name > query.after]
        rows = [ServiceRow(tenant="acme", service=name, revision=1) for name in found[:100]]
        return ServicePage(services=rows, total=len(names), more=len(found) > 100)

    desk.system.everywhere("tenant", "show", shown)
    desk.system.everywhere("service", "list", listed)
    told = json.loads(desk.run("tenant", "show", "acme")[1])
    assert [one["service"] for one in told["services"]] == names
    assert "more" not in told
    assert [one["service"] for one in json.loads(desk.run("service", "list", "acme")[1])] == names


@pytest.mark.parametrize(
    "tenants", [[], ["b", "a"], ["a"]], ids=["an empty page", "out of order", "the same again"]
)
def test_pages_that_would_never_end_are_not_believed(desk: Desk, tenants: list[str]) -> None:
    page = TenantPage(tenants=[row(tenant=name) for name in tenants], total=9, more=True)
    desk.system.everywhere("tenant", "list", lambda *_: page)
    assert desk.run("tenant", "list", "-o", "json")[0] == Exit.CHECK_FAILED
    assert len(desk.system.cores["eu"].requests) <= 2
