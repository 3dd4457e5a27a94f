"""Two Cores and a Gateway's client, over a bus that a test bends."""

from __future__ import annotations

from kcm_gateway.core_client import CoreClient, caller_of
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_sessions import session_opener

from tests.unit.core_rig import World, instance_context, is_request, lease_of
from tests.unit.test_gateway_core_client import fresh


class Region:
    """Two Cores on a bus that a test bends: ``before`` runs before each request is delivered."""

    def __init__(self, world: World, first, second):
        self.world = world
        self.cores = {"core-eu": first, "core-eu-2": second}
        self.asked = []
        self.body = b""
        """The request whose answer ``after`` gets."""
        self.before = None
        self.after = None
        self.me = instance_context("gw-eu")
        self.revocations = Revocations(Registry(), "eu")
        for core in self.cores.values():
            core.incarnations.take(lease_of(self.me), 1, world.clock.elapsed())

    async def ask(self, subject, body, timeout_s):
        name = subject.split(".")[4]
        what = "work" if is_request(subject) else subject.split(".")[5]
        self.asked.append((name, what))
        if self.before is not None:
            await self.before(name, what, timeout_s)
        answer = await self.cores[name].answer(subject, body)
        self.body = body
        return self.after(name, what, answer) if self.after is not None else answer

    def client(self):
        clock = self.world.clock
        me = caller_of(self.me, HeldKeys(self.revocations, "instance"))
        return CoreClient(self.ask, me, clock, SystemKeyRandomness(), 2.0, sleep=clock.sleep)

    def works(self):
        """The Cores that got the requests, in order."""
        return [name for name, what in self.asked if what == "work"]


async def wrap(client):
    return await client.wrap("acme", "crm", "record", fresh())


def watched_sessions(monkeypatch):
    """The keys of the sessions that clients begin from now on."""
    made, begin = [], session_opener.open_session_as_caller

    def watched(*arguments):
        opened = begin(*arguments)
        made.append(opened[0])
        return opened

    monkeypatch.setattr(session_opener, "open_session_as_caller", watched)
    return made


async def two_cores(path):
    """A region with two Cores that know the same tenant."""
    world = World(path)
    first = await world.core().made()
    second = world.core("core-eu-2")
    second.learn()
    return Region(world, first, second)
