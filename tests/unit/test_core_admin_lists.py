"""Operators' lists: in pages, from memory, and never unbounded."""

import pytest
from kcm_schemas import limits
from kcm_schemas.admin.links import LinkListQuery, LinkPage
from kcm_schemas.admin.tenants import (
    ServiceListQuery,
    ServicePage,
    TenantListQuery,
    TenantPage,
    TenantQuery,
    TenantRow,
    TenantShowQuery,
    TenantView,
)
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code
from kcm_schemas.registry import Service

from tests.unit.admin_requests import FIRST_PAGE, ask, page, put, put_all, request
from tests.unit.core_rig import LINK, TENANT
from tests.unit.trust_rig import hold


async def test_links_are_listed_with_how_many_tenants_they_open(world):
    core = world.core()
    assert await put_all(core) == [Code.OK] * 3
    for name in ("b-root", "c-root"):
        assert await put(core, LINK.model_copy(update={"link": name})) is Code.OK
    found, after = [], ""
    while True:
        query = LinkListQuery(after=after, limit=2)
        raw = request(core, "link", "list", query, signer="security")
        code, payload = await ask(core, raw, "link", "list")
        assert code is Code.OK
        links = decode(LinkPage, payload)
        found += [(one.link, one.model, one.tenants) for one in links.links]
        assert links.total == 3
        if not links.more:
            break
        after = links.links[-1].link
    assert found == [("acme-root", "byok", 1), ("b-root", "byok", 0), ("c-root", "byok", 0)]


def fill(core, tenants, services=0):
    """Many tenants, and services of the first one, as the feed delivers them: nothing is stored."""
    core.learn(LINK)
    for number in range(tenants):
        core.learn(TENANT.model_copy(update={"tenant": f"t{number:05}"}))
    for number in range(services):
        core.learn(Service(tenant="t00000", service=f"s{number:05}", revision=1))


def counting(world):
    """What the stores are asked from now on."""
    asked = []

    async def note(operation, subject):
        asked.append((operation, subject))

    world.bus.stream.before = note
    return asked


async def test_tenants_are_listed_in_pages_and_no_store_is_asked(world):
    core = world.core()
    fill(core, 600, services=3)
    asked = counting(world)
    names, after = [], ""
    while True:
        found = decode(TenantPage, await page(core, TenantListQuery(after=after, limit=256)))
        names += [row.tenant for row in found.tenants]
        assert found.total == 600
        if not found.more:
            break
        after = names[-1]
    assert names == [f"t{number:05}" for number in range(600)]
    assert found.tenants[0].services == 0
    first = decode(TenantPage, await page(core, TenantListQuery(after="", limit=1)))
    assert [row.services for row in first.tenants] == [3]
    assert asked == []


async def test_a_page_has_no_more_bytes_than_travel_in_one_answer(world):
    core = world.core()
    core.learn(LINK.model_copy(update={"uri": "softkey:/" + "é" * 2000}))
    for number in range(256):
        core.learn(TENANT.model_copy(update={"tenant": f"t{number:05}"}))
    payload = await page(core, FIRST_PAGE)
    found = decode(TenantPage, payload)
    assert found.more
    assert 0 < len(found.tenants) < 256
    assert len(payload) <= limits.PAGE_BYTES + 1000


async def test_finding_a_tenant_and_listing_its_services_asks_no_store(world):
    core = world.core()
    fill(core, 2, services=1000)
    asked = counting(world)
    row = decode(TenantRow, await page(core, TenantQuery(tenant="t00000"), verb="find"))
    assert row.services == 1000
    query = ServiceListQuery(tenant="t00000", after="s00998", limit=256)
    found = decode(ServicePage, await page(core, query, "service", "list"))
    assert [one.service for one in found.services] == ["s00999"]
    assert (found.total, found.more) == (1000, False)
    assert asked == []


async def test_versions_of_keys_are_read_for_one_page_of_services(world):
    core = world.core()
    fill(core, 2, services=1000)
    asked = counting(world)
    query = TenantShowQuery(tenant="t00000", after="", limit=limits.PAGE_ROWS_MAX)
    view = decode(TenantView, await page(core, query, verb="show"))
    assert len(view.services) == limits.PAGE_READS_MAX
    assert (view.total, view.more) == (1000, True)
    assert len(asked) == 1 + limits.PAGE_READS_MAX


async def test_whoever_gave_up_keeps_nobody_busy(world):
    """The deadline of a request ends its work, too: the rest of the page is not read."""
    core = world.core()
    fill(core, 1, services=1000)
    asked = []

    async def slow(operation, subject):
        asked.append(subject)
        world.clock.now += 1.0

    world.bus.stream.before = slow
    query = TenantShowQuery(tenant="t00000", after="", limit=limits.PAGE_ROWS_MAX)
    raw = request(core, "tenant", "show", query, ahead_ms=5000)
    assert (await ask(core, raw, "tenant", "show"))[0] is Code.DEADLINE_EXCEEDED
    assert len(asked) < 20


@pytest.mark.parametrize("limit", [0, limits.PAGE_ROWS_MAX + 1])
async def test_a_page_is_bounded_by_who_asks_and_by_who_answers(world, limit):
    core = world.core()
    query = FIRST_PAGE.model_construct(after="", limit=limit)
    raw = request(core, "tenant", "list", query)
    assert (await ask(core, raw, "tenant", "list"))[0] is Code.MALFORMED


async def test_a_tenant_is_shown_however_many_holds_are_on_it(world):
    core = await world.core().made()
    for n in range(1500):
        core.kill(hold(salt=n.to_bytes(16, "big"), reason="r" * limits.TEXT_MAX))
    query = TenantShowQuery(tenant="acme", after="", limit=10)
    view = decode(TenantView, await page(core, query, verb="show"))
    known = {record.hold.id for record in core.revocations.active("acme")}
    assert view.state == "killed"
    assert len(view.holds) == limits.HOLDS_NAMED_MAX
    assert set(view.holds) < known
