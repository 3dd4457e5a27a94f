"""One short run over real processes: every promise is kept, and everything is gone afterwards."""

import pytest
from kcm_schemas import subjects

from tests.chaos.report import good
from tests.chaos.run import Wanted, run

SECONDS = 15
"""Of faults; starting and healing take about as long again."""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_short_run_keeps_every_promise():
    said = []
    result = run(Wanted(SECONDS, seed=202), said.append)
    assert good(result), (result, said)
    assert result["kills"] > 0
    assert result["records_written"] > 0
    assert any(subjects.AUDIT_STREAM in harm for harm in result["disks_harmed"])
    assert result["left_running"] == 0
