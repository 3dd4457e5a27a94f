"""Peers take turns in a process of their own, if there is one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.engine import SIZES
from benchmarks.peers import peers

SPEAKER = f"""#!{sys.executable}
import json, sys
print(json.dumps({{"one": "1.0", "other": "2.0"}}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["peer"] == "other":
        sys.exit(3)
    print(json.dumps({{"seconds": asked["octets"]}}), flush=True)
"""


@pytest.fixture
def speaker(tmp_path: Path) -> str:
    """Something that speaks as the worker does, and dies when the second peer is asked."""
    path = tmp_path / "python"
    path.write_text(SPEAKER)
    path.chmod(0o700)
    return str(path)


async def test_nobody_there(tmp_path: Path) -> None:
    async with peers(1, str(tmp_path / "none")) as found:
        assert not found.versions
        assert not found.turns


async def test_turns_of_every_operation_and_size(speaker: str) -> None:
    async with peers(1, speaker) as found:
        assert found.versions == {"one": "1.0", "other": "2.0"}
        assert set(found.turns) == {(op, size) for op in ("encrypt", "decrypt") for size in SIZES}
        for (_, size), turns in found.turns.items():
            assert await turns["one"]() == [SIZES[size][0]]


async def test_a_peer_that_dies_is_told(speaker: str) -> None:
    async with peers(1, speaker) as found:
        with pytest.raises(RuntimeError, match="ended"):
            await found.turns["encrypt", "100 B"]["other"]()


def test_the_lock_names_every_peer_with_hashes() -> None:
    folder = Path(__file__).parents[2] / "benchmarks"
    lock = (folder / "peers.lock").read_text()
    wanted = [line for line in (folder / "peers.in").read_text().splitlines() if line[:1] != "#"]
    assert wanted
    for name in wanted:
        assert f"\n{name}==" in lock
    pins = [line for line in lock.splitlines() if "==" in line]
    assert all(line.endswith("\\") for line in pins), "every pin is followed by its hashes"
    assert "index-url" not in lock
    assert json.dumps(lock).count("--hash=sha256:") >= len(pins)
