"""What operators signed: the newest revision counts, and what keys depend on stays."""

import pytest
from kcm_control.registry import Registry, replaces
from kcm_schemas.registry import Link, Service, Tenant

TENANT = Tenant(tenant="acme", revision=2, link="l", regions=["eu"], fence="all")
LINK = Link(link="l", revision=2, uri="softkey:/a", model="byok")
SERVICE = Service(tenant="acme", service="crm", revision=2)


@pytest.mark.parametrize("record", [TENANT, LINK, SERVICE], ids=lambda r: type(r).__name__)
def test_only_a_higher_revision_replaces(record):
    assert replaces(record, record.model_copy(update={"revision": 3}))
    assert not replaces(record, record)
    assert not replaces(record, record.model_copy(update={"revision": 1}))


def test_what_stored_keys_are_wrapped_by_stays():
    assert replaces(TENANT, TENANT.model_copy(update={"revision": 3, "link": "m"}))  # wrapped anew
    assert not replaces(LINK, LINK.model_copy(update={"revision": 3, "uri": "softkey:/b"}))
    assert replaces(TENANT, TENANT.model_copy(update={"revision": 3, "fence": "local"}))
    assert not replaces(TENANT, SERVICE.model_copy(update={"revision": 3}))


def test_an_older_record_that_comes_back_changes_nothing():
    registry = Registry()
    assert registry.put(TENANT)
    assert not registry.put(TENANT.model_copy(update={"revision": 1, "fence": "local"}))
    assert registry.tenant("acme") == TENANT
    assert registry.put(TENANT.model_copy(update={"revision": 3, "fence": "local"}))
    assert registry.tenant("acme").fence == "local"
    assert registry.on_link("l") == ["acme"]


def test_a_link_knows_its_tenants_and_no_others():
    registry = Registry()
    for name, link in (("b", "l"), ("a", "l"), ("c", "m")):
        registry.put(TENANT.model_copy(update={"tenant": name, "link": link}))
    assert registry.on_link("l") == ["a", "b"]
    assert registry.on_link("none") == []
    registry.put(TENANT.model_copy(update={"tenant": "a", "link": "m", "revision": 3}))
    registry.put(TENANT.model_copy(update={"tenant": "b", "link": "m", "revision": 1}))
    assert registry.on_link("l") == ["b"]
    assert registry.on_link("m") == ["a", "c"]


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
