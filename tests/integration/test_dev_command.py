"""``kcm dev``, as somebody types it: a system of one region that goes down and comes up again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kcm.exit_codes import Exit
from kcm_devsystem import orphans, processes, shape, state, system
from kcm_devsystem.state import State

pytestmark = pytest.mark.timeout(300)
"""Every test types some ten commands, and starts a system twice or more."""

SECONDS = 120
EU = "eu"
CORE, GATEWAY, AUDITOR = f"core-{EU}-1", f"gateway-{EU}-1", f"auditor-{EU}-1"
ALL = {"backbone", EU, CORE, GATEWAY, AUDITOR}


class Desk:
    """Types commands for the system in one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.told = ""

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": os.defpath}

    def argv(self, *arguments: str) -> list[str]:
        kcm = [sys.executable, "-X", "dev", "-W", "error", "-m", "kcm", "dev"]
        return [*kcm, *arguments, "--dir", str(self.root), "-o", "json"]

    def __call__(self, *arguments: str, expect: int = Exit.OK) -> str:
        """The result; what is told beside it is kept in ``told``."""
        done = subprocess.run(
            self.argv(*arguments), env=self.environment, capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == expect, done.stderr
        assert "Traceback" not in done.stderr
        self.told = done.stderr
        return done.stdout

    def interrupted(self, number: signal.Signals, once: str, *arguments: str) -> tuple[int, str]:
        """Send a signal as soon as a process is recorded; returns exit code and what was told."""
        with subprocess.Popen(
            self.argv(*arguments), env=self.environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        ) as command:  # fmt: skip
            until = time.monotonic() + SECONDS
            while not self.is_recorded(once):
                assert command.poll() is None
                assert time.monotonic() < until
                time.sleep(0.01)
            command.send_signal(number)
            told = command.communicate(timeout=SECONDS)[1]
        return command.returncode, told

    def is_recorded(self, name: str) -> bool:
        known = state.load(self.root)
        return known is not None and name in known.running.names

    def rows(self, expect: int = Exit.OK) -> dict[str, dict[str, object]]:
        return {row["name"]: row for row in json.loads(self("status", expect=expect))}

    def health(self, name: str) -> str:
        return next(row["health"] for row in system.status(self.root) if row["name"] == name)

    def pids(self) -> dict[str, object]:
        return {name: row["pid"] for name, row in self.rows().items()}

    def end(self, name: str) -> None:
        """End a process as a power cut would."""
        entry = self.state.entry(name)
        os.kill(entry.process.pid, signal.SIGKILL)
        processes.stop([entry.process])

    @property
    def state(self) -> State:
        known = state.load(self.root)
        assert known is not None
        return known

    def forget(self, name: str) -> None:
        state.save(self.root, self.state.without(name))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "system")
    yield made
    system.down(made.root, wipe=True)


def test_it_comes_up_again_as_it_was_and_may_grow_meanwhile(desk: Desk) -> None:
    shown = json.loads(desk("up", "--region", EU, "--cores", "1", "--no-watch"))
    before = desk.rows()
    assert before.keys() == ALL
    assert shown == {
        "directory": str(desk.root),
        "context": str(desk.root / "context.toml"),
        "processes": list(before.values()),
    }
    assert "{" not in desk.told, "the result is one document"
    refused = desk("up", "--cores", "2", expect=Exit.USAGE)
    assert refused == ""
    assert json.loads(desk.told)["error"] == "other_shape"
    desk("down")
    edited = desk.root / "config" / f"{CORE}.toml"
    edited.write_text("probes_per_s = 7.0\n" + edited.read_text())
    desk("up")
    assert f"{edited} was edited: it is kept" in desk.told
    assert desk.told.count("edited") == 1
    assert edited.read_text().startswith("probes_per_s = 7.0\n")
    after = desk.rows()
    assert {n: row["address"] for n, row in after.items()} == {
        n: row["address"] for n, row in before.items()
    }
    desk("down")
    desk("up", "--cores", "2")
    grown = desk.rows()
    assert grown.keys() == ALL | {f"core-{EU}-2"}
    assert grown[EU]["address"] == before[EU]["address"]


def test_up_starts_exactly_what_does_not_run(desk: Desk) -> None:
    desk("up", "--region", EU, "--cores", "1", "--no-watch")
    before = desk.pids()
    for name in (CORE, EU):
        desk.end(name)
    desk.forget(CORE)
    # This one runs, and nothing says so any more.
    desk.forget(GATEWAY)
    assert not desk.rows(expect=Exit.UNAVAILABLE)[CORE]["running"]
    desk("up")
    assert [line for line in desk.told.splitlines() if line.startswith("starting")] == [
        f"starting {EU}, which did not run",
        f"starting {CORE}, which did not run",
    ]
    after = desk.pids()
    assert after.keys() == before.keys()
    assert {name for name in ALL if after[name] != before[name]} == {CORE, EU}
    assert desk("up", expect=Exit.FAULT) == ""
    # Even without any record nothing is started twice, and all of it is ended.
    (desk.root / state.FILE).unlink()
    assert desk.pids() == after
    desk("up", expect=Exit.FAULT)
    assert "runs already" in json.loads(desk.told)["detail"]
    assert set(json.loads(desk("down"))["ended"]) == ALL
    assert json.loads(desk("status", expect=Exit.UNAVAILABLE)) == []


def test_status_says_how_each_process_is(desk: Desk) -> None:
    desk("up", "--region", EU, "--cores", "1")
    words = {name: row["health"] for name, row in desk.rows().items()}
    assert words == {
        "backbone": "answers", EU: "answers", CORE: "ready", GATEWAY: "ready", AUDITOR: "ready",
        "watcher": "runs",
    }  # fmt: skip
    # A Core that refuses its configuration ends again and again; the watcher sees how.
    config = desk.root / "config" / f"{CORE}.toml"
    config.write_text("nonsense = true\n" + config.read_text())
    desk.end(CORE)
    until = time.monotonic() + SECONDS
    while desk.health(CORE) != "ended with status 2":
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(desk.state.entry(EU).process.pid, signal.SIGSTOP)
    assert desk.rows(expect=Exit.UNAVAILABLE)[EU]["health"] == "paused"
    os.kill(desk.state.entry(EU).process.pid, signal.SIGCONT)


def test_named_processes_are_restarted_and_no_others(desk: Desk) -> None:
    desk("up", "--region", EU, "--cores", "1")
    before = desk.pids()
    desk("restart", CORE, "nobody", expect=Exit.USAGE)
    said = json.loads(desk.told)
    assert said["error"] == "unknown_process"
    assert said["hint"] == f"there are: backbone, {EU}, {CORE}, {GATEWAY}, {AUDITOR}, watcher"
    assert desk.pids() == before
    assert json.loads(desk("restart", CORE, EU))["restarted"] == [EU, CORE]
    after = desk.pids()
    assert {name for name in after if after[name] != before[name]} == {CORE, EU}
    desk("down")
    desk("restart", CORE, expect=Exit.UNAVAILABLE)
    assert json.loads(desk.told)["error"] == "no_system"


@pytest.mark.parametrize(
    ("number", "once", "code"),
    [
        (signal.SIGTERM, "backbone", 143),
        (signal.SIGHUP, CORE, 129),
        (signal.SIGINT, GATEWAY, 130),
    ],
)
def test_a_signal_ends_a_start_and_what_it_has_started(
    desk: Desk, number: signal.Signals, once: str, code: int
) -> None:
    ended, told = desk.interrupted(number, once, "up", "--region", EU, "--cores", "1")
    assert ended == code, told
    said = json.loads(told.splitlines()[-1])
    assert said["detail"] == "interrupted: the processes that this command started were ended"
    assert orphans.find(desk.root) == []
    assert desk.state == State()


def test_a_signal_leaves_what_ran_before(desk: Desk) -> None:
    desk("up", "--region", EU, "--cores", "1", "--no-watch")
    before = desk.pids()
    for name in (CORE, GATEWAY):
        desk.end(name)
    ended, told = desk.interrupted(signal.SIGTERM, CORE, "up")
    assert ended == 143, told
    rows = desk.rows(expect=Exit.UNAVAILABLE)
    runs = {name for name, row in rows.items() if row["running"]}
    assert runs == ALL - {CORE, GATEWAY}
    assert {entry.name for entry in orphans.find(desk.root)} == runs
    assert all(rows[name]["pid"] == before[name] for name in runs)


def test_a_taken_port_is_drawn_anew_and_said(desk: Desk) -> None:
    desk("up", "--region", EU, "--cores", "1", "--no-watch")
    before = shape.load(desk.root)
    assert before is not None
    desk("down")
    with socket.create_server(("127.0.0.1", before.ports[EU])):
        desk("up")
    after = shape.load(desk.root)
    assert after is not None
    assert {name for name in before.ports if after.ports[name] != before.ports[name]} == {EU}
    assert f"another program listens on {before.ports[EU]}: {EU} has port" in desk.told
    desk.rows()
