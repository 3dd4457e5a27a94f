"""Naive completeness: it is seen too early, by too few, or by somebody else's word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kcm_killswitch.model.completeness import Arrival
from kcm_killswitch.model.incarnations import SAID_MAX_MS, Incarnations, Key
from kcm_killswitch.model.stream_watch import Watch
from kcm_schemas.admin.kill_status import HoldStatus
from kcm_schemas.control import Incarnation, Lease

from tests.simulation.variants.parts import core_part

if TYPE_CHECKING:
    from tests.simulation.instance import Instance


class Lonely(Incarnations):
    def registered(self, now: float, place: int = 0) -> list[Incarnation]:
        return super().registered(now, place)[-1:]


class FromMemory(Incarnations):
    """Knows whom it heard itself: not who was on record when it began."""

    def __init__(self, me: Key) -> None:
        super().__init__()
        self._me = me
        self._heard: set[Key] = set()
        self._began = False

    def take(self, lease: Lease, sequence: int, now: float) -> None:
        super().take(lease, sequence, now)
        self._began = self._began or (
            (lease.instance, lease.incarnation) == self._me and lease.first > 0
        )
        if self._began:
            self._heard.add((lease.instance, lease.incarnation))

    def registered(self, now: float, place: int = 0) -> list[Incarnation]:
        known = super().registered(now, place)
        return [one for one in known if (one.instance, one.incarnation) in self._heard]


def lonely(instance: Instance) -> None:
    """Whoever is asked whether a kill is complete knows the latest incarnation alone.

    Who keeps a watch knows when somebody is missing. So here nobody does.
    """
    _record(instance, Lonely(), Absent())


def roster_from_memory(instance: Instance) -> None:
    """Whoever is asked whether a kill is complete counts those whom it heard itself.

    Who keeps a watch knows when that is not enough. So here nobody does.
    """
    _record(instance, FromMemory((instance.who.name, instance.incarnation)), Absent())


class Absent(Watch):
    """As old as one may wish."""

    def before_s(self, place: int, noted: float) -> float:
        return 1e6


class Ever(Absent):
    """And nothing is ever missed."""

    def age_s(self, now: float) -> float:
        return 1e6


class Unwatched(Incarnations):
    """What was heard counts for ever."""

    def _unhear(self) -> None:
        """Nothing is doubted."""


class ByCount(Incarnations):
    """Keeps the sixteen latest incarnations of an instance."""

    def _room(self, instance: str, now: float) -> bool:
        own = [key for key in self._seen if key[0] == instance]
        for oldest in own[:-15]:
            del self._seen[oldest]
        return True


class ByItsWord(Incarnations):
    """Believes whoever says that it began later than the hold."""

    def _incarnation(self, seen: Any, now: float, place: int) -> Incarnation:
        said = super()._incarnation(seen, now, place)
        began = self._began(seen)
        return said.model_copy(update={"silent_ms": SAID_MAX_MS}) if began > place else said

    def _began(self, seen: Any) -> int:
        return int(seen.lease.first)


class FirstIsHere(ByItsWord):
    def _began(self, seen: Any) -> int:
        return int(seen.lease.first or seen.latest)


def _record(instance: Instance, records: Incarnations, watch: Watch | None = None) -> None:
    """Other lease entries; with a watch, that one counts, and where the hold was does not."""
    leases: Any = instance.switch.reader.leases
    leases.incarnations = records
    if watch is not None:
        records.watch = watch
        positions: Any = instance.switch.holds.replicator.positions
        positions.was_seen = lambda hold_id: False


def no_watch(instance: Instance) -> None:
    """Who was not heard of is not there, whenever the listening began."""
    _record(instance, Incarnations(), Absent())


def silent_without_watch(instance: Instance) -> None:
    """An incarnation is silent since it was heard, whatever was missed since.

    Alone that shows nothing: where something was missed, nobody counts as missing. So here they do.
    """
    _record(instance, Unwatched(), Ever())


def pruned_by_count(instance: Instance) -> None:
    """Who has had more incarnations lately is on record with the latest ones."""
    _record(instance, ByCount())


def first_of_another_era(instance: Instance) -> None:
    """An incarnation began when it says, whatever the stream has been since.

    Alone that shows nothing: outside of a watch it is not asked. So here there is none.
    """
    _record(instance, ByItsWord(), Absent())


def first_zero_exempts(instance: Instance) -> None:
    """An incarnation that does not say when it began, began where its record lies."""
    _record(instance, FirstIsHere())


class ByName(dict[Key, Arrival]):
    def get(self, key: Key, default: Any = None) -> Any:  # type: ignore[override]
        return next((one for (name, _), one in self.items() if name == key[0]), default)


def receipt_by_name(instance: Instance) -> None:
    """A receipt counts for every incarnation of its instance."""
    kills: Any = core_part(instance, "kills")
    if kills is None:
        return
    of = kills.receipts.of
    kills.receipts.of = lambda hold_id: ByName(of(hold_id))


def complete_without_durability(instance: Instance) -> None:
    """A kill is complete when everybody on record who is heard has purged."""
    kills: Any = core_part(instance, "kills")
    if kills is None:
        return
    status = kills.status

    async def receipts_alone(hold_id: bytes, deadline_ms: int | None = None) -> HoldStatus:
        said: HoldStatus = await status(hold_id, deadline_ms)
        done = bool(said.incarnations) and all(
            incarnation.how == "receipt" for incarnation in said.incarnations
        )
        return said.model_copy(update={"complete": said.complete or done})

    kills.status = receipts_alone
