"""Operators' commands against Cores in memory: what the tests of several commands share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from kcm.cli.main import run
from kcm_schemas.admin.apps import AppView
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
from kcm_schemas.admin.requests import AdminRequest, Empty, PutStatement
from kcm_schemas.admin.tenants import ServiceView, TenantRow, TenantView
from kcm_schemas.app import App
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Accepted, RegistryEntry
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind
from kcm_trust.envelopes import statement_digest
from kcm_trust.identity import Identity
from kcm_trust.verify import VerifiedHold, VerifiedLift

from tests.fakes.client import REGIONS, FakeSystem


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
                return self.status_of(statement.hold.id)
            case VerifiedLift():
                self.lifted[statement.held.hold.id] = statement
                return self.status_of(statement.held.hold.id)

    def _status(self, request: AdminRequest, operator: str) -> Message:
        self.looks -= 1
        return self.status_of(decode(HoldQuery, request.payload).hold_id)

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

    def status_of(self, hold_id: bytes) -> HoldStatus:
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


def keep(into: list[bytes]) -> Callable[[AdminRequest, str], Message]:
    def put(request: AdminRequest, operator: str) -> Message:
        into.append(decode(PutStatement, request.payload).statement)
        return Empty()

    return put


def app_view(
    system: FakeSystem,
    region: str,
    entry: App,
    signer: Identity | None = None,
    *,
    held: bool = False,
) -> AppView:
    """An application's entry as a Core of the region stores it; ``signer`` is an operator."""
    statement = (signer or system.alice).sign(Kind.APP, entry)
    body = Accepted(statement=statement_digest(statement), region=region, roster=1)
    by = system.identities[f"core-{region}"].sign(Kind.ACCEPTED, body)
    raw = encode(RegistryEntry(statement=encode(statement), accepted=encode(by)))
    return AppView(app=entry.app, region=region, entry=raw, forked=False, held=held)


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
