"""Streams of a real broker: order, rollbacks, compare-and-set, expiry, and a full store."""

import pytest
from kcm_devsystem import topology
from kcm_devsystem.brokers import STORE_BYTES_MAX
from kcm_runtime.clock import SystemClock
from kcm_runtime.nats.jetstream_errors import StreamMissing
from kcm_runtime.nats.provision import provision_region
from kcm_runtime.nats.store_health import Trouble
from kcm_runtime.nats.stream_follower import Follower, SequentialFollower
from kcm_runtime.nats.streams import last, put
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError

from tests.audit_rig import until
from tests.integration.bus.broker import REGION, SUBJECT
from tests.integration.living import eventually


async def test_a_follower_has_everything_in_order_through_a_restart(broker, link):
    await provision_region(link, REGION, vault_bus=link)
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
    await provision_region(link, REGION, vault_bus=link)
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
    await provision_region(link, REGION, vault_bus=link)
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
    await provision_region(link, REGION, vault_bus=link)
    subject = subjects.bucket_subject(subjects.KEYS_BUCKET, "root", "acme")
    sequence = await put(link, subject, b"1", expected=0)
    with pytest.raises(KcmError) as info:
        await put(link, subject, b"2", expected=0)
    assert info.value.code is Code.CONFLICT
    await put(link, subject, b"2", expected=sequence)
    stored = await last(link, subjects.bucket_stream(subjects.KEYS_BUCKET), subject)
    assert stored.data == b"2"


async def test_a_lease_record_that_expires_goes_without_a_word(link):
    await provision_region(link, REGION, vault_bus=link)
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
    await until(lambda: len(heard) == 2)
    assert heard == [b"lease", b"after"]
    await put(link, lease, b"again", expected=0)
    await follower.close()


async def test_a_store_without_room_is_named_and_what_is_stored_again_is_told(broker, link):
    """The server's own limit stands for a full disk: it refuses in the same way."""
    await provision_region(link, REGION, vault_bus=link)
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
