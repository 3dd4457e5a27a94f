"""Naive results: told before they are stored, stored over others, or kept by whoever made them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kcm_killswitch.coordinator.result_cache import ResultCache
from kcm_trust.verify import SignedResult

from tests.simulation.results import SimResults
from tests.simulation.variants.parts import core_part

if TYPE_CHECKING:
    from kcm_runtime.nats.ports import Entry
    from kcm_schemas.admin.kill_status import HoldStatus

    from tests.simulation.instance import Instance


class Blind:
    """A bucket without compare-and-set."""

    def __init__(self, store: SimResults) -> None:
        self._store = store

    async def read(self, hold_id: bytes) -> Entry | None:
        return await self._store.read(hold_id)

    async def write(self, hold_id: bytes, raw: bytes, expected: int) -> None:
        known = self._store.sequence(hold_id)
        await self._store.write(hold_id, raw, known)


class Forgetful(ResultCache):
    """Keeps nothing."""

    def keep(self, found: SignedResult, *, stored: bool = False) -> None:
        return


def _results(instance: Instance) -> Any:
    """A Core's results; ``None`` for a Gateway, which has none."""
    return core_part(instance, "results")


RESULT_STORES: Final[dict[str, Callable[[SimResults], Any]]] = {
    "last-result-stays": Blind,
    "result-of-its-own": lambda _: SimResults(),
}
"""What takes the place of a region's bucket of results, for one Core."""


def told_unstored(instance: Instance) -> None:
    """A result is told as stored before it is."""
    kills: Any = core_part(instance, "kills")
    if kills is None:
        return
    status = kills.status

    async def sure(hold_id: bytes, deadline_ms: int | None = None) -> HoldStatus:
        said: HoldStatus = await status(hold_id, deadline_ms)
        return said.model_copy(update={"unstored": ""})

    kills.status = sure


def result_is_not_remembered(instance: Instance) -> None:
    """Who told a result knows it from the bucket alone."""
    results = _results(instance)
    if results is not None:
        results.reported.relied = Forgetful()


def result_of_any_period(instance: Instance) -> None:
    """A result counts whatever became of its hold since, and wherever that lies."""
    results = _results(instance)
    if results is not None:
        results.checks.counts = lambda found, places: True
        results.checks.lies = lambda found, places: True
