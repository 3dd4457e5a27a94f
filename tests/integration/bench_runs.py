"""Benchmarks that are run as commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]


def running(home: Path) -> list[str]:
    """Command lines of processes that name the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(home) in line:
            found.append(line)
    return found


def quick_result(module: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run all parts of a benchmark quickly: the command succeeds and leaves nothing behind."""
    home = directory / "tmp"
    home.mkdir()
    monkeypatch.setenv("TMPDIR", str(home))
    target = directory / "result.json"
    done = subprocess.run(
        [sys.executable, "-m", module, "--quick", "--json", str(target)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(home.iterdir()) == []
    assert running(home) == []
    result: dict[str, Any] = json.loads(target.read_text())
    assert set(result) == {"machine", "versions", "quick", "seconds", "figures"}
    assert sum(figure["target"] is not None for figure in result["figures"]) >= 10
    return result
