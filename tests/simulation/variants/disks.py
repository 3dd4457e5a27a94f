"""Naive disks: what they refuse is forgotten, or nobody asks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kcm_killswitch.model.completeness import Arrival
from kcm_killswitch.model.incarnations import Key
from kcm_killswitch.replica.hold_store import FileHoldStore
from kcm_killswitch.replica.hold_store_port import Unkept

from tests.simulation.variants.parts import core_part

if TYPE_CHECKING:
    from tests.simulation.instance import Instance


class NotTriedAgain(FileHoldStore):
    """Forgets what a disk refused."""

    def _note(self, hold_id: bytes, statement: bytes, trouble: Unkept | None) -> None:
        super()._note(hold_id, statement, trouble)
        self._failed.pop(hold_id, None)


def dropped_when_unkept(instance: Instance) -> None:
    """A hold that the disk refused is not tried again."""
    store: Any = instance.hold_store
    if isinstance(store, FileHoldStore):
        store.__class__ = NotTriedAgain


def says_kept(instance: Instance) -> None:
    """A receipt does not say that the hold is not on the disk."""
    switch: Any = instance.switch
    switch.holds.receipts.why_unkept = lambda hold_id: ""


def complete_though_unkept(instance: Instance) -> None:
    """A kill is complete when everybody has purged, on whosever disk it is."""
    kills: Any = core_part(instance, "kills")
    if kills is None:
        return
    of = kills.receipts.of

    def whatever_is_kept(hold_id: bytes) -> dict[Key, Arrival]:
        return {
            key: replace(one, receipt=one.receipt.model_copy(update={"unkept": ""}))
            for key, one in of(hold_id).items()
        }

    kills.receipts.of = whatever_is_kept
