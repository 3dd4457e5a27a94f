"""Races with a kill, each by its name, over the production classes."""

import asyncio
import threading

import pytest
from kcm_gateway.config import EngineSettings
from kcm_gateway.core_client import CoreClient
from kcm_gateway.engine import Gateway
from kcm_gateway.envelope import cached_envelope
from kcm_keymem.arena import Arena, Purged
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.replica.hold_applier import to_record
from kcm_runtime.host import Host
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.l1 import L1State

from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.rig import Incarnation, watched
from tests.unit.switch.statements import LINK, URI, held, hold, lifted, tenant


def place(one, region="eu"):
    return subjects.control_hold(region, one.scope, one.id)


class Gate:
    """Holds operations back while it is closed."""

    def __init__(self, only="unwrap"):
        self.only = only
        self.open = asyncio.Event()
        self.open.set()
        self.inside = 0

    async def __call__(self, operation, uri):
        if operation == self.only:
            self.inside += 1
            await self.open.wait()


class GatewayIncarnation(Incarnation):
    """A Gateway's engine with its own kill switch, asking Cores over a wire that a test holds."""

    envelope_of = staticmethod(cached_envelope)

    def __init__(self, system, name, core, **settings):
        super().__init__(system, name)
        system.incarnations.append(self)
        self.core = core
        self.reply_gate = Gate("reply")
        self.asked = 0
        self.engine = Gateway(
            Host(self.me, self.clock, self.randomness, self.emit),
            self.admission,
            core=CoreClient(self._ask, self.me, self.clock, self.randomness, 4.0),
            randomness=SystemKeyRandomness(),
            settings=EngineSettings(**settings),
            envelope_of=self.envelope_of,
        )

    async def _ask(self, subject, body, timeout_s):
        self.asked += 1
        answer = await self.core.answer(subject, body)
        await self.reply_gate("reply", subject)
        return answer

    def purge(self, tenant):
        super().purge(tenant)
        return self.engine.purge(tenant)

    def learn(self, *records):
        super().learn(*records)


async def pair(system, **settings):
    """A Core and a Gateway of one region, with a tenant and a service."""
    core = system.core("core-eu-1")
    await core.start(regions=False)
    await core.make(tenant())
    gateway = GatewayIncarnation(system, "gw-eu-1", core, **settings)
    gateway.learn(LINK, tenant())
    await gateway.start()
    await settled()
    return core, gateway


async def code_of(awaitable):
    try:
        await awaitable
    except KcmError as error:
        return error.code
    return Code.OK


# Work in flight


async def test_an_unseal_in_flight_when_a_kill_lands_leaves_nothing_open(system):
    core, _ = await pair(system)
    core.purge("acme")
    gate = core.unsealer.hook = Gate()
    gate.open.clear()
    opening = asyncio.create_task(core.loader.ring("acme"))
    await until(lambda: gate.inside)
    core.switch.learn(held(hold()))
    gate.open.set()
    assert await code_of(opening) is Code.TENANT_KILLED
    assert core.vault.open_tenants == []
    assert not core.admission.is_open("acme")


async def test_an_unseal_in_flight_during_a_kill_and_its_lift_leaves_nothing_open(system):
    core, _ = await pair(system)
    core.purge("acme")
    gate = core.unsealer.hook = Gate()
    gate.open.clear()
    one = hold()
    opening = asyncio.create_task(core.loader.ring("acme"))
    await until(lambda: gate.inside)
    core.switch.learn(held(one))
    core.switch.learn(lifted(one))
    gate.open.set()
    assert await code_of(opening) is Code.TENANT_SEALED
    assert core.vault.open_tenants == []
    calls = len(core.unsealer.calls)
    await core.loader.ring("acme")
    assert len(core.unsealer.calls) == calls + 1, "opening it again takes a fresh use of the key"


async def test_a_reply_in_flight_when_the_gateway_hears_of_a_kill_is_thrown_away(system):
    _, gateway = await pair(system)
    gateway.reply_gate.open.clear()
    encrypting = asyncio.create_task(gateway.engine.encrypt("acme", "crm", [b"secret"]))
    await until(lambda: gateway.reply_gate.inside)
    gateway.switch.learn(held(hold()))
    gateway.reply_gate.open.set()
    assert await code_of(encrypting) is Code.TENANT_KILLED
    assert gateway.engine.status().tenants == 0


async def test_a_reply_in_flight_during_a_kill_and_its_lift_is_thrown_away(system):
    _, gateway = await pair(system)
    records = (await gateway.engine.encrypt("acme", "crm", [b"secret"])).values
    one = hold()
    gateway.reply_gate.open.clear()
    before = gateway.reply_gate.inside
    decrypting = asyncio.create_task(gateway.engine.decrypt("acme", "crm", records))
    await until(lambda: gateway.reply_gate.inside > before)
    gateway.switch.learn(held(one))
    gateway.switch.learn(lifted(one))
    gateway.reply_gate.open.set()
    assert await code_of(decrypting) is Code.TENANT_SEALED
    again = await gateway.engine.decrypt("acme", "crm", records)
    assert again.values == [b"secret"]


async def test_a_reply_that_the_core_made_before_the_kill_is_not_used_after_its_lease(system):
    """The Gateway hears nothing of the kill; the reply is held up, and asked for anew."""
    core, gateway = await pair(system)
    gateway.reply_gate.open.clear()
    encrypting = asyncio.create_task(gateway.engine.encrypt("acme", "crm", [b"secret"]))
    await until(lambda: gateway.reply_gate.inside)
    one = to_record(core.me.verifier.hold_or_lift(held(hold())))
    for name in core.revocations.learn(one).purge:  # and nobody else hears of it
        core.purge(name)
    await let_pass(10)
    gateway.reply_gate.open.set()
    assert await code_of(encrypting) is Code.TENANT_KILLED
    assert gateway.asked == 2


async def test_replies_that_come_after_their_lease_are_never_used(system):
    _, gateway = await pair(system)
    for _ in range(3):
        gateway.reply_gate.open.clear()
        encrypting = asyncio.create_task(gateway.engine.encrypt("acme", "crm", [b"secret"]))
        for _ in range(2):
            inside = gateway.reply_gate.inside
            await until(lambda seen=inside: gateway.reply_gate.inside > seen)
            await let_pass(10)
            gateway.reply_gate.open.set()
            gateway.reply_gate.open.clear()
        assert await code_of(encrypting) is Code.DEADLINE_EXCEEDED
    gateway.reply_gate.open.set()
    assert (await gateway.engine.encrypt("acme", "crm", [b"secret"])).values


async def test_a_refill_of_a_pool_in_flight_when_a_kill_lands_brings_no_key(system):
    _, gateway = await pair(system)
    await gateway.engine.encrypt("acme", "crm", [b"x"])
    gateway.reply_gate.open.clear()
    before = gateway.reply_gate.inside
    waiting = [
        asyncio.create_task(gateway.engine.encrypt("acme", "crm", [b"x"] * 1000)) for _ in range(5)
    ]
    await until(lambda: gateway.reply_gate.inside > before)
    one = hold()
    gateway.switch.learn(held(one))
    gateway.switch.learn(lifted(one))
    gateway.reply_gate.open.set()
    assert {await code_of(one) for one in waiting} == {Code.TENANT_SEALED}
    assert gateway.engine.status().tenants == 0
    assert len((await gateway.engine.encrypt("acme", "crm", [b"x"])).values) == 1


async def test_a_core_that_hears_of_a_kill_while_it_serves_answers_nothing(system):
    core, gateway = await pair(system)
    core.purge("acme")
    gate = core.unsealer.hook = Gate()
    gate.open.clear()
    encrypting = asyncio.create_task(gateway.engine.encrypt("acme", "crm", [b"secret"]))
    await until(lambda: gate.inside)
    core.switch.learn(held(hold()))
    gate.open.set()
    assert await code_of(encrypting) is Code.TENANT_KILLED


# Kill and lift, in every order


async def test_generations_differ_after_kill_lift_and_kill(system):
    """Equality, not order: whatever began in one of them has no output in another."""
    _, gateway = await pair(system)
    first, second = hold(), hold()
    admission, clock = gateway.admission, gateway.clock
    permits = [admission.admit("acme", clock.elapsed())]
    for step in (held(first), lifted(first), held(second), lifted(second)):
        gateway.switch.learn(step)
        for permit in permits:
            with pytest.raises(KcmError) as caught:
                admission.recheck(permit, clock.elapsed())
            killed = gateway.revocations.killed("acme")
            assert caught.value.code is (Code.TENANT_KILLED if killed else Code.TENANT_SEALED)
        if not gateway.revocations.killed("acme"):
            permits.append(admission.admit("acme", clock.elapsed()))
            admission.recheck(permits.pop(), clock.elapsed())
    assert gateway.purged.count("acme") == 2


async def test_a_lift_that_races_another_kill_lifts_only_its_own(system):
    cores = [system.core(f"core-eu-{n}") for n in (1, 2)]
    await asyncio.gather(*(core.start(regions=False, watch=False) for core in cores))
    first, second = hold(), hold()
    for core in cores:
        core.switch.learn(held(first))
    await asyncio.gather(
        cores[0].switch.broadcast(cores[0].switch.verify(lifted(first))),
        cores[1].switch.broadcast(cores[1].switch.verify(held(second))),
    )
    await until(lambda: all(len(core.revocations.holds) == 2 for core in cores))
    await until(lambda: all(core.switch.all_durable for core in cores))
    assert all(core.revocations.killed("acme") for core in cores)
    for core in cores:
        core.switch.learn(lifted(second))
        assert not core.revocations.killed("acme")


async def test_a_lift_that_arrives_before_its_hold_leaves_nothing_killed(system):
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    one = hold()
    for raw in (lifted(one), held(one), held(one)):
        incarnation.switch.learn(raw)
    assert not incarnation.revocations.killed("acme")
    assert incarnation.purged == []


async def test_two_operators_at_once_need_two_lifts(system):
    core = system.core("core-eu-1")
    await core.start(regions=False, watch=False)
    await watched(system)
    core.learn(LINK, tenant())
    one, two = hold(), hold()
    deadline = core.clock.unix_ms() + 20_000
    statuses = await asyncio.gather(
        core.kills.place(held(one), deadline),
        core.kills.place(held(two, "security-2"), deadline),
    )
    assert all(status.complete for status in statuses)
    status = await core.kills.place(lifted(one), deadline)
    assert status.lifted
    assert core.revocations.killed("acme")
    await core.kills.place(lifted(two, "security-2"), deadline)
    assert not core.revocations.killed("acme")


async def test_the_same_kill_sent_twice_at_once_is_one_kill(system):
    core = system.core("core-eu-1")
    await core.start(regions=False, watch=False)
    await watched(system)
    core.learn(LINK, tenant())
    raw = held(hold())
    deadline = core.clock.unix_ms() + 20_000
    both = await asyncio.gather(*(core.kills.place(raw, deadline) for _ in range(2)))
    assert all(status.complete for status in both)
    assert core.purged.count("acme") == 1


# While an incarnation catches up


async def test_a_kill_that_is_broadcast_while_an_incarnation_catches_up_is_heard(system):
    stream = system.streams["eu"]
    for number in range(50):
        stream.store(place(hold(target=f"t{number}")), held(hold(target=f"t{number}")))
    incarnation = system.incarnation("gw-eu-1")
    one = hold()
    incarnation.follower.paused = True
    starting = asyncio.create_task(incarnation.start())
    await settled()
    assert not starting.done()
    await system.wire.join("outside").publish(
        subjects.broadcast_hold("eu", "tenant", one.id), held(one)
    )
    await settled()
    assert incarnation.revocations.killed("acme")
    assert not incarnation.live()
    incarnation.follower.resume()
    await starting
    assert incarnation.live()
    assert incarnation.revocations.killed("acme")


async def test_a_kill_stored_while_an_incarnation_catches_up_is_known_before_its_lease(system):
    stream = system.streams["eu"]
    one = hold()
    incarnation = system.incarnation("gw-eu-1")
    stored = []

    async def just_before(operation, subject):
        if operation == "put" and not stored:
            stored.append(stream.store(place(one), held(one)))

    incarnation.log.before = just_before
    incarnation.on_purge = lambda _: not incarnation.live() or pytest.fail("it had a lease already")
    await incarnation.start()
    assert stored
    assert incarnation.purged == ["acme"]


async def test_stale_messages_replayed_after_a_lift_kill_nobody(system):
    core, gateway = await pair(system)
    one = hold()
    for raw in (held(one), lifted(one)):
        await core.kills.place(raw, core.clock.unix_ms() + 20_000)
    await until(lambda: not gateway.revocations.killed("acme"))
    purged = len(gateway.purged), len(core.purged)
    for _ in range(10):
        await system.wire.join("outside").publish(
            subjects.broadcast_hold("eu", "tenant", one.id), held(one)
        )
        core.stream.store(place(one), held(one))
        await settled()
    assert not gateway.revocations.killed("acme")
    assert (len(gateway.purged), len(core.purged)) == purged
    await until(lambda: core.stream.entries[place(one)].data == lifted(one))
    assert len((await gateway.engine.encrypt("acme", "crm", [b"x"])).values) == 1


# Whoever dies


async def test_an_issuer_that_dies_between_broadcast_and_acknowledgement_loses_nothing(system):
    issuer, other = system.core("core-eu-1"), system.core("core-eu-2")
    await asyncio.gather(*(c.start(regions=False, watch=False) for c in (issuer, other)))
    one = hold()

    async def never(operation, subject):
        if operation == "put" and ".hold." in subject:
            raise KcmError(Code.UNAVAILABLE)

    issuer.log.before = never
    placing = asyncio.create_task(issuer.kills.place(held(one), issuer.clock.unix_ms() + 60_000))
    await until(lambda: other.revocations.killed("acme"))
    placing.cancel()
    await issuer.crash()
    await until(lambda: place(one) in other.stream.entries)
    late = system.incarnation("gw-eu-1")
    await late.start()
    assert late.revocations.killed("acme")


async def test_an_issuer_that_dies_before_it_broadcasts_is_repeated_by_its_client(system):
    issuer, other = system.core("core-eu-1"), system.core("core-eu-2")
    await asyncio.gather(*(c.start(regions=False, watch=False) for c in (issuer, other)))
    one = hold()
    issuer.bus.connected = issuer.log.connected = False
    placing = asyncio.create_task(issuer.kills.place(held(one), issuer.clock.unix_ms() + 60_000))
    await until(lambda: issuer.revocations.killed("acme"))
    placing.cancel()
    await issuer.crash()
    other.learn(LINK, tenant())
    status = await other.kills.place(held(one), other.clock.unix_ms() + 20_000)
    assert other.revocations.killed("acme")
    assert not status.complete, (
        "the dead issuer's incarnation is on record until its lease has ended"
    )
    await let_pass(system.timing.incarnation_bound_s(0) + 1)
    status = await other.kills.status(one.id)
    assert status.complete
    assert {incarnation.how for incarnation in status.incarnations} == {"receipt", "lease-ended"}


async def test_a_crash_right_after_the_purge_loses_nothing(system):
    core, other = system.core("core-eu-1"), system.core("core-eu-2")
    await asyncio.gather(*(c.start(regions=False, watch=False) for c in (core, other)))
    one = hold()
    await system.wire.join("outside").publish(
        subjects.broadcast_hold("eu", "tenant", one.id), held(one)
    )
    await until(lambda: core.purged and other.purged)
    await core.crash()
    again = system.core("core-eu-1")
    await until(lambda: place(one) in core.stream.entries)
    await again.start(regions=False, watch=False)
    assert again.revocations.killed("acme")


async def test_a_restart_loop_neither_serves_nor_keeps_a_kill_from_being_complete(system):
    core = system.core("core-eu-1")
    await core.start(regions=False, watch=False)
    core.learn(LINK, tenant())
    one = hold()
    for number in range(30):
        incarnation = system.incarnation("gw-eu-1")
        if number == 15:
            await core.kills.place(held(one), core.clock.unix_ms() + 20_000)
        await incarnation.start()
        assert incarnation.revocations.killed("acme") == (number >= 15)
        await incarnation.crash()
        await let_pass(0.5)
    last = system.incarnation("gw-eu-1")
    await last.start()
    assert last.revocations.killed("acme")
    await let_pass(system.timing.incarnation_bound_s(0) + 1)
    status = await core.kills.status(one.id)
    assert status.complete
    assert {incarnation.how for incarnation in status.incarnations} <= {
        "receipt",
        "started-after",
        "lease-ended",
    }


async def test_a_silent_incarnation_is_waited_for_until_its_lease_and_answer_have_ended(system):
    core, silent = system.core("core-eu-1"), system.incarnation("gw-eu-1")
    await asyncio.gather(core.start(regions=False, watch=False), silent.start())
    core.learn(LINK, tenant())
    silent.log.disconnect()
    silent.bus.connected = False
    one = hold()
    status = await core.kills.place(held(one), core.clock.unix_ms() + 20_000)
    while not status.complete:
        assert not [
            b for b in status.incarnations if b.instance == "gw-eu-1" and b.how != "waiting"
        ]
        await let_pass(0.5)
        status = await core.kills.status(one.id)
        if status.complete:
            assert not silent.live()
    assert [b.how for b in status.incarnations if b.instance == "gw-eu-1"] == ["lease-ended"]


async def test_a_purge_while_a_worker_thread_uses_the_key_wipes_at_once_and_gives_no_output():
    """The memory stays mapped until the thread is done: nobody else's key appears there."""
    arena = Arena()
    entered, go = threading.Event(), threading.Event()
    seen = []

    def work():
        try:
            with arena.use() as view:
                view[:4] = b"key!"
                entered.set()
                go.wait(10)
                seen.append(bytes(view[:4]))
        except Purged:
            seen.append("purged")

    worker = threading.Thread(target=work)
    worker.start()
    entered.wait(10)
    arena.purge()
    go.set()
    worker.join()
    assert seen == [bytes(4), "purged"]
    with pytest.raises(Purged), arena.use():
        pass


async def test_a_key_that_refuses_in_the_middle_of_an_unseal_of_somebody_else_stops_that(system):
    """Two tenants on one link: one unseal is under way when the other one is refused."""
    core = system.core("core-eu-1")
    await core.start(regions=False)
    await core.make(tenant("acme"), tenant("beta"))
    core.purge("acme")
    core.purge("beta")
    gate = core.unsealer.hook = Gate()
    gate.open.clear()
    acme = asyncio.create_task(core.loader.ring("acme"))
    await until(lambda: gate.inside == 1)
    roots = await core.store.root("acme")
    core.watch.answered(core.watch.ask("acme", roots.versions[0]), L1State.DISABLED)
    gate.open.set()
    assert await code_of(acme) is Code.TENANT_KILLED
    assert core.vault.open_tenants == []
    assert core.unsealer.key(URI).state is L1State.ENABLED
