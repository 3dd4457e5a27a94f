"""What goes wrong with a region's registry: it is late, set back, emptied, lost, or forked.

What lies in a bucket is changed as a restored backup or somebody with the broker's password changes
it: never is anything signed that its signer could not have signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from kcm_core.registry.stores import PREFIX
from kcm_killswitch.model.registry_objects import Key
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import KcmError
from kcm_schemas.registry import RegistryEntry, Tenant

from tests.simulation.nodes import THREAD_S
from tests.simulation.plan import OPERATORS, OTHER
from tests.simulation.registry import Bucket, FloorsDisk, place, signed

if TYPE_CHECKING:
    from tests.simulation.core import SimCore
    from tests.simulation.following import SimFollowing
    from tests.simulation.history import TenantFacts
    from tests.simulation.instance import Instance
    from tests.simulation.plan import Fault
    from tests.simulation.world import World

REFUSED_ABOVE: Final = 5
"""By how much a revision that was refused is above the one that counts."""

SLOW_S: Final = 2.0
"""Seconds that the work of a thread takes at most, where disks are slow."""


def _where(world: World, fault: Fault) -> tuple[TenantFacts, Bucket] | None:
    """A tenant and the bucket of one of its regions; none where the registry cannot change."""
    if not world.buckets:
        return None
    region = fault.region or world.plan.regions[int(fault.pick * len(world.plan.regions))]
    here = [one for one in world.plan.tenants if region in one.regions]
    moved = {relink.pick for relink in world.plan.relinks}
    wanted = {world.plan.tenants[int(pick * len(world.plan.tenants))].name for pick in moved}
    found = [one for one in here if one.name in wanted] or here
    return (found[int(fault.pick * 7919) % len(found)], world.buckets[region]) if found else None


def _key(tenant: TenantFacts) -> Key:
    return "tenant", tenant.name


def _instances(world: World, region: str) -> list[Instance]:
    return [one for _, one in sorted(world.running.items()) if one.who.region == region]


def _deafen(world: World, fault: Fault, victims: Iterable[Instance]) -> None:
    world.coverage.saw("a registry that comes late")
    for victim in victims:
        if victim.reads is not None:
            one = victim.reads.following
            one.lags = True
            world.loop.after(fault.lasts, _hear, one)


def _hear(one: SimFollowing) -> None:
    one.lags = False
    one.offer_missed()


def late_gateways(world: World, fault: Fault) -> None:
    """A region's Gateways are delivered nothing of its registry."""
    if found := _where(world, fault):
        here = _instances(world, found[1].region)
        _deafen(world, fault, (one for one in here if one.who.role == "gateway"))


def late_side(world: World, fault: Fault) -> None:
    """One side of a region is delivered nothing of its registry, and its disks are slow."""
    if found := _where(world, fault):
        side = int(fault.pick * 7919) % 2
        victims = [one for one in _instances(world, found[1].region) if one.who.side == side]
        _deafen(world, fault, victims)
        for victim in victims:
            victim.node.thread_s = SLOW_S
            world.loop.after(fault.lasts, setattr, victim.node, "thread_s", THREAD_S)


def older(world: World, fault: Fault) -> None:
    """An older record of a tenant is put back, as it was signed and accepted."""
    if (found := _where(world, fault)) and len(past := found[1].past(_key(found[0]))) > 1:
        world.coverage.saw("a registry that was set back")
        found[1].stream.append(place(_key(found[0])), past[0])


def back(world: World, fault: Fault) -> None:
    """The bucket goes back to before a tenant's last record."""
    if (found := _where(world, fault)) is None:
        return
    tenant, bucket = found
    lies = [one.sequence for one in bucket.stream.past if one.subject == place(_key(tenant))]
    if len(lies) > 1:
        world.coverage.saw("a registry that was set back")
        bucket.stream.roll_back(bucket.stream.sequence - lies[-1] + 1)


def emptied(world: World, fault: Fault) -> None:
    """The bucket is made anew, or everything in it is deleted."""
    if (found := _where(world, fault)) is None:
        return
    world.coverage.saw("a registry that was emptied")
    world.oracle.damaged.add(found[1].region)
    if fault.pick < 0.5:
        found[1].stream.recreate()
    else:
        for one in found[1].stream.entries():
            found[1].stream.append(one.subject, b"")


def refused(world: World, fault: Fault) -> None:
    """What an operator signed and every Core refused is put beside a Core's word on something."""
    if (found := _where(world, fault)) is None:
        return
    tenant, bucket = found
    now, past = world.oracle.links.of(tenant.name, bucket.region), bucket.past(_key(tenant))
    if len(now) != 1 or not past:
        return
    world.coverage.saw("a record that was refused")
    record = Tenant(
        tenant=tenant.name,
        revision=world.oracle.links.revision(tenant.name) + REFUSED_ABOVE,
        link=OTHER[min(now)],
        regions=list(tenant.regions),
        region_quorum=tenant.policy,
    )
    word = decode(RegistryEntry, past[-1]).accepted
    raw = encode(RegistryEntry(statement=signed(record, OPERATORS[1]), accepted=word))
    bucket.stream.append(place(_key(tenant)), raw)


def gone_core(world: World, fault: Fault) -> None:
    """The Core that accepts the next record is gone with that, and begins anew much later."""
    world.gone_s = fault.lasts


def lost(world: World, fault: Fault) -> None:
    """Bucket and second store go back to before a tenant's last record."""
    if (found := _where(world, fault)) is None:
        return
    tenant, bucket = found
    if len(bucket.past(_key(tenant))) > 1:
        bucket.directory.lose(PREFIX + ".".join(_key(tenant)))
        world.oracle.damaged.add(bucket.region)
        world.set_back.add(tenant.name)
        back(world, fault)


def new_disk(world: World, fault: Fault) -> None:
    """A Core's machine is gone, and it begins anew on another one."""
    if found := _where(world, fault):
        _forget(world, fault, world.cores(found[1].region)[:1])


def forgotten(world: World, fault: Fault) -> None:
    """The same for every Core."""
    for region in world.buckets:
        _forget(world, fault, world.cores(region))


def _forget(world: World, fault: Fault, cores: list[SimCore]) -> None:
    for name in [one.who.name for one in cores]:
        world.coverage.saw("a Core without a baseline of its registry")
        world.crash(name)
        world.floors[name] = FloorsDisk(there=False)
        world.loop.after(fault.lasts, world.start, name)


def fork(world: World, fault: Fault) -> None:
    """A Core whose second store was set back accepts another body of a tenant's last revision."""
    if (found := _where(world, fault)) is None:
        return
    tenant, bucket = found
    side = int(fault.pick * 7919) % 2
    cores = [one for one in world.cores(bucket.region) if one.who.side == side]
    links, revision = world.oracle.links, world.oracle.links.revision(tenant.name)
    now = links.of(tenant.name, bucket.region)
    if not cores or len(now) != 1 or revision == 1:
        return
    record = Tenant(
        tenant=tenant.name,
        revision=revision,
        link=OTHER[min(now)],
        regions=list(tenant.regions),
        region_quorum=tenant.policy,
    )
    bucket.directory.lose(PREFIX + ".".join(_key(tenant)))
    world.loop.spawn(cores[0].node, _accept(world, cores[0], record))


async def _accept(world: World, core: SimCore, record: Tenant) -> None:
    try:
        await core.accept(signed(record, OPERATORS[1]), record)
    except KcmError:
        return
    world.coverage.saw("a fork of the registry")


SETBACKS: Final[dict[str, Callable[[World, Fault], None]]] = {
    "registry-back": back,
    "registry-emptied": emptied,
    "registry-fork": fork,
    "registry-forgotten": forgotten,
    "registry-gone-core": gone_core,
    "registry-late-gateways": late_gateways,
    "registry-late-side": late_side,
    "registry-lost": lost,
    "registry-new-disk": new_disk,
    "registry-older": older,
    "registry-refused": refused,
}
"""By name."""
