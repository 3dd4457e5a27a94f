"""The registry lease: until when an incarnation may rely on the registry that it knows.

Every lease entry of a Core carries digests of the registry as that Core knows it, one for each of a
few shards. An incarnation that was given an older entry, or fewer entries, differs in a shard. It
then reads the registry again, and serves nothing of that shard once it has differed for
``PATIENCE_S``. If the incarnation begins, or its control lease begins again, while it differs, it
serves nothing of the shard at all until it agrees. So the effect of a relink, a stricter region
quorum or a smaller grant is bounded in time like that of a kill.

A Core with an *older* state is no difference: its digest was this incarnation's own before, and
nothing was dropped since. A difference outlives the Core that showed it, because that Core may have
been the only one that knew. It ends in one of three ways: it is resolved; another active Core
agrees with this incarnation (a Core with an older state does not count); or this incarnation is a
Core, and has compared its registry with the second store since.

A Core without a baseline of its region's registry does not know what it lacks. So it relies neither
on its stores nor on the absence of a difference.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kcm_killswitch.model.control_lease import EXPIRED, FOREVER

PATIENCE_S: Final = 2.0
"""Seconds for which an incarnation that agreed before may differ, while a change arrives."""

NO_BASELINE: Final = (
    "this Core has no baseline of its region's registry: it serves again when a Core that has one "
    "knows the same registry; if no Core has one, run `kcm registry show`, then "
    "`kcm registry adopt`"
)
"""The refusal of a Core without a baseline, and what an operator does about it."""

PAST_KEPT: Final = 1024
"""Number of past states of a shard that are kept, to recognise a Core with an older state."""


@dataclass(slots=True)
class _Shown:
    digest: bytes
    heard: float
    lease_s: float
    since: float | None = None
    """Since when it differs; ``None`` while it does not."""

    def acts(self, now: float) -> bool:
        return now - self.heard <= self.lease_s


class _Shard:
    """What Cores showed last of one shard, and the states of it that were known here."""

    def __init__(self) -> None:
        self.shown: dict[str, _Shown] = {}
        self._past: OrderedDict[bytes, None] = OrderedDict()
        self._ours: bytes | None = None
        self.agreed = False

    def dropped(self, ours: bytes) -> None:
        if ours != self._ours:
            self._past.clear()  # a Core with one of these has entries dropped here
        self.changed(ours)

    def changed(self, ours: bytes) -> None:
        self._ours = ours
        self._past[ours] = None
        self._past.move_to_end(ours)
        if len(self._past) > PAST_KEPT:
            self._past.popitem(last=False)
        for shown in self.shown.values():
            if shown.digest in self._past:
                shown.since = None

    def heard(self, core: str, digest: bytes, ours: bytes, lease_s: float, now: float) -> bool:
        if ours != self._ours:
            self.changed(ours)
        before = self.shown.get(core)
        shown = _Shown(digest, now, lease_s)
        if digest in self._past:
            self.agreed = True
        else:
            since = now if self.agreed else EXPIRED
            shown.since = before.since if before and before.since is not None else since
        self.shown[core] = shown
        return shown.since is not None

    def told(self, now: float) -> bool:
        return any(one.acts(now) for one in self.shown.values())

    def lapsed(self) -> None:
        self.agreed = False
        for shown in self.shown.values():
            if shown.since is not None:
                shown.since = EXPIRED

    def compared(self, now: float) -> float | None:
        waits: list[float] = []
        for core, shown in list(self.shown.items()):
            if shown.since is not None and shown.acts(now):
                waits.append(shown.heard + shown.lease_s - now)
            elif shown.since is not None:
                del self.shown[core]
        return max(waits, default=None)

    def until(self, now: float) -> float:
        if all(one.since is None for one in self.shown.values()):
            return FOREVER
        vouched = any(one.digest == self._ours and one.acts(now) for one in self.shown.values())
        differing = (one for one in self.shown.values() if one.acts(now) or not vouched)
        since = (one.since for one in differing if one.since is not None)
        return min((one + PATIENCE_S for one in since), default=FOREVER)


class RegistryLease:
    """What the Cores of the region showed last. Times are in seconds of this instance's clock."""

    def __init__(self) -> None:
        self._shards: list[_Shard] = []
        self._listener: Callable[[], None] = _nobody
        self._remembers = True

    @property
    def remembers(self) -> bool:
        """Whether this incarnation may state what the registry is: no Core without a baseline."""
        return self._remembers

    def without_baseline(self) -> None:
        """Rely on nothing until ``remembered``: this Core does not know what it lacks."""
        self._remembers = False
        self._listener()

    def remembered(self) -> None:
        """The registry known here is the region's, and is on this Core's disk."""
        self._remembers = True
        self._listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` when this incarnation's own registry may have changed."""
        self._listener = listener

    def changed(self, ours: Sequence[bytes]) -> None:
        """The registry known here has changed, by shard; it may agree with the Cores now."""
        for shard, digest in self._each(ours):
            shard.changed(digest)
        self._listener()

    def dropped(self, ours: Sequence[bytes]) -> None:
        """The same, but an entry was dropped: no Core has an older state of this registry now."""
        for shard, digest in self._each(ours):
            shard.dropped(digest)
        self._listener()

    def heard(
        self, core: str, digests: Sequence[bytes], ours: Sequence[bytes], lease_s: float, now: float
    ) -> bool:
        """A Core's newest lease entry was delivered; whether this instance's registry differs."""
        theirs = [*digests, *([b""] * len(ours))]
        differs = [
            shard.heard(core, digest, own, lease_s, now)
            for (shard, own), digest in zip(self._each(ours), theirs, strict=False)
        ]
        return any(differs)

    def told(self, now: float) -> bool:
        """Whether an active Core of the region states what its registry is."""
        return any(shard.told(now) for shard in self._shards)

    def lapsed(self) -> None:
        """The control lease does not run: when a difference is heard does not say when it began."""
        for shard in self._shards:
            shard.lapsed()

    def compared(self, now: float) -> float | None:
        """The registry of this Core has everything that the second store has, which decides.

        Returns seconds after which to compare again: an active Core still differs. It may have died
        since, so that no further entry of it arrives. ``None`` if no active Core differs.
        """
        waits = (shard.compared(now) for shard in self._shards)
        return max((wait for wait in waits if wait is not None), default=None)

    def until(self, now: float, shards: Iterable[int] | None = None) -> float:
        """Until when shards may be relied on (``None``: all); ``FOREVER`` while no Core differs."""
        if not self._remembers:
            return EXPIRED
        chosen = (
            self._shards
            if shards is None
            else (self._shards[at] for at in shards if at < len(self._shards))
        )
        return min((shard.until(now) for shard in chosen), default=FOREVER)

    def _each(self, digests: Sequence[bytes]) -> Iterable[tuple[_Shard, bytes]]:
        while len(self._shards) < len(digests):
            self._shards.append(_Shard())
        return zip(self._shards, digests, strict=True)


def _nobody() -> None:
    """Do nothing: there is no listener."""
