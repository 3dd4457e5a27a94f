"""Faults by which whoever says that a kill is complete misses somebody who serves on.

One Gateway of a region, the one that ``pick`` draws, is at the heart of each. What lies in a stream
is changed as a rollback or somebody with the broker's password changes it: never is anything signed
that its instance could not have signed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kcm_runtime.nats.ports import Entry
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.control import Lease
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind

from tests.simulation.instance import Instance
from tests.simulation.trust import identity

if TYPE_CHECKING:
    from tests.simulation.plan import Fault
    from tests.simulation.stream import ControlStream, Put
    from tests.simulation.world import World

INVENTED: Final = 40
"""Incarnations that an instance invents: more than any bound that was in force before."""


LATE_S: Final = 2.5
"""Seconds after which a peer lease is stored late: consumers have been made anew by then."""


def gateway(world: World, fault: Fault) -> Instance | None:
    """The Gateway that all of this is about, if it runs."""
    names = sorted(
        one.name
        for one in world.members.values()
        if (one.role, one.region) == ("gateway", fault.region)
    )
    return world.running.get(names[int(fault.pick * len(names))])


def strand(world: World, fault: Fault) -> None:
    """It hears nothing and is heard by nobody, until everything is mended; what it has, it has."""
    victim = gateway(world, fault)
    if victim is not None:
        for bus in (victim.region_bus, victim.control_bus):
            bus.leg.state = "cut"
        victim.following.silence()


def stay_away(world: World, fault: Fault) -> None:
    """It ends, and is started again much later."""
    victim = gateway(world, fault)
    if victim is not None:
        world.crash(victim.who.name)
        world.loop.after(fault.lasts, world.start, victim.who.name)


def deaf_cores(world: World, fault: Fault) -> None:
    """Cores are delivered nothing, and then what is left of what they missed."""
    for core in world.cores(fault.region):
        core.following.lags = True
        world.loop.after(fault.lasts, _hear, core)


def _hear(core: Instance) -> None:
    core.following.lags = False
    core.following.offer_missed()


def lose_its_incarnation(world: World, fault: Fault) -> None:
    """The stream goes back to before it began."""
    victim, stream = gateway(world, fault), world.streams[fault.region]
    if victim is not None and (records := records_of(stream, victim)):
        stream.roll_back(stream.sequence - records[0].sequence + 1)


def lose_since(world: World, fault: Fault) -> None:
    """The stream goes back to where it is now, when this fault ends."""
    stream = world.streams[fault.region]
    kept, made = stream.sequence, stream.created

    def lose() -> None:
        if stream.created == made and stream.sequence > kept:
            stream.roll_back(stream.sequence - kept)

    world.loop.after(fault.lasts, lose)


def replay_first(world: World, fault: Fault) -> None:
    """Its first record is put into its place once more."""
    victim, stream = gateway(world, fault), world.streams[fault.region]
    if victim is not None and (records := records_of(stream, victim)):
        stream.append(records[0].subject, records[0].data, 120.0)


def invent_incarnations(world: World, fault: Fault) -> None:
    """Its instance has had many more incarnations, elsewhere, and all of them have ended."""
    victim, stream = gateway(world, fault), world.streams[fault.region]
    if victim is None:
        return
    for _ in range(INVENTED):
        incarnation = world.random.randbytes(16)
        lease = Lease(
            instance=victim.who.name,
            incarnation=incarnation,
            role=Role.GATEWAY,
            region=fault.region,
            nonce=world.random.randbytes(16),
            first=1,
            lease_ms=int(world.plan.timing.control_lease_s * 1000),
            holds=bytes(32),
            registry=[bytes(16)] * 16,
            roster=1,
            ended=True,
        )
        body = encode(identity(victim.who.name).sign(Kind.LEASE, lease))
        stream.append(
            subjects.control_lease(fault.region, victim.who.name, incarnation), body, 120.0
        )


def mute(world: World, fault: Fault) -> None:
    """No hold is broadcast any more."""
    world.muted = True


def unheard_region(world: World, fault: Fault) -> None:
    """It asks and hears the others, and does not answer them: so it has all that they hold."""
    world.unheard.add(fault.region)
    world.loop.after(fault.lasts, world.unheard.discard, fault.region)


def unbrought_roster(world: World, fault: Fault) -> None:
    """The next roster is not brought to a region before everything is mended."""
    world.rosters.unbrought.add(fault.region)


def lose_repair(world: World, fault: Fault) -> None:
    """Another region's hold is stored here, and lost again with all that knew of it.

    What is stored after that says that everything of the other region is known: the peer lease that
    the Core had sent before it died with its disk.
    """
    region = fault.region
    stream, kept = world.streams[region], -1

    def gateways() -> list[Instance]:
        found = (one for _, one in sorted(world.running.items()) if one.who.role == "gateway")
        return [one for one in found if one.who.region == region]

    def look(put: Put) -> bool:
        nonlocal kept
        noun = subjects.control_noun(put[0])
        if noun == "hold" and kept < 0:
            kept = stream.sequence
            for one in gateways():
                one.following.lags = True
        if noun != "peer-lease" or kept < 0:
            return True
        stream.on_put = lambda _: True
        world.loop.call_soon(lose, put, context=world.world_context)
        return False

    def lose(peer_lease: Put) -> None:
        for core in world.cores(region):
            world.disks.pop(core.who.name, None)
            world.crash(core.who.name)
        for one in gateways():
            one.following.lags = False
        world.oracle.forgotten(region)
        stream.roll_back(stream.sequence - kept)
        world.loop.after(LATE_S, stream.append, peer_lease[0], peer_lease[1])

    stream.on_put = look


def records_of(stream: ControlStream, victim: Instance) -> list[Entry]:
    """The lease entries of an instance's incarnation that the stream ever had, and did not lose."""
    subject = subjects.control_lease(victim.who.region, victim.who.name, victim.incarnation)
    return [one for one in stream.past if one.subject == subject and one.data]


MISSING: Final[dict[str, Callable[[World, Fault], None]]] = {
    "deaf-cores": deaf_cores,
    "invent-incarnations": invent_incarnations,
    "lose-its-incarnation": lose_its_incarnation,
    "lose-repair": lose_repair,
    "lose-since": lose_since,
    "mute": mute,
    "replay-first": replay_first,
    "stay-away": stay_away,
    "strand": strand,
    "unbrought-roster": unbrought_roster,
    "unheard-region": unheard_region,
}
"""By name."""
