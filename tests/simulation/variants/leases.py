"""Naive leases: they begin too early, end too late, or are renewed by the wrong thing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from kcm_killswitch.model.control_lease import FOREVER, ControlLease
from kcm_killswitch.model.freshness import Freshness
from kcm_killswitch.model.key_leases import Attestations, AttestedKey
from kcm_killswitch.model.log_position import NOWHERE, LogPosition
from kcm_killswitch.model.peer_leases import PeerLeases
from kcm_schemas import subjects
from kcm_schemas.codes import KcmError
from kcm_schemas.registry import RegionQuorum

from tests.simulation.clocks import SimClock

if TYPE_CHECKING:
    from tests.simulation.instance import Instance


class Endless(ControlLease):
    def until(self) -> float:
        return FOREVER


class FromTheAcknowledgement(ControlLease):
    def __init__(self, length_s: float, clock: SimClock) -> None:
        super().__init__(length_s)
        self._clock: Final = clock

    def wrote(self, t0: float, seen: int, sequence: int) -> bool:
        return super().wrote(self._clock.elapsed(), seen, sequence)


class ByTheAcknowledgement(ControlLease):
    def until(self) -> float:
        return FOREVER if not self._writes else self._writes[-1].t0 + self.length_s


class AnchorAtTheLastWrite(ControlLease):
    @property
    def anchor(self) -> int:
        return self._writes[-1].sequence if self._writes else 0


class AtIncarnation(ControlLease):
    def __init__(self, length_s: float, clock: SimClock) -> None:
        super().__init__(length_s)
        self._booted: Final = clock.elapsed()

    def until(self) -> float:
        return max(super().until(), self._booted + self.length_s)


class ProvenAtIncarnation(Attestations):
    def __init__(self, length_s: float, clock: SimClock) -> None:
        super().__init__(length_s)
        self._booted: Final = clock.elapsed()

    def until(self, key: AttestedKey, lease: ControlLease) -> float:
        return max(super().until(key, lease), self._booted + self.length_s)


class Heard(ControlLease):
    """Renewed from outside."""

    heard = float("-inf")

    def until(self) -> float:
        return max(super().until(), self.heard + self.length_s)


class HeardFreshness(Freshness):
    """Whatever is delivered is a sign of life."""

    clock: SimClock

    def delivered(self, sequence: int) -> bool:
        lease: Any = self.lease
        lease.heard = self.clock.elapsed()
        return super().delivered(sequence)


class Unchecked(ControlLease):
    """Takes whatever is acknowledged."""

    def wrote(self, t0: float, seen: int, sequence: int) -> bool:
        return super().wrote(t0, min(seen, sequence - 1), sequence)

    def adopt(self, sequence: int) -> bool:
        self._await(sequence)
        return True

    def resumed(self, behind: int) -> None:
        """Nothing that was delivered is doubted."""

    def forget(self) -> None:
        """Never."""


class Undoubting(Freshness):
    """Reads on behind the last delivery, and compares nothing with what it knew."""

    @property
    def anchor(self) -> int:
        return self.lease.position

    def leased(self, mark: LogPosition, *, own: bool) -> bool:
        super().leased(mark, own=False)
        return True

    def _other_was_read(self, mark: LogPosition) -> bool:
        return False

    def delivered(self, sequence: int) -> bool:
        self.lease.delivered(sequence)
        return True

    def forget(self) -> None:
        """Never."""


class Trusting(Freshness):
    """Does not ask for the highest hold."""

    def peer_leased(self, other: str, mark: LogPosition, highest: LogPosition) -> bool:
        return super().peer_leased(other, mark, NOWHERE)


class NoPeerLeases(PeerLeases):
    def until(
        self, policy: RegionQuorum, others: Sequence[str], lease: ControlLease, grace_s: float
    ) -> float:
        return FOREVER


class EndlessAttestations(Attestations):
    def until(self, key: AttestedKey, lease: ControlLease) -> float:
        return FOREVER


class Unstamped(Attestations):
    def __init__(self, length_s: float, clock: SimClock) -> None:
        super().__init__(length_s)
        self._clock: Final = clock
        self._heard: dict[AttestedKey, float] = {}

    def learn(self, key: AttestedKey, position: int) -> None:
        super().learn(key, position)
        self._heard[key] = self._clock.elapsed()

    def refuse(self, link: str) -> None:
        super().refuse(link)
        self._heard = {key: at for key, at in self._heard.items() if key.target.link != link}

    def until(self, key: AttestedKey, lease: ControlLease) -> float:
        return self._heard.get(key, float("-inf")) + self.length_s


def _freshness(instance: Instance) -> Any:
    return instance.freshness


def endless_lease(instance: Instance) -> None:
    """An incarnation believes for ever that it knows every hold."""
    _freshness(instance).lease = Endless(instance.freshness.timing.control_lease_s)


def lease_from_the_acknowledgement(instance: Instance) -> None:
    """A lease is counted from the acknowledgement, and not from the sending."""
    length = instance.freshness.timing.control_lease_s
    _freshness(instance).lease = FromTheAcknowledgement(length, instance.clock)


def lease_by_the_acknowledgement(instance: Instance) -> None:
    """An acknowledged write renews before everything below it was delivered."""
    _freshness(instance).lease = ByTheAcknowledgement(instance.freshness.timing.control_lease_s)


def anchor_at_the_last_write(instance: Instance) -> None:
    """A consumer made anew goes on behind the last write, delivered or not.

    Whoever missed a hold so would soon notice that it differs from a Core: here nobody does.
    """
    _freshness(instance).lease = AnchorAtTheLastWrite(instance.freshness.timing.control_lease_s)
    replay_only_at_reconnect(instance)


def lease_at_start(instance: Instance) -> None:
    """Leases are valid at incarnation, and an incarnation serves before it has read anything.

    Alone that shows nothing: a Core answers only whose record it has read, and what lies before.
    So here it answers everybody.
    """
    leases: Any = instance.switch.reader.leases
    leases.incarnations.knows = lambda name, incarnation: True
    length = instance.freshness.timing.control_lease_s
    _freshness(instance).lease = AtIncarnation(length, instance.clock)
    _freshness(instance).attestations = ProvenAtIncarnation(
        instance.freshness.timing.l1_lease_s, instance.clock
    )


def renewed_by_what_is_heard(instance: Instance) -> None:
    """Whatever is delivered renews, whoever wrote it and whenever."""
    freshness = _freshness(instance)
    freshness.lease = Heard(freshness.timing.control_lease_s)
    freshness.__class__, freshness.clock = HeardFreshness, instance.clock


def renewed_by_a_direct_read(instance: Instance) -> None:
    """A read that is answered renews."""
    freshness = _freshness(instance)
    lease = freshness.lease = Heard(freshness.timing.control_lease_s)
    subject = subjects.control_lease(instance.who.region, instance.who.name, instance.incarnation)

    async def read() -> None:
        while True:
            began = instance.clock.elapsed()
            try:
                await instance.stream.last(subject)
                lease.heard = began
            except KcmError:
                pass  # the next one may be answered
            await asyncio.sleep(freshness.timing.renew_every_s)

    instance.world.loop.spawn(instance.node, read())


def gap_after_rollback(instance: Instance) -> None:
    """A consumer goes on behind its last delivery, whatever the stream is by now."""
    freshness = _freshness(instance)
    freshness.lease = Unchecked(freshness.timing.control_lease_s)
    freshness.__class__ = Undoubting
    leases: Any = instance.switch.reader.leases
    leases.lost = lambda why: None


def replay_only_at_reconnect(instance: Instance) -> None:
    """A consumer does not notice that a delivery is missing, nor an instance that it differs."""
    leases: Any = instance.switch.reader.leases
    leases.differs = lambda lease, now: False


def no_peer_leases(instance: Instance) -> None:
    """An incarnation believes for ever that it knows every other region."""
    _freshness(instance).peer_leases = NoPeerLeases()


def peer_lease_without_highest_hold(instance: Instance) -> None:
    """A peer lease is believed by who lacks what its writer had stored."""
    freshness = _freshness(instance)
    freshness.__class__ = Trusting


def endless_attestations(instance: Instance) -> None:
    """A key that was used once may be used for ever."""
    _freshness(instance).attestations = EndlessAttestations(instance.freshness.timing.l1_lease_s)


def unstamped_attestation(instance: Instance) -> None:
    """An attestation counts from when it arrives, and not from before the key was asked."""
    length = instance.freshness.timing.l1_lease_s
    _freshness(instance).attestations = Unstamped(length, instance.clock)
