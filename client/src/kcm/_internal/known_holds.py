"""The holds on instances' keys that an application knows: each is absent, held or lifted.

Gateways hand them out. Operators with the role ``security`` signed them, so a Gateway or a broker
can withhold one, and cannot make one. A lift ends its hold for good, whichever Gateway brings it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kcm_schemas import limits
from kcm_schemas.names import key_target
from kcm_trust.hold_statements import VerifiedLift
from kcm_trust.roster import targets_in
from kcm_trust.verify import Untrusted, Verifier

KEPT: Final = 4 * limits.STANDING_MAX
"""Holds that are kept at most; lifted ones go first. Only holds on keys of instances that the
application can ask are kept, and one in force for each key, so old holds take no place of a new
one."""


@dataclass(frozen=True, slots=True)
class _Known:
    raw: bytes
    target: str
    lifted: bool


class KnownHolds:
    """What an application knows of holds on Cores and Gateways of its region."""

    def __init__(self, region: str) -> None:
        self._region: Final = region
        self._known: dict[bytes, _Known] = {}
        self._targets: frozenset[str] = frozenset()

    def __len__(self) -> int:
        """Return the number of holds that are kept, lifted ones included."""
        return len(self._known)

    @property
    def ids(self) -> list[bytes]:
        """The holds in force, for the next question."""
        return [one for one, known in self._known.items() if not known.lifted][
            : limits.STANDING_MAX
        ]

    def has(self, name: str, public_key: bytes) -> bool:
        """Whether a hold keeps this key of an instance out of service."""
        return bool(self._targets) and key_target(name, public_key) in self._targets

    def take(self, holds: Sequence[bytes], verifier: Verifier) -> frozenset[str]:
        """Take holds and lifts; return the instances that are held since. Others are ignored."""
        before, raws = self._targets, {one.raw for one in self._known.values()}
        self._add([raw for raw in holds if raw not in raws], verifier)
        return self._settle(before)

    def judge(self, verifier: Verifier) -> frozenset[str]:
        """Verify all of it by a new roster; return the instances that are held since."""
        before, known = self._targets, self._known
        self._known = {}
        self._add([one.raw for one in known.values()], verifier)
        return self._settle(before)

    def _add(self, raws: Sequence[bytes], verifier: Verifier) -> None:
        targets = frozenset(targets_in(verifier.roster, self._region)) if raws else frozenset()
        found: dict[bytes, _Known] = {}
        for raw in raws:
            try:
                one = verifier.hold_or_lift(raw)
            except Untrusted:
                continue
            lifted = isinstance(one, VerifiedLift)
            hold = one.held.hold if isinstance(one, VerifiedLift) else one.hold
            if hold.scope == "instance" and hold.target in targets:
                found[hold.id] = _Known(raw, hold.target, lifted)
        for hold_id in sorted(found, key=lambda one: not found[one].lifted):
            self._keep(hold_id, found[hold_id])  # lifts first: another hold may be in force

    def _keep(self, hold_id: bytes, new: _Known) -> None:
        known = self._known.get(hold_id)
        held = {one.target for one in self._known.values() if not one.lifted}
        if known is None and not new.lifted and new.target in held:
            return  # one is enough: when it is lifted, Gateways name another one in force
        if known is not None and known.lifted:
            return
        if known is None and len(self._known) >= KEPT:
            ended = [one for one, kept in self._known.items() if kept.lifted]
            if not ended:
                return
            del self._known[ended[0]]
        self._known[hold_id] = new

    def _settle(self, before: frozenset[str]) -> frozenset[str]:
        self._targets = frozenset(one.target for one in self._known.values() if not one.lifted)
        return frozenset(target.partition(".")[0] for target in self._targets - before)
