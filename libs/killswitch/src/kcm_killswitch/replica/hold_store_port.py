"""The port to a local durable copy of holds; ``hold_store`` implements it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Unkept:
    """Why a hold is not kept: in short words, as ``disk full``, and as ``ENOSPC``."""

    text: str
    code: str


class Memory(Protocol):
    """What a Core knows of holds, kept where no broker can lose it."""

    @property
    def unkept(self) -> Mapping[bytes, Unkept]:
        """Holds that could not be kept, by id; they are tried again until they are."""
        ...

    def kept(self, hold_id: bytes, statement: bytes) -> bool:
        """Whether exactly this outlives a crash."""
        ...

    def listen(self, changed: Callable[[bytes], None]) -> None:
        """Call ``changed`` with a hold that was kept, or could not be for another reason."""
        ...

    def recall(self) -> list[bytes]:
        """Every statement that was kept, in no order, to be verified; raises ``ConfigError``."""
        ...

    def remember(self, hold_id: bytes, statement: bytes) -> None:
        """Keep what is known of a hold, soon: nothing waits for it, and nothing is raised.

        A page of lifted holds is kept in the same way, under an id of its place.
        """
        ...

    def archive(self, hold_id: bytes, statement: bytes) -> None:
        """Keep what a page ends, apart from what is recalled: nothing waits for it."""
        ...

    def archiving(self, hold_id: bytes) -> bool:
        """Whether it is not there yet."""
        ...

    def archived(self, hold_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """What is archived of these holds, to be verified; raises ``OSError``."""
        ...

    def archived_between(self, least: bytes, most: bytes, count: int) -> dict[bytes, bytes]:
        """What is archived of ``count`` holds by id, both bounds among them; raises ``OSError``."""
        ...

    async def close(self) -> None:
        """Wait, for a short time, until what was said is kept."""
        ...
