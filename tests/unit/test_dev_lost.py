"""A process of the system is found although nothing says that it runs."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from kcm_devsystem import instances, orphans, parts, processes, shape, state, system
from kcm_devsystem.configs import config_file
from kcm_devsystem.options import Options
from kcm_devsystem.parts import Part
from kcm_devsystem.processes import Process, ReadyFile
from kcm_devsystem.state import State

OPTIONS = Options(Path(), regions=("eu",), cores=1, watch=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    shape.save(tmp_path, OPTIONS.shape)
    return tmp_path


class Standins:
    """Processes whose command lines end as those of the system's do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: list[Process] = []
        self.parts = {part.name: part for part in parts.of(root, OPTIONS.shape)}

    def start(self, part: Part | str, code: str = "sleep 600") -> Process:
        one = self.parts[part] if isinstance(part, str) else part
        ready = self.root / f"ready-{len(self.made)}"
        # The shell stays: what it became would have another command line.
        code = f": > {ready}; {code}; :"
        process = processes.spawn(
            one.name,
            ["/bin/sh", "-c", code, "/bin/nats-server", *one.command],
            self.root / "log" / "s.log",
            {"PATH": os.defpath},
            die_with_parent=True,
        )
        self.made.append(process)
        processes.wait_ready(process, ReadyFile(ready))
        return process


@pytest.fixture
def standins(root: Path) -> Iterator[Standins]:
    made = Standins(root)
    yield made
    processes.stop(made.made, drain=1.0)


def found(root: Path) -> dict[str, int]:
    return {entry.name: entry.process.pid for entry in orphans.find(root)}


def test_each_part_is_known_by_the_end_of_its_command_line(root: Path, standins: Standins) -> None:
    assert found(root) == {}
    names = ["backbone", "eu", "core-eu-1", "gateway-eu-1", "auditor-eu-1", "watcher"]
    assert list(standins.parts) == names
    pids = {name: standins.start(name).pid for name in names}
    assert found(root) == pids
    core = next(entry for entry in orphans.find(root) if entry.name == "core-eu-1")
    assert (core.role, core.region, core.instance) == ("core", "eu", "core-eu-1")
    assert processes.is_running(core.process)


def test_another_systems_process_and_another_command_are_not_taken(
    root: Path, standins: Standins, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    shape.save(other, OPTIONS.shape)
    standins.start("core-eu-1")
    config = config_file(root, OPTIONS.members[0])
    standins.start(Part("x", state.Kind.INSTANCE, "core", ("-m", "vim", str(config))))
    broker = standins.parts["eu"].command
    standins.start(Part("x", state.Kind.INSTANCE, "core", ("/bin/vim", *broker)))
    assert found(other) == {}
    assert list(found(root)) == ["core-eu-1"]


def test_what_a_process_forked_is_not_taken_for_a_second_one(
    root: Path, standins: Standins
) -> None:
    process = standins.start("core-eu-1", "(sleep 600; :) & wait")
    assert found(root) == {"core-eu-1": process.pid}


def test_what_is_recorded_and_runs_is_not_replaced(root: Path, standins: Standins) -> None:
    first, second = standins.start("core-eu-1"), standins.start("core-eu-1")
    assert orphans.known(root) is not None
    recorded = standins.parts["core-eu-1"].entry(first)
    state.save(root, State((recorded,)))
    known = orphans.known(root)
    assert known is not None
    assert [entry.process.pid for entry in known.entries] == [first.pid]
    # Both are ended.
    ends = orphans.stop(root, known)
    assert {process.pid for process in ends} == {first.pid, second.pid}
    assert found(root) == {}


def test_who_runs_unrecorded_is_not_started_again(root: Path, standins: Standins) -> None:
    dead = standins.start("core-eu-1")
    os.kill(dead.pid, signal.SIGKILL)
    processes.stop([dead], drain=0.0)
    recorded = standins.parts["core-eu-1"].entry(dead)
    lives = standins.start("core-eu-1")
    assert instances.start_again(root, recorded).process.pid == lives.pid


def test_status_shows_who_runs_unrecorded_and_who_should_run(
    root: Path, standins: Standins
) -> None:
    (root / "kcm-dev-system.json").write_text("{}")
    core = standins.start("core-eu-1")
    rows = {row["name"]: row for row in system.status(root)}
    assert rows.keys() == standins.parts.keys()
    assert (rows["core-eu-1"]["pid"], rows["core-eu-1"]["running"]) == (core.pid, True)
    assert (rows["eu"]["pid"], rows["eu"]["running"]) == (None, False)
