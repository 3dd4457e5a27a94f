"""A real broker and an Auditor's configuration for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.auditor_rig import Rig, make_rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    with make_rig(tmp_path) as rig:
        await rig.begin()
        yield rig
