"""The whole of bench-kill runs, says what it has to, and leaves nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "benchmarks.kill", "--quick")


def running(home: Path) -> list[str]:
    """Command lines of processes that name the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(home) in line:
            found.append(line)
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)  # other systems run at the same time
def test_a_quick_run_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "tmp"
    home.mkdir()
    monkeypatch.setenv("TMPDIR", str(home))
    target = tmp_path / "result.json"
    done = subprocess.run(
        [*COMMAND, "--json", str(target)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(target.read_text())
    assert set(result) == {"machine", "versions", "quick", "seconds", "figures"}
    parts = {figure["part"] for figure in result["figures"]}
    assert {
        "a kill under load",
        "a kill under a flood",
        "a kill after a crash",
        "a refusal by the customer's key",
        "the control stream",
    } <= parts
    assert sum(figure["target"] is not None for figure in result["figures"]) >= 10
    names = {figure["name"]: figure["value"] for figure in result["figures"]}
    assert names["other tenants' requests that failed"] == 0
    assert list(home.iterdir()) == []
    assert running(home) == []


@pytest.mark.slow
def test_an_interrupted_run_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = subprocess.Popen(
        [*COMMAND, "--only", "broadcast", "--kills", "1000"],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 60
        while not running(tmp_path) and time.monotonic() < until:
            time.sleep(0.05)
        assert running(tmp_path)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    assert running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
