"""What an incarnation knows of its stream, of other regions and of root keys, and since when.

All state is keyed by positions in one stream. So a rollback of the stream invalidates all of it.
Until the stream is read from its start, late deliveries of the old consumer are ignored.
"""

from __future__ import annotations

from typing import Final

from kcm_killswitch.model.control_lease import EXPIRED, ControlLease
from kcm_killswitch.model.key_leases import Attestations, AttestedKey
from kcm_killswitch.model.log_position import LogPosition, LogPositions
from kcm_killswitch.model.peer_leases import PeerLeases
from kcm_killswitch.model.registry_lease import RegistryLease
from kcm_killswitch.model.timing import Timing


class Freshness:
    """Control lease, log positions, peer leases, key leases and registry lease of an instance."""

    def __init__(self, timing: Timing) -> None:
        self.timing: Final = timing
        self.lease: Final = ControlLease(timing.control_lease_s)
        self.positions: Final = LogPositions()
        self.holds: Final = LogPositions()
        """Log positions of the holds that were delivered: the sequence and id of each."""
        self.peer_leases: Final = PeerLeases()
        self.attestations: Final = Attestations(timing.l1_lease_s)
        self.registry: Final = RegistryLease()
        self._position: LogPosition | None = None
        self._unread = False
        self.era = 0
        """Raised whenever everything is forgotten: what began in another era is void."""

    @property
    def position(self) -> LogPosition | None:
        """The latest acknowledged write of this incarnation: the *before* of what begins now."""
        return self._position

    @property
    def anchor(self) -> int:
        """The sequence after which a recreated consumer has to resume; 0: the stream's start."""
        return 0 if self._unread else self.lease.anchor

    def wrote(self, t0: float, seen: int, position: LogPosition) -> bool:
        """Take an acknowledged write; ``False``: the stream was rolled back, all is forgotten."""
        if self._other_was_read(position) or not self.lease.wrote(t0, seen, position.sequence):
            self.forget()
            return False
        self._position = position
        return True

    def adopt(self, position: LogPosition) -> bool:
        """Take a write whose acknowledgement was lost; ``False`` as for ``wrote``."""
        if self._other_was_read(position) or not self.lease.adopt(position.sequence):
            self.forget()
            return False
        return True

    def read_back(self, position: LogPosition) -> bool:
        """Whether a write of this incarnation, or a later one in its place, was delivered."""
        return not self._unread and self.lease.anchor >= position.sequence

    def _other_was_read(self, position: LogPosition) -> bool:
        """Whether the stream was read past the position of a write, which was not there."""
        return position.sequence <= self.lease.position and position not in self.positions

    def leased(self, position: LogPosition, *, own: bool) -> bool:
        """A lease entry was delivered; ``False``: it differs from what was acknowledged there.

        A write has to be read back at the position at which it was acknowledged. Otherwise all is
        forgotten.
        """
        if self._unread:
            return True
        here = self._position if own else None
        if here is not None and position.sequence == here.sequence and position != here:
            self.forget()
            return False
        self.positions.add(position)
        return True

    def held(self, place: LogPosition) -> None:
        """A hold was delivered; the nonce of its log position is its id."""
        if not self._unread:
            self.holds.add(place)

    def peer_leased(self, other: str, position: LogPosition, highest: LogPosition) -> bool:
        """A peer lease was delivered; ``False`` when its log position is not known here.

        ``highest`` is the highest position of a hold that its writer knew, 0 for none. An
        incarnation that did not receive that hold at that position lacks what the peer lease
        vouches for: a rollback may have removed it.
        """
        if self._unread or position not in self.positions:
            return False
        if highest.sequence and highest not in self.holds:
            return False
        self.peer_leases.learn(other, position.sequence)
        return True

    def attested(self, key: AttestedKey, position: LogPosition) -> bool:
        """An attestation was delivered, or made here; ``False`` for an unknown log position."""
        if self._unread or (position not in self.positions and position != self._position):
            return False
        self.attestations.learn(key, position.sequence)
        return True

    def knows(self, other: str) -> bool:
        """Whether another region was heard since this incarnation's first write."""
        return self.peer_leases.moment(other, self.lease) > EXPIRED

    def delivered(self, sequence: int) -> bool:
        """Everything through ``sequence`` was delivered; ``False`` as for ``leased``."""
        if self._unread:
            return True
        last = self._position
        if last is not None and last.sequence == sequence and last not in self.positions:
            self.forget()
            return False
        for own in self.lease.awaited:
            if own <= sequence and own not in self.positions.sequences:
                self.lease.replaced(own)
                self.attestations.shortened += 1
        self.lease.delivered(sequence)
        return True

    def resumed(self, behind: int) -> None:
        """Resume reading the stream after ``behind``, the last write of this incarnation.

        The entries above may differ now. But a statement of what was known at a higher position
        also holds for this one, which is earlier. With 0, the stream is read from its start.
        """
        self._unread = self._unread and behind > 0
        self.lease.resumed(behind)
        self.positions.resumed(behind)
        self.holds.resumed(behind)
        self.peer_leases.resumed(behind)
        self.attestations.resumed(behind)

    def forget(self) -> None:
        """Forget everything, because the stream was rolled back."""
        self.era += 1
        self._unread = True
        self.lease.forget()
        self._position = None
        self.positions.forget()
        self.holds.forget()
        self.peer_leases.forget()
        self.attestations.forget()
