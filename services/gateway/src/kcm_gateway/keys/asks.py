"""What an application asks of Cores, as its request has it: tags that this Gateway passes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kcm_schemas.asks import TAG_SIZE, Ask, Asked


@dataclass(frozen=True, slots=True)
class AppAsks:
    """The asks of one request: the application, and by Core a tag for each list.

    The lists are those of ``kcm_schemas.asks.split`` over all keys of the request.
    """

    app: str
    asks: Sequence[Ask]

    def part(self, number: int) -> AskPart | None:
        """Return the tags of one list, by its number; ``None`` if no Core has one for it."""
        asks = {one.core: one for one in self.asks if len(one.tag(number)) == TAG_SIZE}
        return AskPart(self.app, number, asks) if asks else None


@dataclass(frozen=True, slots=True)
class AskPart:
    """The asks for one list of keys, by Core; ``number`` is that of the list."""

    app: str
    number: int
    asks: Mapping[str, Ask]

    @property
    def cores(self) -> tuple[str, ...]:
        """The Cores that can verify a tag, in order."""
        return tuple(sorted(self.asks))

    def asked(self, core: str, count: int) -> Asked:
        """Return the statement for one of these Cores about ``count`` keys."""
        ask = self.asks[core]
        return Asked(
            app=self.app,
            session_id=ask.session_id,
            deadline_ms=ask.deadline_ms,
            count=count,
            tag=ask.tag(self.number),
        )
