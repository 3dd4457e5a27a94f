"""What most tests of one component begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.core_rig import World
from tests.unit.operator_rig import Cores, Desk


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A region without Cores."""
    return World(tmp_path)


@pytest.fixture
def recovery_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Core without a baseline of the registry asks again without a pause."""
    monkeypatch.setattr("kcm_core.registry.recovery.AGAIN_S", 0.0)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """An operator's commands, and a system in memory."""
    return Desk(tmp_path, capsys)


@pytest.fixture
def cores(desk: Desk) -> Cores:
    """The kill switch of that system."""
    return Cores(desk.system)
