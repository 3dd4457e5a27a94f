"""Orders that may be given again say whether they changed something, also as JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_schemas.admin.links import LinkListQuery, LinkPage, LinkRow, LinkView
from kcm_schemas.admin.requests import AdminRequest, Empty, PutStatement
from kcm_schemas.admin.tenants import (
    ServiceListQuery,
    ServicePage,
    ServiceRow,
    TenantQuery,
    TenantRow,
)
from kcm_schemas.codec import Message, decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Link, Service, Tenant
from kcm_schemas.signed import read_signed

from tests.fakes.client import FakeSystem


class Registry:
    """What every region has, as the Cores tell it."""

    def __init__(self, system: FakeSystem) -> None:
        self.tenants: dict[tuple[str, str], Tenant] = {}
        self.links: dict[tuple[str, str], Link] = {}
        self.services: dict[tuple[str, str, str], Service] = {}
        for noun, verb, handler in (
            ("tenant", "find", self._find), ("tenant", "put", self._put_tenant),
            ("link", "list", self._list_links), ("link", "put", self._put_link),
            ("service", "list", self._list_services), ("service", "put", self._put_service),
        ):  # fmt: skip
            system.everywhere(noun, verb, handler)

    def _find(self, request: AdminRequest, operator: str) -> Message:
        name = decode(TenantQuery, request.payload).tenant
        one = self.tenants.get((request.region, name))
        if one is None:
            raise KcmError(Code.UNKNOWN_TENANT)
        return TenantRow(
            tenant=name,
            region=request.region,
            core="core",
            revision=one.revision,
            link=one.link,
            uri="softkey:/x",
            model="byok",
            regions=one.regions,
            region_quorum=one.region_quorum,
            state="open",
            services=0,
            holds=0,
        )

    def _put_tenant(self, request: AdminRequest, operator: str) -> Message:
        new = decode(Tenant, body(request))
        self.tenants[request.region, new.tenant] = new
        return Empty()

    def _list_links(self, request: AdminRequest, operator: str) -> Message:
        query = decode(LinkListQuery, request.payload)
        rows = [
            LinkRow(
                link=name, region=region, revision=one.revision, uri=one.uri, model=one.model,
                tenants=0,
            )
            for (region, name), one in sorted(self.links.items())
            if region == request.region and name > query.after
        ]  # fmt: skip
        return LinkPage(links=rows[: query.limit], more=len(rows) > query.limit, total=len(rows))

    def _put_link(self, request: AdminRequest, operator: str) -> Message:
        new = decode(Link, body(request))
        self.links[request.region, new.link] = new
        return LinkView(
            link=new.link, region=request.region, mechanism="m", key_version="1", principal="p",
            ms=1,
        )  # fmt: skip

    def _list_services(self, request: AdminRequest, operator: str) -> Message:
        query = decode(ServiceListQuery, request.payload)
        rows = [
            ServiceRow(tenant=tenant, service=name, revision=one.revision)
            for (region, tenant, name), one in sorted(self.services.items())
            if (region, tenant) == (request.region, query.tenant) and name > query.after
        ]
        return ServicePage(services=rows[: query.limit], more=False, total=len(rows))

    def _put_service(self, request: AdminRequest, operator: str) -> Message:
        new = decode(Service, body(request))
        self.services[request.region, new.tenant, new.service] = new
        return Empty()


def body(request: AdminRequest) -> bytes:
    return read_signed(decode(PutStatement, request.payload).statement).body


class Desk:
    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.system = FakeSystem(directory)
        self.registry = Registry(self.system)
        self._capsys = capsys

    def run(self, line: str) -> tuple[dict[str, str], str]:
        """What changed in each region, and what stderr says."""
        words = [*line.split(), "--context", str(self.system.context_file), "-o", "json"]
        self._capsys.readouterr()
        assert run(words, self.system.open, self.system.clock.around()) == Exit.OK
        out, err = self._capsys.readouterr()
        rows: list[dict[str, Any]] = json.loads(out)
        assert {row["result"] for row in rows} == {"ok"}
        return {row["region"]: row["change"] for row in rows}, err


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    made = Desk(tmp_path, capsys)
    made.run("l1 link root softkey:/x")
    made.run("tenant create acme --link root")
    return made


def both(change: str) -> dict[str, str]:
    return {"eu": change, "us": change}


LINES = {
    "l1 link other softkey:/x": "l1 link other softkey:/x --model hyok --revision 3",
    "tenant create other --link root": (
        "tenant create other --link root --region-quorum local --revision 3"
    ),
    "service create acme crm": "",
}
"""Orders, and another content for the same name."""


@pytest.mark.parametrize(("line", "other"), LINES.items())
def test_an_order_says_what_it_changed(desk: Desk, line: str, other: str) -> None:
    changed, err = desk.run(line)
    assert (changed, err) == (both("created"), "")
    changed, err = desk.run(line)
    assert changed == both("unchanged")
    assert json.loads(err) == {"changed": False}
    changed, err = desk.run(f"{line} --revision 2")
    assert changed == both("revision")
    assert json.loads(err) == {"changed": False}
    if other:
        changed, err = desk.run(other)
        assert (changed, err) == (both("replaced"), "")


def test_a_move_that_is_done_already_changes_nothing(desk: Desk) -> None:
    desk.run("l1 link new softkey:/y")
    assert desk.run("tenant relink acme --link new") == (both("replaced"), "")
    changed, err = desk.run("tenant relink acme --link new")
    assert changed == both("unchanged")
    assert json.loads(err) == {"changed": False}


def test_each_region_is_told_by_itself(desk: Desk) -> None:
    desk.run("service create acme crm --region us")
    assert desk.run("service create acme crm")[0] == {"eu": "created", "us": "unchanged"}


def test_a_person_reads_that_nothing_was_changed(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.run("service create acme crm")
    words = ["service", "create", "acme", "crm", "--context", str(desk.system.context_file)]
    for more, text in (
        ((), "nothing was changed: the regions have all of this already"),
        (("--revision", "2"), "only the revision was changed"),
    ):
        around = desk.system.clock.around()
        assert run([*words, *more, "-o", "table"], desk.system.open, around) == Exit.OK
        assert text in capsys.readouterr().err


def test_a_look_that_fails_keeps_no_order_back(desk: Desk) -> None:
    def refuse(*_: object) -> Message:
        raise KcmError(Code.INTERNAL)

    desk.system.everywhere("service", "list", refuse)
    assert desk.run("service create acme crm") == (both("not known"), "")
