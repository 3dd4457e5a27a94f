"""Naive writers: what they do when a compare-and-set lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kcm_schemas.codes import Code, KcmError

from tests.simulation.variants.leases import replay_only_at_reconnect

if TYPE_CHECKING:
    from tests.simulation.instance import Instance


def conflict_is_outage(instance: Instance) -> None:
    """Whoever is overtaken tries the same once more, as if the stream had not answered."""
    instance.stream.is_conflict = lambda error: False


def conflict_is_success(instance: Instance) -> None:
    """Whoever is overtaken takes its hold for stored: somebody has written there."""
    replicator: Any = instance.switch.holds.replicator
    attempt = replicator.attempt

    async def done_anyway(hold_id: bytes) -> bool:
        try:
            done: bool = await attempt(hold_id)
        except KcmError as error:
            if error.code is not Code.CONFLICT:
                raise
            replicator.note(instance.revocations.holds.get(hold_id), instance.following.position)
            return True
        return done

    replicator.attempt = done_anyway


def blind_put(instance: Instance) -> None:
    """Whoever is overtaken writes over it, and reads nothing.

    Whoever missed a hold so would soon notice that it differs from a Core: here nobody does.
    """
    stream: Any = instance.stream
    put = stream.put

    async def over_it(
        subject: str, body: bytes, *, expected: int | None = None, **more: Any
    ) -> int:
        try:
            stored: int = await put(subject, body, expected=expected, **more)
        except KcmError as error:
            if error.code is not Code.CONFLICT:
                raise
            stored = await put(subject, body, **more)
        return stored

    stream.put = over_it
    replay_only_at_reconnect(instance)
