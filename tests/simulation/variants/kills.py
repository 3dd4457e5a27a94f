"""Naive completeness: it is seen too early, by too few, or by somebody else's word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kcm_control.boots import BootRecords, Key
from kcm_control.completeness import Arrival
from kcm_schemas.admin import HoldStatus
from kcm_schemas.control import Boot, Lease

if TYPE_CHECKING:
    from tests.simulation.instance import Instance


class Lonely(BootRecords):
    def on_record(self, now: float) -> list[Boot]:
        return super().on_record(now)[-1:]


class FromMemory(BootRecords):
    """Knows whom it heard itself: not who was on record when it began."""

    def __init__(self, me: Key) -> None:
        super().__init__()
        self._me = me
        self._heard: set[Key] = set()
        self._began = False

    def take(self, lease: Lease, sequence: int, now: float) -> None:
        super().take(lease, sequence, now)
        self._began = self._began or ((lease.instance, lease.boot) == self._me and lease.first > 0)
        if self._began:
            self._heard.add((lease.instance, lease.boot))

    def on_record(self, now: float) -> list[Boot]:
        return [one for one in super().on_record(now) if (one.instance, one.boot) in self._heard]


def lonely(instance: Instance) -> None:
    """Whoever is asked whether a kill is complete knows the latest boot alone."""
    record: Any = instance.switch.record
    record.boots = Lonely()


def roster_from_memory(instance: Instance) -> None:
    """Whoever is asked whether a kill is complete counts those whom it heard itself."""
    record: Any = instance.switch.record
    record.boots = FromMemory((instance.who.name, instance.boot))


class ByName(dict[Key, Arrival]):
    def get(self, key: Key, default: Any = None) -> Any:  # type: ignore[override]
        return next((one for (name, _), one in self.items() if name == key[0]), default)


def receipt_by_name(instance: Instance) -> None:
    """A receipt counts for every boot of its instance."""
    kills: Any = getattr(instance, "kills", None)
    if kills is None:
        return
    take = kills._take

    def by_name(receipt: Any, moment: float) -> None:
        take(receipt, moment)
        found = kills._receipts.get(receipt.hold_id)
        if found is not None and not isinstance(found, ByName):
            kills._receipts[receipt.hold_id] = ByName(found)

    kills._take = by_name


def complete_without_durability(instance: Instance) -> None:
    """A kill is complete when everybody on record who is heard has purged."""
    kills: Any = getattr(instance, "kills", None)
    if kills is None:
        return
    status = kills.status

    async def receipts_alone(hold_id: bytes) -> HoldStatus:
        said: HoldStatus = await status(hold_id)
        done = bool(said.boots) and all(boot.how == "receipt" for boot in said.boots)
        return said.model_copy(update={"complete": said.complete or done})

    kills.status = receipts_alone
