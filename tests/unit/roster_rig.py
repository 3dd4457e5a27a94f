"""Roster commands against Cores in memory: what the tests of several commands share."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from kcm.cli.main import run
from kcm_schemas.admin.holds import (
    BlastRadius,
    HoldMatches,
    HoldPage,
    HoldPageQuery,
    HoldPrefix,
    HoldView,
    PreviewQuery,
)
from kcm_schemas.admin.requests import AdminRequest, Empty, PutStatement
from kcm_schemas.admin.roster import (
    EndorsementsPage,
    RosterView,
    SignedEntry,
    SignedPage,
    SignedQuery,
)
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Operator, OperatorRole, Roster
from kcm_schemas.signed import Kind

from tests.fakes.client import REGIONS, FakeSystem

DAY_MS = 24 * 3600 * 1000


def entry(what: str, time_ms: int = 0) -> SignedEntry:
    digest = what.encode().ljust(32, b".") if len(what) <= 32 else sha256(what.encode()).digest()
    return SignedEntry(what=what, digest=digest, time_ms=time_ms)


class Cores:
    """The Cores of every region, as far as rosters go."""

    def __init__(self, system: FakeSystem) -> None:
        self.system = system
        self.roster = {region: system.root.sign(Kind.ROSTER, system.roster) for region in REGIONS}
        self.signed: dict[str, list[SignedEntry]] = {region: [] for region in REGIONS}
        self.pages: dict[str, dict[int, bytes]] = {region: {} for region in REGIONS}
        self.put: dict[str, bytes] = {}
        self.refuse: set[str] = set()
        for verb, handler in (
            ("show", self._show), ("signed", self._signed), ("put", self._put),
            ("endorsements", self._endorsements),
        ):  # fmt: skip
            system.everywhere("roster", verb, handler)

    def _show(self, request: AdminRequest, operator: str) -> Message:
        raw = encode(self.roster[request.region])
        return RosterView(instance="core", roster=raw, missing=[])

    def _signed(self, request: AdminRequest, operator: str) -> Message:
        query = decode(SignedQuery, request.payload)
        behind = [one for one in self.signed[request.region] if one.what > query.after]
        return SignedPage(entries=behind[:1], more=len(behind) > 1)

    def _put(self, request: AdminRequest, operator: str) -> Message:
        if request.region in self.refuse:
            raise KcmError(Code.FORBIDDEN, "not the next one")
        self.put[request.region] = decode(PutStatement, request.payload).statement
        return Empty()

    def _endorsements(self, request: AdminRequest, operator: str) -> Message:
        page = decode(EndorsementsPage, request.payload)
        self.pages[request.region][page.page] = page.digests
        return Empty()


class Desk:
    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.system = FakeSystem(directory)
        bob = Operator(operator="bob", roles=list(OperatorRole), public_key=b"b" * 32)
        roster = self.system.roster.model_copy(
            update={"operators": [*self.system.roster.operators, bob]}
        )
        self.system.roster = roster
        (directory / "roster").write_bytes(encode(self.system.root.sign(Kind.ROSTER, roster)))
        self.cores = Cores(self.system)
        self._capsys = capsys

    def run(self, *arguments: str, key: bool = True, form: str = "json") -> tuple[int, Any, str]:
        self._capsys.readouterr()
        more = ("--key", str(self.system.directory / "root.key")) if key else ()
        code = run(
            [*arguments, *more, "--context", str(self.system.context_file), "-o", form],
            self.system.open,
            self.system.clock.around(),
        )
        out, err = self._capsys.readouterr()
        return code, json.loads(out) if out and form == "json" else None, err

    @property
    def kept(self) -> Roster:
        return self.system.context().believe((self.system.directory / "roster").read_bytes())


def bob_of(roster: Roster) -> Operator:
    return next(one for one in roster.operators if one.operator == "bob")


def lists_holds(desk: Desk, holds: list[HoldView]) -> None:
    """Holds in pages of two, and the tenants of each link."""

    def listed(request: AdminRequest, operator: str) -> Message:
        query = decode(HoldPageQuery, request.payload)
        behind = [one for one in holds if one.hold_id > query.after]
        return HoldPage(holds=behind[:2], more=len(behind) > 2)

    def shown(request: AdminRequest, operator: str) -> Message:
        prefix = decode(HoldPrefix, request.payload).prefix
        return HoldMatches(holds=[one for one in holds if one.hold_id.hex().startswith(prefix)])

    def reached(request: AdminRequest, operator: str) -> Message:
        target = decode(PreviewQuery, request.payload).target
        return BlastRadius(
            tenants=[f"{target}-a", f"{target}-b"], total=9, services=0, regions=[], incarnations=[]
        )

    desk.system.everywhere("hold", "list", listed)
    desk.system.everywhere("hold", "show", shown)
    desk.system.everywhere("hold", "preview", reached)
