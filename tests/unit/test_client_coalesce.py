"""Single calls that share a message, and the facade for programs without a loop."""

import asyncio
import threading
from pathlib import Path

import pytest
from kcm import sync
from kcm._internal.client import Client
from kcm._internal.coalescer import GATHER_MAX
from kcm.errors import DeadlineExceeded, Forbidden, Tampered, Unavailable
from kcm_runtime.ownership import Closed
from kcm_schemas.codes import Code, KcmError

from tests.fakes.client import FakeClock, FakeGateway, FakeSystem
from tests.fakes.refusals import failure


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway("eu", FakeClock())


@pytest.fixture
def client(gateway: FakeGateway) -> Client:
    return Client(gateway, "eu", gateway.clock.around())


async def test_calls_at_the_same_time_share_messages(client: Client, gateway: FakeGateway) -> None:
    count = 2 * GATHER_MAX + 10
    records = await asyncio.gather(
        *(client.encrypt_one("acme", "payroll", str(n).encode(), b"c") for n in range(count))
    )
    assert sorted(gateway.sizes) == [10, GATHER_MAX, GATHER_MAX]
    plain = await asyncio.gather(
        *(client.decrypt_one("acme", "payroll", item, b"c") for item in records)
    )
    assert plain == [str(n).encode() for n in range(count)]


async def test_tenants_do_not_share_messages(client: Client, gateway: FakeGateway) -> None:
    await asyncio.gather(
        client.encrypt_one("acme", "payroll", b"a"),
        client.encrypt_one("umbrella", "payroll", b"a"),
        client.encrypt_one("acme", "crm", b"a"),
    )
    assert sorted(gateway.requests) == [
        "kcm.v1.eu.gateway.encrypt.acme.crm",
        "kcm.v1.eu.gateway.encrypt.acme.payroll",
        "kcm.v1.eu.gateway.encrypt.umbrella.payroll",
    ]


async def test_each_caller_gets_its_own_fate(client: Client) -> None:
    good = await client.encrypt_one("acme", "payroll", b"a", b"c")
    outcomes = await asyncio.gather(
        client.decrypt_one("acme", "payroll", good, b"c"),
        client.decrypt_one("acme", "payroll", good, b"other"),
        client.decrypt_one("acme", "payroll", b"nonsense", b"c"),
        return_exceptions=True,
    )
    assert outcomes[0] == b"a"
    assert isinstance(outcomes[1], Tampered)
    assert isinstance(outcomes[2], KcmError)
    assert outcomes[2].code is Code.MALFORMED


async def test_a_mistake_of_one_caller_does_not_reach_the_others(client: Client) -> None:
    outcomes = await asyncio.gather(
        client.encrypt_one("acme", "payroll", b"a"),
        client.encrypt_one("acme", "payroll", b"a", bytes(5000)),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], bytes)
    assert isinstance(outcomes[1], ValueError)


async def test_who_runs_out_of_time_leaves_and_the_others_stay(
    client: Client, gateway: FakeGateway
) -> None:
    gate = asyncio.Event()

    async def wait(subject: str, body: bytes) -> bytes | None:
        await gate.wait()
        return None

    gateway.script = wait
    hasty = asyncio.create_task(client.encrypt_one("acme", "payroll", b"a", deadline_s=0.01))
    patient = asyncio.create_task(client.encrypt_one("acme", "payroll", b"b"))
    with pytest.raises(DeadlineExceeded):
        await hasty
    gate.set()
    assert b"b" in await patient
    assert gateway.sizes == [2]


async def test_a_refusal_of_the_message_reaches_everybody(
    client: Client, gateway: FakeGateway
) -> None:
    async def refuse(subject: str, body: bytes) -> bytes | None:
        return failure(Code.FORBIDDEN)

    gateway.script = refuse
    outcomes = await asyncio.gather(
        *(client.encrypt_one("acme", "payroll", b"a") for _ in range(5)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [Forbidden] * 5
    assert len({id(outcome) for outcome in outcomes}) == 5


async def test_closing_answers_what_was_asked_and_takes_no_more(client: Client) -> None:
    call = asyncio.create_task(client.encrypt_one("acme", "payroll", b"a"))
    await asyncio.sleep(0)
    await client.close()
    assert b"a" in await call
    with pytest.raises(Closed):
        await client.encrypt_one("acme", "payroll", b"a")


def test_the_blocking_client_works_from_many_threads(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    found: list[bytes] = []
    with sync.Client(
        system.context_file, opener=system.open, around=system.clock.around()
    ) as client:

        def work(n: int) -> None:
            plain = str(n).encode()
            sealed = client.encrypt_one("acme", "payroll", plain)
            found.append(client.decrypt_one("acme", "payroll", sealed))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        batch = client.encrypt("acme", "payroll", [b"x", b"y"], b"c")
        assert client.decrypt("acme", "payroll", batch.values, b"c").values == [b"x", b"y"]
        with pytest.raises(Tampered):
            client.decrypt_one("acme", "payroll", batch.values[0])
    assert sorted(found) == sorted(str(n).encode() for n in range(20))
    client.close()
    with pytest.raises(Closed):
        client.encrypt("acme", "payroll", [b"x"])


def test_a_blocking_client_that_cannot_connect_leaves_no_thread(tmp_path: Path) -> None:
    system = FakeSystem(tmp_path)
    system.unreachable.add("eu")
    before = threading.active_count()
    with pytest.raises(Unavailable):
        sync.Client(system.context_file, opener=system.open)
    assert threading.active_count() == before
