"""A broker's disk goes bad: what the broker makes of it, and what is left of holds and records."""

import os
import signal

import pytest
from kcm.dev import processes, topology
from kcm.dev.brokers import Account, Role
from kcm.dev.configs import bus
from kcm_bus.clock import SystemClock
from kcm_bus.config import BusAddress
from kcm_bus.connection import Connection
from kcm_bus.provision import provision_region
from kcm_bus.streams import Follower, Plainly, put
from kcm_schemas import subjects

from tests.chaos import disks
from tests.chaos.disks import Harm

REGION = "eu-de"


class Broker:
    """One region's only broker, whose files are harmed while it is down."""

    def __init__(self, root, plan, entries):
        self.root, self._plan = root, plan
        self._running = {entry.process.name: entry.process for entry in entries}
        self.store = root / "brokers" / REGION

    def end(self, *, orderly):
        process = self._running[REGION]
        os.kill(process.pid, signal.SIGTERM if orderly else signal.SIGKILL)
        processes.stop([process])

    def start(self):
        self._running[REGION] = topology.start_broker(self._plan, REGION, die_with_parent=True)

    def stop(self):
        processes.stop(self._running.values())

    def connection(self):
        password = topology.password_path(self.root, REGION, Role.OPERATOR, Account.REGION)
        told = bus(self._plan.region(REGION), Role.OPERATOR, Account.REGION, password)
        return Connection(BusAddress(**told), "test")


@pytest.fixture
def broker(tmp_path):
    made = Broker(tmp_path, *topology.start(tmp_path, [REGION], die_with_parent=True))
    yield made
    made.stop()


@pytest.mark.parametrize("hit", [3, 9], ids=["in the middle", "the last one"])
async def test_a_damaged_message_does_not_keep_a_follower_from_having_caught_up(broker, hit):
    """The broker counts it and cannot deliver it: it says for ever that there is more to come."""
    connection = broker.connection()
    await connection.start()
    await provision_region(connection, REGION)
    for number in range(10):
        subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, "tenant", f"t{number}")
        await put(connection, subject, b"%d" % number * 100)
    await connection.close()
    broker.end(orderly=True)
    stream = subjects.bucket_stream(subjects.REGISTRY_BUCKET)
    place = hit * 100 + 70  # within the message's content
    harm = Harm("block", "flip", place, stream, orderly=True)
    assert disks.apply(broker.store, harm) == 1
    broker.start()
    connection = broker.connection()
    await connection.start()
    seen = []
    follower = Follower(
        connection,
        stream,
        subjects.bucket_all(subjects.REGISTRY_BUCKET),
        Plainly(seen.append),
        SystemClock(),
    )
    try:
        await follower.start()
        assert [entry.sequence for entry in seen] == [n + 1 for n in range(10) if n != hit]
    finally:
        await follower.close()
        await connection.close()
