"""The whole benchmark runs, and its JSON says what it has to. Nothing here asserts a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FIELDS = {
    "case",
    "unit",
    "contestant",
    "rounds",
    "samples",
    "microseconds",
    "per_second",
    "p50_us",
    "p99_us",
    "ratio",
    "ratio_p10",
    "ratio_p90",
    "target",
    "met",
}


@pytest.mark.slow
def test_a_quick_run_of_everything(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--json", str(target)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "targets" in done.stdout
    result = json.loads(target.read_text())
    assert set(result) == {"method", "machine", "versions", "peers", "quick", "seconds", "rows"}
    assert result["quick"] is True
    assert result["machine"]["cores"].isdecimal()
    assert result["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    rows = result["rows"]
    for row in rows:
        assert set(row) == FIELDS
        assert row["microseconds"] > 0
        assert row["ratio_p10"] <= row["ratio"] <= row["ratio_p90"]
        assert (row["met"] is None) == (row["target"] is None)
    cases = {row["case"] for row in rows}
    for job in ("encrypt", "decrypt"):
        assert {f"{job} {size}" for size in ("100 B", "1 KiB", "64 KiB", "1 MiB")} <= cases
    for keys in ("record keys", "batch key"):
        assert f"decrypt 1 KiB, {keys}, beside its floor" in cases
    assert {"wrap 256 keys", "unwrap 256 keys", "one record of 256 B over the bus"} <= cases
    assert {row["contestant"] for row in rows if row["target"] is not None} >= {
        "record keys",
        "batch key",
        "Vault.wrap",
        "Vault.unwrap",
        "encrypt_one",
        "encrypt",
        "sealed",
    }


def test_it_says_what_it_takes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "nothing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "--quick" in done.stderr


@pytest.mark.parametrize("provider", ["awskms", "softkey"])
def test_a_quick_run_of_what_the_unsealer_adds(tmp_path: Path, provider: str) -> None:
    target = tmp_path / "result.json"
    subprocess.run(
        [sys.executable, "-m", "benchmarks.l1", "--quick", "--only", provider, "--json", target],
        cwd=ROOT,
        capture_output=True,
        timeout=110,
        check=True,
    )
    (one,) = json.loads(target.read_text())
    assert one["provider"] == provider
    assert one["unsealer_ms"] > 0
    assert one["bare_ms"] > 0 or provider == "softkey"
    assert one["storm_tenants"] == 5
    assert one["server_mib"] > 0
    assert (one["child_mib"] is None) == (provider == "softkey" or os.geteuid() != 0)
