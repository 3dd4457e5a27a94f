"""What `kcm hold show` says of the stored result of a kill."""

import pytest
from kcm.cli.settings import Settings, World
from kcm.cli.watching import present
from kcm_schemas.admin import Concluded, HoldStatus, RegionStatus


@pytest.mark.parametrize("lifted", [False, True])
def test_a_result_and_why_it_is_not_stored_are_told(
    capsys: pytest.CaptureFixture[str], *, lifted: bool
) -> None:
    concluded = Concluded(
        region="eu", instance="core-eu", heard_ms=1, concluded_ms=2000, roster=1, receipts=3,
        left_out=2,
    )  # fmt: skip
    status = HoldStatus(
        hold_id=bytes(16), scope="tenant", target="acme", cause="operator", lifted=lifted,
        complete=True, boots=[], concluded=concluded, unstored="disk full",
        regions=[RegionStatus(region="eu", durable_at=1, how="durable", left_ms=0)],
    )  # fmt: skip
    present(Settings(json=False, context_file=None, world=World()), status)
    told = capsys.readouterr().err
    assert "concluded by core-eu at 1970-01-01 00:00:02 UTC, with 3 signed receipts, 2 more" in told
    assert "not stored: disk full" in told
    present(
        Settings(json=False, context_file=None, world=World()),
        status.model_copy(update={"concluded": None, "unstored": ""}),
    )
    assert capsys.readouterr().err == ""
