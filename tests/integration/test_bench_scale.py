"""The whole of bench-scale runs in its quick form, says what it has to, and leaves nothing behind.

Nothing here asserts a time of this machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scale.__main__ import PARTS, QUICK
from tests.integration.bench_runs import quick_result


@pytest.mark.slow
@pytest.mark.timeout(300)  # other systems run at the same time
def test_a_quick_run_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = quick_result("benchmarks.scale", tmp_path, monkeypatch)
    figures = {figure["name"]: figure for figure in result["figures"]}
    assert len({figure["part"] for figure in result["figures"]}) == len(PARTS)
    for blocks in QUICK.blocks:
        assert f"{blocks} blocks, {blocks * 256} keys: median" in figures
    for holds in QUICK.holds:
        assert figures[f"{holds}: taking all pages, processor"]["value"] > 0
    assert f"{QUICK.holds[-1]}: a new hold, over {QUICK.holds[0]}" in figures
    for tenants in QUICK.size.tenants:
        for what in ("first page of the list", "the whole list", "making one, median"):
            assert figures[f"{tenants} tenants: {what}"]["value"] > 0
    most = QUICK.size.tenants[-1]
    than = f"processor, over {QUICK.size.tenants[0]} tenants"
    assert f"{most} tenants: opening one, {than}" in figures
    assert f"{QUICK.size.services} services: all with keys' versions" in figures
    for step in QUICK.keys.steps:
        assert f"{step} keys opened: probes a second" in figures
        turns = f"{step} keys, used in turn"
        assert figures[f"{turns}: answers"]["value"] > 0
        assert figures[f"{turns}: from a key's use to an answer's end"]["met"] is True
        assert figures[f"{turns}: keys in use in one Core"]["met"] is True
    few, many = QUICK.keys.steps[0], QUICK.keys.steps[-1]
    assert figures[f"{few} keys opened: tenants unloaded for it so far"]["value"] == 0
    assert figures[f"{many} keys opened: tenants unloaded for it so far"]["value"] > 0
