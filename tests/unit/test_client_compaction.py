"""An operator pages lifted holds: only what was verified goes into what is signed."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kcm import Admin
from kcm.compaction import Compaction
from kcm.errors import UntrustedReply
from kcm_schemas import limits
from kcm_schemas.admin import Empty, LiftedPage, LiftedQuery, PagesPage, PagesQuery, PutStatement
from kcm_schemas.codec import decode
from kcm_trust import statements
from kcm_trust.identity import Identity

from tests.fakes.client import FakeSystem

OLD, YOUNG = 1_000, 9_000
BEFORE = 5_000


@pytest.fixture
def system(tmp_path):
    return FakeSystem(tmp_path)


@pytest.fixture
def admin(system):
    return Admin(system.context(), opener=system.open, around=system.clock.around())


class Core:
    """What a Core has, and what it was given."""

    def __init__(self, system, *lifts):
        self.lifts, self.pages, self.per_page = list(lifts), [], 2
        core = system.cores["eu"]
        core.handlers["hold", "lifted"] = self.lifted
        core.handlers["hold", "pages"] = self.listed
        core.handlers["hold", "page"] = self.put

    def lifted(self, request, operator):
        after = decode(LiftedQuery, request.payload).after
        left = [one for one in self.lifts if statements.hold_of(one) > after]
        return LiftedPage(lifts=left[: self.per_page], more=len(left) > self.per_page)

    def listed(self, request, operator):
        after = decode(PagesQuery, request.payload).after
        left = sorted(
            (one for one in self.pages if statements.key_of_page(one) > after),
            key=statements.key_of_page,
        )
        return PagesPage(pages=left[:1], more=len(left) > 1)

    def put(self, request, operator):
        self.pages.append(decode(PutStatement, request.payload).statement)
        return Empty()


def lifts(admin, *moments, prefix=None):
    """Signed lifts of as many holds, by the holds' ids."""
    found = []
    while len(found) < len(moments):
        hold_id, raw = statements.hold(
            admin.identity, scope="tenant", target="acme", cause="operator", origin="eu",
            issued_ms=1, reason="", salt=admin.randomness.public(16),
        )  # fmt: skip
        if prefix is None or hold_id[0] == prefix:
            moment = moments[len(found)]
            found.append(statements.lift(admin.identity, raw, issued_ms=moment, reason=""))
    return sorted(found, key=statements.hold_of)


def paged(admin, pages):
    ids = b"".join(admin.verifier.lifts(raw).lifts.ids for raw in pages)
    return sorted(ids[at : at + 16] for at in range(0, len(ids), 16))


async def work(admin, dry_run=False):
    compaction, seen = Compaction(admin, "eu"), []
    found = await compaction.find(BEFORE, seen.append)
    count = 0 if dry_run else await compaction.write(found, seen.append)
    return found, count, seen


async def test_old_lifts_go_into_pages_and_young_ones_stay(system, admin):
    raws = lifts(admin, OLD, YOUNG, OLD, OLD)
    core = Core(system, *raws)
    found, count, seen = await work(admin)
    old = [raw for raw in raws if admin.verifier.lift(raw).lift.issued_ms == OLD]
    assert paged(admin, core.pages) == [statements.hold_of(raw) for raw in old]
    assert (count, found.count, found.young, found.unsure) == (3, 3, 1, 0)
    assert seen[:2] == [2, 4]
    assert seen[-1] == 3


async def test_an_own_page_is_signed_again_with_what_it_had(system, admin):
    first, second = lifts(admin, OLD, OLD, prefix=7)
    core = Core(system, first)
    await work(admin)
    core.lifts = [first, second]
    assert (await work(admin))[1] == 1
    assert paged(admin, core.pages[1:]) == list(map(statements.hold_of, (first, second)))
    assert (await work(admin))[1] == 0
    assert len(core.pages) == 2


async def test_nothing_is_signed_on_a_cores_word(system, admin):
    """A Core that wants a kill to end could list it as lifted."""
    stranger = Identity(admin.identity.name, Ed25519PrivateKey.generate(), admin.identity.system)
    hold_id, held = statements.hold(
        admin.identity, scope="tenant", target="acme", cause="operator", origin="eu",
        issued_ms=1, reason="", salt=bytes(16),
    )  # fmt: skip
    core = Core(system, statements.lift(stranger, held, issued_ms=OLD, reason=""))
    found, count, _ = await work(admin)
    assert (count, found.count, found.unsure, core.pages) == (0, 0, 1, [])
    core.pages.append(
        statements.lifts(stranger, cause="operator", origin="eu", issued_ms=1, ids=hold_id)
    )
    core.lifts = lifts(admin, OLD)
    with pytest.raises(UntrustedReply, match="own page"):
        await work(admin)
    assert len(core.pages) == 1


async def test_a_full_page_takes_no_more(system, admin, monkeypatch):
    monkeypatch.setattr(limits, "LIFTS_MAX", 2)
    core = Core(system, *lifts(admin, OLD, OLD, OLD, prefix=7))
    assert (await work(admin))[1] == 2
    assert (await work(admin))[1] == 0
    assert len(core.pages) == 1


async def test_looking_changes_nothing(system, admin):
    core = Core(system, *lifts(admin, OLD))
    found, count, _ = await work(admin, dry_run=True)
    assert (found.count, count, core.pages) == (1, 0, [])
