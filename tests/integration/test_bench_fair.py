"""The benchmark of shares runs, with every flood. Nothing here asserts a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fair.beside import FLOODS
from tests.integration.bench_runs import quick_result


@pytest.mark.slow
def test_a_quick_run_compares_quiet_with_each_flood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = quick_result("benchmarks.fair", tmp_path, monkeypatch)
    names = {figure["name"] for figure in result["figures"]}
    for flood in FLOODS:
        assert f"{flood}, p99 beside the flood over p99 in quiet" in names
