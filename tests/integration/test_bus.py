"""The bus over a real broker: outages, restarts, refusals, and an answer in every case."""

import asyncio
import json
import os
import signal
from dataclasses import dataclass

import pytest
from kcm_devsystem import processes, topology
from kcm_devsystem.brokers import STORE_BYTES_MAX, Account, Role, login_name
from kcm_runtime.clock import SystemClock
from kcm_runtime.config import BusAddress
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.jetstream_errors import StreamMissing
from kcm_runtime.nats.provision import CORE_STREAMS, acknowledged, check_streams, provision_region
from kcm_runtime.nats.request_server import IN_FLIGHT_MAX, RequestServer
from kcm_runtime.nats.store_health import Trouble
from kcm_runtime.nats.stream_follower import Follower, SequentialFollower
from kcm_runtime.nats.stream_protection import Unfit
from kcm_runtime.nats.streams import last, put
from kcm_schemas import limits, subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import EncryptReply, decode_reply
from nats.js import errors as js_errors

from tests.integration.living import eventually

REGION = "eu"


@dataclass
class Broker:
    """One region's broker, to be stopped and started."""

    topology: topology.Topology
    process: processes.Process
    backbone: processes.Process

    def address(self, role=Role.CORE):
        return BusAddress(
            url=self.topology.region(REGION).url,
            user=login_name(role, Account.REGION),
            password_file=topology.password_path(self.topology.root, REGION, role, Account.REGION),
        )

    async def stop(self):
        await asyncio.to_thread(processes.stop, [self.process])

    def start(self):
        self.process = topology.start_broker(self.topology, REGION, die_with_parent=True)


@pytest.fixture
def broker(tmp_path):
    made, entries = topology.start(tmp_path, [REGION], die_with_parent=True)
    one = Broker(made, entries[1].process, entries[0].process)
    yield one
    processes.stop([one.process])
    processes.stop([one.backbone])


@pytest.fixture
async def link(broker):
    connection = Connection(broker.address(), "test")
    await connection.start()
    yield connection
    await connection.close()


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
    config = topology.config_path(broker.topology.root, REGION)
    right = config.read_text()
    password = broker.address().password_file.read_text().strip()
    config.write_text(right.replace(password, "another-password-of-32-characters"))
    client = link.client
    os.kill(broker.process.pid, signal.SIGHUP)

    async def closed():
        return client.is_closed

    await eventually(closed)
    config.write_text(right)
    os.kill(broker.process.pid, signal.SIGHUP)

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


async def test_a_follower_has_everything_in_order_through_a_restart(broker, link):
    await provision_region(link, REGION)
    seen = []
    subject = subjects.control_hold(REGION, "tenant", bytes(16))
    others = [subjects.control_hold(REGION, "tenant", bytes([n]) * 16) for n in range(1, 40)]
    await put(link, subject, b"before")
    follower = Follower(
        link,
        subjects.CONTROL_STREAM,
        subjects.control_all(REGION),
        SequentialFollower(seen.append),
        SystemClock(),
    )
    await follower.start()
    assert [entry.data for entry in seen] == [b"before"]
    for n, other in enumerate(others[:20]):
        await put(link, other, b"%d" % n)
    await broker.stop()
    broker.start()

    async def stored():
        try:
            await put(link, others[20], b"20")
        except KcmError:
            return False
        return True

    await eventually(stored)
    for n, other in enumerate(others[21:], start=21):
        await put(link, other, b"%d" % n)

    async def all_there():
        return bool(seen) and seen[-1].data == b"38"

    await eventually(all_there)
    numbers = [entry.sequence for entry in seen]
    assert numbers == sorted(set(numbers))
    assert {entry.data for entry in seen} >= {b"before", *(b"%d" % n for n in range(39))}
    await follower.reached(numbers[-1])
    await follower.close()


async def test_a_stream_that_went_back_is_read_from_its_start(link):
    """Behind the last message that was seen nothing would ever come, no kill either."""
    await provision_region(link, REGION)
    seen, back = [], []

    class Watched(SequentialFollower):
        def went_back(self):
            back.append(len(seen))
            super().went_back()

    subject = subjects.control_hold(REGION, "tenant", bytes(16))
    follower = Follower(
        link, subjects.CONTROL_STREAM, subjects.control_all(REGION), Watched(seen.append),
        SystemClock(),
    )  # fmt: skip
    for n in range(5):
        await put(link, subject, b"%d" % n)
    await follower.start()
    assert [entry.data for entry in seen] == [b"4"]
    assert back == []
    await link.jetstream().delete_stream(subjects.CONTROL_STREAM)
    await provision_region(link, REGION)
    sequence = await put(link, subject, b"a kill")
    assert sequence == 1

    async def heard():
        return seen[-1].data == b"a kill"

    await eventually(heard)
    assert back == [1]
    assert follower.position == 1
    await follower.close()


async def test_a_missing_stream_is_not_an_empty_one(link):
    follower = Follower(link, "NOT_THERE", "x.>", SequentialFollower(lambda _: None), SystemClock())
    with pytest.raises(StreamMissing, match="provision"):
        await follower.start()


async def test_compare_and_set_loses_with_a_conflict(link):
    await provision_region(link, REGION)
    subject = subjects.bucket_subject(subjects.KEYS_BUCKET, "root", "acme")
    sequence = await put(link, subject, b"1", expected=0)
    with pytest.raises(KcmError) as info:
        await put(link, subject, b"2", expected=0)
    assert info.value.code is Code.CONFLICT
    await put(link, subject, b"2", expected=sequence)
    stored = await last(link, subjects.bucket_stream(subjects.KEYS_BUCKET), subject)
    assert stored.data == b"2"


async def test_provisioning_again_changes_nothing(link):
    await provision_region(link, REGION)
    await put(link, subjects.control_hold(REGION, "tenant", bytes(16)), b"kept")
    await provision_region(link, REGION)
    stored = await last(
        link, subjects.CONTROL_STREAM, subjects.control_hold(REGION, "tenant", bytes(16))
    )
    assert stored.data == b"kept"


PURGEABLE = frozenset({subjects.AUDIT_STREAM})
"""Streams that may be purged, and by nothing else be emptied.

The server lets such a stream be rolled up or given delete markers later: whoever starts notices.
"""

SUBJECT = {
    subjects.CONTROL_STREAM: subjects.control_hold(REGION, "tenant", bytes(16)),
    subjects.AUDIT_STREAM: subjects.audit(REGION, "core-x"),
    "KV_kcm-keys": subjects.bucket_subject(subjects.KEYS_BUCKET, "root", "acme"),
    "KV_kcm-registry": subjects.bucket_subject(subjects.REGISTRY_BUCKET, "tenant", "acme"),
    "KV_kcm-results": subjects.bucket_subject(subjects.RESULTS_BUCKET, "result", "aa" * 16),
}


async def api(link, verb, body=None):
    """What JetStream's API answers: the error's text, or nothing."""
    raw = await link.request(f"$JS.API.{verb}", json.dumps(body or {}).encode(), 5)
    return json.loads(raw).get("error", {}).get("description", "")


@pytest.mark.parametrize("stream", CORE_STREAMS)
async def test_nobody_with_the_brokers_password_can_empty_a_stream(link, stream):
    """Whoever may call the broker's whole API and publish anything tries to remove messages."""
    await provision_region(link, REGION)
    subject = SUBJECT[stream]
    sequence = await put(link, subject, b"kept")
    refused = "not permitted"
    if stream not in PURGEABLE:
        assert refused in await api(link, f"STREAM.PURGE.{stream}")
        assert refused in await api(link, f"STREAM.PURGE.{stream}", {"filter": subject})
    for no_erase in (False, True):
        told = {"seq": sequence, "no_erase": no_erase}
        assert refused in await api(link, f"STREAM.MSG.DELETE.{stream}", told)
    for scope in ("sub", "all"):
        with pytest.raises(js_errors.APIError, match="rollup not permitted"):
            await link.jetstream().publish(subject, b"", headers={"Nats-Rollup": scope})
    config = await acknowledged(link, stream)
    attempts = [{"deny_delete": False}, {"storage": "memory"}]
    if stream not in PURGEABLE:
        attempts += [
            {"deny_purge": False},
            {"allow_rollup_hdrs": True},
            {"subject_delete_marker_ttl": 10**9},
        ]
    for change in attempts:
        assert await api(link, f"STREAM.UPDATE.{stream}", config | change), change
    assert await acknowledged(link, stream) == config
    assert (await last(link, stream, subject)).data == b"kept"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_age": 3600 * 10**9}, "max_age"),
        ({"max_msgs": 1}, "max_msgs"),
        ({"max_bytes": 10**6}, "max_bytes"),
        ({"republish": {"src": ">", "dest": "copy.>"}}, "republish"),
    ],
)
async def test_what_was_weakened_later_is_named_and_provisioning_mends_it(link, change, field):
    """The broker lets its limits be changed at any time: whoever starts then notices."""
    await provision_region(link, REGION)
    await check_streams(link, REGION, CORE_STREAMS)
    config = await acknowledged(link, subjects.CONTROL_STREAM)
    assert not await api(link, "STREAM.UPDATE.KCM_CONTROL", config | change)
    with pytest.raises(Unfit, match=f"KCM_CONTROL: {field}.*provision the region again"):
        await check_streams(link, REGION, CORE_STREAMS)
    await provision_region(link, REGION)
    await check_streams(link, REGION, CORE_STREAMS)
    assert await acknowledged(link, subjects.CONTROL_STREAM) == config


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"allow_rollup_hdrs": True}, "allow_rollup_hdrs"),
        ({"subject_delete_marker_ttl": 60 * 10**9}, "allow_rollup_hdrs.*subject_delete_marker_ttl"),
    ],
)
async def test_rolling_up_the_audit_stream_is_noticed_and_forbidden_again(link, change, field):
    """It may be purged, so the server lets it be rolled up as well, which nobody needs."""
    await provision_region(link, REGION)
    config = await acknowledged(link, subjects.AUDIT_STREAM)
    assert not await api(link, f"STREAM.UPDATE.{subjects.AUDIT_STREAM}", config | change)
    with pytest.raises(Unfit, match=f"KCM_AUDIT: {field}.*provision the region again"):
        await check_streams(link, REGION, CORE_STREAMS)
    await provision_region(link, REGION)
    await check_streams(link, REGION, CORE_STREAMS)
    assert (await acknowledged(link, subjects.AUDIT_STREAM))["allow_rollup_hdrs"] is False
    with pytest.raises(js_errors.APIError, match="rollup not permitted"):
        await link.jetstream().publish(
            SUBJECT[subjects.AUDIT_STREAM], b"", headers={"Nats-Rollup": "all"}
        )


async def test_a_stream_with_delete_markers_lost_its_protection_and_gets_it_back(link):
    """The server turns ``deny_purge`` off for them without a word."""
    await provision_region(link, REGION)
    wanted = await acknowledged(link, subjects.CONTROL_STREAM)
    assert not await api(link, "STREAM.DELETE.KCM_CONTROL")
    made = wanted | {"subject_delete_marker_ttl": 60 * 10**9}
    assert not await api(link, "STREAM.CREATE.KCM_CONTROL", made)
    assert (await acknowledged(link, subjects.CONTROL_STREAM))["deny_purge"] is False
    subject = SUBJECT[subjects.CONTROL_STREAM]
    await put(link, subject, b"kept")
    with pytest.raises(Unfit, match="KCM_CONTROL: deny_purge is off"):
        await check_streams(link, REGION, CORE_STREAMS)
    await provision_region(link, REGION)
    assert await acknowledged(link, subjects.CONTROL_STREAM) == wanted
    assert (await last(link, subjects.CONTROL_STREAM, subject)).data == b"kept"


async def test_what_provisioning_cannot_mend_is_an_error(link):
    await provision_region(link, REGION)
    wanted = await acknowledged(link, subjects.CONTROL_STREAM)
    assert not await api(link, "STREAM.DELETE.KCM_CONTROL")
    assert not await api(link, "STREAM.CREATE.KCM_CONTROL", wanted | {"storage": "memory"})
    with pytest.raises(Unfit, match="KCM_CONTROL: storage"):
        await provision_region(link, REGION)
    await api(link, "STREAM.DELETE.KCM_CONTROL")
    with pytest.raises(StreamMissing, match="KCM_CONTROL"):
        await check_streams(link, REGION, CORE_STREAMS)


async def test_a_lease_record_that_expires_goes_without_a_word(link):
    await provision_region(link, REGION)
    heard = []
    follower = Follower(
        link,
        subjects.CONTROL_STREAM,
        subjects.control_all(REGION),
        SequentialFollower(lambda entry: heard.append(entry.data)),
        SystemClock(),
    )
    await follower.start()
    lease = subjects.control_lease(REGION, "core-x", bytes(16))
    await put(link, lease, b"lease", ttl="1s")

    async def gone():
        return await last(link, subjects.CONTROL_STREAM, lease) is None

    await eventually(gone)
    await put(link, SUBJECT[subjects.CONTROL_STREAM], b"after", expected=0)
    await eventually(lambda: _is(len(heard) == 2))
    assert heard == [b"lease", b"after"]
    await put(link, lease, b"again", expected=0)
    await follower.close()


async def _is(value):
    return value


async def test_a_store_without_room_is_named_and_what_is_stored_again_is_told(broker, link):
    """The server's own limit stands for a full disk: it refuses in the same way."""
    await provision_region(link, REGION)
    changes = []
    link.stores.listen(lambda stream, trouble: changes.append((stream, trouble)))
    config = topology.config_path(broker.topology.root, REGION)
    right = config.read_text()
    await broker.stop()
    config.write_text(right.replace(f'"max_file_store": {STORE_BYTES_MAX}', '"max_file_store": 1'))
    assert config.read_text() != right
    broker.start()
    subject = SUBJECT[subjects.CONTROL_STREAM]

    async def refused():
        try:
            await put(link, subject, b"x" * 1000)
        except KcmError as error:
            assert error.code is Code.UNAVAILABLE
            return "store is full" in error.detail and "restart nats-server" in error.detail
        return False

    await eventually(refused)
    assert changes == [(subjects.CONTROL_STREAM, Trouble.FULL)]
    await broker.stop()
    config.write_text(right)
    broker.start()

    async def stored():
        try:
            return await put(link, subject, b"x") > 0
        except KcmError:
            return False

    await eventually(stored)
    assert changes[-1] == (subjects.CONTROL_STREAM, None)
    assert link.stores.troubles == {}


async def test_each_change_of_a_connection_is_one_line_with_the_address(broker, caplog, capfd):
    caplog.set_level("INFO", logger="kcm_runtime")
    host = broker.address().url.removeprefix("nats://")
    connection = Connection(broker.address(), "test-core")

    def lines():
        return [
            one.getMessage() for one in caplog.records if one.name == "kcm_runtime.nats.connection"
        ]

    await connection.start()
    try:
        await broker.stop()
        await eventually(holds(lambda: any(": no broker" in line for line in lines())))
        broker.start()
        await eventually(holds(lambda: connection.connected))
        await eventually(holds(lambda: "again" in lines()[-1]))
    finally:
        await connection.close()
    said = lines()
    assert said[0] == f"test-core: connected to {host}"
    assert said[-1] == f"test-core: connected again to {host}"
    assert said.count(f"test-core: lost {host}; connecting again") == 1
    assert len(said) == len(set(said))
    assert all(host in line for line in said)
    assert broker.address().password_file.read_text().strip() not in caplog.text
    assert capfd.readouterr().err == ""


def holds(condition):
    async def ask():
        return condition()

    return ask
