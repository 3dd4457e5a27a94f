"""The root keys by which something is open: for which tenants, since when unused, when due.

Thousands of keys may be open, and the key monitor checks them several times a second while a kill
may be waiting. So nothing here visits all of them, except when every lease may have become shorter.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush

from kcm_killswitch.model.control_lease import EXPIRED
from kcm_killswitch.model.key_leases import AttestedKey, Target


class OpenKeys:
    """Keys with the tenants that are open by them. Times are this incarnation's own."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[AttestedKey, dict[str, None]] = OrderedDict()
        """By key; the key that was unused for longest is first."""
        self._named: dict[Target, dict[AttestedKey, None]] = {}
        self._changed: dict[Target, None] = {}
        self._looks: list[tuple[float, int, AttestedKey]] = []
        self._tickets: dict[AttestedKey, int] = {}
        self._ticket = 0
        self._shortened: int | None = None

    def add(self, key: AttestedKey, tenant: str) -> None:
        """A tenant was opened by a key just now."""
        tenants = self._tenants.get(key)
        if tenants is None:
            tenants = self._tenants[key] = {}
            self._named.setdefault(key.target, {})[key] = None
            self._changed[key.target] = None
            self._look(key, EXPIRED)
        tenants[tenant] = None
        self.used(key)

    def discard(self, key: AttestedKey, tenant: str) -> None:
        """A tenant is not open by a key any more."""
        tenants = self._tenants[key]
        del tenants[tenant]
        if not tenants:
            del self._tenants[key], self._tickets[key], self._named[key.target][key]
            self._changed[key.target] = None
            if not self._named[key.target]:
                del self._named[key.target]

    def used(self, key: AttestedKey) -> None:
        """Something that is open by a key was used."""
        self._tenants.move_to_end(key)

    def __contains__(self, key: Target | AttestedKey) -> bool:
        return key in self._named if isinstance(key, Target) else key in self._tenants

    def __len__(self) -> int:
        return len(self._tenants)

    def __iter__(self) -> Iterator[AttestedKey]:
        return iter(self._tenants)

    def named(self, target: Target) -> list[AttestedKey]:
        """The keys of a target, one for each principal that uses it."""
        return list(self._named.get(target, ()))

    def tenants(self, key: AttestedKey) -> list[str]:
        """The tenants that are open by a key, in the order in which they were opened."""
        return list(self._tenants.get(key, ()))

    def least_used(self) -> AttestedKey | None:
        """The key whose tenants were unused for longest."""
        return next(iter(self._tenants), None)

    def changes(self) -> list[Target]:
        """The targets that were opened or closed since the last call."""
        changed, self._changed = list(self._changed), {}
        return changed

    def ended(
        self, now: float, until: Callable[[AttestedKey], float], shortened: int
    ) -> list[AttestedKey]:
        """Keys whose lease has ended by ``now``; ``until`` gives the end of a lease.

        Each key is checked again after half of its remaining lease, since a lease may shrink a
        little by itself. ``shortened`` differs from its last value when any lease may have shrunk
        by more.
        """
        if shortened != self._shortened:
            self._shortened = shortened
            self._looks = [(EXPIRED, ticket, key) for key, ticket in self._tickets.items()]
            heapify(self._looks)
        ended: list[AttestedKey] = []
        again: list[tuple[float, AttestedKey]] = []
        while self._looks and self._looks[0][0] <= now:
            _, ticket, key = heappop(self._looks)
            if self._tickets.get(key) != ticket:
                continue
            end = until(key)
            if now >= end:
                ended.append(key)
            again.append((now if now >= end else now + (end - now) / 2, key))
        for due, key in again:
            self._look(key, due)
        return ended

    def _look(self, key: AttestedKey, due: float) -> None:
        self._ticket += 1
        self._tickets[key] = self._ticket
        heappush(self._looks, (due, self._ticket, key))
