"""A simulated disk is full, fails, and loses its power; production's files are over it."""

import asyncio
from pathlib import Path

import pytest

from tests.simulation.disk import SimDisk, hold_files
from tests.simulation.loop import SimLoop

ONE, TWO = b"1" * 16, b"2" * 16
AT = Path("holds") / f"{ONE.hex()}.hold"


def test_a_name_lasts_once_the_directory_was_written():
    disk = SimDisk()
    disk.write(AT, b"held")
    disk.lose_power()
    disk.sync(AT.parent)
    assert disk.statements == []
    disk.write(AT, b"held")
    disk.sync(AT.parent)
    disk.lose_power()
    assert disk.statements == [b"held"]


def test_what_was_there_before_a_write_failed_stays():
    disk = SimDisk()
    disk.write(AT, b"held")
    disk.sync(AT.parent)
    disk.fails = 1
    with pytest.raises(OSError, match="failed"):
        disk.write(AT, b"lifted")
    assert disk.statements == [b"held"]
    disk.write(AT, b"lifted")
    disk.sync(AT.parent)
    assert disk.statements == [b"lifted"]


def test_a_full_disk_keeps_every_hold_once_there_is_room():
    loop, disk = SimLoop(3), SimDisk()
    node = loop.node("core")
    files = hold_files(loop, node, disk)
    disk.full = True

    async def main():
        files.remember(ONE, b"one")
        files.remember(TWO, b"two")
        await asyncio.sleep(1)
        assert {one.text for one in files.unkept.values()} == {"disk full"}
        assert not files.kept(ONE, b"one")
        disk.mend()
        await asyncio.sleep(6)
        assert files.unkept == {}
        assert files.kept(ONE, b"one")
        assert sorted(hold_files(loop, node, disk).recall()) == [b"one", b"two"]

    loop.run(main())
    loop.close()


def test_a_crash_before_the_write_loses_it():
    loop, disk = SimLoop(3), SimDisk()
    node = loop.node("core")

    async def main():
        hold_files(loop, node, disk).remember(ONE, b"one")
        await asyncio.sleep(0)
        loop.kill(node)

    async def world():
        loop.spawn(node, main())
        await asyncio.sleep(1)

    loop.run(world())
    loop.close()
    assert disk.statements == []
