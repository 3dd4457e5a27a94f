"""Operators' commands: tenants, the kill and its table, lifting, and the record."""

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from kcm._internal.pages import just_before
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_schemas import limits
from kcm_schemas.admin.holds import (
    BlastRadius,
    HoldMatches,
    HoldPage,
    HoldPageQuery,
    HoldPrefix,
    HoldQuery,
    HoldView,
)
from kcm_schemas.admin.kill_status import HoldStatus, IncarnationStatus, RegionStatus
from kcm_schemas.admin.links import LinkListQuery, LinkPage, LinkRow, LinkView
from kcm_schemas.admin.requests import AdminRequest, Empty, PutStatement
from kcm_schemas.admin.tenants import (
    ServiceListQuery,
    ServicePage,
    ServiceRow,
    ServiceView,
    TenantListQuery,
    TenantPage,
    TenantRow,
    TenantShowQuery,
    TenantView,
)
from kcm_schemas.audit import GENESIS, AuditBatch, AuditEvent
from kcm_schemas.auditor import AuditorStatus, FollowedRegion, TailEntry, TailPage, TailQuery
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind
from kcm_trust.verify import VerifiedHold, VerifiedLift

from tests.fakes.client import NOW_MS, REGIONS, FakeSystem
from tests.fakes.terminal import stdout_on_terminal


class Cores:
    """The kill switch of a system in memory: holds become complete after some looks."""

    def __init__(self, system: FakeSystem, looks: int = 3) -> None:
        self.system = system
        self.looks = looks
        self.tenants = ["acme"]
        self.held: dict[bytes, VerifiedHold] = {}
        self.lifted: dict[bytes, VerifiedLift] = {}
        self.puts = 0
        self.trouble = ""
        self.waiting: dict[str, object] = {}
        """Other fields of the region and the incarnation that are waited for."""
        for verb, handler in (
            ("preview", self._preview),
            ("put", self._put),
            ("status", self._status),
            ("list", self._list),
            ("show", self._show),
        ):
            system.everywhere("hold", verb, handler)

    def _preview(self, request: AdminRequest, operator: str) -> Message:
        return BlastRadius(
            tenants=self.tenants,
            total=len(self.tenants),
            services=2,
            regions=list(REGIONS),
            incarnations=[self._incarnation("waiting")],
        )

    def _put(self, request: AdminRequest, operator: str) -> Message:
        self.puts += 1
        raw = decode(PutStatement, request.payload).statement
        statement = self.system.verifier.hold_or_lift(raw)
        match statement:
            case VerifiedHold():
                self.held[statement.hold.id] = statement
                return self._of(statement.hold.id)
            case VerifiedLift():
                self.lifted[statement.held.hold.id] = statement
                return self._of(statement.held.hold.id)

    def _status(self, request: AdminRequest, operator: str) -> Message:
        self.looks -= 1
        return self._of(decode(HoldQuery, request.payload).hold_id)

    def _list(self, request: AdminRequest, operator: str) -> Message:
        everything = decode(HoldPageQuery, request.payload).everything
        shown = [view for view in self._views() if everything or not view.lifted]
        return HoldPage(holds=sorted(shown, key=lambda view: view.hold_id), more=False)

    def _show(self, request: AdminRequest, operator: str) -> Message:
        prefix = decode(HoldPrefix, request.payload).prefix
        found = [view for view in self._views() if view.hold_id.hex().startswith(prefix)]
        return HoldMatches(holds=found[:2])

    def _views(self) -> list[HoldView]:
        return [
            HoldView(
                hold_id=hold_id,
                scope=held.hold.scope,
                target=held.hold.target,
                cause=held.hold.cause,
                origin=held.hold.origin,
                issuer=held.issuer,
                issued_ms=held.hold.issued_ms,
                reason=held.hold.reason,
                lifted=hold_id in self.lifted,
                lifted_ms=5 if hold_id in self.lifted else 0,
                lifted_by="bob" if hold_id in self.lifted else "",
                lift_reason=self.lifted[hold_id].lift.reason if hold_id in self.lifted else "",
                raw=held.raw,
            )
            for hold_id, held in self.held.items()
        ]

    def _of(self, hold_id: bytes) -> HoldStatus:
        hold = self.held[hold_id].hold
        complete = self.looks <= 0
        return HoldStatus(
            hold_id=hold_id,
            scope=hold.scope,
            target=hold.target,
            cause=hold.cause,
            lifted=hold_id in self.lifted,
            complete=complete,
            regions=[self._region(complete=complete)],
            incarnations=[
                self._incarnation("receipt")
                if complete
                else self._incarnation("waiting", self.trouble)
            ],
        )

    def _region(self, *, complete: bool) -> RegionStatus:
        fields = {"region": "eu", "durable_at": 7, "how": "durable", "left_ms": 0}
        changes = {} if complete else self.waiting
        return RegionStatus.model_validate(fields | changes)

    def _incarnation(self, how: str, trouble: str = "") -> IncarnationStatus:
        return IncarnationStatus.model_validate(
            {
                "instance": "core-eu",
                "incarnation": bytes(16),
                "role": Role.CORE,
                "region": "eu",
                "how": how,
                "keys": 5,
                "purge_us": 90,
                "after_ms": 2,
                "trouble": trouble,
                "retired": False,
                "left_ms": 0,
            }
        )


class Desk:
    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.system = FakeSystem(directory)
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = run(
            [*arguments, "--context", str(self.system.context_file)],
            self.system.open,
            self.system.clock.around(),
        )
        return code, *self._capsys.readouterr()


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


@pytest.fixture
def cores(desk: Desk) -> Cores:
    return Cores(desk.system)


def keep(into: list[bytes]) -> Callable[[AdminRequest, str], Message]:
    def put(request: AdminRequest, operator: str) -> Message:
        into.append(decode(PutStatement, request.payload).statement)
        return Empty()

    return put


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


def test_a_link_with_another_uri_is_told_with_the_way_to_another_key(desk: Desk) -> None:
    def taken(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.CONFLICT, "the link root exists already, with another URI")

    desk.system.everywhere("link", "put", taken)
    code, _, err = desk.run("l1", "link", "root", "softkey:/other", "-o", "json")
    said = json.loads(err)
    assert (code, said["error"]) == (Exit.REFUSED, "conflict")
    assert "under another name" in said["hint"]
    assert "kcm tenant relink TENANT --link NAME" in said["hint"]


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


def test_a_link_is_signed_with_its_uri(desk: Desk) -> None:
    got: list[bytes] = []
    take = keep(got)

    def tried(request: AdminRequest, operator: str) -> Message:
        take(request, operator)
        return LinkView(
            link="root", region=request.region, mechanism="aes-gcm", key_version="v", principal="p",
            ms=7,
        )  # fmt: skip

    desk.system.everywhere("link", "put", tried)
    code, out, _ = desk.run("l1", "link", "root", "softkey:/keys/acme", "--model", "hyok")
    assert code == Exit.OK
    assert {(row["region"], row["mechanism"], row["ms"]) for row in json.loads(out)} == {
        (region, "aes-gcm", 7) for region in REGIONS
    }
    link = desk.system.verifier.link(got[0])
    assert (link.uri, link.model, link.revision) == ("softkey:/keys/acme", "hyok", 1)


def test_a_region_that_the_context_lacks_has_no_link(desk: Desk) -> None:
    def tried(request: AdminRequest, operator: str) -> Message:
        return LinkView(
            link="root", region=request.region, mechanism="m", key_version="v", principal="p", ms=7
        )

    desk.system.everywhere("link", "put", tried)
    desk.system.forget("us")
    code, out, err = desk.run("l1", "link", "root", "softkey:/keys/acme", "-o", "json")
    assert code == Exit.PARTIAL
    assert [(row["region"], row["result"]) for row in json.loads(out)] == [
        ("eu", "ok"), ("us", "not_in_context"),
    ]  # fmt: skip
    assert json.loads(err)["detail"] == "us: on the roster, not in this context"
    here = ("l1", "link", "root", "softkey:/keys/acme", "--region", "eu")
    assert desk.run(*here)[0] == Exit.OK


def unknown(request: AdminRequest, operator: str) -> Message:
    raise KcmError(Code.UNKNOWN_TENANT)


FIELDS: dict[str, object] = {
    "tenant": "acme",
    "region": "eu",
    "core": "core-eu-1",
    "revision": 1,
    "link": "root",
    "uri": "softkey:/x",
    "model": "byok",
    "regions": ["eu", "us"],
    "region_quorum": "all",
    "state": "open",
}


def row(**changes: object) -> TenantRow:
    return TenantRow.model_validate({**FIELDS, "services": 2, "holds": 1, **changes})


def view(**changes: object) -> TenantView:
    services = [ServiceView(service="crm", l3_version=3)]
    more = {
        "l2_version": 1,
        "services": services,
        "holds": [b"\x01" * 16],
        "total": 1,
        "more": False,
    }
    return TenantView.model_validate({**FIELDS, **more, **changes})


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
        "no region has confirmed the hold yet: eu, us: no connection; trying for another 30 s"
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
    warning = "no region that answers knows a tenant acmee; it is killed in case us does"
    (said,) = [one for line in err.splitlines() if "warning" in (one := json.loads(line))]
    assert said == {"warning": f"{warning}. Did you mean acme?", "silent": ["us"], "near": "acme"}
    code, _, err = desk.run("kill", "quite-another", "-o", "table")
    text = "no region that answers knows a tenant quite-another; it is killed in case us does"
    assert text in err.splitlines()
    code, _, err = desk.run("kill", "--link", "acme-rot", "-o", "table")
    assert code == Exit.OK
    assert "no region that answers knows a link acme-rot; it is killed in case us does" in err
    assert "Did you mean acme-root?" in err
    code, _, err = desk.run("kill", "acmee", "--dry-run", "-o", "table")
    assert code == Exit.UNAVAILABLE
    assert "no region that answers knows a tenant acmee" in err


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
        assert f"no tenant is on the link {name}" in err
    assert len(cores.held) == 3
    code, _, err = desk.run("kill", "--link", "spare", "--dry-run", "-o", "table")
    assert code == Exit.OK
    assert "no tenant is on the link spare" in err
    for name in ("acme-roo", "spare0", "spar-"):
        code, _, err = desk.run("kill", "--link", name, "-o", "json")
        assert (code, json.loads(err)["error"]) == (Exit.REFUSED, "unknown_link")
        assert f"no region has a link {name}" in json.loads(err)["detail"]
    assert len(cores.held) == 3


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
    assert "complete: every instance" in text
    assert "receipt" in text


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


SILENT = RegionStatus(region="us", durable_at=0, how="waiting", left_ms=0)


def without_us(cores: Cores) -> Callable[[AdminRequest, str], Message]:
    """What a Core of eu says of a hold while us does not answer."""

    def say(request: AdminRequest, operator: str) -> Message:
        (hold_id,) = cores.held
        status = cores._of(hold_id)
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
        assert "us (not heard from" in error["detail"]
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
    assert "us does not say which instances it has" in err


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
        assert said["detail"] == "no region that answers has a tenant amce"
        assert said["error"] == "unknown_tenant"


def test_what_a_kill_waits_for_is_named_with_the_reason_and_the_bound(
    desk: Desk, cores: Cores
) -> None:
    cores.looks = 10**6
    cores.waiting = {"how": "watching", "left_ms": 11_200}
    code, out, err = desk.run("kill", "acme", "--timeout", "4", "-o", "table")
    assert code == Exit.NOT_COMPLETE
    assert "stored; watched too briefly; 12 s at most" in out
    placing, meanwhile, error, _ = err.splitlines()
    assert placing.startswith("placing hold")
    assert meanwhile.startswith(
        "under way: waiting for region eu (the Core that answers there started"
    )
    for text in (meanwhile, error):
        assert "cannot know yet that no instance is missing; 12 s at most" in text
        assert "core-eu (no receipt yet)" in text
    err = desk.run("kill", "acme", "--timeout", "4", "-o", "json")[2]
    assert len(json.loads(err.splitlines()[1])["waiting_for"]) == 2


def test_a_region_whose_cores_differ_is_told_with_both_reasons(desk: Desk, cores: Cores) -> None:
    cores.looks = 10**6
    cores.waiting = {"how": "differing", "left_ms": 1000}
    _, out, err = desk.run("kill", "acme", "--timeout", "4", "-o", "table")
    assert "its Cores know different tenants, or have no memory of them" in " ".join(out.split())
    assert "the Cores there know different tenants, or have no memory of them" in err


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
        assert err == "region us did not answer in time: these are the holds that region eu knows\n"


def test_a_retired_instance_is_said_to_be_one(desk: Desk, cores: Cores) -> None:
    desk.run("kill", "acme")

    def ended(request: AdminRequest, operator: str) -> Message:
        status = cores._of(decode(HoldQuery, request.payload).hold_id)
        incarnation = status.incarnations[0].model_copy(
            update={"how": "lease-ended", "retired": True}
        )
        return status.model_copy(update={"incarnations": [incarnation]})

    desk.system.everywhere("hold", "status", ended)
    (hold_id,) = cores.held
    _, out, err = desk.run("hold", "show", hold_id.hex(), "-o", "table")
    assert "lease-ended (retired)" in out
    assert "complete: core-eu (retired) did not answer" in err

    def waits(request: AdminRequest, operator: str) -> Message:
        status = cores._of(decode(HoldQuery, request.payload).hold_id)
        changes = {"how": "waiting", "retired": True, "left_ms": 9500}
        incarnation = status.incarnations[0].model_copy(update=changes)
        return status.model_copy(update={"incarnations": [incarnation], "complete": False})

    desk.system.everywhere("hold", "status", waits)
    _, out, err = desk.run("hold", "show", hold_id.hex(), "-o", "table")
    assert "waiting; 10 s at most (retired)" in out
    assert "core-eu (retired: the end of its lease counts; 10 s at most)" in err


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


class Journal:
    """An Auditor's journal in memory, in pages."""

    def __init__(self, system: FakeSystem) -> None:
        self.system = system
        self.entries: list[TailEntry] = []
        self.away = False
        system.everywhere("auditor", "tail", self._tail)

    def add(self, *types: str, signer: str = "core-eu", actor: str | None = None) -> None:
        events = [
            AuditEvent(
                type=name,
                time_ms=NOW_MS,
                actor=actor,
                tenant="acme",
                service="crm",
                target="",
                hold=None,
                code=Code.OK,
                count=3,
                failed=1,
                detail="\x1b[31m",
            )
            for name in types
        ]
        batch = AuditBatch(
            emitter="core-eu",
            incarnation=bytes(limits.ID_SIZE),
            role=Role.CORE,
            region="eu",
            first=1,
            previous=GENESIS,
            events=[encode(event) for event in events],
        )
        signed = self.system.identities[signer].sign(Kind.AUDIT, batch)
        named = [one.model_copy(update={"signer": "core-eu"}) for one in signed.signatures]
        self._entry(encode(signed.model_copy(update={"signatures": named})), "")

    def incident(self, what: str) -> None:
        self._entry(b"", what)

    def _entry(self, statement: bytes, incident: str) -> None:
        self.entries.append(
            TailEntry(
                seq=len(self.entries) + 1,
                time_ms=NOW_MS,
                region="eu",
                statement=statement,
                incident=incident,
                detail="",
            )
        )

    def _tail(self, request: AdminRequest, operator: str) -> Message:
        if self.away:
            raise KcmError(Code.UNAVAILABLE, "it is restarted")
        query = decode(TailQuery, request.payload)
        before = query.before or len(self.entries) + 1
        found = [entry for entry in self.entries if entry.seq < before][-query.limit :]
        return TailPage(auditor="auditor-eu", oldest=1, entries=found)


def test_the_last_events_are_verified_and_shown(desk: Desk) -> None:
    journal = Journal(desk.system)
    journal.add("keys.wrap", "keys.unwrap")
    journal.incident("gap")
    journal.add("keys.wrap", signer="core-us")
    journal.add("instance.alive")
    journal.add("audit.read", actor="alice")
    journal.add("audit.read", actor="bob")
    code, out, _ = desk.run("audit", "tail", "-o", "json")
    assert code == Exit.OK
    assert [line["event"] for line in json.loads(out)] == [
        "keys.wrap",
        "keys.unwrap",
        "incident: gap",
        "not believed",
        "audit.read",
    ]
    assert len(json.loads(desk.run("audit", "tail", "--all")[1])) == 7
    assert len(json.loads(desk.run("audit", "tail", "-n", "2")[1])) == 2
    code, out, _ = desk.run("audit", "tail", "-o", "table")
    assert "acme/crm" in out
    assert "\x1b" not in out


def test_your_own_looks_are_left_out_whatever_they_look_at(desk: Desk) -> None:
    journal = Journal(desk.system)
    looks = (
        "admin.tenant-list", "admin.tenant-find", "admin.tenant-show", "admin.link-list",
        "admin.service-list", "admin.hold-status", "admin.hold-show", "admin.hold-list",
        "admin.hold-preview", "admin.hold-export", "admin.roster-show", "admin.roster-signed",
        "admin.roster-listed", "admin.key-status", "audit.read",
    )  # fmt: skip
    acts = ("admin.hold-put", "admin.tenant-put", "admin.roster-put", "admin.roster-lasting")
    journal.add(*looks, *acts, actor="alice")
    journal.add("admin.hold-status", actor="bob")
    told = json.loads(desk.run("audit", "tail", "-o", "json")[1])
    assert [(one["event"], one["actor"]) for one in told] == [
        *((name, "alice") for name in acts), ("admin.hold-status", "bob"),
    ]  # fmt: skip
    told = json.loads(desk.run("audit", "tail", "--all", "-o", "json")[1])
    assert len(told) == len(looks) + len(acts) + 1


def test_who_caused_an_event_is_shown_and_that_nobody_did(desk: Desk) -> None:
    journal = Journal(desk.system)
    journal.add("keys.wrap")
    journal.add("hold.placed", actor="bob")
    journal.incident("gap")
    lines = desk.run("audit", "tail", "-o", "table")[1].splitlines()
    assert [line.split()[2:5] for line in lines] == [
        ["core-eu", "-", "keys.wrap"], ["core-eu", "bob", "hold.placed"],
        ["auditor", "-", "incident:"],
    ]  # fmt: skip
    assert lines[2].split()[5:8] == ["gap", "-", "-"]
    told = json.loads(desk.run("audit", "tail", "-o", "json")[1])
    assert [one["actor"] for one in told] == [None, "bob", None]


def test_a_long_journal_is_read_in_pages(desk: Desk) -> None:
    journal = Journal(desk.system)
    journal.add("keys.wrap")
    for _ in range(600):
        journal.add("instance.alive")
    assert len(json.loads(desk.run("audit", "tail", "-n", "5")[1])) == 1
    assert len(desk.system.cores["eu"].requests) == 3


def test_following_shows_what_is_new_until_interrupted(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(desk.system)
    journal.add("keys.wrap")
    naps = 0

    async def nap(seconds: float) -> None:
        nonlocal naps
        naps += 1
        await asyncio.sleep(0)
        if naps == 2:
            for _ in range(300):
                journal.add("keys.unwrap")
        if naps == 4:
            raise KeyboardInterrupt

    desk.system.clock.sleep = nap  # type: ignore[method-assign]
    code, out, _ = desk.run("audit", "tail", "-f", "-o", "json")
    assert code == Exit.INTERRUPTED
    events = [json.loads(line)["event"] for line in out.splitlines()]
    assert events == ["keys.wrap"] + ["keys.unwrap"] * 300


def follow_through(desk: Desk, journal: Journal, *steps: str) -> None:
    """What passes while a journal is followed: one step for each time that nobody answers."""
    left = list(steps)

    async def nap(seconds: float) -> None:
        await asyncio.sleep(0)
        if journal.away and len(desk.system.cores["eu"].requests) % 5:
            return  # asked again a few times
        if not left:
            raise KeyboardInterrupt
        match left.pop(0):
            case "away":
                journal.away = True
            case "back":
                journal.away = False
            case "another":
                journal.entries.clear()
            case event:
                journal.add(event)

    desk.system.clock.sleep = nap  # type: ignore[method-assign]


def test_following_goes_on_when_the_auditor_was_away(desk: Desk) -> None:
    journal = Journal(desk.system)
    journal.add("keys.wrap")
    steps = (
        "away",
        "keys.unwrap",
        "away",
        "back",
        "data.encrypt",
        "away",
        "away",
        "back",
        "roster.taken",
    )
    follow_through(desk, journal, *steps)
    code, out, err = desk.run("audit", "tail", "-f", "-o", "json")
    assert code == Exit.INTERRUPTED
    events = [json.loads(line)["event"] for line in out.splitlines()]
    assert events == ["keys.wrap", "keys.unwrap", "data.encrypt", "roster.taken"], "each once"
    assert "does not answer: it is restarted; going on behind entry" in err
    assert err.count("does not answer") == err.count("the Auditor answers again"), "each once"


def test_following_goes_on_behind_an_entry(desk: Desk) -> None:
    journal = Journal(desk.system)
    journal.add("keys.wrap")
    journal.add("keys.unwrap")
    follow_through(desk, journal, "data.encrypt")
    code, out, _ = desk.run("audit", "tail", "-f", "--after", "1", "-o", "json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["event"] for line in lines] == ["keys.unwrap", "data.encrypt"]
    assert lines[0]["time_utc"]
    code, _, err = desk.run("audit", "tail", "--after", "1")
    assert code == Exit.USAGE
    assert "--after goes with -f" in err


def test_following_another_journal_says_so(desk: Desk) -> None:
    journal = Journal(desk.system)
    for _ in range(3):
        journal.add("keys.wrap")
    follow_through(desk, journal, "another", "keys.unwrap")
    _, out, err = desk.run("audit", "tail", "-f", "-o", "json")
    assert [json.loads(line)["event"] for line in out.splitlines()][-1] == "keys.unwrap"
    assert "it is another one, or it was cut" in err


def followed(**changes: int) -> FollowedRegion:
    fields: dict[str, object] = {
        "region": "eu", "reachable": True, "position": 900, "first": 513, "used": 10 << 20,
        "room": 100 << 20, "signed": 896, "trimmed": 512, "witnesses": 2, "lost_first": 0,
        "lost_last": 0,
    }  # fmt: skip
    return FollowedRegion.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "said", "warned", "code"),
    [
        ({}, "512 (2 have it)", "", Exit.OK),
        ({"used": 70 << 20}, "70 % of 100 MiB", "is filling", Exit.OK),
        ({"used": 90 << 20}, "90 % of 100 MiB", "data requests are refused", Exit.OK),
        ({"room": 0}, "no bound", "room of the control stream", Exit.OK),
        (
            {"lost_first": 3, "lost_last": 9},
            "entries lost",
            "messages 3 to 9 were trimmed",
            Exit.CHECK_FAILED,
        ),
    ],
)
def test_the_state_of_audit_streams(
    desk: Desk, changes: dict[str, int], said: str, warned: str, code: Exit
) -> None:
    status = AuditorStatus(
        auditor="auditor-eu",
        time_ms=NOW_MS,
        seq=1,
        head=bytes(32),
        events=1,
        incidents=0,
        segment=1,
        regions=[followed(**changes)],
        emitters=[],
    )
    desk.system.everywhere("auditor", "status", lambda request, operator: status)
    done, out, err = desk.run("audit", "status", "-o", "table")
    assert done == code
    assert said in out
    assert warned in err
    assert bool(err) is bool(warned)
    shown = json.loads(desk.run("audit", "status", "-o", "json")[1])
    assert shown["regions"][0]["signed"] == 896


def test_verifying_a_directory_that_is_no_journal_is_no_success(desk: Desk, tmp_path: Path) -> None:
    assert desk.run("audit", "verify", str(tmp_path / "none"))[0] == Exit.USAGE


def test_what_a_journal_holds_is_json_where_that_is_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", "verify", str(tmp_path), "-o", "json"]) == Exit.CHECK_FAILED
    said = json.loads(capfd.readouterr().out)
    assert (said["sound"], said["entries"], said["signatures_checked"]) == (False, 0, False)
    assert said["head"] == f"0:{'0' * 64}"
    assert "no segment" in said["problems"][0]
    assert run(["audit", "verify", str(tmp_path)]) == Exit.CHECK_FAILED
    assert capfd.readouterr().out.endswith("NOT SOUND\n")


@pytest.mark.parametrize("anchor", ["5:zz", "nonsense", f"-1:{'a' * 64}", f"5:{'a' * 63}", ""])
def test_an_anchor_that_is_none_is_said_as_every_error(
    tmp_path: Path, anchor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run(["audit", "verify", str(tmp_path), "--anchor", anchor, "-o", "table"])
    err = capfd.readouterr().err
    assert code == Exit.USAGE
    assert err.startswith("error: --anchor takes")
    assert "hint: " in err


def test_a_key_that_is_refused_in_one_region_is_linked_in_the_other(desk: Desk) -> None:
    def refuses(request: AdminRequest, operator: str) -> Message:
        if request.region == "us":
            raise KcmError(Code.FORBIDDEN, "the root key: disabled. Next: enable it")
        return LinkView(
            link="root", region="eu", mechanism="m", key_version="v", principal="p", ms=1
        )

    desk.system.everywhere("link", "put", refuses)
    code, out, err = desk.run("l1", "link", "root", "softkey:/keys/acme")
    assert code == Exit.REFUSED
    assert {row["region"]: row["result"] for row in json.loads(out)} == {
        "eu": "ok", "us": "forbidden",
    }  # fmt: skip
    assert "Next: enable it" in err
    assert "kcm l1 check" in json.loads(err)["hint"]


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


def test_on_a_terminal_a_key_is_tried_again_when_what_is_missing_was_granted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kcm.cli import l1

    asked: list[str] = []

    def granted(text: str, **_: object) -> bool:
        asked.append(text)
        return True

    def refuses_once(request: AdminRequest, operator: str) -> Message:
        if request.region == "us" and not asked:
            raise KcmError(Code.FORBIDDEN, "the root key: forbidden. Next: grant it")
        return LinkView(
            link="root", region=request.region, mechanism="m", key_version="v", principal="p", ms=1
        )

    monkeypatch.setattr(l1, "at_a_terminal", lambda: True)
    monkeypatch.setattr(l1.click, "confirm", granted)
    desk.system.everywhere("link", "put", refuses_once)
    code, out, err = desk.run("l1", "link", "root", "softkey:/keys/acme", "-o", "table")
    assert code == Exit.OK, err
    assert len(asked) == 1
    assert "Grant this to the key" in err
    assert "chmod" in err
    assert out.count("ok") == 2


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Sit at a terminal and type."""
    from kcm.cli import l1

    monkeypatch.setattr(l1, "at_a_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_on_a_terminal_whoever_gives_nothing_is_walked_through_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[bytes] = []

    def links(request: AdminRequest, operator: str) -> Message:
        got.append(decode(PutStatement, request.payload).statement)
        return LinkView(
            link="root", region=request.region, mechanism="m", key_version="v", principal="p", ms=1
        )

    desk.system.everywhere("link", "put", links)
    typed(
        monkeypatch,
        "No name",
        "root",
        "nowhere:/x",
        "pkcs11:token=t;object=k?module-path=/m.so",
        "",
        "y",
    )
    code, out, err = desk.run("l1", "link", "-o", "table")
    assert code == Exit.OK, err
    assert out.count("ok") == 2
    link = desk.system.verifier.link(got[0])
    assert (link.link, link.uri, link.model) == (
        "root", "pkcs11:token=t;object=k?module-path=/m.so", "hyok",
    )  # fmt: skip
    asked = [
        err.index(text)
        for text in ("1 to 63", "awskms:arn", "none of", "model", "CKA_DECRYPT", "Granted")
    ]
    assert asked == sorted(asked), "where, what is wrong, which model, what to grant, and then"


@pytest.mark.parametrize(
    ("lines", "ended", "told"),
    [
        (("root", "softkey:/x", "", "n"), Exit.OK, "nothing was linked"),
        (("root",), Exit.INTERRUPTED, "interrupted"),
    ],
)
def test_nothing_is_linked_when_nothing_is_granted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...], ended: Exit, told: str
) -> None:
    got: list[bytes] = []
    desk.system.everywhere("link", "put", keep(got))
    typed(monkeypatch, *lines)
    code, _, err = desk.run("l1", "link", "-o", "table")
    assert code == ended, err
    assert told in err
    assert got == []


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
    assert "'No name' is no name" in said["detail"]
    assert "1 to 63" in said["hint"]


def test_a_text_that_is_too_long_is_said_to_be_so(desk: Desk) -> None:
    code, _, err = desk.run("l1", "link", "root", "softkey:/" + "x" * 3000)
    said = json.loads(err.splitlines()[-1])
    assert (code, said["error"]) == (Exit.USAGE, "malformed"), err
    assert said["detail"] == "uri is too long: 2048 characters at most"


def test_a_script_is_not_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = desk.run("l1", "link", "root")
    assert code == Exit.USAGE
    assert "NAME URI" in err
