"""Races with a kill, each by its name, over the production classes."""

import asyncio
import threading

import pytest
from kcm_keymem.arena import Arena, Purged
from kcm_killswitch.replica.hold_applier import to_state
from kcm_schemas.codes import Code
from kcm_schemas.l1 import L1State

from tests.fakes.virtual import let_pass, until
from tests.unit.switch.gateway_incarnation import Gate, code_of, pair
from tests.unit.switch.statements import URI, held, hold, lifted, tenant

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
    assert await code_of(opening) is Code.TENANT_UNAVAILABLE
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
    assert await code_of(decrypting) is Code.TENANT_UNAVAILABLE
    again = await gateway.engine.decrypt("acme", "crm", records)
    assert again.values == [b"secret"]


async def test_a_reply_that_the_core_made_before_the_kill_is_not_used_after_its_lease(system):
    """The Gateway hears nothing of the kill; the reply is held up, and asked for anew."""
    core, gateway = await pair(system)
    gateway.reply_gate.open.clear()
    encrypting = asyncio.create_task(gateway.engine.encrypt("acme", "crm", [b"secret"]))
    await until(lambda: gateway.reply_gate.inside)
    one = to_state(core.me.verifier.hold_or_lift(held(hold())))
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
    assert {await code_of(one) for one in waiting} == {Code.TENANT_UNAVAILABLE}
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
