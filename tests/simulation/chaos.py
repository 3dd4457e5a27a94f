"""What goes wrong, one function for one kind of fault, and what mends all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from kcm_core.providers.state import L1State

from tests.simulation.core import SimCore
from tests.simulation.filling import DISKS
from tests.simulation.following import SimFollowing
from tests.simulation.instance import Instance
from tests.simulation.missing import MISSING
from tests.simulation.network import Leg, Weather
from tests.simulation.nodes import THREAD_S
from tests.simulation.paging import PAGING
from tests.simulation.plan import OPERATORS, Fault
from tests.simulation.results import RESULTS
from tests.simulation.setbacks import SETBACKS
from tests.simulation.stream import ControlStream, Store

if TYPE_CHECKING:
    from tests.simulation.world import World

REFUSALS: Final = (
    L1State.DISABLED, L1State.FORBIDDEN, L1State.PENDING_DELETION, L1State.DELETED,
)  # fmt: skip


class Chaos:
    """Applies faults, and heals."""

    def __init__(self, world: World) -> None:
        self._world: Final = world
        self._loop: Final = world.loop
        self._over = False
        self._kinds: Final[dict[str, Callable[[Fault], None]]] = {
            name.removeprefix("_do_").replace("_", "-"): getattr(self, name)
            for name in dir(self)
            if name.startswith("_do_")
        } | {
            name: partial(do, world)
            for name, do in {**MISSING, **DISKS, **PAGING, **RESULTS, **SETBACKS}.items()
        }

    def schedule(self, faults: list[Fault]) -> None:
        """Have every fault happen at its time."""
        for fault in faults:
            self._loop.at(fault.at, self._begin, fault)

    def heal(self) -> None:
        """Mend everything, and start whoever is down."""
        world, self._over = self._world, True
        world.armed.clear()
        world.gone_s = 0.0
        world.answers_s = 0.0
        world.muted = False
        world.unheard.clear()
        world.stuck.clear()
        world.network.weather = Weather()
        world.network.cut_sides.clear()
        for leg in world.network.leaves.values():
            leg.loss = 0.0
            leg.mend(flush=True)
        for stream in (*world.streams.values(), *(one.stream for one in world.buckets.values())):
            stream.store = Store()
            stream.ack_s = stream.hold_s = stream.roster_s = 0.0
            stream.on_put = lambda _: True
            stream.start()
            if stream.split:
                stream.heal()
        world.keys.mend()
        world.rosters.heal()
        for store in (*world.disks.values(), *world.results.values()):
            store.mend()
        for instance in list(world.running.values()):
            self._mend(instance)
        for name in world.members:
            world.start(name)
        world.oracle.note("healed")

    def _begin(self, fault: Fault) -> None:
        if not self._over:
            self._world.oracle.note(f"fault: {fault.kind} for {fault.lasts:.1f} s")
            self._kinds[fault.kind](fault)

    def _later(self, fault: Fault, undo: Callable[[], None]) -> None:
        def unless_over() -> None:
            if not self._over:
                undo()

        self._loop.after(fault.lasts, unless_over)

    def _victim(self, fault: Fault) -> Instance | None:
        running = [
            one
            for _, one in sorted(self._world.running.items())
            if fault.region in ("", one.who.region)
        ]
        return running[int(fault.pick * len(running))] if running else None

    def _region(self, fault: Fault) -> str:
        regions = [fault.region] if fault.region else self._world.plan.regions
        return regions[int(fault.pick * len(regions))]

    def _stream(self, fault: Fault) -> ControlStream:
        return self._world.streams[self._region(fault)]

    def _stored(self, fault: Fault) -> list[ControlStream]:
        """Everything that the brokers of a region store."""
        bucket = self._world.buckets.get(self._region(fault))
        return [self._stream(fault), *([bucket.stream] if bucket else [])]

    def _uri(self, fault: Fault) -> str:
        uris = sorted(self._world.keys.keys)
        return uris[int(fault.pick * len(uris))]

    def _mend(self, instance: Instance) -> None:
        self._loop.resume(instance.node)
        instance.clock.wall_s = 0.0
        if isinstance(instance, SimCore):
            instance.unsealer.wrong_credentials = False
        for bus in (instance.region_bus, instance.control_bus):
            bus.connected = True
            bus.leg.mend(flush=True)
        for following in self._world.streams[instance.who.region].followings:
            following.slow_s, following.stuck = 0.0, False
            if following.lags:
                self._catch_up(following)
        instance.node.thread_s = THREAD_S
        if instance.reads is not None and instance.reads.following.lags:
            self._catch_up(instance.reads.following)

    # Processes.

    def _do_pause(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is not None:
            self._world.coverage.saw("a pause")
            self._loop.pause(victim.node)
            self._later(fault, lambda: self._loop.resume(victim.node))

    def _do_suspend(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is not None and victim.node.slept_at is None:
            self._world.coverage.saw("a suspend")
            self._loop.suspend(victim.node)
            self._later(fault, lambda: self._loop.resume(victim.node))

    def _do_host_suspend(self, fault: Fault) -> None:
        """The machine of one side sleeps; what was sent to it meanwhile is lost."""
        self._world.coverage.saw("a suspend")
        for victim in self._side(fault):
            if victim.node.slept_at is None:
                self._loop.suspend(victim.node)
                for bus in (victim.region_bus, victim.control_bus):
                    self._break(fault, bus.leg, "cut")
                self._later(fault, lambda node=victim.node: self._loop.resume(node))
        self._silence(self._region(fault))

    def _do_crash(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is not None:
            name = victim.who.name
            self._world.crash(name)
            self._later(fault, lambda: self._world.start(name))

    def _do_restart_loop(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is None:
            return
        name, world = victim.who.name, self._world
        world.coverage.saw("a restart loop")
        for number in range(4):
            again = fault.lasts if fault.lasts < 1 else 2.0
            self._loop.after(number * again, self._crash, name)
            self._loop.after(again * (number + world.random.uniform(0.05, 0.95)), world.start, name)

    def _crash(self, name: str) -> None:
        if not self._over:
            self._world.crash(name)

    def _do_wall_jump(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is not None:
            self._world.coverage.saw("a wall clock that jumps")
            victim.clock.wall_s = (fault.pick - 0.5) * 600
            self._later(fault, lambda: setattr(victim.clock, "wall_s", 0.0))

    def _do_crash_after_purge(self, fault: Fault) -> None:
        self._world.armed["crash-after-purge"] += 1

    def _do_kill_issuer(self, fault: Fault) -> None:
        self._world.armed["kill-issuer"] += 1

    def _do_slow_answers(self, fault: Fault) -> None:
        """Cores' answers take long, though they were computed at once."""
        self._world.answers_s = 1.8
        self._later(fault, lambda: setattr(self._world, "answers_s", 0.0))

    def _do_hold_reply(self, fault: Fault) -> None:
        self._world.armed["hold-reply"] += 4

    # Networks.

    def _do_disconnect(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is not None:
            for bus in (victim.region_bus, victim.control_bus):
                bus.disconnect()
                self._later(fault, bus.reconnect)
            self._silence(victim.who.region)

    def _do_stall(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if victim is not None:
            self._world.coverage.saw("a late flush")
            for bus in (victim.region_bus, victim.control_bus):
                self._break(fault, bus.leg, "stalled")
            self._silence(victim.who.region)

    def _do_leaf_stall(self, fault: Fault) -> None:
        self._world.coverage.saw("a late flush")
        self._break(fault, self._world.network.leaves[self._region(fault)], "stalled")

    def _do_leaf_cut(self, fault: Fault) -> None:
        self._world.coverage.saw("a cut leaf")
        self._break(fault, self._world.network.leaves[self._region(fault)], "cut")

    def _do_leaf_loss(self, fault: Fault) -> None:
        leg = self._world.network.leaves[self._region(fault)]
        leg.loss = 0.7
        self._later(fault, lambda: setattr(leg, "loss", 0.0))

    def _do_backbone_cut(self, fault: Fault) -> None:
        self._world.coverage.saw("a cut leaf")
        for leg in self._world.network.leaves.values():
            self._break(fault, leg, "cut")

    def _do_region_cut(self, fault: Fault) -> None:
        self._world.coverage.saw("a region cut off")
        self._break(fault, self._world.network.leaves[self._region(fault)], "stalled")

    def _do_storm(self, fault: Fault) -> None:
        network, calm = self._world.network, self._world.network.weather
        network.weather = Weather(
            delay_s=0.02, late=0.1, late_s=15.0, loss=0.2, twice=0.1, reorder=True, pending_max=2
        )
        self._later(fault, lambda: setattr(network, "weather", calm))

    def _break(self, fault: Fault, leg: Leg, state: str) -> None:
        leg.state = "cut" if state == "cut" else "stalled"
        flush = fault.pick < 0.7
        self._later(fault, lambda: leg.mend(flush=flush))

    def _silence(self, region: str) -> None:
        for following in self._world.streams[region].followings:
            if following.connection.leg.state != "open":
                following.silence()

    def _do_deaf_side(self, fault: Fault) -> None:
        """The brokers of one side take writes, and deliver nothing of the kill switch."""
        self._world.coverage.saw("a side that hears nothing")
        for victim in self._side(fault):
            self._deafen(fault, victim)

    def _do_deaf_gateways(self, fault: Fault) -> None:
        """A region's Gateways hear no broadcast, and are delivered nothing."""
        region = self._region(fault)
        for _, victim in sorted(self._world.running.items()):
            if victim.who.region == region and victim.who.role == "gateway":
                self._deafen(fault, victim)

    def _do_cut_gateways(self, fault: Fault) -> None:
        """A region's Gateways hear nothing, and are heard by nobody."""
        region = self._region(fault)
        for _, victim in sorted(self._world.running.items()):
            if victim.who.region == region and victim.who.role == "gateway":
                for bus in (victim.region_bus, victim.control_bus):
                    bus.leg.state = "cut"
                    self._later(fault, lambda leg=bus.leg: leg.mend(flush=False))
        self._silence(region)

    def _do_stuck_starts(self, fault: Fault) -> None:
        """Whoever starts in a region meanwhile hears no broadcast, and cannot read the stream."""
        stuck, region = self._world.stuck, self._region(fault)
        stuck[region] = []

        def free() -> None:
            for victim in stuck.pop(region, []):
                victim.control_bus.leg.mend(flush=False)
                for following in self._world.streams[region].followings:
                    following.stuck = False

        self._later(fault, free)

    def _deafen(self, fault: Fault, victim: Instance) -> None:
        self._break(fault, victim.control_bus.leg, "stalled")
        for following in self._world.streams[victim.who.region].followings:
            if following.connection is victim.region_bus:
                following.lags = True
                self._later(fault, lambda one=following: self._catch_up(one))

    def _do_mute_side(self, fault: Fault) -> None:
        """One side hears no broadcast."""
        for victim in self._side(fault):
            victim.control_bus.leg.state = "cut"
            self._later(fault, lambda leg=victim.control_bus.leg: leg.mend(flush=False))

    def _do_slow_side(self, fault: Fault) -> None:
        """One side hears no broadcast, and is delivered its stream long after it was written."""
        self._do_mute_side(fault)
        late = self._world.plan.timing.control_lease_s * (1.5 + fault.pick)
        for victim in self._side(fault):
            for following in self._world.streams[victim.who.region].followings:
                if following.connection is victim.region_bus:
                    following.slow_s = late
                    self._later(fault, lambda one=following: setattr(one, "slow_s", 0.0))

    def _do_crash_side(self, fault: Fault) -> None:
        """One side ends, and is started again."""
        for victim in self._side(fault):
            self._world.crash(victim.who.name)
            self._later(fault, lambda name=victim.who.name: self._world.start(name))

    def _do_replace_side(self, fault: Fault) -> None:
        """One side goes on on other machines, whose disks are empty."""
        for victim in self._side(fault):
            self._world.disks.pop(victim.who.name, None)
        self._do_crash_side(fault)

    def _do_crash_gateways(self, fault: Fault) -> None:
        """All Gateways of a region end, and are started again."""
        region = self._region(fault)
        for name, victim in sorted(self._world.running.items()):
            if victim.who.region == region and victim.who.role == "gateway":
                self._world.crash(name)
                self._later(fault, lambda name=name: self._world.start(name))

    def _do_crash_cores(self, fault: Fault) -> None:
        """All Cores of a region end, and are started again."""
        for core in self._world.cores(self._region(fault)):
            self._world.crash(core.who.name)
            self._later(fault, lambda name=core.who.name: self._world.start(name))

    def _catch_up(self, following: SimFollowing) -> None:
        following.lags = False
        following.offer_missed()

    def _side(self, fault: Fault) -> list[Instance]:
        """Everybody on one side of a region, drawn; all of it where there is one Core only."""
        region, running = self._region(fault), sorted(self._world.running.items())
        here = [one for _, one in running if one.who.region == region]
        side = int(fault.pick * 7919) % 2
        picked = [one for one in here if one.who.side == side]
        roles = {one.who.role for one in picked}
        return picked if len(roles) == 2 else here

    def _do_new_roster(self, fault: Fault) -> None:
        """Who killed first is retired; a roster that says so comes to one region after another."""
        kills = self._world.plan.kills
        gone = kills[0].operator if kills else OPERATORS[0]
        listed = int(fault.pick * 104729) % 4 == 0
        self._world.rosters.retire(gone, listed=listed, lasts=fault.lasts)

    def _do_late_rosters(self, fault: Fault) -> None:
        stream = self._stream(fault)
        stream.roster_s = fault.lasts
        self._later(fault, lambda: setattr(stream, "roster_s", 0.0))

    # Streams.

    def _do_broker_restart(self, fault: Fault) -> None:
        for stream in self._stored(fault):
            stream.stop()
            self._later(fault, stream.start)

    def _do_minority(self, fault: Fault) -> None:
        stream, sides = self._stream(fault), self._world.network.cut_sides
        if stream.split:
            return
        self._world.coverage.saw("a minority")
        streams = self._stored(fault)
        for one in streams:
            one.cut()
        sides.add(stream.region)

        def join() -> None:
            for one in streams:
                one.heal()
            sides.discard(stream.region)

        self._later(fault, join)

    def _do_rollback(self, fault: Fault) -> None:
        self._world.coverage.saw("a rollback")
        self._stream(fault).roll_back(1 + int(fault.pick * 7919) % 25)

    def _do_slip(self, fault: Fault) -> None:
        """A rollback of a few messages: soon as much is written as was lost."""
        self._world.coverage.saw("a rollback")
        self._stream(fault).roll_back(1 + int(fault.pick * 7919) % 4)

    def _do_gaps(self, fault: Fault) -> None:
        stream, calm = self._stream(fault), self._stream(fault).store
        stream.store = replace(calm, gap=0.5)
        self._later(fault, lambda: setattr(stream, "store", calm))

    def _do_slow_acks(self, fault: Fault) -> None:
        stream = self._stream(fault)
        stream.ack_s = 2.5 + 2 * fault.pick
        self._later(fault, lambda: setattr(stream, "ack_s", 0.0))

    def _do_overtaken(self, fault: Fault) -> None:
        """Puts are on their way for long, are dropped there, or conflict with themselves."""
        stream, calm = self._stream(fault), self._stream(fault).store
        stream.store = replace(calm, again=0.2, pending_s=0.5, dropped=0.3)
        self._later(fault, lambda: setattr(stream, "store", calm))

    def _do_late_holds(self, fault: Fault) -> None:
        stream = self._stream(fault)
        stream.hold_s = 4.0
        self._later(fault, lambda: setattr(stream, "hold_s", 0.0))

    def _do_recreation(self, fault: Fault) -> None:
        self._world.coverage.saw("a recreation")
        self._stream(fault).recreate()

    def _do_slow_store(self, fault: Fault) -> None:
        stream, calm = self._stream(fault), self._stream(fault).store
        stream.store = Store(delay_s=0.4, lost=0.1, unheard=0.2, late=0.2, late_s=12.0, gap=0.1)
        self._later(fault, lambda: setattr(stream, "store", calm))

    # Customers' keys.

    def _turn(self, fault: Fault, state: L1State, regions: list[str]) -> None:
        keys, uri, spread = self._world.keys, self._uri(fault), 4 * fault.pick
        keys.turn(uri, state, spread, regions)
        self._later(fault, lambda: keys.turn(uri, L1State.ENABLED, spread, regions))

    def _do_l1_disabled(self, fault: Fault) -> None:
        state = REFUSALS[int(fault.pick * 7919) % len(REFUSALS)]
        self._turn(fault, state, self._world.plan.regions)

    def _do_l1_unreachable(self, fault: Fault) -> None:
        self._turn(fault, L1State.UNREACHABLE, self._world.plan.regions)

    def _do_l1_silent(self, fault: Fault) -> None:
        """At once and everywhere: a call that was decided before may still be under way."""
        for endpoint in self._world.keys.keys[self._uri(fault)]:
            endpoint.state = L1State.UNREACHABLE
        keys, uri = self._world.keys, self._uri(fault)
        self._later(fault, lambda: keys.turn(uri, L1State.ENABLED, 0.0, self._world.plan.regions))

    def _do_l1_moment(self, fault: Fault) -> None:
        keys, uri, regions = self._world.keys, self._uri(fault), self._world.plan.regions
        keys.turn(uri, L1State.DISABLED, 0.0, regions)
        self._later(fault, lambda: keys.turn(uri, L1State.ENABLED, 0.0, regions))

    def _do_l1_disagree(self, fault: Fault) -> None:
        self._world.coverage.saw("endpoints that disagree")
        endpoint = self._world.keys.ask(self._uri(fault), self._region(fault))
        endpoint.state = L1State.DISABLED
        self._later(fault, lambda: setattr(endpoint, "state", L1State.ENABLED))

    def _do_l1_flap(self, fault: Fault) -> None:
        uri = self._uri(fault)
        self._world.coverage.saw("a key that flaps")
        for number in range(6):
            state = L1State.DISABLED if number % 2 == 0 else L1State.ENABLED
            self._loop.after(number * 3.0, self._flap, uri, state)

    def _flap(self, uri: str, state: L1State) -> None:
        if not self._over:
            self._world.keys.turn(uri, state, 1.0, self._world.plan.regions)

    def _do_l1_slow(self, fault: Fault) -> None:
        for endpoint in self._world.keys.keys[self._uri(fault)]:
            endpoint.slow_s = 3.0
            self._later(fault, lambda endpoint=endpoint: setattr(endpoint, "slow_s", 0.02))

    def _do_l1_hang(self, fault: Fault) -> None:
        for endpoint in self._world.keys.keys[self._uri(fault)]:
            endpoint.hangs = True
            self._later(fault, lambda endpoint=endpoint: setattr(endpoint, "hangs", False))

    def _do_l1_credentials(self, fault: Fault) -> None:
        victim = self._victim(fault)
        if isinstance(victim, SimCore):
            self._world.coverage.saw("wrong credentials on one instance")
            victim.unsealer.wrong_credentials = True
            self._later(fault, lambda: setattr(victim.unsealer, "wrong_credentials", False))
