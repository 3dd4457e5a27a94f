"""What a Core stores about the audit stream: the highest heads seen, and the reading position.

A rolled-back Auditor or broker cannot remove the stored heads: they are on disk before any trim
relies on them. The reading position only saves work.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from kcm_runtime.audit.stream_chain import Place
from kcm_runtime.config import ConfigError
from kcm_runtime.files.atomic import place
from kcm_runtime.logs import fields

from kcm_core.trimming.policy import Claim
from kcm_core.trimming.reader import ReadState

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Floors:
    """The highest accepted head of each Auditor, in the stream made at ``created`` (µs)."""

    created: int
    claims: Mapping[str, Claim]


class TrimMemory(Protocol):
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
    """``TrimMemory`` in two files of a Core's state directory, each replaced as a whole."""

    def __init__(self, directory: Path) -> None:
        self._directory: Final = directory
        self._floors: Final = directory / "audit-heads.json"
        self._reading: Final = directory / "audit-reading.json"

    def floors(self) -> Floors:
        """The stored heads; none at the first start."""
        try:
            data = json.loads(self._floors.read_bytes())
            claims = {
                str(name): Claim(str(name), int(through), bytes.fromhex(digest))
                for name, (through, digest) in data["heads"].items()
            }
            return Floors(int(data["created"]), claims)
        except FileNotFoundError:
            return Floors(0, {})
        except OSError as error:
            raise ConfigError(f"cannot read {self._floors}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(
                f"{self._floors} is damaged: move it away, and look with 'kcm audit status' "
                "whether an Auditor was rolled back"
            ) from None

    def save_floors(self, floors: Floors) -> None:
        """Store the heads."""
        heads = {name: (claim.through, claim.digest.hex()) for name, claim in floors.claims.items()}
        self._write(self._floors, {"created": floors.created, "heads": heads})

    def reading(self) -> ReadState | None:
        """The stored reading position; if it is unusable, the stream is read again."""
        try:
            data = json.loads(self._reading.read_bytes())
            marks = tuple(_place(item) for item in data["marks"])
            return ReadState(int(data["created"]), _place(data["place"]), marks)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            log.warning(
                "a file cannot be used: the audit stream is read again",
                extra=fields(path=str(self._reading)),
            )
            return None

    def save_reading(self, reading: ReadState) -> None:
        """Store the reading position."""
        self._write(
            self._reading,
            {
                "created": reading.created,
                "place": _plain(reading.place),
                "marks": [_plain(place) for place in reading.marks],
            },
        )

    def _write(self, path: Path, data: object) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        place(path, json.dumps(data).encode())


def _plain(place: Place) -> dict[str, Any]:
    return asdict(place) | {"digest": place.digest.hex()}


def _place(data: Any) -> Place:
    digest = bytes.fromhex(data["digest"])
    if len(digest) != 32:
        raise ValueError("a digest has 32 bytes")
    return Place(int(data["sequence"]), digest, int(data["time_ms"]))
