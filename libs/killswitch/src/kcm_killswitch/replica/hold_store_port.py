"""The port to a local durable copy of holds; ``hold_store`` implements it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Unkept:
    """Why a hold is not stored: in short words, such as ``disk full``, and as ``ENOSPC``."""

    text: str
    code: str


class HoldStore(Protocol):
    """A Core's own storage of holds, independent of any broker."""

    @property
    def unkept(self) -> Mapping[bytes, Unkept]:
        """Holds whose write failed, by id; each is tried again until it succeeds."""
        ...

    def kept(self, hold_id: bytes, statement: bytes) -> bool:
        """Whether exactly this statement survives a crash."""
        ...

    def listen(self, changed: Callable[[bytes], None]) -> None:
        """Call ``changed`` for each hold that was stored, or that failed for a new reason."""
        ...

    def recall(self) -> list[bytes]:
        """Every stored statement, in no order, to be verified; raises ``ConfigError``."""
        ...

    def remember(self, hold_id: bytes, statement: bytes) -> None:
        """Store the state of a hold soon: nothing waits for it, and nothing is raised.

        A lift page is stored in the same way, under an id that its place determines.
        """
        ...

    def archive(self, hold_id: bytes, statement: bytes) -> None:
        """Move what a page ends to the archive, which ``recall`` omits: nothing waits for it."""
        ...

    def archiving(self, hold_id: bytes) -> bool:
        """Whether a statement still waits to be written to the archive."""
        ...

    def archived(self, hold_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """The archived statements of these holds, to be verified; raises ``OSError``."""
        ...

    def archived_between(self, least: bytes, most: bytes, count: int) -> dict[bytes, bytes]:
        """Archived statements of ``count`` holds by id, bounds included; raises ``OSError``."""
        ...

    async def close(self) -> None:
        """Wait, for a short time, until the pending statements are stored."""
        ...
