"""The request server over a real broker: load, faults, the NATS micro protocol, and the end."""

import asyncio
import json

import pytest
from kcm_runtime.clock import SystemClock
from kcm_runtime.nats.request_server import IN_FLIGHT_MAX, RequestServer
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import EncryptReply, decode_reply

from tests.integration.living import eventually


def service(link):
    return RequestServer(
        link, SystemClock(), name="kcm-test", service_id="one", version="0.1.0", metadata={}
    )


async def test_handlers_run_at_the_same_time_and_overflow_is_busy(link):
    served, running = service(link), 0
    everybody = asyncio.Event()

    async def handler(subject, body):
        nonlocal running
        running += 1
        await everybody.wait()
        return b"done"

    await served.add("work", "work", handler, "queue")
    asked = [asyncio.create_task(link.request("work", b"", 10)) for _ in range(IN_FLIGHT_MAX + 5)]

    async def full():
        return running == IN_FLIGHT_MAX

    await eventually(full)

    async def five_refused():
        return sum(task.done() for task in asked) == 5

    await eventually(five_refused)
    everybody.set()
    answers = await asyncio.gather(*asked)
    assert answers.count(b"done") == IN_FLIGHT_MAX
    busy = [answer for answer in answers if answer != b"done"]
    for answer in busy:
        with pytest.raises(KcmError) as info:
            decode_reply(EncryptReply, answer)
        assert info.value.code is Code.BUSY


async def test_a_fault_is_a_code_and_nothing_else(link, caplog):
    served = service(link)

    async def handler(subject, body):
        raise RuntimeError(f"secret {body!r}")

    await served.add("work", "work", handler, "queue")
    answer = await link.request("work", b"input-of-a-customer", 5)
    assert b"secret" not in answer
    assert b"input-of-a-customer" not in answer
    with pytest.raises(KcmError) as info:
        decode_reply(EncryptReply, answer)
    assert info.value.code is Code.INTERNAL
    assert "RuntimeError" in caplog.text
    assert "input-of-a-customer" not in caplog.text


async def test_the_service_protocol_is_spoken(link):
    served = service(link)

    async def handler(subject, body):
        if body:
            raise KcmError(Code.MALFORMED)
        return b"x"

    await served.add("work", "work", handler, "queue")
    await served.announce()
    await link.request("work", b"", 5)
    await link.request("work", b"bad", 5)
    for verb, kind in (("PING", "ping"), ("INFO", "info"), ("STATS", "stats")):
        for suffix in ("", ".kcm-test", ".kcm-test.one"):
            told = json.loads(await link.request(f"$SRV.{verb}{suffix}", b"", 5))
            assert told["type"] == f"io.nats.micro.v1.{kind}_response"
            assert (told["name"], told["id"]) == ("kcm-test", "one")
    endpoint = told["endpoints"][0]
    assert (endpoint["num_requests"], endpoint["num_errors"]) == (2, 1)
    assert endpoint["last_error"] == "malformed"


async def test_state_in_the_metadata_is_that_of_the_moment(link):
    served, state = service(link), {"memory": "full"}
    served.state = lambda: state
    await served.announce()
    for said in ("full", "degraded"):
        state["memory"] = said
        for verb in ("PING", "INFO", "STATS"):
            told = json.loads(await link.request(f"$SRV.{verb}.kcm-test.one", b"", 5))
            assert told["metadata"]["memory"] == said


async def test_draining_finishes_what_is_in_flight(link):
    served, begun, go_on = service(link), asyncio.Event(), asyncio.Event()

    async def handler(subject, body):
        begun.set()
        await go_on.wait()
        return b"done"

    await served.add("work", "work", handler, "queue")
    asked = asyncio.create_task(link.request("work", b"", 10))
    await begun.wait()
    draining = asyncio.create_task(served.drain())
    await asyncio.sleep(0)
    go_on.set()
    await draining
    assert await asked == b"done"
    with pytest.raises(KcmError):
        await link.request("work", b"", 1)
