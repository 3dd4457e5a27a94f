"""`kcm roster retire`: endorsements are collected, signed and sent to every region."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from kcm.exit_codes import Exit
from kcm.ops.roster_changes import Refused, read_lists, retire
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.codec import Message
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.signed import Kind
from kcm_trust.endorsements import Endorsements

from tests.fakes.client import REGIONS
from tests.unit.roster_rig import DAY_MS, Desk, bob_of, entry, lists_holds


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def test_what_lasts_is_collected_signed_and_brought_everywhere(desk: Desk) -> None:
    desk.cores.signed = {
        "eu": [entry("lift 01", 5 * DAY_MS), entry("tenant acme")],
        "us": [entry("lift 01", 5 * DAY_MS), entry("lift 02", 9 * DAY_MS)],
    }
    code, said, _ = desk.run("roster", "retire", "bob", "--yes")
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


class Typed(io.StringIO):
    """What somebody types at a terminal."""

    def isatty(self) -> bool:
        return True


def test_nobody_is_retired_without_a_confirmation(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.cores.signed["eu"] = [entry("tenant acme"), entry("tenant beta")]
    retire = ("roster", "retire", "bob", "--leave-out", "tenant beta")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    for form, terminal in (("table", False), ("json", False), ("json", True)):
        monkeypatch.setattr("kcm.cli.roster_retire.at_a_terminal", lambda at=terminal: at)
        code, said, err = desk.run(*retire, form=form)
        assert (code, said) == (Exit.USAGE, None)
        assert "give --yes" in err
        assert "`kcm roster retire bob --dry-run`" in err
    monkeypatch.setattr("kcm.cli.roster_retire.at_a_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin", Typed("n\n"))
    code, _, err = desk.run(*retire, form="table")
    assert code == Exit.OK
    assert "1 statement still counts, 1 does not. Retire bob? This cannot be undone." in err
    assert "changed" in err.splitlines()[-1]
    monkeypatch.setattr("sys.stdin", Typed(""))
    code, _, err = desk.run(*retire, form="table")
    assert code == Exit.INTERRUPTED
    assert "bob is not retired: no region was given a roster" in err
    assert not desk.cores.put
    assert desk.kept.version == 1
    monkeypatch.setattr("sys.stdin", Typed("y\n"))
    assert desk.run(*retire, form="table")[0] == Exit.OK
    assert bob_of(desk.kept).retired is not None


class Late(Typed):
    """Whoever confirms late: meanwhile something happens."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__("y\n")
        self._meanwhile = meanwhile

    def readline(self, *limit: int) -> str:
        self._meanwhile()
        return super().readline(*limit)


def test_what_is_signed_while_the_question_waits_is_neither_lost_nor_endorsed_unseen(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.cores.signed["eu"] = [entry("tenant acme")]
    late = Late(lambda: desk.cores.signed["eu"].append(entry("tenant beta")))
    monkeypatch.setattr("kcm.cli.roster_retire.at_a_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin", late)
    code, _, err = desk.run("roster", "retire", "bob", form="table")
    assert code == Exit.REFUSED
    assert "what bob signed, changed before you confirmed" in err
    assert not desk.cores.put
    assert desk.kept.version == 1


def test_another_root_is_refused_before_the_question(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kcm.cli.roster_retire.at_a_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin", Typed("y\n"))
    key = str(desk.system.directory / "alice.key")
    code, _, err = desk.run("roster", "retire", "bob", "--key", key, key=False, form="table")
    assert code == Exit.CHECK_FAILED
    assert "Retire bob?" not in err


def test_what_is_younger_or_named_is_left_out(desk: Desk) -> None:
    lists_holds(desk, [])
    desk.cores.signed["eu"] = [
        entry("lift 01", 5 * DAY_MS), entry("lift 02", 9 * DAY_MS), entry("tenant acme"),
        entry("tenant beta"),
    ]  # fmt: skip
    code, said, _ = desk.run(
        "roster", "retire", "bob", "--yes", "--before", "1970-01-10", "--leave-out", "tenant beta"
    )
    assert code == Exit.OK
    assert [one["what"] for one in said["signed"] if one["endorsed"]] == ["lift 01", "tenant acme"]
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
    assert [one["what"] for one in said["signed"] if not one["endorsed"]] == [f"lift {first}"]
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
    assert [one["endorsed"] for one in said["signed"]] == [False, False]


def test_nobody_is_retired_without_the_word_of_a_region_that_the_context_lacks(desk: Desk) -> None:
    desk.system.forget("us")
    code, _, err = desk.run("roster", "retire", "bob", "--yes")
    assert code == Exit.UNAVAILABLE
    assert "us does not report its statements: on the roster, not in this context" in err
    assert not desk.cores.put
    assert desk.run("roster", "retire", "bob", "--yes", "--without", "nowhere")[0] == Exit.USAGE
    code, said, _ = desk.run("roster", "retire", "bob", "--yes", "--without", "us")
    assert (code, list(desk.cores.put)) == (Exit.OK, ["eu"])
    assert [one["result"] for one in said["regions"]] == ["stored", "not_in_context"]


def test_a_silent_region_stops_it_unless_that_is_accepted(desk: Desk) -> None:
    desk.system.unreachable = {"us"}
    code, _, err = desk.run("roster", "retire", "bob", "--yes")
    assert code == Exit.UNAVAILABLE
    assert "--without REGION" in err
    assert not desk.cores.put
    code, _, _ = desk.run("roster", "retire", "bob", "--yes", "--without", "us")
    assert code == Exit.OK
    assert set(desk.cores.put) == {"eu"}


@pytest.mark.parametrize("name", ["alice", "nobody", "core-eu-9"])
def test_who_cannot_be_retired(desk: Desk, name: str) -> None:
    assert desk.run("roster", "retire", name, "--yes")[0] == Exit.REFUSED
    assert not desk.cores.put


def test_a_mistyped_name_is_refused_before_anybody_is_asked(desk: Desk) -> None:
    def unknown(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.UNAVAILABLE, "not on the roster here")

    desk.system.everywhere("roster", "signed", unknown)
    code, _, err = desk.run("roster", "retire", "nobody", "--dry-run", key=False)
    assert code == Exit.REFUSED
    assert "the roster has no instance or operator of this name" in err
    assert "--without" not in err


def test_a_statement_to_leave_out_has_to_be_one(desk: Desk) -> None:
    desk.cores.signed["eu"] = [entry("lift 01", 5), entry("tenant beta")]
    code, _, err = desk.run(
        "roster", "retire", "bob", "--yes", "--leave-out", "tenant beta", "--leave-out", "lift 123"
    )
    assert code == Exit.REFUSED
    assert "'lift 123'" in err
    assert "tenant beta" not in err
    assert not desk.cores.put


def test_another_key_than_the_roots_is_not_used(desk: Desk) -> None:
    key = str(desk.system.directory / "alice.key")
    code, _, _ = desk.run("roster", "retire", "bob", "--yes", "--key", key, key=False)
    assert code == Exit.CHECK_FAILED
    assert not desk.cores.put
    assert desk.run("roster", "retire", "bob", "--yes", key=False)[0] == Exit.USAGE


def test_somebody_able_to_lift_is_left(desk: Desk) -> None:
    alone = desk.system.roster.model_copy(
        update={"operators": [bob_of(desk.system.roster)], "version": 3}
    )
    with pytest.raises(Refused, match="no operator with role admin"):
        retire(alone, "bob", Endorsements(), 0)
    done = retire(desk.system.roster, "bob", Endorsements(), 0)
    with pytest.raises(Refused, match="already"):
        retire(done, "bob", Endorsements(), 0)


def test_a_retirement_goes_on_from_the_highest_roster(desk: Desk) -> None:
    newer = desk.system.roster.model_copy(update={"version": 7})
    desk.cores.roster["us"] = desk.system.root.sign(Kind.ROSTER, newer)
    assert desk.run("roster", "retire", "bob", "--yes")[0] == Exit.OK
    assert desk.kept.version == 8
