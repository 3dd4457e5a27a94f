"""What `kcm hold show` says of the stored result of a kill."""

import pytest
from kcm.cli.hold_progress import present
from kcm.cli.settings import Settings, World
from kcm_schemas.admin.holds import HoldView
from kcm_schemas.admin.kill_status import Concluded, HoldStatus, IncarnationStatus, RegionStatus
from kcm_schemas.roster import Role


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
        complete=True, incarnations=[], concluded=concluded, unstored="disk full",
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


def test_the_table_of_a_lifted_hold_has_the_instances_of_its_kill(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also those of regions that the lift's own table does not have."""
    incarnations = [
        IncarnationStatus(
            instance=f"gw-{region}", incarnation=bytes(16), role=Role.GATEWAY, region=region,
            how="receipt", keys=3, purge_us=17, after_ms=5, trouble="", retired=False, left_ms=0,
        )
        for region in ("us", "eu")
    ]  # fmt: skip
    status = HoldStatus(
        hold_id=bytes(16), scope="tenant", target="acme", cause="operator", lifted=True,
        complete=True, incarnations=incarnations,
        regions=[RegionStatus(region="eu", durable_at=1, how="durable", left_ms=0)],
    )  # fmt: skip
    view = HoldView(
        hold_id=bytes(16), scope="tenant", target="acme", cause="operator", origin="eu",
        issuer="ada", issued_ms=1, reason="", lifted=True, lifted_ms=2, lifted_by="ada",
        lift_reason="", raw=b"",
    )  # fmt: skip
    settings = Settings(json=False, context_file=None, world=World())
    present(settings, status, view)
    told = capsys.readouterr().out
    assert [line.split()[:6] for line in told.splitlines() if "gw-" in line] == [
        [region, f"gw-{region}", "gateway", "receipt", "3", "17"] for region in ("eu", "us")
    ]
    assert "stored" in told
    present(settings, status.model_copy(update={"incarnations": []}), view)
    assert "instance" not in capsys.readouterr().out
    present(settings, status)  # `kcm lift`: only that the lift is stored
    assert "instance" not in capsys.readouterr().out
