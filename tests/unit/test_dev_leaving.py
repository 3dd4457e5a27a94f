"""Who is retired is not started, by no command and not by the watcher, and fails no status."""

import json
import os
from pathlib import Path

import pytest
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_deployment.members import Member
from kcm_deployment.trust_files import Trust
from kcm_devsystem import instances, retired, startup, state, system, topology, watcher
from kcm_devsystem.errors import DevError
from kcm_devsystem.identities import SYSTEM
from kcm_devsystem.processes import Process
from kcm_devsystem.root_keys import RootKeys
from kcm_devsystem.state import Entry, Kind, State
from kcm_devsystem.system import Options
from kcm_runtime.files.identity_file import load_identity
from kcm_schemas.codec import encode
from kcm_schemas.roster import Roster
from kcm_schemas.signed import Kind as Signed
from kcm_trust.endorsements import NOTHING
from kcm_trust.identity import ROOT
from kcm_trust.verify import verify_roster

EU = "eu-de"
GATEWAY, CORE, AUDITOR = f"gateway-{EU}-1", f"core-{EU}-1", f"auditor-{EU}-1"


class Desk:
    """A system's directory in which nothing runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.options = Options(root, regions=(EU,), cores=1)
        self.plan, self.public = system.init(self.options)

    @property
    def roster(self) -> Roster:
        return verify_roster(Trust(self.root).roster.read_bytes(), self.public, 0)

    def retire(self, name: str, to: Path | None = None) -> None:
        known = self.roster
        gone = [
            one.model_copy(update={"retired": NOTHING.retirement()})
            if one.instance == name
            else one
            for one in known.instances
        ]
        self.sign(known.model_copy(update={"version": 7, "instances": gone}), to)

    def sign(self, roster: Roster, to: Path | None = None) -> None:
        path = to or Trust(self.root).roster
        path.parent.mkdir(parents=True, exist_ok=True)
        root = load_identity(ROOT, str(Trust(self.root).key(ROOT)), SYSTEM)
        path.write_bytes(encode(root.sign(Signed.ROSTER, roster)))

    def run(self, *dead: str, alive: tuple[str, ...] = ("watcher",)) -> None:
        """A system of instances that ended, and of this process as all that are alive."""
        entries = [*map(ours, alive), *map(entry, dead)]
        state.save(self.root, State(tuple(entries)))


def ours(name: str) -> Entry:
    mine = Process(name, os.getpid(), started(), boot(), Path("/log"))
    return Entry(mine, Kind.WATCHER, name)


def started() -> int:
    return int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])


def boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def entry(name: str) -> Entry:
    ended = Process(name, 4_000_000, 77, "another boot", Path("/log") / name)
    return Entry(ended, Kind.INSTANCE, name.partition("-")[0], EU, name)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "system")


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of those that the watcher starts again, which then end."""
    names: list[str] = []

    def start_again(root: Path, one: Entry) -> Entry:
        names.append(one.process.name)
        return one

    monkeypatch.setattr(watcher, "start_again", start_again)
    return names


@pytest.fixture
def started_members(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the instances that a start starts, which then end; no broker is started."""
    names: list[str] = []

    async def nothing(*_: object) -> None:
        pass

    def start_member(root: Path, member: Member, *, die_with_parent: bool) -> Entry:
        names.append(member.name)
        return entry(member.name)

    monkeypatch.setattr(topology, "start", lambda *_, **__: (desk.plan, ()))
    monkeypatch.setattr(startup, "provision_all", nothing)
    monkeypatch.setattr(RootKeys, "prepare", lambda _: None)
    monkeypatch.setattr(instances, "start_member", start_member)
    monkeypatch.setattr(instances, "wait", lambda *_: None)
    return names


def test_the_highest_roster_counts_whoever_has_it(desk: Desk) -> None:
    assert retired.why_not(retired.highest(desk.root), GATEWAY) == ""
    desk.retire(GATEWAY, desk.root / "state" / CORE / "roster")
    (desk.root / "state" / GATEWAY).mkdir()
    (desk.root / "state" / GATEWAY / "roster").write_bytes(b"damaged")
    found = retired.highest(desk.root)
    assert retired.why_not(found, GATEWAY) == "retired"
    assert retired.why_not(found, CORE) == ""
    assert retired.why_not(found, "core-eu-de-9") == "not on the roster"
    assert retired.why_not(found, "") == ""
    assert retired.highest(desk.root / "nowhere") is None


def test_up_starts_the_others_and_says_who_is_retired(
    desk: Desk, started_members: list[str]
) -> None:
    desk.retire(GATEWAY)
    told: list[str] = []
    system.up(desk.options, told.append)
    assert started_members == [CORE, AUDITOR]
    assert f"{GATEWAY} is retired: not started" in told


def test_up_of_a_system_that_runs_leaves_who_is_retired(
    desk: Desk, started_members: list[str]
) -> None:
    desk.retire(GATEWAY)
    desk.run(GATEWAY, CORE, alive=("backbone", EU))
    told: list[str] = []
    system.up(desk.options, told.append)
    assert started_members == [CORE, AUDITOR]
    assert f"{GATEWAY} is retired: not started" in told
    assert f"starting {CORE}, which did not run" in told
    desk.run(GATEWAY, alive=("backbone", EU, CORE, AUDITOR))
    with pytest.raises(DevError, match="runs already"):
        system.up(desk.options)
    assert len(started_members) == 2


def test_the_watcher_starts_nobody_again_who_is_retired(desk: Desk, again: list[str]) -> None:
    desk.run(GATEWAY, CORE)
    now = [0.0]
    looks = watcher.Watcher(desk.root, lambda: now[0])
    for _ in range(3):
        assert looks.look()
        now[0] += watcher.DELAY_MAX_S
    assert {GATEWAY, CORE} <= set(again)
    desk.retire(GATEWAY)
    again.clear()
    for _ in range(6):
        assert looks.look()
        now[0] += watcher.DELAY_MAX_S
    assert set(again) == {CORE}


def test_status_says_retired_and_does_not_fail(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.run(GATEWAY, alive=("backbone", EU, CORE, AUDITOR))
    arguments = ["dev", "status", "--dir", str(desk.root), "-o"]
    assert run([*arguments, "table"]) == Exit.UNAVAILABLE
    assert (
        f"hint: `kcm dev up --dir {desk.root}` starts missing processes" in capsys.readouterr().err
    )
    desk.retire(GATEWAY)
    assert run([*arguments, "table"]) == Exit.OK
    assert "retired" in capsys.readouterr().out
    assert run([*arguments, "json"]) == Exit.OK
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows[GATEWAY]["running"], rows[GATEWAY]["left"]) == (False, "retired")
    assert rows[CORE]["left"] == ""
