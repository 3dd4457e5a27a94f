"""`kcm roster sign`: the operator root signs on a machine without a network."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kcm.exit_codes import Exit
from kcm_schemas.codec import decode, encode
from kcm_schemas.roster import Operator, OperatorRole, Roster
from kcm_schemas.signed import Kind
from kcm_trust.endorsements import Endorsements
from kcm_trust.identity import ROOT, Identity

from tests.unit.roster_rig import Desk, bob_of, entry


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


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
    assert shown["changes"] == [{"name": "bob", "change": "retired: 1 statement still counts"}]
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
        (core.instance, "REMOVED"), (f"region {new.regions[0].region}", "is GONE"),
    }  # fmt: skip


@pytest.mark.parametrize("step", ["sign", "put"])
def test_a_list_that_stayed_behind_is_missed_at_once(desk: Desk, tmp_path: Path, step: str) -> None:
    desk.cores.signed["eu"] = [entry("lift 01", 5)]
    draft, known = tmp_path / "next", str(desk.system.directory / "roster")
    desk.run("roster", "retire", "bob", "--prepare", str(draft), key=False)
    if step == "put":
        desk.run("roster", "sign", str(draft), "--known", known)
    for path in tmp_path.glob("next*.endorsements/bob"):
        path.unlink()
    if step == "put":
        code, _, err = desk.run("roster", "put", f"{draft}.signed", key=False)
    else:
        code, _, err = desk.run("roster", "sign", str(draft), "--known", known)
    assert code == Exit.USAGE
    assert "endorsements/bob is missing" in err
    assert not desk.cores.put
