"""Naive disks: what they refuse is forgotten, or nobody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kcm_killswitch.replica.hold_store import FileHoldStore

if TYPE_CHECKING:
    from tests.simulation.instance import Instance


def dropped_when_unkept(instance: Instance) -> None:
    """A hold that the disk refused is not tried again."""
    memory: Any = instance.hold_store
    if not isinstance(memory, FileHoldStore):
        return
    note = memory._note

    def once(hold_id: bytes, statement: bytes, trouble: Any) -> None:
        note(hold_id, statement, trouble)
        memory._failed.pop(hold_id, None)

    memory._note = once


def says_kept(instance: Instance) -> None:
    """A receipt does not say that the hold is not on the disk."""
    switch: Any = instance.switch
    switch._receipts._why_unkept = lambda hold_id: ""


def complete_though_unkept(instance: Instance) -> None:
    """A kill is complete when everybody has purged, on whosever disk it is."""
    kills: Any = getattr(instance, "kills", None)
    if kills is None:
        return
    take = kills.receipts._take

    def whatever_is_kept(receipt: Any, moment: float) -> None:
        take(receipt.model_copy(update={"unkept": ""}), moment)

    kills.receipts._take = whatever_is_kept
