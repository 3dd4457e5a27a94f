"""A call of several pieces: one lease for all, and once more what outlived its keys'."""

import asyncio

import pytest
from kcm_gateway import pieces as pieces_module
from kcm_gateway.pieces import PIECE, PIECE_BYTES, TIMES_MAX, Piece, parts_of, work_through
from kcm_killswitch.model.control_lease import EXPIRED, FOREVER
from kcm_schemas.codes import RETRYABLE, Code, KcmError

from tests.fakes.bus import Clock


class Job:
    """Each piece takes ``takes_s`` and has keys whose lease lasts ``lease_s`` from its begin."""

    def __init__(self, monkeypatch, *, takes_s=1.0, lease_s=10.0):
        monkeypatch.setattr(pieces_module, "PIECE", 2)
        self.clock = Clock(0.0)
        self.takes_s, self.lease_s = takes_s, lease_s
        self.done = []
        self.asked = []
        self.alive = FOREVER
        self.killed_at = None

    async def work(self, part, lease_until):
        self.asked.append((part.start // 2, lease_until))
        until = self.clock.now + self.lease_s
        self.clock.now += self.takes_s
        self.done.append(part.start // 2)
        return Piece([b"%d" % len(self.done)], [], until)

    def recheck(self):
        if self.killed_at is not None and len(self.done) >= self.killed_at:
            raise KcmError(Code.TENANT_KILLED)
        return self.alive

    async def run(self, pieces):
        count = 2 * pieces
        found, left = await work_through(
            parts_of([b""] * count), self.work, self.recheck, self.clock.elapsed
        )
        return [int(piece.values[0]) for piece in found], left


async def test_a_call_has_the_smallest_lease_of_its_pieces(monkeypatch):
    job = Job(monkeypatch)
    assert await job.run(4) == ([1, 2, 3, 4], 6.0)
    job.alive = 2.5
    assert (await job.run(1))[1] == 2.5


async def test_pieces_of_a_longer_call_get_keys_that_last_as_long_as_those_that_are_done(
    monkeypatch,
):
    job = Job(monkeypatch)
    await job.run(1)
    assert job.asked.pop() == (0, EXPIRED)
    job.clock.now, job.done = 0.0, []
    await job.run(9)
    assert [lease_until for _, lease_until in job.asked] == [4, 5, 6, 7, 8, 9, 10, 10, 10]


@pytest.mark.parametrize("pieces", [1, 3])
async def test_what_outlived_its_lease_is_done_once_more_and_nothing_of_it_is_output(
    monkeypatch, pieces
):
    job = Job(monkeypatch)
    job.takes_s = 11.0

    async def paused_once(part, lease_until):
        piece = await Job.work(job, part, lease_until)
        job.takes_s = 1.0
        return piece

    job.work = paused_once
    found, left = await job.run(pieces)
    assert found == [pieces + 1, *range(2, pieces + 1)]
    assert job.asked[-1][0] == 0
    assert left > 0


@pytest.mark.parametrize("paused_at", range(6))
async def test_after_a_pause_only_what_has_ended_is_done_again(monkeypatch, paused_at):
    job = Job(monkeypatch)

    async def paused(part, lease_until):
        job.takes_s = 6.0 if len(job.done) == paused_at else 1.0
        return await Job.work(job, part, lease_until)

    job.work = paused
    found, left = await job.run(6)
    assert len(job.done) <= 12
    assert len(set(found)) == 6
    assert left > 0
    again = job.done[6:]
    assert again == sorted(again)
    assert all(found[at] > 6 for at in again)
    assert all(found[at] <= 6 for at in set(range(6)) - set(again))


@pytest.mark.parametrize("pieces", [1, 3])
async def test_it_is_not_done_again_and_again(monkeypatch, pieces):
    job = Job(monkeypatch, takes_s=11.0)
    with pytest.raises(KcmError) as info:
        await job.run(pieces)
    assert info.value.code is Code.DEADLINE_EXCEEDED
    assert info.value.code in RETRYABLE
    assert "fewer records" in info.value.detail
    assert len(job.done) <= TIMES_MAX * pieces


@pytest.mark.parametrize("killed_at", [1, 2, 3, 4])
async def test_a_kill_ends_it_in_either_round(monkeypatch, killed_at):
    job = Job(monkeypatch, takes_s=6.0)
    job.killed_at = killed_at
    with pytest.raises(KcmError) as info:
        await job.run(3)
    assert info.value.code is Code.TENANT_KILLED
    assert len(job.done) == killed_at


async def test_between_two_pieces_others_have_their_turn(monkeypatch):
    job, turns = Job(monkeypatch), []

    async def other():
        while len(job.done) < 4:
            turns.append(len(job.done))
            await asyncio.sleep(0)

    await asyncio.gather(job.run(4), other())
    assert set(turns) >= {1, 2, 3}


async def test_a_call_without_records_is_asked_whether_it_may(monkeypatch):
    job = Job(monkeypatch)
    job.alive = 7.0
    assert await job.run(0) == ([], 7.0)
    job.killed_at = 0
    with pytest.raises(KcmError):
        await job.run(0)


def test_a_piece_is_bounded_by_its_records_and_by_its_bytes():
    assert parts_of([]) == []
    assert parts_of([b"x"] * (PIECE + 1)) == [slice(0, PIECE), slice(PIECE, PIECE + 1)]
    half = bytes(PIECE_BYTES // 2)
    assert parts_of([half] * 3) == [slice(0, 2), slice(2, 3)]
    assert parts_of([half, half, b"x"]) == [slice(0, 2), slice(2, 3)]


def test_a_record_that_is_larger_than_a_piece_is_one():
    large = bytes(PIECE_BYTES + 1)
    assert parts_of([b"x", large, b"x"]) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert parts_of([large]) == [slice(0, 1)]
