"""The whole of bench-kill runs, says what it has to, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.bench_runs import ROOT, quick_result, running

COMMAND = (sys.executable, "-m", "benchmarks.kill", "--quick")


@pytest.mark.slow
@pytest.mark.timeout(300)  # other systems run at the same time
def test_a_quick_run_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = quick_result("benchmarks.kill", tmp_path, monkeypatch)
    parts = {figure["part"] for figure in result["figures"]}
    assert {
        "a kill under load",
        "a kill under a flood",
        "a kill after a crash",
        "a refusal by the customer's key",
        "the control stream",
    } <= parts
    names = {figure["name"]: figure["value"] for figure in result["figures"]}
    assert names["other tenants' requests that failed"] == 0


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
        while not (begun := running(tmp_path)) and time.monotonic() < until:
            time.sleep(0.05)
        assert begun  # looked at once: the first process may have ended by now
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    assert running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
