"""``python -m kcm_auditor`` as somebody types it: verifying, and what cannot work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.audit_rig import Emitting, event, until
from tests.integration.auditor_rig import Rig, make_rig


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kcm_auditor", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A journal of three batches, and nobody running any more."""
    with make_rig(tmp_path) as rig:
        await rig.begin()
        await rig.start_auditor()
        gw = Emitting(rig.system, "gw")
        for _ in range(3):
            await rig.broker.store("gw", gw.signed([event()]))
        await until(lambda: len(rig.events("gw")) == 3)
        assert rig.end_auditor() == 0
        yield rig


async def test_verify_tells_sound_from_not_sound(rig: Rig) -> None:
    config = rig.directory / "auditor.toml"
    found = run("--verify", rig.journal, "--config", config)
    assert (found.returncode, found.stdout.splitlines()[-1]) == (0, "sound")
    assert "signatures checked" in found.stdout
    (anchor,) = (line.split()[1] for line in found.stdout.splitlines() if line.startswith("head"))
    assert run("--verify", rig.journal, "--anchor", anchor).returncode == 0

    (path,) = rig.journal.glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert run("--verify", rig.journal).returncode == 0
    cut = run("--verify", rig.journal, "--anchor", anchor)
    assert (cut.returncode, cut.stdout.splitlines()[-1]) == (1, "NOT SOUND")

    path.write_bytes(b"".join([*lines[:3], *lines[4:]]))
    missing = run("--verify", rig.journal)
    assert missing.returncode == 1
    assert f"PROBLEM    {path.name}:4: entry 5 does not follow entry 3" in missing.stdout


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("region =", "nonsense = 1\nregion ="), "nonsense"),
        (('region = "eu"', 'region = "us"'), "not as auditor of region us"),
        (('instance = "auditor"', 'instance = "gw"'), "gw"),
        (("password_file =", "password_file = '/nowhere' #"), "/nowhere"),
    ],
)
async def test_a_configuration_that_cannot_work(
    rig: Rig, change: tuple[str, str], text: str
) -> None:
    config = rig.directory / "auditor.toml"
    config.write_text(config.read_text().replace(*change, 1))
    found = run("--config", config)
    assert found.returncode == 2
    assert text in found.stderr
    assert "Traceback" not in found.stderr


def test_arguments_are_needed(tmp_path: Path) -> None:
    assert run().returncode == 2
    assert run("--config", tmp_path / "none").returncode == 2
    assert run("--verify", tmp_path, "--anchor", "nonsense").returncode == 2
    assert run("--verify", tmp_path).returncode == 1
