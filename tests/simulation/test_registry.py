"""The simulated bucket and second store, as production's own functions see them."""

import pytest
from kcm_core.registry.stores import PREFIX
from kcm_runtime.nats.streams import keep, last, put
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Link, Tenant
from kcm_schemas.roster import Role
from kcm_trust.verify import Untrusted

from tests.simulation.loop import SimLoop
from tests.simulation.network import Network, Weather
from tests.simulation.registry import (
    Bucket,
    FloorsDisk,
    SimBucket,
    SimDirectory,
    SimFloors,
    entry,
    place,
)
from tests.simulation.trust import SimVerifier, roster

LINK = Link(link="link", revision=1, uri="u", model="byok")
TENANT = Tenant(tenant="acme", revision=1, link="link", regions=["eu"], region_quorum="all")
KEY = ("tenant", "acme")


class Rig:
    def __init__(self):
        self.loop = SimLoop()
        self.bucket = Bucket(self.loop, "eu", [LINK, TENANT], "core-eu-0", "ada")
        network = Network(self.loop, ["eu"], Weather())
        node = self.loop.node("core-eu-0")
        self.connection = network.connect(node, "eu", "region")
        self.client = SimBucket(self.bucket.stream, self.connection)

    def run(self, work):
        return self.loop.run(work)


def test_what_everybody_begins_with_is_believed():
    verifier = SimVerifier(roster([("core-eu-0", Role.CORE, "eu")], ["ada"], ["eu"]))
    (raw,) = Rig().bucket.past(KEY)
    assert verifier.registered(raw, "eu") == TENANT
    with pytest.raises(Untrusted):
        verifier.registered(entry(TENANT, "ada", "gw-eu-0", "eu"), "eu")


def test_production_reads_and_writes_the_bucket():
    rig = Rig()
    first = rig.run(last(rig.client, "", place(KEY)))
    assert first.data == rig.bucket.past(KEY)[0]
    assert rig.run(last(rig.client, "", place(("tenant", "other")))) is None
    sequence = rig.run(keep(rig.client, "", place(KEY), b"more", expected=first.sequence))
    assert rig.run(last(rig.client, "", place(KEY))).sequence == sequence
    with pytest.raises(KcmError) as refused:
        rig.run(put(rig.client, place(KEY), b"again", expected=first.sequence))
    assert refused.value.code is Code.CONFLICT
    assert rig.run(rig.client.stream_info("")).state.messages == 2
    rig.connection.disconnect()
    with pytest.raises(KcmError) as refused:
        rig.run(last(rig.client, "", place(KEY)))
    assert refused.value.code is Code.UNAVAILABLE


def test_a_revision_is_made_once_and_can_be_lost():
    store, key = SimDirectory(), PREFIX + "tenant.acme"
    store.create(key, 1, b"1")
    store.create(key, 2, b"2")
    with pytest.raises(KcmError) as refused:
        store.create(key, 2, b"other")
    assert refused.value.code is Code.CONFLICT
    assert (store.heads(PREFIX), store.latest(key).data) == ({key: 2}, b"2")
    store.lose(key)
    store.lose(key)
    assert (store.heads(PREFIX), store.latest(key).data) == ({key: 1}, b"1")
    assert store.latest("nothing") is None
    store.create(key, 3, b"3")
    store.restore()
    assert store.heads(PREFIX) == {key: 3}
    with pytest.raises(KcmError):
        store.create(key, 2, b"other")


def test_floors_only_rise_and_outlive_an_incarnation():
    disk = FloorsDisk()
    SimFloors(disk).raise_to([(KEY, (2, b"b"))])
    SimFloors(disk).raise_to([(KEY, (2, b"a")), (KEY, (1, b"z"))])
    assert SimFloors(disk).items() == [(KEY, (2, b"b"))]
