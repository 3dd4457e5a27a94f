"""A kill's way through a Core: verified once, broadcast once; a look publishes nothing."""

from kcm_trust.verify import Verifier

from tests.fakes.virtual import let_pass
from tests.unit.switch.results import finished, started, watched
from tests.unit.switch.statements import LINK, held, hold, lifted, tenant


def broadcasts(system, one):
    return [m for m in system.wire.sent if ".hold." in m.subject and m.data == held(one)]


def pulls(system):
    return [m for m in system.wire.sent if ".pull." in m.subject]


async def test_the_core_that_takes_an_order_verifies_its_signature_once(system, monkeypatch):
    core = await started(system, "core-eu-1")
    judged = []

    def counting(self, raw):
        judged.append(raw)
        return before(self, raw)

    before = Verifier.hold_or_lift
    monkeypatch.setattr(Verifier, "hold_or_lift", counting)
    one = hold()
    await core.kills.place(held(one), core.clock.unix_ms() + 5_000)
    await let_pass(2.0)  # its own broadcast and the stream bring it once more
    assert judged.count(held(one)) == 1


async def test_an_order_is_broadcast_once_and_again_when_it_is_given_again(system):
    core = await started(system, "core-eu-1")
    one = hold()
    for times in (1, 2):
        await core.kills.place(held(one), core.clock.unix_ms() + 5_000)
        await let_pass(1.0)
        assert len(broadcasts(system, one)) == times


async def test_a_look_at_a_kill_publishes_nothing_that_is_not_a_question(system):
    core = await started(system, "core-eu-1")
    one = hold()
    await core.kills.place(held(one), core.clock.unix_ms() + 5_000)
    before = len(system.wire.sent)
    for _ in range(5):
        await core.kills.status(one.id)
    sent = system.wire.sent[before:]
    assert not [m for m in sent if ".hold." in m.subject or ".receipt." in m.subject]


async def test_a_receipt_that_was_lost_comes_when_the_order_is_given_again(system):
    core = await started(system, "core-eu-1")
    gateway = system.incarnation("gw-eu-1")
    gateway.learn(LINK, tenant())
    await gateway.start()
    await watched(system)
    system.wire.loses = lambda _sender, _receiver, subject: ".receipt." in subject
    one = hold()
    status = await core.kills.place(held(one), core.clock.unix_ms() + 5_000)
    assert not status.complete
    system.wire.loses = lambda *_: False
    assert not (await core.kills.status(one.id)).complete
    await core.kills.place(held(one), core.clock.unix_ms() + 5_000)
    await let_pass(0.5)
    status = await core.kills.status(one.id)
    assert {each.how for each in status.incarnations} == {"receipt"}
    assert status.complete, status


async def test_a_lift_takes_the_same_way(system):
    core = await started(system, "core-eu-1")
    one, _ = await finished(system, core)
    before = len(system.wire.sent)
    status = await core.kills.place(lifted(one), core.clock.unix_ms() + 5_000)
    assert status.lifted
    assert [m.data for m in system.wire.sent[before:] if ".hold." in m.subject] == [lifted(one)]


async def test_without_instances_a_preview_asks_no_region(system):
    core = await started(system, "core-eu-1", regions=True, of=("eu", "us"))
    before = len(pulls(system))
    radius = await core.kills.preview("tenant", "acme", instances=False)
    assert radius.tenants == ["acme"]
    assert radius.incarnations == []
    assert len(pulls(system)) == before
