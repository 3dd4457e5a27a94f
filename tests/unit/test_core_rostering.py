"""What a Core says and takes of the roster; and who is retired is served by nobody."""

import pytest
from kcm_runtime.nats.ports import Entry
from kcm_schemas import subjects
from kcm_schemas.admin.requests import Empty, PutStatement
from kcm_schemas.admin.roster import (
    EndorsementsPage,
    EndorsementsQuery,
    RosterView,
    SignedPage,
    SignedQuery,
)
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.signed import Kind, read_signed
from kcm_trust.endorsements import PAGE_BYTES, Endorsements, pages
from kcm_trust.envelopes import statement_digest
from kcm_trust.statements import lift

from tests.unit import trust_rig
from tests.unit.admin_requests import ask, request
from tests.unit.core_rig import LINK, ROSTER, SERVICE, TENANT, entry, signed
from tests.unit.roster_changes import signed_roster, without
from tests.vectors.families.messages import identity


@pytest.fixture
def core(world):
    return world.core()


async def ask_for(core, world, verb, payload, signer="admin"):
    return await ask(core, request(core, "roster", verb, payload, signer=signer), "roster", verb)


async def test_a_core_shows_the_roster_that_counts(core, world):
    code, payload = await ask_for(core, world, "show", Empty(), signer="security")
    view = decode(RosterView, payload)
    assert code is Code.OK
    assert (view.instance, view.roster, view.missing) == ("core-eu", signed_roster(ROSTER), [])


async def test_a_roster_is_stored_when_it_is_answered(core, world):
    new = signed_roster(without("security"))
    code, _ = await ask_for(core, world, "put", PutStatement(statement=new))
    assert code is Code.OK
    assert core.me.rosters.raw == new
    stored = world.bus.stream.stored[subjects.control_roster("eu")]
    assert stored[1] == new
    code, _ = await ask_for(core, world, "put", PutStatement(statement=new))
    assert code is Code.OK


async def test_a_core_stores_the_roster_that_retires_it_before_it_answers(core, world):
    """Else it is on nobody's record in the region, and whoever brought it is told that it is."""
    endorsements = Endorsements([bytes(32)])
    content = EndorsementsPage(name="core-eu", page=0, digests=endorsements.raw())
    assert (await ask_for(core, world, "endorsements", content))[0] is Code.OK
    new = signed_roster(without("core-eu", endorsements))
    code, _ = await ask_for(core, world, "put", PutStatement(statement=new))
    assert code is Code.OK
    assert not core.me.acts
    assert world.bus.stream.stored[subjects.control_roster("eu")][1] == new


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage",
        encode(identity("admin").sign(Kind.ROSTER, without("security"))),
        signed_roster(ROSTER.model_copy(update={"version": 0})),
        signed_roster(ROSTER.model_copy(update={"issued_ms": 9})),
    ],
)
async def test_what_is_not_the_roots_next_one_is_refused(core, world, raw):
    known = core.me.verifier
    code, _ = await ask_for(core, world, "put", PutStatement(statement=raw))
    assert code is Code.FORBIDDEN
    assert core.me.verifier is known


async def test_a_roster_waits_for_the_lists_that_it_names(core, world, monkeypatch):
    monkeypatch.setattr("kcm_core.api.roster_requests.PAGES_WAIT_S", 0.0)
    endorsements = Endorsements([bytes(32)])
    new = PutStatement(statement=signed_roster(without("security", endorsements)))
    code, _ = await ask_for(core, world, "put", new)
    assert code is Code.UNAVAILABLE
    assert core.me.rosters.version == ROSTER.version
    for page, digests in enumerate(pages(endorsements)):
        content = EndorsementsPage(name="security", page=page, digests=digests)
        code, _ = await ask_for(core, world, "endorsements", content)
        assert code is Code.OK
    code, _ = await ask_for(core, world, "put", new)
    assert code is Code.OK
    assert len(core.me.verifier.endorsements["security"]) == 1
    assert (
        world.bus.stream.stored[subjects.control_endorsements("eu", "security", 0)][1]
        == endorsements.raw()
    )


async def test_a_core_shows_the_list_that_the_roster_names_page_by_page(core, world):
    endorsements = Endorsements(
        number.to_bytes(32, "big") for number in range(PAGE_BYTES // 32 + 1)
    )
    for page, digests in enumerate(pages(endorsements)):
        content = EndorsementsPage(name="security", page=page, digests=digests)
        await ask_for(core, world, "endorsements", content)
    new = PutStatement(statement=signed_roster(without("security", endorsements)))
    assert (await ask_for(core, world, "put", new))[0] is Code.OK

    async def shown(name, page):
        query = EndorsementsQuery(name=name, page=page)
        code, payload = await ask_for(core, world, "listed", query, signer="admin")
        assert code is Code.OK
        return decode(EndorsementsPage, payload).digests

    assert [await shown("security", page) for page in range(3)] == [*pages(endorsements), b""]
    assert await shown("stranger", 0) == b""


@pytest.mark.parametrize(
    ("name", "page", "digests"),
    [("stranger", 0, bytes(32)), ("security", 8, bytes(32)), ("security", 0, b"")],
)
async def test_a_page_of_nobody_is_refused(core, world, name, page, digests):
    content = EndorsementsPage(name=name, page=page, digests=digests)
    code, _ = await ask_for(core, world, "endorsements", content)
    assert code is Code.MALFORMED


async def signed_by(core, world, name, after=""):
    code, payload = await ask_for(core, world, "signed", SignedQuery(name=name, after=after))
    assert code is Code.OK
    return decode(SignedPage, payload)


async def test_a_core_names_what_an_operator_signed_that_may_last(core, world):
    core.learn()
    raws = {"tenant acme": signed(Kind.TENANT, TENANT), "link acme-root": signed(Kind.LINK, LINK)}
    for what, raw in raws.items():
        subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, *what.split())
        core.feed.take(Entry(1, subject, entry(raw)))
    held = signed(Kind.HOLD, trust_rig.hold(), "security")
    ended = lift(identity("security"), held, issued_ms=77, reason="over")
    core.switch.issue(core.switch.verify(ended))
    page = await signed_by(core, world, "admin")
    assert [one.what for one in page.entries] == ["link acme-root", "tenant acme"]
    assert page.entries[1].digest == statement_digest(read_signed(raws["tenant acme"]))
    assert not page.more
    page = await signed_by(core, world, "admin", after="link acme-root")
    assert [one.what for one in page.entries] == ["tenant acme"]
    (found,) = (await signed_by(core, world, "security")).entries
    assert found.what == f"lift {trust_rig.hold().id.hex()}"
    assert (found.time_ms, found.digest) == (77, statement_digest(read_signed(ended)))


async def test_a_long_answer_comes_in_pages(core, world, monkeypatch):
    monkeypatch.setattr("kcm_core.api.roster_requests.PAGE_MAX", 1)
    core.learn()
    for what, raw in (
        ("tenant acme", signed(Kind.TENANT, TENANT)),
        ("link acme-root", signed(Kind.LINK, LINK)),
    ):
        subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, *what.split())
        core.feed.take(Entry(1, subject, entry(raw)))
    first = await signed_by(core, world, "admin")
    assert (len(first.entries), first.more) == (1, True)
    second = await signed_by(core, world, "admin", after=first.entries[-1].what)
    assert (len(second.entries), second.more) == (1, False)


async def test_wrapped_keys_are_named_for_the_core_that_signed_them(world, core):
    await core.made()
    page = await signed_by(core, world, "core-eu")
    assert [one.what for one in page.entries] == ["root-keys acme", "service-keys acme crm"]
    assert (await signed_by(core, world, "core-us")).entries == []
    code, _ = await ask_for(core, world, "signed", SignedQuery(name="stranger", after=""))
    assert code is Code.MALFORMED


async def test_a_core_that_is_retired_answers_nobody(core, world):
    core.me.rosters.take(signed_roster(without("core-eu")))
    with pytest.raises(KcmError) as refused:
        await core.admin.handle(
            subjects.admin("eu", "roster", "show"), request(core, "roster", "show", Empty())
        )
    assert refused.value.code is Code.UNAVAILABLE


async def test_records_of_somebody_retired_are_dropped_and_purged_for(core, world):
    core.learn()
    for what, kind, record in (
        ("tenant acme", Kind.TENANT, TENANT), ("link acme-root", Kind.LINK, LINK),
        ("service acme crm", Kind.SERVICE, SERVICE),
    ):  # fmt: skip
        subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, *what.split())
        core.feed.take(Entry(1, subject, entry(signed(kind, record))))
    listed = Endorsements([statement_digest(read_signed(signed(Kind.LINK, LINK)))])
    core.me.rosters.take(signed_roster(without("security")))
    assert core.registry.tenant("acme") == TENANT
    generation = core.revocations.generation("acme")
    later = without("admin", listed).model_copy(update={"version": ROSTER.version + 2})
    later = later.model_copy(
        update={"operators": [
            one if one.operator == "admin" else known
            for one, known in zip(later.operators, without("security").operators, strict=True)
        ]}
    )  # fmt: skip
    core.rosters.stage("admin", 0, listed.raw())
    core.me.rosters.take(signed_roster(later))
    assert core.registry.tenant("acme") is None
    assert core.registry.service("acme", "crm") is None
    assert core.registry.link("acme-root") == LINK
    assert core.revocations.generation("acme") > generation


async def test_sessions_of_a_caller_whose_entry_changed_are_closed(world):
    from tests.unit.test_core_sessions import ticket

    core = world.core()
    core.sessions.open(ticket(core))
    assert len(core.sessions) == 1
    core.me.rosters.take(signed_roster(without("gw-eu")))
    assert len(core.sessions) == 0
    with pytest.raises(KcmError) as refused:
        core.sessions.open(ticket(core))
    assert refused.value.code is Code.FORBIDDEN
