"""`kcm hold export`: what it writes, with which exit code, and whose lists it fetches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kcm._internal.evidence_file import read
from kcm.exit_codes import Exit
from kcm_runtime.files.identity_file import create_identity
from kcm_schemas import limits
from kcm_schemas.admin.holds import HoldExport, HoldMatches, HoldQuery, HoldView
from kcm_schemas.admin.requests import AdminReply, AdminRequest
from kcm_schemas.admin.roster import EndorsementsPage, EndorsementsQuery, RosterView
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code
from kcm_schemas.control import Lift
from kcm_schemas.signed import Kind
from kcm_trust import statements
from kcm_trust.endorsements import PAGE_BYTES, PAGES_MAX, Endorsements, pages

from tests.fakes.client import SYSTEM
from tests.unit.operator_rig import Desk


class Core:
    """Every region's Core, with one lifted hold of which it exports what a test says."""

    def __init__(self, desk: Desk, directory: Path) -> None:
        self.system = desk.system
        self.bob = create_identity("bob", str(directory / "bob.key"), SYSTEM)
        self.hold_id, self.raw = statements.hold(
            self.bob, scope="tenant", target="acme", cause="operator", origin="eu", issued_ms=1,
            reason="", salt=bytes(16),
        )  # fmt: skip
        self.lift = encode(self.bob.sign(Kind.LIFT, Lift(hold=self.raw, issued_ms=2, reason="")))
        self.told = {"complete": True, "result": b"a result", "unstored": ""}
        self.endorsements = Endorsements()
        self.asked: list[tuple[str, int]] = []
        for noun, verb, handler in (
            ("hold", "show", self._show),
            ("hold", "export", self._export),
            ("roster", "show", self._roster),
            ("roster", "listed", self._listed),
        ):
            self.system.everywhere(noun, verb, handler)

    def retired(self, endorsements: Endorsements) -> None:
        """Bob, who signed the hold and its lift, left, and this lasts of him."""
        self.endorsements = endorsements
        gone = self.system.roster.operators[0].model_copy(
            update={
                "operator": "bob",
                "public_key": self.bob.public,
                "retired": endorsements.retirement(),
            }
        )
        operators = [*self.system.roster.operators, gone]
        self.system.roster = self.system.roster.model_copy(update={"operators": operators})
        self.system.write_context()

    def _show(self, request: AdminRequest, operator: str) -> Message:
        view = HoldView(
            hold_id=self.hold_id, scope="tenant", target="acme", cause="operator", origin="eu",
            issuer="bob", issued_ms=1, reason="", lifted=True, lifted_ms=2, lifted_by="bob",
            lift_reason="", raw=self.raw,
        )  # fmt: skip
        return HoldMatches(holds=[view])

    def _export(self, request: AdminRequest, operator: str) -> Message:
        assert decode(HoldQuery, request.payload).hold_id == self.hold_id
        return HoldExport(hold_id=self.hold_id, hold=self.raw, lift=self.lift, **self.told)

    def _roster(self, request: AdminRequest, operator: str) -> Message:
        raw = encode(self.system.root.sign(Kind.ROSTER, self.system.roster))
        return RosterView(instance="core-eu", roster=raw, missing=[])

    def _listed(self, request: AdminRequest, operator: str) -> Message:
        query = decode(EndorsementsQuery, request.payload)
        self.asked.append((query.name, query.page))
        return EndorsementsPage(
            name=query.name, page=query.page, digests=pages(self.endorsements)[query.page]
        )


@pytest.fixture
def core(desk: Desk, tmp_path: Path) -> Core:
    return Core(desk, tmp_path)


def many(count: int) -> Endorsements:
    return Endorsements(number.to_bytes(32, "big") for number in range(count))


@pytest.mark.parametrize(
    ("told", "code", "text"),
    [
        ({}, Exit.OK, "exported with its result"),
        ({"complete": False}, Exit.OK, "exported with its result"),  # it is the lift's
        ({"unstored": "disk full"}, Exit.OK, "with its result, which is not stored: disk full"),
        (
            {"result": b"", "unstored": "disk full"},
            Exit.NOT_COMPLETE,
            "no stored result: disk full",
        ),
        ({"result": b"", "complete": False}, Exit.NOT_COMPLETE, "the kill is not complete"),
    ],
)
def test_an_export_is_written_and_its_exit_code_says_whether_it_has_a_result(
    desk: Desk, core: Core, tmp_path: Path, told: dict[str, object], code: int, text: str
) -> None:
    core.told |= told
    file = tmp_path / "evidence.json"
    asked = ("hold", "export", core.hold_id.hex()[:6], "-o", str(file), "--format", "table")
    done, _, err = desk.run(*asked)
    assert done == code
    assert text in err
    written = read(file.read_bytes())
    assert (written.hold, written.lift) == (core.raw, core.lift)
    assert written.result == core.told["result"]
    assert written.lists == {}


def test_a_region_without_the_result_is_passed_over(desk: Desk, core: Core) -> None:
    def without(request: AdminRequest, operator: str) -> Message:
        return HoldExport(
            hold_id=core.hold_id,
            hold=core.raw,
            lift=core.lift,
            complete=True,
            result=b"",
            unstored="",
        )

    regions = list(core.system.cores)
    core.system.cores[regions[0]].handlers["hold", "export"] = without
    code, out, _ = desk.run("hold", "export", core.hold_id.hex())
    assert code == Exit.OK
    assert json.loads(out)["result"]
    core.system.everywhere("hold", "export", without)
    assert desk.run("hold", "export", core.hold_id.hex())[0] == Exit.NOT_COMPLETE


def test_without_a_file_it_goes_to_stdout(desk: Desk, core: Core) -> None:
    code, out, _ = desk.run("hold", "export", core.hold_id.hex())
    assert code == Exit.OK
    assert json.loads(out)["hold_id"] == core.hold_id.hex()


@pytest.mark.parametrize("count", [0, 1, PAGE_BYTES // 32 + 1])
def test_the_list_of_who_lifted_and_left_is_fetched_in_pages(
    desk: Desk, core: Core, tmp_path: Path, count: int
) -> None:
    core.retired(many(count))
    file = tmp_path / "evidence.json"
    assert desk.run("hold", "export", core.hold_id.hex(), "-o", str(file))[0] == Exit.OK
    assert read(file.read_bytes()).lists == ({"bob": core.endorsements.raw()} if count else {})
    assert core.asked == [("bob", page) for page in range(len(pages(core.endorsements)))]


def test_a_list_that_is_not_the_one_of_the_roster_is_left_out(
    desk: Desk, core: Core, tmp_path: Path
) -> None:
    core.retired(many(2))
    core.endorsements = many(1)
    file = tmp_path / "evidence.json"
    assert desk.run("hold", "export", core.hold_id.hex(), "-o", str(file))[0] == Exit.OK
    assert read(file.read_bytes()).lists == {}


def test_the_largest_answers_fit_into_a_message(core: Core) -> None:
    """Whatever a kill is: a full page of lifts beside the largest hold and result, too."""
    fields = HoldExport.model_fields
    most = {name: _most(fields[name].metadata) for name in ("hold", "lift", "result")}
    whole = HoldExport(
        hold_id=bytes(16), complete=True, unstored="\N{GRINNING FACE}" * limits.TEXT_MAX,
        **{name: bytes(size) for name, size in most.items()},
    )  # fmt: skip
    page = EndorsementsPage(name="n" * limits.NAME_MAX, page=PAGES_MAX, digests=bytes(PAGE_BYTES))
    for answer in (whole, page):
        reply = AdminReply(
            request=bytes(32), code=Code.OK, detail="d" * limits.TEXT_MAX, payload=encode(answer)
        )
        assert len(encode(core.bob.sign(Kind.ADMIN_REPLY, reply))) < limits.BODY_MAX


def _most(metadata: list[object]) -> int:
    return int(next(one.max_length for one in metadata if hasattr(one, "max_length")))
