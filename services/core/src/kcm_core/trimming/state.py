"""What a Core stores about the audit stream: the highest heads seen, and the reading position.

A rolled-back Auditor or broker cannot remove the stored heads: they are on disk before any trim
relies on them. The reading position only saves work.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from kcm_runtime.audit.stream_chain import Place
from kcm_runtime.config import ConfigError
from kcm_runtime.files.state_file import damaged, read_state, write_state
from kcm_runtime.logs import fields

from kcm_core.trimming.policy import Claim
from kcm_core.trimming.reader import ReadState

log = logging.getLogger(__name__)

VERSION: Final = 1
"""The version of the format of both files."""

REMEDY: Final = "move it away, and look with 'kcm audit status' whether an Auditor was rolled back"
"""What to do about stored heads that cannot be used."""


@dataclass(frozen=True, slots=True)
class Floors:
    """The highest accepted head of each Auditor, in the stream made at ``created`` (µs)."""

    created: int
    claims: Mapping[str, Claim]


class TrimState(Protocol):
    """The storage of heads and position. Saving raises ``OSError``."""

    def floors(self) -> Floors:
        """The stored heads; raises ``ConfigError`` if they cannot be read."""
        ...

    def save_floors(self, floors: Floors) -> None:
        """Store the heads durably."""
        ...

    def reading(self) -> ReadState | None:
        """The stored reading position, if there is one."""
        ...

    def save_reading(self, reading: ReadState) -> None:
        """Store the reading position."""
        ...


class TrimFiles:
    """``TrimState`` in two files of a Core's state directory, each replaced as a whole."""

    def __init__(self, directory: Path) -> None:
        self._floors: Final = directory / "audit-heads.json"
        self._reading: Final = directory / "audit-reading.json"

    def floors(self) -> Floors:
        """The stored heads; none at the first start."""
        data = read_state(self._floors, VERSION, REMEDY)
        if data is None:
            return Floors(0, {})
        try:
            claims = {
                str(name): Claim(str(name), int(through), bytes.fromhex(digest))
                for name, (through, digest) in data["heads"].items()
            }
            return Floors(int(data["created"]), claims)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise damaged(self._floors, REMEDY) from None

    def save_floors(self, floors: Floors) -> None:
        """Store the heads."""
        heads = {name: (claim.through, claim.digest.hex()) for name, claim in floors.claims.items()}
        write_state(self._floors, VERSION, {"created": floors.created, "heads": heads})

    def reading(self) -> ReadState | None:
        """The stored reading position; if it is unusable, the stream is read again."""
        try:
            data = read_state(self._reading, VERSION, "it is written again")
            if data is None:
                return None
            marks = tuple(_place(item) for item in data["marks"])
            return ReadState(int(data["created"]), _place(data["place"]), marks)
        except (ConfigError, ValueError, KeyError, TypeError, OverflowError):
            log.warning(
                "a file cannot be used: the audit stream is read again",
                extra=fields(path=str(self._reading)),
            )
            return None

    def save_reading(self, reading: ReadState) -> None:
        """Store the reading position."""
        write_state(
            self._reading,
            VERSION,
            {
                "created": reading.created,
                "place": _plain(reading.place),
                "marks": [_plain(place) for place in reading.marks],
            },
        )


def _plain(place: Place) -> dict[str, Any]:
    return asdict(place) | {"digest": place.digest.hex()}


def _place(data: Any) -> Place:
    digest = bytes.fromhex(data["digest"])
    if len(digest) != 32:
        raise ValueError("a digest has 32 bytes")
    return Place(int(data["sequence"]), digest, int(data["time_ms"]))
