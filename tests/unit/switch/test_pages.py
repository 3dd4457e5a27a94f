"""Pages of lifted holds: thousands of ended holds take sixteen bytes each, and stay ended."""

import asyncio

import pytest
from kcm_killswitch.model import id_set
from kcm_killswitch.model.lift_pages import FORMS_MAX, Place
from kcm_trust.statements import lifts

from tests.fakes.virtual import let_pass, until
from tests.unit.switch.page_rig import data, held, lifted, page, page_at, put, some
from tests.unit.switch.statements import LINK, at, hold, tenant
from tests.vectors.families.messages import identity


async def test_a_page_takes_the_place_of_what_it_ends(system, incarnation):
    gateway = system.incarnation("gw-eu-1")
    holds = some()
    put(incarnation, holds)
    await asyncio.gather(incarnation.start(), gateway.start())
    digest = incarnation.revocations.holds.digest
    incarnation.switch.learn(page(holds))
    await until(lambda: all(data(incarnation, at(one)) == b"" for one in holds))
    assert data(incarnation, page_at()) == page(holds)
    for one in (incarnation, gateway):
        await until(lambda one=one: len(one.revocations.holds) == 0)
        assert one.revocations.holds.digest == digest
        assert one.revocations.holds.paged_count == len(holds)
        assert not one.revocations.killed("acme")
        assert one.count("hold.released") == 0, "what was lifted before it began is no news"
        assert not any(one.switch.holds.applier.believes(lifted(each)) for each in holds)
    found = incarnation.hold_store.archived([one.id for one in holds])
    assert found == {one.id: lifted(one) for one in holds}


async def test_what_a_page_ends_kills_nobody_when_it_comes_again(system, incarnation):
    gateway = system.incarnation("gw-eu-1")
    gateway.learn(LINK, tenant())
    holds = some()
    put(incarnation, holds)
    await asyncio.gather(incarnation.start(), gateway.start())
    incarnation.switch.learn(page(holds))
    await until(lambda: gateway.revocations.holds.paged_count)
    for member in (incarnation, gateway):
        member.purged.clear()
        member.switch.learn(held(holds[0]))
        assert not member.revocations.killed("acme")
        assert member.purged == []
        assert member.switch.holds.applier.receipt(holds[0].id) is None
    put(incarnation, holds[:1], make=held)
    await until(lambda: data(incarnation, at(holds[0])) == b"")


async def test_an_incarnation_knows_from_the_page_alone_and_a_core_without_a_stream_from_its_disk(
    system, incarnation
):
    holds = some()
    put(incarnation, holds)
    await incarnation.start()
    incarnation.switch.learn(page(holds))
    await until(lambda: all(data(incarnation, at(one)) == b"" for one in holds))
    digest = incarnation.revocations.holds.digest
    for one in holds:
        incarnation.stream.expire(at(one))
    late = system.incarnation("core-eu-2")
    await late.start()
    assert late.revocations.holds.digest == digest
    assert late.hold_store.archived([holds[0].id]) == {}
    await incarnation.close()
    await late.close()
    system.streams["eu"].recreate()
    again = system.incarnation("core-eu-1")
    again.learn(LINK, tenant())
    await again.start()
    assert again.revocations.holds.digest == digest
    await until(lambda: data(incarnation, page_at()) == page(holds))
    again.switch.learn(held(holds[0]))
    assert not again.revocations.killed("acme")


async def test_a_page_ends_a_hold_in_force_like_a_lift(incarnation):
    one = some(1)[0]
    put(incarnation, [one], make=held)
    await incarnation.start()
    assert incarnation.revocations.killed("acme")
    incarnation.switch.learn(page([one], signer="core-eu-2"))
    assert not incarnation.revocations.killed("acme")
    (told,) = (fields for kind, fields in incarnation.events if kind == "hold.released")
    assert (told["hold"], told["actor"]) == (one.id, "core-eu-2")
    incarnation.switch.learn(lifted(one))
    assert incarnation.count("hold.released") == 1


@pytest.mark.parametrize(
    ("signer", "cause"),
    [
        ("security", "operator"),
        ("security", "l1"),
        ("core-eu-1", "operator"),
        ("core-us-1", "l1"),
        ("core-eu-2", "l1"),
        ("gw-eu-1", "operator"),
    ],
)
async def test_an_operators_kill_ends_by_no_page(incarnation, signer, cause):
    """A Core may write a page of its own key's holds: an operator's id in it says nothing."""
    one = some(1, scope="tenant", target="acme", cause="operator")[0]
    put(incarnation, [one], make=held)
    await incarnation.start()
    incarnation.stream.store(page_at(signer, cause), page([one], signer, cause))
    await let_pass(1)
    assert incarnation.revocations.killed("acme")
    assert data(incarnation, at(one)) == held(one)


async def test_a_core_ends_no_other_regions_holds(incarnation):
    own, others = some(2), some(1, origin="us")
    put(incarnation, own, make=held)
    put(incarnation, others, make=held)
    await incarnation.start()
    incarnation.stream.store(page_at("core-eu-2"), page(own + others, "core-eu-2"))
    await let_pass(1)
    assert [record.hold.id for record in incarnation.revocations.holds] == [others[0].id]


@pytest.mark.parametrize("instead", ["smaller", "junk", "nothing", "other name"])
async def test_a_page_that_shrinks_in_the_stream_is_written_again(incarnation, instead):
    holds = some()
    put(incarnation, holds)
    await incarnation.start()
    incarnation.switch.learn(page(holds))
    await until(lambda: data(incarnation, page_at()) == page(holds))
    digest = incarnation.revocations.holds.digest
    match instead:
        case "smaller":
            incarnation.stream.store(page_at(), page(holds[:1]))
        case "junk":
            incarnation.stream.store(page_at(), b"\xff" * 9)
        case "nothing":
            incarnation.stream.store(page_at(), b"")
        case _:
            incarnation.stream.store(page_at(), page(holds, "core-eu-2"))
    assert data(incarnation, page_at()) != page(holds)
    await until(lambda: data(incarnation, page_at()) == page(holds))
    assert incarnation.revocations.holds.digest == digest


async def test_a_signer_who_lost_his_page_takes_nothing_back(system, incarnation):
    holds = some(4)
    put(incarnation, holds)
    await incarnation.start()
    incarnation.switch.learn(page(holds[:2]))
    incarnation.switch.learn(page(holds[2:]))
    incarnation.switch.learn(page(holds[1:2]))
    assert incarnation.revocations.holds.paged_count == len(holds)
    assert len(incarnation.revocations.holds) == 0
    incarnation.switch.learn(page(holds))
    assert [one.raw for one in incarnation.switch.lift_pages] == [page(holds)]


async def test_an_empty_message_over_a_hold_that_no_page_ends_is_written_over(incarnation):
    one, ended = hold(), hold()
    put(incarnation, [one], make=held)
    put(incarnation, [ended])
    await incarnation.start()
    for each, raw in ((one, held(one)), (ended, lifted(ended))):
        incarnation.stream.store(at(each), b"")
        await until(lambda each=each, raw=raw: data(incarnation, at(each)) == raw)
    assert incarnation.count("statement.refused") == 0


async def test_the_messages_expire_only_once_the_page_is_stored(incarnation):
    holds = some()
    put(incarnation, holds)
    await incarnation.start()
    incarnation.log.connected = False
    incarnation.switch.learn(page(holds))
    await let_pass(5)
    assert all(data(incarnation, at(one)) == lifted(one) for one in holds)
    incarnation.log.connected = True
    await until(lambda: all(data(incarnation, at(one)) == b"" for one in holds))
    wrote = [one.subject for one in incarnation.stream.history if one.data == page(holds)]
    emptied = next(n for n, one in enumerate(incarnation.stream.history) if not one.data)
    assert (
        incarnation.stream.history.index(
            next(one for one in incarnation.stream.history if one.subject == page_at())
        )
        < emptied
    )
    assert wrote == [page_at()]


async def test_other_regions_get_pages_though_they_know_the_same(system):
    eu, us = system.core("core-eu-1"), system.core("core-us-1")
    holds = some()
    for core in (eu, us):
        for one in holds:
            core.stream.store(at(one, core.region), lifted(one))
    await asyncio.gather(eu.start(watch=False), us.start(watch=False))
    digest = us.revocations.holds.digest
    eu.switch.learn(page(holds))
    await until(lambda: us.revocations.holds.paged_count == len(holds))
    assert us.revocations.holds.digest == digest
    await until(lambda: all(us.stream.entries[at(one, "us")].data == b"" for one in holds))


async def test_a_region_that_was_away_gets_pages_and_not_what_they_end(system):
    eu, us = system.core("core-eu-1"), system.core("core-us-1")
    holds = some()
    for one in holds:
        eu.stream.store(at(one), lifted(one))
        us.stream.store(at(one, "us"), held(one))
    await eu.start(watch=False)
    eu.switch.learn(page(holds))
    await until(lambda: len(eu.revocations.holds) == 0)
    us.learn(LINK, tenant())
    await us.start(watch=False)
    await until(lambda: not us.revocations.killed("acme"))
    assert us.revocations.holds.digest == eu.revocations.holds.digest
    assert len(eu.revocations.holds) == 0


@pytest.mark.parametrize("order", [1, -1])
async def test_of_two_pages_with_the_same_ids_one_is_stored_and_nobody_writes_on(
    system, incarnation, order
):
    other = system.incarnation("core-eu-2")
    holds = some()
    put(incarnation, holds)
    await asyncio.gather(incarnation.start(), other.start())
    them = id_set.of(one.id for one in holds)
    one, two = (
        lifts(identity("core-eu-1"), cause="l1", origin="eu", issued_ms=n, ids=them) for n in (8, 9)
    )
    for member, raw in zip((incarnation, other)[::order], (one, two), strict=True):
        member.switch.learn(raw)
    await let_pass(20)
    wrote = [entry for entry in incarnation.stream.history if entry.subject == page_at()]
    assert len(wrote) <= 6
    assert incarnation.switch.lift_pages.digests == other.switch.lift_pages.digests


async def test_one_signer_cannot_push_a_page_out(incarnation):
    """A stolen Core key would make everybody forget, and ask archives, again and again."""
    await incarnation.start()
    holds = some(8)
    for one in holds:
        incarnation.switch.learn(page([one]))
    assert incarnation.revocations.holds.paged_count == FORMS_MAX
    assert list(
        id_set.each(incarnation.switch.lift_pages.own(Place("l1", "eu", "core-eu-1", 0)))
    ) == [one.id for one in holds[:FORMS_MAX]]


async def test_more_than_can_wait_expire_one_part_after_another(incarnation, monkeypatch):
    monkeypatch.setattr("kcm_killswitch.replica.entry_expiry.WAITING_MAX", 3)
    holds = some(10)
    put(incarnation, holds)
    await incarnation.start()
    incarnation.switch.learn(page(holds))
    await until(lambda: all(data(incarnation, at(one)) == b"" for one in holds))
    assert len(incarnation.switch.holds.pages.messages) == 0
