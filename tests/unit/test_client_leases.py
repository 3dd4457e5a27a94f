"""Answers with next to no lease, and connections that come back, as the SDK takes them."""

import asyncio
import logging

import pytest
from kcm._internal.client import Client
from kcm._internal.counts import TELL_EVERY_S, Counts
from kcm._internal.rpc import ATTEMPTS_MAX
from kcm.errors import Busy, DeadlineExceeded, Discarded, Unavailable, Unreached
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import DecryptReply, EncryptReply

from tests.fakes.client import FakeClock, FakeGateway
from tests.fakes.refusals import failure

WAY_S = 0.002


class Bench:
    """A Gateway to which it takes ``WAY_S`` there and back, and whose next leases a test says."""

    def __init__(self):
        self.clock = FakeClock()
        self.gateway = FakeGateway("eu", self.clock)
        self.client = Client(self.gateway, "eu", self.clock.around())
        self.leases = []
        self.gateway.script = self._script

    async def _script(self, subject, body):
        answer = self.gateway.answer(subject, body)
        self.clock.now += WAY_S
        if not self.leases:
            return answer
        model = EncryptReply if ".encrypt." in subject else DecryptReply
        return encode(decode(model, answer).model_copy(update={"lease_ms": self.leases.pop(0)}))


@pytest.fixture
def bench():
    return Bench()


async def test_an_answer_with_next_to_no_lease_is_asked_again_and_counted(bench):
    bench.leases = [0, 1]
    sealed = await bench.client.encrypt("acme", "payroll", [b"a", b"b"])
    assert sealed.ok
    assert bench.gateway.sizes == [2, 2, 2]
    bench.leases = [1]
    assert (await bench.client.decrypt("acme", "payroll", sealed.values)).values == [b"a", b"b"]
    assert bench.client.counts == Counts(messages=5, repeated=3, discarded=3)


async def test_single_calls_that_share_such_an_answer_are_all_served_by_the_next(bench):
    bench.leases = [1]
    sealed = await asyncio.gather(
        *(bench.client.encrypt_one("acme", "payroll", bytes([n])) for n in range(20))
    )
    assert len(set(sealed)) == 20
    assert bench.gateway.sizes == [20, 20]
    assert bench.client.counts == Counts(messages=2, repeated=1, discarded=1)


async def test_no_answer_is_accepted_without_any_lease_however_fast_it_came(bench):
    async def at_once(subject, body):
        answer = decode(EncryptReply, bench.gateway.answer(subject, body))
        return encode(answer.model_copy(update={"lease_ms": 0}))

    bench.gateway.script = at_once
    with pytest.raises(DeadlineExceeded, match="lease"):
        await bench.client.encrypt("acme", "payroll", [b"a"])


async def test_when_every_answer_is_discarded_the_error_says_so(bench):
    bench.leases = [1] * 100
    began = bench.clock.now
    with pytest.raises(DeadlineExceeded, match="its answer lease had ended"):
        await bench.client.encrypt_one("acme", "payroll", b"a", deadline_s=3.0)
    assert bench.clock.now - began <= 3.0
    counts = bench.client.counts
    assert counts.discarded == counts.messages == counts.repeated + 1 <= ATTEMPTS_MAX


async def test_discarded_answers_are_told_in_the_log_but_not_each(bench, caplog):
    with caplog.at_level(logging.WARNING, logger="kcm._internal.counts"):
        for _ in range(3):
            bench.leases = [1] * 3
            await bench.client.encrypt("acme", "payroll", [b"secret"])
        assert len(caplog.records) == 1
        bench.clock.now += TELL_EVERY_S
        bench.leases = [1]
        await bench.client.encrypt("acme", "payroll", [b"secret"])
    assert [record.args for record in caplog.records] == [(1, 1), (9, 10)]
    assert "secret" not in caplog.text


class Away(FakeGateway):
    """The connection is lost until a moment."""

    until = 0.0
    tried = 0

    async def request(self, subject, body, timeout_s):
        self.tried += 1
        if self.clock.now < self.until:
            raise KcmError(Code.UNAVAILABLE, "the broker cannot be reached")
        return await super().request(subject, body, timeout_s)


@pytest.mark.parametrize("away_s", [0.1, 1.0, 3.0, 4.0])
async def test_a_connection_that_comes_back_within_the_deadline_is_no_error(away_s):
    clock = FakeClock()
    gateway = Away("eu", clock)
    client = Client(gateway, "eu", clock.around())
    gateway.until = clock.now + away_s
    assert (await client.encrypt("acme", "payroll", [b"a"], deadline_s=5.0)).ok
    assert client.counts.repeated == client.counts.messages - 1 > 1


async def test_a_connection_that_does_not_is_one_at_the_deadline():
    clock = FakeClock()
    gateway = Away("eu", clock)
    client = Client(gateway, "eu", clock.around())
    gateway.until = began = clock.now + 1000
    began = clock.now
    with pytest.raises(Unavailable, match="broker"):
        await client.encrypt_one("acme", "payroll", b"a", deadline_s=20.0)
    assert 15.0 < clock.now - began <= 20.0
    assert gateway.tried < 20.0 / 0.5 + ATTEMPTS_MAX  # half a second apart, before long


async def test_refusals_are_bounded_though_the_connection_is_lost_in_between():
    clock = FakeClock()
    gateway = Away("eu", clock)
    client = Client(gateway, "eu", clock.around())
    refused = 0

    async def busy(subject, body):
        nonlocal refused
        refused += 1
        gateway.until = clock.now + 0.3
        return failure(Code.BUSY)

    gateway.script = busy
    with pytest.raises(Busy):
        await client.encrypt("acme", "payroll", [b"a"], deadline_s=60.0)
    assert refused == ATTEMPTS_MAX


def test_both_are_what_their_code_says():
    assert Discarded("x").code is Code.DEADLINE_EXCEEDED
    assert Unreached("x").code is Code.UNAVAILABLE
