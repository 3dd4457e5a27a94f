"""Faults around pages of lifted holds: a Core lies in one, and old messages come again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kcm_killswitch.model import id_set
from kcm_schemas import subjects
from kcm_schemas.control import Cause
from kcm_trust.statements import lifts

from tests.simulation.plan import Fault
from tests.simulation.trust import identity

if TYPE_CHECKING:
    from kcm_trust.identity import Identity

    from tests.simulation.world import World


def signed_pages(
    signer: Identity, cause: Cause, origin: str, hold_ids: list[bytes], now_ms: int
) -> dict[int, bytes]:
    """Signed pages of these holds, by their first byte."""
    prefixes = sorted({one[0] for one in hold_ids})
    by_prefix = {at: id_set.of(one for one in hold_ids if one[0] == at) for at in prefixes}
    return {
        at: lifts(signer, cause=cause, origin=origin, issued_ms=now_ms, ids=them)
        for at, them in by_prefix.items()
    }


def lie_in_a_page(world: World, fault: Fault) -> None:
    """A Core names kills of operators in a page of its own region's keys."""
    cores = [one for one in world.plan.members if (one.role, one.region) == ("core", fault.region)]
    signer = identity(cores[0].name)
    found = [one.hold_id for one in world.oracle.holds.values() if one.cause == "operator"]
    for prefix, raw in signed_pages(signer, "l1", fault.region, found, 1).items():
        subject = subjects.control_lifts(fault.region, "l1", fault.region, signer.name, prefix)
        world.streams[fault.region].append(subject, raw)
        world.coverage.saw("a page that lies")


def replay_holds(world: World, fault: Fault) -> None:
    """Everything that was ever lifted is stored once more as it was placed, in every region."""
    for hold_id, facts in world.oracle.holds.items():
        if facts.lifted_at is not None:
            for region, stream in world.streams.items():
                subject = subjects.control_hold(region, facts.scope, hold_id)
                stream.append(subject, world.oracle.raw[hold_id])
                world.coverage.saw("a lifted hold stored once more")


def shrink_pages(world: World, fault: Fault) -> None:
    """Every page in the stream is replaced by an earlier one of the same signer."""
    stream = world.streams[fault.region]
    first = {one.subject: one.data for one in reversed(stream.past) if ".lifts." in one.subject}
    for subject, raw in sorted(first.items()):
        stream.append(subject, raw)
        world.coverage.saw("an earlier page stored once more")


PAGING: Final[dict[str, Callable[[World, Fault], None]]] = {
    "lie-in-a-page": lie_in_a_page,
    "replay-holds": replay_holds,
    "shrink-pages": shrink_pages,
}
