"""``kcm roster``: what would last is shown, nothing is changed in half, and nobody is lost."""

import asyncio
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm.ops.roster_changes import Refused, each, lists_directory, read_lists, retire
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
from kcm_schemas.admin.roster import LastingPage, RosterView, SignedEntry, SignedPage, SignedQuery
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Operator, OperatorRole, Roster
from kcm_schemas.signed import Kind
from kcm_trust.endorsements import Endorsements
from kcm_trust.identity import ROOT, Identity

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
            ("lasting", self._lasting),
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

    def _lasting(self, request: AdminRequest, operator: str) -> Message:
        page = decode(LastingPage, request.payload)
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


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def bob_of(roster: Roster) -> Operator:
    return next(one for one in roster.operators if one.operator == "bob")


def test_what_lasts_is_collected_signed_and_brought_everywhere(desk: Desk) -> None:
    desk.cores.signed = {
        "eu": [entry("lift 01", 5 * DAY_MS), entry("tenant acme")],
        "us": [entry("lift 01", 5 * DAY_MS), entry("lift 02", 9 * DAY_MS)],
    }
    code, said, _ = desk.run("roster", "retire", "bob")
    assert code == Exit.OK
    assert [(one["what"], one["regions"]) for one in said["signed"]] == [
        ("lift 01", ["eu", "us"]), ("lift 02", ["us"]), ("tenant acme", ["eu"]),
    ]  # fmt: skip
    listed = Endorsements(bytes.fromhex(one["digest"]) for one in said["signed"])
    (raw,) = set(desk.cores.put.values())
    new = desk.system.context().believe(raw)
    assert new.version == 2
    assert bob_of(new).retired == listed.retirement()
    assert all(pages == {0: listed.raw()} for pages in desk.cores.pages.values())
    assert desk.kept == new
    path = desk.system.directory / "roster"
    assert read_lists(path, new)["bob"].raw() == listed.raw()
    # The same again, from the file: for a region that was away.
    desk.cores.put.clear()
    assert desk.run("roster", "put", str(path), key=False)[0] == Exit.OK
    assert set(desk.cores.put) == set(REGIONS)


def test_a_dry_run_changes_nothing_and_needs_no_root(desk: Desk) -> None:
    desk.cores.signed["eu"] = [entry("lift 01", 5)]
    code, said, _ = desk.run("roster", "retire", "bob", "--dry-run", key=False)
    assert code == Exit.OK
    assert said["dry_run"] is True
    assert not desk.cores.put
    assert desk.kept.version == 1


def test_what_is_younger_or_named_is_left_out(desk: Desk) -> None:
    lists_holds(desk, [])
    desk.cores.signed["eu"] = [
        entry("lift 01", 5 * DAY_MS), entry("lift 02", 9 * DAY_MS), entry("tenant acme"),
        entry("tenant beta"),
    ]  # fmt: skip
    code, said, _ = desk.run(
        "roster", "retire", "bob", "--before", "1970-01-10", "--leave-out", "tenant beta"
    )
    assert code == Exit.OK
    assert [one["what"] for one in said["signed"] if one["lasts"]] == ["lift 01", "tenant acme"]
    assert bob_of(desk.kept).retired is not None
    assert bob_of(desk.kept).retired.count == 2  # type: ignore[union-attr]


def test_an_id_to_leave_out_may_be_shortened(desk: Desk) -> None:
    lists_holds(desk, [])
    first, second = "860741a6" + "0" * 24, "860741b7" + "0" * 24
    desk.cores.signed["eu"] = [
        entry(f"lift {first}", 5), entry(f"lift {second}", 5), entry("tenant acme"),
    ]  # fmt: skip
    retire = ("roster", "retire", "bob", "--dry-run", "--leave-out")
    code, said, _ = desk.run(*retire, "lift 860741A6")
    assert code == Exit.OK
    assert [one["what"] for one in said["signed"] if not one["lasts"]] == [f"lift {first}"]
    code, _, err = desk.run(*retire, "lift 860741")
    assert code == Exit.REFUSED
    assert "several statements begin with 'lift 860741'" in err
    for name in ("tenant acm", "lift ", "lift", "860741a6", "tenant 860741a6"):
        code, _, err = desk.run(*retire, name)
        assert code == Exit.REFUSED
        assert "no statement to leave out" in err


def test_records_of_one_name_are_left_out_together(desk: Desk) -> None:
    other = entry("tenant acme").model_copy(update={"digest": b"o" * 32})
    desk.cores.signed = {"eu": [entry("tenant acme")], "us": [other]}
    code, said, _ = desk.run("roster", "retire", "bob", "--dry-run", "--leave-out", "tenant acme")
    assert code == Exit.OK
    assert [one["lasts"] for one in said["signed"]] == [False, False]


def held(number: int, link: str, *, lifted_by: str = "bob", origin: str = "eu") -> HoldView:
    return HoldView(
        hold_id=bytes((1, number)) + bytes(14), scope="link", target=link, cause="l1",
        origin=origin, issuer="core-eu", issued_ms=1, reason="", lifted=True, lifted_ms=2,
        lifted_by=lifted_by, lift_reason="", raw=b"",
    )  # fmt: skip


UNKNOWN_PAGE = (
    "3 holds of region eu whose ids begin with 01 are in force again; on which links is not known "
    "any more"
)


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
    assert all(not one["lasts"] for one in said["signed"])


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
        "its hold is in force again; on whom was not answered: not you",
        UNKNOWN_PAGE,
        "the tenants of link root; they were not answered: not you",
    ]


def test_where_a_roster_was_brought_is_the_result(desk: Desk) -> None:
    path = str(desk.system.directory / "roster")
    code, said, err = desk.run("roster", "put", path, key=False)
    assert (code, json.loads(err)) == (Exit.OK, {"changed": False})
    row = {"result": "stored", "detail": "", "change": "unchanged"}
    assert said == {"version": 1, "regions": [{"region": name, **row} for name in REGIONS]}
    desk.cores.refuse = {"us"}
    code, said, err = desk.run("roster", "put", path, key=False)
    assert [one["result"] for one in said["regions"]] == ["stored", "forbidden"]
    assert said["regions"][1]["detail"] == "not the next one"
    code, said, err = desk.run("roster", "retire", "bob")
    assert code == Exit.PARTIAL
    assert [one["result"] for one in said["regions"]] == ["stored", "forbidden"]
    assert "not the next one" in err


LACKS = "us: on the roster, not in this context"


def test_a_region_that_the_context_lacks_has_no_roster_brought(desk: Desk, tmp_path: Path) -> None:
    desk.system.forget("us")
    file = tmp_path / "next"
    file.write_bytes((desk.system.directory / "roster").read_bytes())
    code, said, err = desk.run("roster", "put", str(file), key=False)
    assert code == Exit.PARTIAL
    assert [(one["region"], one["result"]) for one in said["regions"]] == [
        ("eu", "stored"), ("us", "not_in_context"),
    ]  # fmt: skip
    assert said["regions"][1]["detail"] == "on the roster, not in this context"
    assert json.loads(err.splitlines()[0])["error"] == "on the roster, not in this context"
    code, said, err = desk.run("roster", "show", key=False)
    assert code == Exit.NOT_COMPLETE
    assert said["regions"] == {"eu": "has it", "us": "on the roster, not in this context"}
    desk.system.cores["eu"].down = True
    assert desk.run("roster", "show", key=False)[0] == Exit.UNAVAILABLE


def test_a_region_that_the_context_lacks_is_told_to_people(desk: Desk, tmp_path: Path) -> None:
    desk.system.forget("us")
    file = str(desk.system.directory / "roster")
    assert LACKS in desk.run("roster", "put", file, key=False, form="table")[2]
    assert LACKS in desk.run("roster", "show", key=False, form="table")[2]


def test_nobody_is_retired_without_the_word_of_a_region_that_the_context_lacks(desk: Desk) -> None:
    desk.system.forget("us")
    code, _, err = desk.run("roster", "retire", "bob")
    assert code == Exit.UNAVAILABLE
    assert "us does not say what it has: on the roster, not in this context" in err
    assert not desk.cores.put
    assert desk.run("roster", "retire", "bob", "--without", "nowhere")[0] == Exit.USAGE
    code, said, _ = desk.run("roster", "retire", "bob", "--without", "us")
    assert (code, list(desk.cores.put)) == (Exit.OK, ["eu"])
    assert [one["result"] for one in said["regions"]] == ["stored", "not_in_context"]


def test_a_silent_region_stops_it_unless_that_is_accepted(desk: Desk) -> None:
    desk.system.unreachable = {"us"}
    code, _, err = desk.run("roster", "retire", "bob")
    assert code == Exit.UNAVAILABLE
    assert "--without REGION" in err
    assert not desk.cores.put
    code, _, _ = desk.run("roster", "retire", "bob", "--without", "us")
    assert code == Exit.OK
    assert set(desk.cores.put) == {"eu"}


def test_a_region_that_does_not_take_it_is_said(desk: Desk) -> None:
    desk.cores.refuse = {"us"}
    code, _, err = desk.run("roster", "retire", "bob")
    assert code == Exit.PARTIAL
    assert "not the next one" in err
    assert desk.kept.version == 2
    desk.cores.refuse = set(REGIONS)
    code, _, err = desk.run("roster", "put", str(desk.system.directory / "roster"), key=False)
    assert code == Exit.REFUSED
    assert json.loads(err)["regions"] == list(REGIONS)  # one line: both say the same


@pytest.mark.parametrize("name", ["alice", "nobody", "core-eu-9"])
def test_who_cannot_be_retired(desk: Desk, name: str) -> None:
    assert desk.run("roster", "retire", name)[0] == Exit.REFUSED
    assert not desk.cores.put


def test_a_mistyped_name_is_refused_before_anybody_is_asked(desk: Desk) -> None:
    def unknown(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.UNAVAILABLE, "not on the roster here")

    desk.system.everywhere("roster", "signed", unknown)
    code, _, err = desk.run("roster", "retire", "nobody", "--dry-run", key=False)
    assert code == Exit.REFUSED
    assert "nobody on the roster has this name" in err
    assert "--without" not in err


def test_a_statement_to_leave_out_has_to_be_one(desk: Desk) -> None:
    desk.cores.signed["eu"] = [entry("lift 01", 5), entry("tenant beta")]
    code, _, err = desk.run(
        "roster", "retire", "bob", "--leave-out", "tenant beta", "--leave-out", "lift 123"
    )
    assert code == Exit.REFUSED
    assert "'lift 123'" in err
    assert "tenant beta" not in err
    assert not desk.cores.put


def test_another_key_than_the_roots_is_not_used(desk: Desk) -> None:
    code, _, _ = desk.run(
        "roster", "retire", "bob", "--key", str(desk.system.directory / "alice.key"), key=False
    )
    assert code == Exit.CHECK_FAILED
    assert not desk.cores.put
    assert desk.run("roster", "retire", "bob", key=False)[0] == Exit.USAGE


def test_somebody_able_to_lift_is_left(desk: Desk) -> None:
    alone = desk.system.roster.model_copy(
        update={"operators": [bob_of(desk.system.roster)], "version": 3}
    )
    with pytest.raises(Refused, match="nobody with role admin"):
        retire(alone, "bob", Endorsements(), 0)
    done = retire(desk.system.roster, "bob", Endorsements(), 0)
    with pytest.raises(Refused, match="already"):
        retire(done, "bob", Endorsements(), 0)


def test_show_says_who_has_the_highest_one(desk: Desk) -> None:
    code, said, _ = desk.run("roster", "show", key=False)
    assert code == Exit.OK
    newer = retire(desk.system.roster, "bob", Endorsements(), 7)
    desk.cores.roster["us"] = desk.system.root.sign(Kind.ROSTER, newer)
    code, said, _ = desk.run("roster", "show", key=False)
    assert code == Exit.NOT_COMPLETE
    assert said["version"] == 2
    assert said["regions"] == {"eu": "has an older one", "us": "has it"}
    states = {row["name"]: row["state"] for row in said["entries"]}
    assert (states["alice"], states["bob"]) == ("acts", "retired")


def test_show_of_no_region_that_answers_is_unavailable(desk: Desk) -> None:
    def silent(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.UNAVAILABLE)

    desk.system.everywhere("roster", "show", silent)
    code, said, _ = desk.run("roster", "show", key=False)
    assert code == Exit.UNAVAILABLE
    assert set(said["regions"].values()) == {"unavailable"}


def test_a_retirement_goes_on_from_the_highest_roster(desk: Desk) -> None:
    newer = desk.system.roster.model_copy(update={"version": 7})
    desk.cores.roster["us"] = desk.system.root.sign(Kind.ROSTER, newer)
    assert desk.run("roster", "retire", "bob")[0] == Exit.OK
    assert desk.kept.version == 8


def test_a_roster_of_nobody_is_not_brought_anywhere(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "forged"
    path.write_bytes(encode(desk.system.alice.sign(Kind.ROSTER, desk.system.roster)))
    assert desk.run("roster", "put", str(path), key=False)[0] == Exit.CHECK_FAILED
    assert not desk.cores.put
    assert not lists_directory(path).exists()


def test_the_root_signs_on_another_machine(desk: Desk, tmp_path: Path) -> None:
    desk.cores.signed["eu"] = [entry("lift 01", 5)]
    draft, signed = tmp_path / "next", tmp_path / "next.signed"
    code, said, _ = desk.run("roster", "retire", "bob", "--prepare", str(draft), key=False)
    assert code == Exit.OK
    assert not desk.cores.put
    known = str(desk.system.directory / "roster")
    before = (desk.system.directory / "roster").read_bytes()
    code, shown, _ = desk.run("roster", "sign", str(draft), "--known", known, key=False)
    assert (code, shown["signed"], signed.exists()) == (Exit.OK, False, False)
    code, shown, _ = desk.run("roster", "sign", str(draft), "--known", known)
    assert code == Exit.OK
    assert shown["changes"] == [{"name": "bob", "change": "retired: 1 statements last"}]
    assert (shown["version"], shown["signed"]) == (2, True)
    assert (desk.system.directory / "roster").read_bytes() == before
    assert desk.run("roster", "put", str(signed), key=False)[0] == Exit.OK
    (raw,) = set(desk.cores.put.values())
    assert raw == signed.read_bytes()
    listed = Endorsements(bytes.fromhex(one["digest"]) for one in said["signed"])
    assert bob_of(desk.kept).retired == listed.retirement()
    assert all(pages == {0: listed.raw()} for pages in desk.cores.pages.values())


@pytest.mark.parametrize("wrong", ["signed already", "no roster", "a step back", "another root"])
def test_the_root_signs_nothing_else(desk: Desk, tmp_path: Path, wrong: str) -> None:
    draft = tmp_path / "next"
    desk.run("roster", "retire", "bob", "--prepare", str(draft), key=False)
    known = desk.system.directory / "roster"
    match wrong:
        case "signed already":
            draft.write_bytes(known.read_bytes())
        case "no roster":
            draft.write_bytes(b"\xff" * 40)
        case "a step back":
            retired = decode(Roster, draft.read_bytes())
            back = desk.system.roster.model_copy(update={"version": 3})
            known = tmp_path / "known"
            known.write_bytes(encode(desk.system.root.sign(Kind.ROSTER, retired)))
            draft.write_bytes(encode(back))
        case _:
            known = tmp_path / "known"
            other = Identity(ROOT, Ed25519PrivateKey.generate(), desk.system.roster.system)
            known.write_bytes(encode(other.sign(Kind.ROSTER, desk.system.roster)))
    code, _, err = desk.run("roster", "sign", str(draft), "--known", str(known))
    assert code == (Exit.USAGE if wrong in ("signed already", "no roster") else Exit.CHECK_FAILED)
    assert str(draft if wrong != "another root" else known) in err
    assert not (tmp_path / "next.signed").exists()


def test_whoever_signs_sees_what_becomes_of_everybody(desk: Desk, tmp_path: Path) -> None:
    """A prepared roster that somebody has changed looks like another one."""
    draft = tmp_path / "next"
    desk.run("roster", "retire", "bob", "--prepare", str(draft), key=False)
    new = decode(Roster, draft.read_bytes())
    first, *others = new.operators
    mallory = Operator(operator="mallory", roles=[OperatorRole.SECURITY], public_key=b"m" * 32)
    core, *rest = new.instances
    changed = new.model_copy(
        update={
            "operators": [first.model_copy(update={"public_key": b"x" * 32}), *others, mallory],
            "instances": rest,
            "regions": new.regions[1:],
        }
    )
    draft.write_bytes(encode(changed))
    known = str(desk.system.directory / "roster")
    code, shown, _ = desk.run("roster", "sign", str(draft), "--known", known, key=False)
    assert code == Exit.OK
    said = {(one["name"], one["change"].split(":")[0].split(" by ")[0]) for one in shown["changes"]}
    assert said >= {
        (first.operator, "KEY REPLACED"), ("mallory", "is new"), ("bob", "retired"),
        (core.instance, "TAKEN OFF"), (f"region {new.regions[0].region}", "is GONE"),
    }  # fmt: skip


@pytest.mark.parametrize("step", ["sign", "put"])
def test_a_list_that_stayed_behind_is_missed_at_once(desk: Desk, tmp_path: Path, step: str) -> None:
    desk.cores.signed["eu"] = [entry("lift 01", 5)]
    draft, known = tmp_path / "next", str(desk.system.directory / "roster")
    desk.run("roster", "retire", "bob", "--prepare", str(draft), key=False)
    if step == "put":
        desk.run("roster", "sign", str(draft), "--known", known)
    for path in tmp_path.glob("next*.lasting/bob"):
        path.unlink()
    if step == "put":
        code, _, err = desk.run("roster", "put", f"{draft}.signed", key=False)
    else:
        code, _, err = desk.run("roster", "sign", str(draft), "--known", known)
    assert code == Exit.USAGE
    assert "lasting/bob is missing" in err
    assert not desk.cores.put


@pytest.mark.parametrize("arguments", [("retire", "bob", "--dry-run"), ("show",)])
def test_a_region_that_keeps_one_waiting_is_named(
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setattr("kcm.cli.hold_progress.TELL_S", 0)
    told = ""
    us = desk.system.cores["us"]
    request = us.request

    async def slow(subject: str, body: bytes, timeout_s: float) -> bytes:
        nonlocal told
        while not told:
            await asyncio.sleep(0)
            told += capsys.readouterr().err
        return await request(subject, body, timeout_s)

    monkeypatch.setattr(us, "request", slow)
    assert desk.run("roster", *arguments, key=False)[0] == Exit.OK
    first = json.loads(told.splitlines()[0])
    assert first["asking"] == "the roster"
    assert "us" in first["silent"]


async def test_regions_are_asked_at_once() -> None:
    """A region that does not answer keeps nobody from asking the next one."""
    reached: set[str] = set()
    everybody = asyncio.Event()

    async def ask(region: str) -> str:
        reached.add(region)
        if len(reached) == len(REGIONS):
            everybody.set()
        await everybody.wait()
        return region

    answered: list[str] = []
    assert await each(REGIONS, ask, answered.append) == dict(zip(REGIONS, REGIONS, strict=True))
    assert sorted(answered) == sorted(REGIONS)
