"""``kcm registry``: each Core is asked by name, and what is adopted is what was shown."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from kcm.cli.error_report import explain
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_killswitch.model.registry_lease import NO_BASELINE
from kcm_schemas.admin.registry import AdoptOrder, RegistryView
from kcm_schemas.admin.requests import AdminRequest, Empty
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Grant, Instance, Role
from kcm_schemas.signed import Kind

from tests.fakes.client import FakeSystem

DIGEST = b"d" * 32


class Desk:
    """Both regions have one Core that runs; that of ``eu`` is without a baseline."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.system = FakeSystem(directory)
        self.baseline = {"eu": False, "us": True}
        self.adopted: list[tuple[str, bytes]] = []
        self.refusal: KcmError | None = None
        self._capsys = capsys
        self.system.everywhere("registry", "show", self._show)
        self.system.everywhere("registry", "adopt", self._adopt)

    def view(self, region: str, core: str = "") -> RegistryView:
        return RegistryView(
            core=core or f"core-{region}", baseline=self.baseline[region], tenants=2, links=1,
            services=3, apps=4, highest=7, digest=DIGEST,
            waits="" if self.baseline[region] else "no Core has a baseline",
        )  # fmt: skip

    def _show(self, request: AdminRequest, operator: str) -> Message:
        decode(Empty, request.payload)
        return self.view(request.region)

    def _adopt(self, request: AdminRequest, operator: str) -> Message:
        if self.refusal is not None:
            raise self.refusal
        self.adopted.append((operator, decode(AdoptOrder, request.payload).digest))
        self.baseline[request.region] = True
        return self.view(request.region)

    def another_core(self) -> None:
        """A second Core of ``eu`` is on the roster, and does not answer."""
        extra = Instance(
            instance="core-eu-2", role=Role.CORE, region="eu", public_key=b"k" * 32,
            grants=[Grant(tenant="*", service="*")],
        )  # fmt: skip
        roster = self.system.roster
        changed = roster.model_copy(update={"instances": [*roster.instances, extra]})
        raw = encode(self.system.root.sign(Kind.ROSTER, changed))
        (self.system.directory / "roster").write_bytes(raw)

    def run(self, *arguments: str, form: str = "json") -> tuple[int, Any, str]:
        self._capsys.readouterr()
        code = run(
            ["registry", *arguments, "--context", str(self.system.context_file), "-o", form],
            self.system.open,
            self.system.clock.around(),
        )
        out, err = self._capsys.readouterr()
        return code, json.loads(out) if out and form == "json" else out, err


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def test_every_core_is_shown_with_what_it_knows(desk: Desk) -> None:
    code, rows, _ = desk.run("show")
    assert code == Exit.NOT_COMPLETE
    assert [(one["core"], one["region"], one["baseline"]) for one in rows] == [
        ("core-eu", "eu", False),
        ("core-us", "us", True),
    ]
    assert rows[0] | {"baseline": 0} == {
        "core": "core-eu", "region": "eu", "baseline": 0, "tenants": 2, "links": 1, "services": 3,
        "apps": 4, "highest": 7, "digest": DIGEST.hex(), "waits": "no Core has a baseline",
    }  # fmt: skip
    assert desk.run("show", "--region", "us")[0] == Exit.OK
    code, table, err = desk.run("show", form="table")
    assert DIGEST.hex()[:16] in table
    assert "core-eu: no Core has a baseline" in err


def test_where_nobody_has_a_baseline_the_next_command_is_named(desk: Desk) -> None:
    code, _, err = desk.run("show", "--region", "eu", form="table")
    assert code == Exit.NOT_COMPLETE
    text = (
        "no Core of region eu that replies has a baseline: start one that has a baseline, or check"
    )
    assert (
        f"{text} that this registry is complete and adopt it: `kcm registry adopt --region eu`"
        in err
    )
    said = json.loads(desk.run("show")[2])
    assert said["region"] == "eu"
    assert "kcm registry adopt --region eu" in said["hint"]
    assert desk.run("show", "--region", "us")[2] == ""


def test_a_refusal_for_want_of_a_baseline_is_told_with_the_command_that_says_who_has() -> None:
    report = explain(KcmError(Code.UNAVAILABLE, NO_BASELINE))
    assert report.hint == "`kcm registry show` shows which Core has a baseline"
    assert explain(KcmError(Code.UNAVAILABLE)).hint != report.hint


def test_a_core_that_does_not_answer_is_named_and_no_other_one_speaks_for_it(desk: Desk) -> None:
    desk.baseline["eu"] = True
    desk.another_core()
    code, rows, _ = desk.run("show", "--region", "eu")
    assert code == Exit.NOT_COMPLETE
    assert "no instance serves this" in rows[1]["error"]
    desk.system.cores["eu"].down = True
    assert desk.run("show", "--region", "eu")[0] == Exit.UNAVAILABLE


def test_a_core_with_a_baseline_that_is_named_has_nothing_to_adopt(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = {
        "core-eu": desk.view("eu"),
        "core-eu-2": desk.view("eu", "core-eu-2").model_copy(update={"baseline": True}),
    }
    monkeypatch.setattr("kcm._internal.admin.Admin.cores", lambda self, region: list(views))

    async def registry(self: Any, region: str, core: str, **_: Any) -> RegistryView:
        return views[core]

    monkeypatch.setattr("kcm._internal.admin.Admin.registry", registry)
    code, said, _ = desk.run("adopt", "--region", "eu", "--core", "core-eu-2", "--yes")
    assert (code, said["why"]) == (Exit.OK, "core-eu-2 has a baseline: there is nothing to adopt")


def test_what_was_shown_is_adopted_and_no_more(desk: Desk) -> None:
    code, said, err = desk.run("adopt", "--region", "eu", "--yes")
    assert (code, err) == (Exit.OK, "")
    assert desk.adopted == [("alice", DIGEST)]
    about = {"region": "eu", "adopted": True, "core": "core-eu", "digest": DIGEST.hex()}
    assert {name: said[name] for name in about} == about
    assert [(one["core"], one["baseline"]) for one in said["cores"]] == [("core-eu", True)]
    code, said, _ = desk.run("adopt", "--region", "eu", "--yes")
    assert (code, said["adopted"], said["core"]) == (Exit.OK, False, None)
    assert said["why"] == "every Core that replies has a baseline: there is nothing to adopt"
    assert said["cores"][0]["baseline"] is True
    code, _, err = desk.run("adopt", "--region", "eu", "--yes", form="table")
    assert (code, len(desk.adopted)) == (Exit.OK, 1)
    assert "nothing to adopt" in err


class Typed(io.StringIO):
    """What somebody types at a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("form", ["json", "table"])
def test_nothing_is_adopted_that_nobody_confirmed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    code, _, err = desk.run("adopt", "--region", "eu", form=form)
    assert code == Exit.USAGE
    assert "give --yes" in err
    monkeypatch.setattr("kcm.cli.registry_adoption.at_a_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin", Typed("n\n"))
    code, out, err = desk.run("adopt", "--region", "eu", form=form)
    assert code == Exit.OK
    assert "Is this all of region eu: 2 tenants, 1 link, 3 services, 4 applications?" in err
    text = "us may have newer entries: compare with `kcm tenant list -o json --region us`"
    assert text in err
    assert "nothing was changed" in (out["why"] if form == "json" else err)
    monkeypatch.setattr("sys.stdin", Typed(""))
    assert desk.run("adopt", "--region", "eu", form=form)[0] == Exit.INTERRUPTED
    assert not desk.adopted
    monkeypatch.setattr("sys.stdin", Typed("y\n"))
    assert desk.run("adopt", "--region", "eu", form=form)[0] == Exit.OK
    assert desk.adopted == [("alice", DIGEST)]


def test_wrong_usage_adopts_nothing(desk: Desk) -> None:
    assert desk.run("adopt", "--region", "nowhere", "--yes")[0] == Exit.USAGE
    assert desk.run("adopt", "--region", "eu", "--core", "core-us", "--yes")[0] == Exit.USAGE
    code, _, err = desk.run("adopt", "--region", "us", "--region", "eu", "--yes")
    assert code == Exit.USAGE
    assert "--region" in err
    assert "once" in err
    assert desk.run("show", "--region", "us", "--region", "eu")[0] == Exit.USAGE
    assert not desk.adopted


def test_somebody_who_is_not_on_the_regions_roster_is_told_so(desk: Desk) -> None:
    def refuse(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.FORBIDDEN, "nobody of this name is on the roster")

    desk.system.everywhere("registry", "show", refuse)
    for command in (("adopt", "--region", "eu", "--yes"), ("show",)):
        code, _, err = desk.run(*command, form="table")
        assert code == Exit.REFUSED
        assert "nobody of this name is on the roster (forbidden)" in err
    assert not desk.adopted


def test_a_refusal_says_what_to_do_next(desk: Desk) -> None:
    desk.refusal = KcmError(Code.CONFLICT, "core-eu-2 has a baseline of another registry")
    code, _, err = desk.run("adopt", "--region", "eu", "--yes", form="table")
    assert code == Exit.REFUSED
    assert "core-eu-2 has a baseline of another registry" in err
    assert "kcm registry show --region eu" in err


def test_cores_that_differ_are_not_adopted_until_one_is_named(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = {
        "core-eu": desk.view("eu"),
        "core-eu-2": desk.view("eu", "core-eu-2").model_copy(update={"digest": b"o" * 32}),
    }
    monkeypatch.setattr("kcm._internal.admin.Admin.cores", lambda self, region: list(views))

    async def registry(self: Any, region: str, core: str, **_: Any) -> RegistryView:
        return views[core]

    monkeypatch.setattr("kcm._internal.admin.Admin.registry", registry)
    code, _, err = desk.run("adopt", "--region", "eu", "--yes", form="table")
    assert code == Exit.REFUSED
    assert "--core" in err
    assert desk.run("adopt", "--region", "eu", "--core", "core-eu", "--yes")[0] == Exit.OK
    assert desk.adopted == [("alice", DIGEST)]


def test_nothing_is_adopted_while_a_core_that_may_have_a_baseline_does_not_answer(
    desk: Desk,
) -> None:
    desk.another_core()
    code, _, err = desk.run("adopt", "--region", "eu", "--yes", form="table")
    assert code == Exit.UNAVAILABLE
    assert "core-eu-2 does not reply and may have a baseline" in err
    assert "start it, or name it with --without core-eu-2" in err
    assert not desk.adopted
    desk.baseline["eu"] = True
    code, _, err = desk.run("adopt", "--region", "eu", "--yes", "--core", "core-eu-2")
    assert code == Exit.UNAVAILABLE
    assert "core-eu-2 does not reply" in err
    desk.baseline["eu"] = False
    adopt = ("adopt", "--region", "eu", "--yes", "--without")
    assert desk.run(*adopt, "core-us")[0] == Exit.USAGE
    assert desk.run(*adopt, "core-eu", "--core", "core-eu")[0] == Exit.USAGE
    assert not desk.adopted
    assert desk.run(*adopt, "core-eu-2", "--without", "core-eu-2")[0] == Exit.OK
    assert desk.adopted == [("alice", DIGEST)]
