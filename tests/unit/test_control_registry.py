"""What operators signed: a join, whatever came first, and a lease on knowing what Cores know."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcm_killswitch.model.control_lease import EXPIRED, FOREVER
from kcm_killswitch.model.registry import Put, Registry
from kcm_killswitch.model.registry_lease import PATIENCE_S, RegistryLease
from kcm_killswitch.model.registry_objects import key_of, object_digest, rank_of, replaces
from kcm_schemas.registry import Link, Service, Tenant

TENANT = Tenant(tenant="acme", revision=2, link="l", regions=["eu", "us"], region_quorum="majority")
LINK = Link(link="l", revision=2, uri="softkey:/a", model="byok")
SERVICE = Service(tenant="acme", service="crm", revision=2)


def changed(record, **fields):
    return record.model_copy(update=fields)


@pytest.mark.parametrize("record", [TENANT, LINK, SERVICE], ids=lambda r: type(r).__name__)
def test_only_a_higher_revision_replaces(record):
    assert replaces(record, changed(record, revision=3))
    assert not replaces(record, record)
    assert not replaces(record, changed(record, revision=1))


def test_what_stored_keys_are_wrapped_by_stays():
    assert replaces(TENANT, changed(TENANT, revision=3, link="m"))  # wrapped anew
    assert not replaces(LINK, changed(LINK, revision=3, uri="softkey:/b"))
    assert replaces(TENANT, changed(TENANT, revision=3, region_quorum="local"))
    assert not replaces(TENANT, changed(SERVICE, revision=3))


def test_an_older_record_that_comes_back_changes_nothing():
    registry = Registry()
    assert registry.put(TENANT) is Put.NEW
    assert registry.put(TENANT) is Put.SAME
    assert registry.put(changed(TENANT, revision=1, region_quorum="local")) is Put.OLDER
    assert registry.tenant("acme") == TENANT
    assert registry.put(changed(TENANT, revision=3, region_quorum="local")) is Put.NEW
    assert registry.tenant("acme").region_quorum == "local"
    assert registry.on_link("l") == ["acme"]


def test_a_link_knows_its_tenants_and_those_that_it_ever_had():
    registry = Registry()
    for name, link in (("b", "l"), ("a", "l"), ("c", "m")):
        registry.put(changed(TENANT, tenant=name, link=link))
    assert registry.on_link("l") == ["a", "b"]
    assert registry.on_link("none") == []
    registry.put(changed(TENANT, tenant="a", link="m", revision=3))
    assert (registry.on_link("l"), registry.on_link("m")) == (["b"], ["a", "c"])
    # A record that came late says where keys may still be, and changes nothing else.
    registry.put(changed(TENANT, tenant="b", link="m", revision=1))
    assert registry.on_link("m") == ["a", "c"]
    assert registry.ever_on_link("m") == ["a", "b", "c"]
    assert registry.ever_on_link("l") == ["a", "b"]


def test_a_fork_is_served_by_the_stricter_of_both():
    registry = Registry()
    registry.put(TENANT)
    other = changed(TENANT, link="m", regions=["eu", "ap"], region_quorum="all")
    assert registry.put(other) is Put.FORK
    served = registry.tenant("acme")
    assert (served.regions, served.region_quorum) == (["eu"], "all")
    assert registry.links_of("acme") == ["l", "m"]
    assert registry.regions_of("acme") == ["ap", "eu", "us"]
    assert registry.on_link("l") == registry.on_link("m") == ["acme"]
    assert registry.put(changed(TENANT, revision=3)) is Put.NEW
    assert registry.tenant("acme") == changed(TENANT, revision=3)
    assert registry.on_link("m") == []


def test_a_fork_without_a_common_region_is_served_nowhere():
    registry = Registry()
    registry.put(changed(TENANT, regions=["eu"]))
    registry.put(changed(TENANT, regions=["us"]))
    assert registry.tenant("acme").regions == []


def test_nothing_below_a_floor_is_believed():
    registry = Registry()
    new = changed(TENANT, revision=3)
    registry.floor(("tenant", "acme"), *rank_of(new))
    assert registry.put(TENANT) is Put.OLDER
    assert registry.tenant("acme") is None
    assert registry.below_floor == [("tenant", "acme")]
    assert registry.put(new) is Put.NEW
    assert registry.below_floor == []


def test_services_of_a_tenant_are_found_without_a_look_at_the_others():
    registry = Registry()
    for tenant, name in (("acme", "b"), ("acme", "a"), ("other", "c")):
        registry.put(changed(SERVICE, tenant=tenant, service=name))
    assert [one.service for one in registry.services_after("acme", "", 9)] == ["a", "b"]
    assert registry.services_after("nobody", "", 9) == []


RECORDS = [
    changed(base, revision=revision, **fields)
    for revision in (1, 2)
    for base, fields in (
        (TENANT, {}), (TENANT, {"link": "m"}), (TENANT, {"region_quorum": "all"}), (LINK, {}),
        (LINK, {"model": "hyok"}), (SERVICE, {}), (SERVICE, {"service": "b"}),
    )
]  # fmt: skip


@given(order=st.permutations(RECORDS), again=st.lists(st.sampled_from(RECORDS), max_size=5))
def test_the_order_says_nothing(order, again):
    one, other = Registry(), Registry()
    for record in RECORDS:
        one.put(record)
    for record in itertools.chain(order, again):
        other.put(record)
    assert one.digest == other.digest
    assert one.tenant("acme") == other.tenant("acme")
    assert one.reached(["acme"]) == other.reached(["acme"])
    assert {key_of(r): object_digest(r) for r in one.objects()}.keys() == {
        key_of(r) for r in RECORDS
    }


@given(missing=st.sampled_from([r for r in RECORDS if r.revision == 2]))
def test_who_was_given_less_has_another_digest(missing):
    one, other = Registry(), Registry()
    for record in RECORDS:
        one.put(record)
        if record != missing:
            other.put(record)
    assert one.digest != other.digest


# The lease: who differs from a Core of the region stops serving.


def test_nobody_who_agrees_waits_for_anything():
    lease = RegistryLease()
    assert lease.until(0.0) == FOREVER
    assert not lease.heard("core-1", [b"a"], [b"a"], 10.0, now=0.0)
    assert lease.until(100.0) == FOREVER


def test_who_agreed_before_has_a_moment_to_catch_up():
    lease = RegistryLease()
    lease.heard("core-1", [b"a"], [b"a"], 10.0, now=0.0)
    assert lease.heard("core-1", [b"b"], [b"a"], 10.0, now=5.0)
    assert lease.until(5.0) == 5.0 + PATIENCE_S
    # Hearing it again does not make it younger.
    lease.heard("core-1", [b"b"], [b"a"], 10.0, now=6.0)
    assert lease.until(6.0) == 5.0 + PATIENCE_S
    lease.changed([b"b"])
    assert lease.until(6.0) == FOREVER


def test_who_begins_while_it_differs_serves_nothing():
    """An incarnation that was fed a rolled-back bucket: it never agreed with anybody."""
    lease = RegistryLease()
    lease.heard("core-1", [b"new"], [b"old"], 10.0, now=5.0)
    assert lease.until(5.0) == EXPIRED
    lease.heard("core-1", [b"new"], [b"new"], 10.0, now=6.0)
    assert lease.until(6.0) == FOREVER


def test_who_goes_on_while_it_differs_serves_nothing():
    """Its control lease had ended: the change may be older than any moment in which to catch up."""
    lease = RegistryLease()
    lease.heard("core-1", [b"a"], [b"a"], 10.0, now=0.0)
    lease.heard("core-1", [b"b"], [b"a"], 10.0, now=5.0)
    lease.lapsed()
    assert lease.until(5.0) == EXPIRED
    lease.changed([b"b"])
    assert lease.until(6.0) == FOREVER
    lease.lapsed()
    lease.heard("core-1", [b"c"], [b"b"], 10.0, now=20.0)
    assert lease.until(20.0) == EXPIRED
    lease.heard("core-1", [b"b"], [b"b"], 10.0, now=21.0)
    lease.heard("core-1", [b"d"], [b"b"], 10.0, now=22.0)
    assert lease.until(22.0) == 22.0 + PATIENCE_S


def test_a_core_that_is_behind_is_no_difference():
    lease = RegistryLease()
    lease.heard("core-1", [b"a"], [b"a"], 10.0, now=0.0)
    lease.changed([b"b"])
    lease.heard("core-1", [b"a"], [b"b"], 10.0, now=1.0)
    assert lease.until(50.0) == FOREVER


def test_a_difference_outlives_the_core_that_showed_it():
    lease = RegistryLease()
    lease.heard("core-1", [b"a"], [b"a"], 10.0, now=0.0)
    lease.heard("core-1", [b"b"], [b"a"], 10.0, now=1.0)
    assert lease.until(500.0) == 1.0 + PATIENCE_S
    # Another Core, which acts, agrees with this incarnation: it has asked the second store.
    lease.heard("core-2", [b"a"], [b"a"], 10.0, now=500.0)
    assert lease.until(500.0) == FOREVER
    assert lease.until(511.0) == 1.0 + PATIENCE_S


def test_one_core_that_agrees_does_not_speak_for_one_that_acts_and_differs():
    lease = RegistryLease()
    lease.heard("core-1", [b"a"], [b"a"], 10.0, now=0.0)
    lease.heard("core-2", [b"b"], [b"a"], 10.0, now=1.0)
    lease.heard("core-1", [b"a"], [b"a"], 10.0, now=2.0)
    assert lease.until(3.0) == 1.0 + PATIENCE_S


def test_a_core_that_compared_the_second_store_forgets_who_is_gone():
    lease = RegistryLease()
    lease.heard("core-2", [b"b"], [b"a"], 10.0, now=1.0)
    assert lease.compared(now=5.0) == 6.0  # seconds for which it acts
    assert lease.until(5.0) == EXPIRED
    assert lease.compared(now=12.0) is None
    assert lease.until(12.0) == FOREVER


def test_a_core_that_is_behind_does_not_vouch():
    """The one that knew more is gone; one that knows less than this instance says nothing of it."""
    lease = RegistryLease()
    lease.changed([b"a"])
    lease.changed([b"b"])
    lease.heard("core-1", [b"b"], [b"b"], 10.0, now=0.0)
    lease.heard("core-1", [b"c"], [b"b"], 10.0, now=1.0)
    lease.heard("core-2", [b"a"], [b"b"], 10.0, now=20.0)
    assert lease.until(20.0) == 1.0 + PATIENCE_S
    lease.heard("core-2", [b"b"], [b"b"], 10.0, now=21.0)
    assert lease.until(21.0) == FOREVER


def test_what_was_dropped_here_is_nothing_to_be_ahead_of():
    """A record that a roster took out of force comes back in a Core, and not here."""
    lease = RegistryLease()
    lease.changed([b"a", b"x"])
    lease.changed([b"b", b"y"])
    lease.dropped([b"a", b"y"])
    assert lease.heard("core-1", [b"b", b"y"], [b"a", b"y"], 10.0, now=5.0)
    assert lease.until(5.0, [0]) < FOREVER
    # In a shard that lost nothing, a Core with an earlier state is behind, as before.
    assert not lease.heard("core-1", [b"a", b"x"], [b"a", b"y"], 10.0, now=6.0)
    assert lease.until(6.0) == FOREVER


def test_pages_are_cut_by_name_whatever_order_records_came_in():
    registry = Registry()
    for name in ("c", "a", "b"):
        registry.put(TENANT.model_copy(update={"tenant": name}))
        registry.put(SERVICE.model_copy(update={"service": name}))
    registry.put(TENANT.model_copy(update={"tenant": "a", "revision": 3}))
    registry.put(SERVICE.model_copy(update={"service": "a", "revision": 3}))
    assert [one.tenant for one in registry.tenants_after("", 2)] == ["a", "b"]
    assert [one.tenant for one in registry.tenants_after("b", 2)] == ["c"]
    assert [one.service for one in registry.services_after("acme", "a", 9)] == ["b", "c"]
    assert registry.services_after("nobody", "", 9) == []
    assert (registry.tenant_count, registry.service_count("acme")) == (3, 3)
    assert registry.names() == ["a", "b", "c"]
