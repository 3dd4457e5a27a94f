"""A connection over a real broker: outages, restarts, and an answer in every case."""

import pytest
from kcm_runtime.logs import LineFormatter
from kcm_runtime.nats.connection import Connection
from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError

from tests.integration.bus.broker import holds
from tests.integration.living import eventually


async def test_nothing_is_sent_later_that_was_asked_during_an_outage(broker, link):
    heard = []

    async def hear(message):
        heard.append(message.data)

    await link.subscribe("a.b", hear)
    await broker.stop()

    async def gone():
        return not link.connected

    await eventually(gone)
    with pytest.raises(KcmError) as info:
        await link.publish("a.b", b"during the outage")
    assert info.value.code is Code.UNAVAILABLE
    with pytest.raises(KcmError) as info:
        await link.request("a.b", b"during the outage", 1)
    assert info.value.code is Code.UNAVAILABLE
    broker.start()

    async def back():
        return link.connected

    await eventually(back)

    async def hears():
        await link.publish("a.b", b"after")
        return b"after" in heard

    await eventually(hears)
    assert b"during the outage" not in heard


async def test_a_connection_that_the_broker_closed_for_good_is_made_anew(broker, link):
    """A login that is revoked closes the client library's connection for ever."""
    heard = []

    async def hear(message):
        heard.append(message.data)

    await link.subscribe("a.b", hear)
    client = link.client
    await broker.revoke_visitor()

    async def closed():
        return client.is_closed

    await eventually(closed)
    broker.renew_visitor()

    async def hears():
        if link.connected:
            await link.publish("a.b", b"again")
        return b"again" in heard

    await eventually(hears)
    assert link.client is not client


async def test_too_much_is_refused_and_the_connection_stays(link):
    with pytest.raises(KcmError) as info:
        await link.request("a.b", bytes(limits.BODY_MAX + 2048), 1)
    assert info.value.code is Code.TOO_LARGE
    assert link.connected


async def test_nobody_there_is_unavailable_and_no_answer_is_a_deadline(link):
    with pytest.raises(KcmError) as info:
        await link.request("nobody.here", b"", 1)
    assert info.value.code is Code.UNAVAILABLE

    async def silent(message):
        pass

    await link.subscribe("silent", silent)
    await link.flush()
    with pytest.raises(KcmError) as info:
        await link.request("silent", b"", 0.05)
    assert info.value.code is Code.DEADLINE_EXCEEDED


async def test_each_change_of_a_connection_is_one_line_with_the_address(broker, caplog, capfd):
    caplog.set_level("INFO", logger="kcm_runtime")
    host = broker.address().url.removeprefix("tls://")
    connection = Connection(broker.address(), "test-core")

    def lines():
        return [
            LineFormatter("text").format(one).partition(" ")[2]
            for one in caplog.records
            if one.name == "kcm_runtime.nats.connection"
        ]

    await connection.start()
    try:
        await broker.stop()
        await eventually(holds(lambda: any("no broker" in line for line in lines())))
        broker.start()
        await eventually(holds(lambda: connection.connected))
        await eventually(holds(lambda: "again" in lines()[-1]))
    finally:
        await connection.close()
    said = lines()
    named = f"instance=test-core broker={host}"
    assert said[0] == f"INFO connected to the broker {named}"
    assert said[-1] == f"INFO connected to the broker again {named}"
    assert said.count(f"WARNING lost the broker; connecting again {named}") == 1
    assert len(said) == len(set(said))
    assert all(host in line for line in said)
    assert "eyJ" not in caplog.text  # what every token begins with
    assert capfd.readouterr().err == ""
