"""Splitting, retrying and in-time acceptance of the SDK, against a Gateway in memory."""

import asyncio
import pickle
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcm._internal.batches import PAYLOAD_MAX, split
from kcm._internal.client import IN_FLIGHT_MAX, Client
from kcm._internal.rpc import ATTEMPTS_MAX, WIRE_S, attempt_s, backoff_s
from kcm.errors import (
    BY_CODE,
    Busy,
    DeadlineExceeded,
    Internal,
    Tampered,
    TenantKilled,
    WrongRegion,
    error_for,
)
from kcm_schemas import limits
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import RETRYABLE, Code, KcmError
from kcm_schemas.data import EncryptReply, EncryptRequest
from kcm_schemas.results import BatchFailed

from tests.fakes.client import FakeClock, FakeGateway, FakeSystem, seal
from tests.fakes.refusals import failure


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.gateway = FakeGateway("eu", self.clock)
        self.client = Client(self.gateway, "eu", self.clock.around())


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_batch_comes_back_in_order(bench: Bench) -> None:
    plain = [f"record {n}".encode() for n in range(3000)]
    contexts = [f"row {n}".encode() for n in range(3000)]
    encrypted = await bench.client.encrypt("acme", "payroll", plain, contexts)
    assert encrypted.ok
    assert bench.gateway.sizes == [1024, 1024, 952]
    decrypted = await bench.client.decrypt("acme", "payroll", encrypted.values, contexts)
    assert decrypted.values == plain


async def test_one_context_serves_all_and_is_needed_again(bench: Bench) -> None:
    encrypted = await bench.client.encrypt("acme", "payroll", [b"a", b""], b"2024")
    assert (await bench.client.decrypt("acme", "payroll", encrypted.values, b"2024")).values == [
        b"a",
        b"",
    ]
    other = await bench.client.decrypt("acme", "payroll", encrypted.values, b"2025")
    assert other.codes == [Code.TAMPERED, Code.TAMPERED]


async def test_one_bad_record_spoils_nothing_else(bench: Bench) -> None:
    good = (await bench.client.encrypt("acme", "payroll", [b"a", b"b", b"c"])).values
    foreign = seal("us", "acme", "payroll", b"x", b"")
    changed = good[1][:-1] + bytes([good[1][-1] ^ 1])
    result = await bench.client.decrypt("acme", "payroll", [good[0], changed, foreign, good[2]])
    assert result.codes == [Code.OK, Code.TAMPERED, Code.WRONG_REGION, Code.OK]
    assert not result.ok
    first, second, third, fourth = result.results
    assert (first, fourth) == (b"a", b"c")
    assert isinstance(second, Tampered)
    assert isinstance(third, WrongRegion)
    with pytest.raises(BatchFailed, match=r"2 of 4 records failed; the first is \[1\]: ta") as said:
        _ = result.values
    assert isinstance(said.value.first, Tampered)
    assert (said.value.code, said.value.index) == (Code.TAMPERED, 1)
    assert str(pickle.loads(pickle.dumps(said.value))) == str(said.value)
    with pytest.raises(WrongRegion):
        result.one(2)
    assert result.one(3) == b"c"
    assert repr(result) == "BatchResult(4 records, 2 failed)"


async def test_a_batch_of_several_messages_raises_only_when_all_were_refused(bench: Bench) -> None:
    plain = [bytes(500_000)] * 3

    async def kill(subject: str, body: bytes) -> bytes | None:
        return failure(Code.TENANT_KILLED) if len(bench.gateway.sizes) == kept else None

    kept = 1
    bench.gateway.script = kill
    result = await bench.client.encrypt("acme", "payroll", plain)
    assert result.codes.count(Code.TENANT_KILLED) == 2
    with pytest.raises(BatchFailed, match="2 of 3"):
        _ = result.values
    kept = len(bench.gateway.sizes)
    with pytest.raises(TenantKilled):
        await bench.client.encrypt("acme", "payroll", plain)


async def test_what_fits_into_no_message_is_too_large_alone(bench: Bench) -> None:
    plain = [b"a", bytes(limits.BODY_MAX), bytes(PAYLOAD_MAX), b"b"]
    result = await bench.client.encrypt("acme", "payroll", plain, bytes(limits.APP_CONTEXT_MAX))
    assert result.codes == [Code.OK, Code.TOO_LARGE, Code.OK, Code.OK]


async def test_an_empty_batch_asks_nobody(bench: Bench) -> None:
    assert (await bench.client.encrypt("acme", "payroll", [])).values == []
    assert bench.gateway.requests == []


@pytest.mark.parametrize("contexts", [[b"a", b"b"], bytes(4097)])
async def test_contexts_that_do_not_fit_are_the_callers_mistake(
    bench: Bench, contexts: list[bytes] | bytes
) -> None:
    with pytest.raises(ValueError, match="context"):
        await bench.client.encrypt("acme", "payroll", [b"1", b"2", b"3"], contexts)


async def test_a_name_cannot_widen_a_subject(bench: Bench) -> None:
    with pytest.raises(KcmError, match="malformed"):
        await bench.client.encrypt("acme.>", "payroll", [b"1"])
    assert bench.gateway.requests == []


async def test_messages_on_the_way_are_bounded(bench: Bench) -> None:
    result = await bench.client.encrypt("acme", "payroll", [bytes(500_000)] * 20)
    assert result.ok
    assert len(bench.gateway.sizes) == 20
    assert bench.gateway.most_at_once == IN_FLIGHT_MAX


async def test_only_what_a_retry_may_help_is_asked_again(bench: Bench) -> None:
    bench.gateway.refuse = {b"b": Code.BUSY, b"c": Code.TAMPERED}

    async def heal(subject: str, body: bytes) -> bytes | None:
        if len(bench.gateway.sizes) == 2:
            del bench.gateway.refuse[b"b"]
        return None

    bench.gateway.script = heal
    result = await bench.client.encrypt("acme", "payroll", [b"a", b"b", b"c"])
    assert result.codes == [Code.OK, Code.OK, Code.TAMPERED]
    assert bench.gateway.sizes == [3, 1, 1]


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
async def test_every_refusal_is_an_exception_that_says_whether_to_retry(
    bench: Bench, code: Code
) -> None:
    asked = 0

    async def refuse(subject: str, body: bytes) -> bytes | None:
        nonlocal asked
        asked += 1
        return failure(code, "because")

    bench.gateway.script = refuse
    with pytest.raises(BY_CODE[code], match="because") as caught:
        await bench.client.encrypt("acme", "payroll", [b"a"])
    assert caught.value.retryable == (code in RETRYABLE)
    assert (asked > 1) == (code in RETRYABLE)
    assert asked <= ATTEMPTS_MAX


async def test_retries_end_at_the_callers_deadline(bench: Bench) -> None:
    async def slow(subject: str, body: bytes) -> bytes | None:
        bench.clock.now += 0.3
        return failure(Code.BUSY)

    bench.gateway.script = slow
    started = bench.clock.now
    with pytest.raises(Busy):
        await bench.client.encrypt("acme", "payroll", [b"a"], deadline_s=2.0)
    assert bench.clock.now - started <= 2.0 + 0.3


async def test_a_late_answer_is_discarded(bench: Bench) -> None:
    async def paused(subject: str, body: bytes) -> bytes | None:
        answer = bench.gateway.answer(subject, body)
        bench.clock.now += WIRE_S + 0.001  # the clock runs on while the process is suspended
        return answer

    bench.gateway.script = paused
    with pytest.raises(DeadlineExceeded, match="discarded"):
        await bench.client.encrypt("acme", "payroll", [b"a"], deadline_s=60.0)


async def test_each_attempt_has_a_deadline_of_its_own(bench: Bench) -> None:
    deadlines: list[int] = []

    async def note(subject: str, body: bytes) -> bytes | None:
        deadlines.append(decode(EncryptRequest, body).deadline_ms - bench.clock.unix_ms())
        return failure(Code.BUSY)

    bench.gateway.script = note
    with pytest.raises(Busy):
        await bench.client.encrypt("acme", "payroll", [b"a"], deadline_s=60.0)
    assert len(deadlines) == ATTEMPTS_MAX
    assert set(deadlines) == {5000}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xc1",
        encode(EncryptReply(v=1, lease_ms=5_000, records=[b"a", b"b"], codes=[])),
        encode(EncryptReply(v=1, lease_ms=5_000, records=[b"a"], codes=[Code.OK, Code.OK])),
        failure(Code.OK),
    ],
)
async def test_an_answer_that_is_none_is_no_fault_of_the_request(
    bench: Bench, answer: bytes
) -> None:
    async def say(subject: str, body: bytes) -> bytes | None:
        return answer

    bench.gateway.script = say
    with pytest.raises(Internal):
        await bench.client.encrypt("acme", "payroll", [b"x"])


async def test_a_record_of_somebody_else_is_not_taken_for_ones_own(bench: Bench) -> None:
    async def swap(subject: str, body: bytes) -> bytes | None:
        sealed = seal("eu", "evil", "payroll", b"x", b"")
        return encode(EncryptReply(v=1, lease_ms=5_000, records=[sealed], codes=[]))

    bench.gateway.script = swap
    result = await bench.client.encrypt("acme", "payroll", [b"x"])
    assert result.columns() == ([b""], [Code.TAMPERED])
    with pytest.raises(BatchFailed):
        _ = result.values


async def test_a_bad_record_brings_no_value_along(bench: Bench) -> None:
    async def leak(subject: str, body: bytes) -> bytes | None:
        return encode(EncryptReply(v=1, lease_ms=5_000, records=[b"leak"], codes=[Code.FORBIDDEN]))

    bench.gateway.script = leak
    result = await bench.client.encrypt("acme", "payroll", [b"x"])
    assert result.columns() == ([b""], [Code.FORBIDDEN])


async def test_cancelling_gives_the_place_free(bench: Bench) -> None:
    async def never(subject: str, body: bytes) -> bytes | None:
        await asyncio.Event().wait()
        return None

    bench.gateway.script = never
    calls = [
        asyncio.create_task(bench.client.encrypt("acme", "payroll", [b"x"]))
        for _ in range(IN_FLIGHT_MAX)
    ]
    while bench.gateway.at_once < IN_FLIGHT_MAX:  # noqa: ASYNC110 - the fake has no event
        await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded):
        await bench.client.encrypt("acme", "payroll", [b"x"], deadline_s=0.01)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    bench.gateway.script = None
    assert (await bench.client.encrypt("acme", "payroll", [b"x"])).ok


async def test_connect_uses_the_context_and_closes(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    around = system.clock.around()
    async with Client.connect(
        system.context_file, "us", opener=system.open, around=around
    ) as client:
        assert client.region == "us"
        assert await client.encrypt_one("acme", "payroll", b"x") == seal(
            "us", "acme", "payroll", b"x", b""
        )
    assert system.gateways["us"].closed


@given(
    costs=st.lists(st.integers(1, 3000), max_size=3000),
    room=st.integers(1, 2500),
)
def test_split_loses_nothing_and_exceeds_nothing(costs: list[int], room: int) -> None:
    parts = list(split(costs, room))
    assert [index for part in parts for index in part] == [
        index for index, cost in enumerate(costs) if cost <= room
    ]
    for part in parts:
        assert part
        assert len(part) <= limits.RECORDS_MAX
        assert sum(costs[index] for index in part) <= room


@given(st.floats(0.001, 1000))
def test_an_attempt_never_outlives_its_bounds(remaining: float) -> None:
    timeout = attempt_s(remaining)
    assert 0 < timeout <= min(WIRE_S, remaining)
    assert all(0 <= backoff_s(n, random.random()) <= 1.0 for n in range(100))


def test_every_code_has_its_own_class() -> None:
    assert set(BY_CODE) == set(Code) - {Code.OK}
    killed = error_for(Code.TENANT_KILLED, "by alice")
    assert isinstance(killed, TenantKilled)
    again = pickle.loads(pickle.dumps(killed))
    assert (type(again), again.detail, str(again)) == (TenantKilled, "by alice", str(killed))
