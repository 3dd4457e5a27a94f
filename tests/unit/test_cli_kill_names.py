"""Names of what an operator kills: checked, and similar ones suggested."""

import json

import pytest
from kcm._internal.pages import just_before
from kcm.exit_codes import Exit
from kcm_schemas.admin.links import LinkListQuery, LinkPage, LinkRow
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.admin.tenants import TenantListQuery, TenantPage
from kcm_schemas.codec import Message, decode

from tests.unit.operator_rig import Cores, Desk, row


def test_a_mistyped_name_is_not_killed(desk: Desk, cores: Cores) -> None:
    cores.tenants = []
    names(desk, ["root"], ["acme"])
    code, _, err = desk.run("kill", "amce", "-o", "json")
    assert code == Exit.REFUSED
    assert json.loads(err)["error"] == "unknown_tenant"
    assert "no region has a tenant amce" in json.loads(err)["detail"]
    code, _, err = desk.run("kill", "--link", "rooot", "-o", "json")
    assert (code, json.loads(err)["error"]) == (Exit.REFUSED, "unknown_link")
    assert "kcm l1 list" in json.loads(err)["hint"]
    assert (cores.puts, cores.held) == (0, {})
    assert desk.run("kill", "amce", "--dry-run")[0] == Exit.REFUSED
    # Where a region does not answer, nobody can say that the tenant does not exist.
    desk.system.unreachable.add("us")
    assert desk.run("kill", "amce")[0] == Exit.OK


def names(desk: Desk, links: list[str], tenants: list[str]) -> None:
    """The tenants and links that every region lists."""

    def list_tenants(request: AdminRequest, operator: str) -> Message:
        query = decode(TenantListQuery, request.payload)
        behind = sorted(name for name in tenants if name > query.after)
        shown = [row(tenant=name) for name in behind[: query.limit]]
        more = len(behind) > len(shown)
        return TenantPage(tenants=shown, total=len(tenants), more=more)

    def list_links(request: AdminRequest, operator: str) -> Message:
        query = decode(LinkListQuery, request.payload)
        behind = sorted(name for name in links if name > query.after)
        shown = [
            LinkRow(
                link=name, region=request.region, uri="softkey:/keys", model="byok", revision=1,
                tenants=0,
            )
            for name in behind[: query.limit]
        ]  # fmt: skip
        more = len(behind) > len(shown)
        return LinkPage(links=shown, total=len(links), more=more)

    desk.system.everywhere("tenant", "list", list_tenants)
    desk.system.everywhere("link", "list", list_links)


def test_a_name_that_is_known_nowhere_is_killed_with_a_warning_while_a_region_is_silent(
    desk: Desk, cores: Cores
) -> None:
    names(desk, ["acme-root"], ["acme", "zeta"])
    cores.tenants = []
    desk.system.unreachable.add("us")
    code, _, err = desk.run("kill", "acmee", "-o", "json")
    assert (code, len(cores.held)) == (Exit.OK, 1)
    warning = "no region that replies knows a tenant acmee; it is killed, in case us does"
    (said,) = [one for line in err.splitlines() if "warning" in (one := json.loads(line))]
    assert said == {"warning": f"{warning}. Did you mean acme?", "silent": ["us"], "near": "acme"}
    code, _, err = desk.run("kill", "quite-another", "-o", "table")
    text = "no region that replies knows a tenant quite-another; it is killed, in case us does"
    assert text in err.splitlines()
    code, _, err = desk.run("kill", "--link", "acme-rot", "-o", "table")
    assert code == Exit.OK
    assert "no region that replies knows a link acme-rot; it is killed, in case us does" in err
    assert "Did you mean acme-root?" in err
    code, _, err = desk.run("kill", "acmee", "--dry-run", "-o", "table")
    assert code == Exit.UNAVAILABLE
    assert "no region that replies knows a tenant acmee" in err


def test_a_known_name_is_killed_without_a_warning(desk: Desk, cores: Cores) -> None:
    desk.system.unreachable.add("us")
    code, _, err = desk.run("kill", "acme", "-o", "json")
    assert code == Exit.OK
    assert "warning" not in err


def test_a_near_name_is_found_among_many_with_few_questions(desk: Desk, cores: Cores) -> None:
    names(desk, [], [f"tenant-{number:05}" for number in range(4000)])
    cores.tenants = []
    code, _, err = desk.run("kill", "tenant-03210x", "-o", "json")
    assert code == Exit.REFUSED
    assert "did you mean tenant-03210?" in json.loads(err)["hint"]
    asked = [one for core in desk.system.cores.values() for one in core.requests]
    assert sum(one.noun == "tenant" for one in asked) <= 3


def test_a_page_can_begin_at_a_name() -> None:
    for name in ("a", "-", "0", "a-", "a0", "z" * 63, "a" * 62 + "-", "a" * 62 + "0"):
        before = just_before(name)
        assert before < name
        assert len(before) <= 63
        assert before == name[:-1] or len(before) == 63


def test_a_link_that_no_tenant_is_on_is_killed(desk: Desk, cores: Cores) -> None:
    names(desk, ["acme-root", "acme-root-0", "spare"], ["acme"])
    cores.tenants = []
    for name in ("spare", "acme-root", "acme-root-0"):
        code, _, err = desk.run("kill", "--link", name, "-o", "json")
        assert code == Exit.OK, err
        assert f"no tenant uses the link {name}" in err
    assert len(cores.held) == 3
    code, _, err = desk.run("kill", "--link", "spare", "--dry-run", "-o", "table")
    assert code == Exit.OK
    assert "no tenant uses the link spare" in err
    for name in ("acme-roo", "spare0", "spar-"):
        code, _, err = desk.run("kill", "--link", name, "-o", "json")
        assert (code, json.loads(err)["error"]) == (Exit.REFUSED, "unknown_link")
        assert f"no region has a link {name}" in json.loads(err)["detail"]
    assert len(cores.held) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("l1", "link", "No name", "softkey:/x"),
        ("tenant", "create", "No name", "--link", "root", "--region", "eu"),
        ("tenant", "create", "acme", "--link", "No name", "--region", "eu"),
        ("service", "create", "No name", "crm"),
        ("service", "create", "acme", "No name"),
        ("tenant", "show", "No name"),
        ("kill", "No name", "--reason", "test"),
    ],
)
def test_a_name_that_is_none_is_said_to_be_so(desk: Desk, arguments: tuple[str, ...]) -> None:
    desk.system.everywhere("tenant", "find", lambda request, operator: row(revision=1))
    code, _, err = desk.run(*arguments)
    said = json.loads(err.splitlines()[-1])
    assert (code, said["error"]) == (Exit.USAGE, "malformed"), err
    assert "'No name' is not a name" in said["detail"]
    assert "1 to 63" in said["hint"]


def test_a_text_that_is_too_long_is_said_to_be_so(desk: Desk) -> None:
    code, _, err = desk.run("l1", "link", "root", "softkey:/" + "x" * 3000)
    said = json.loads(err.splitlines()[-1])
    assert (code, said["error"]) == (Exit.USAGE, "malformed"), err
    assert said["detail"] == "uri is too long: 2048 characters at most"
