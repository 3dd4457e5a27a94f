"""The Auditor's journal, as its judge reads it: what was in it stays, and what lacks is said.

It reads the files alone and counts by itself; the product's ``verify`` has to come to the same.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from kcm_schemas.audit import AuditBatch, AuditEvent
from kcm_schemas.codec import decode
from kcm_schemas.signed import read_signed

_GONE = re.compile(r"^GONE +(\S+), incarnation ([0-9a-f]+): events (\d+) to (\d+), ", re.MULTILINE)
_PROBLEM = re.compile(r"^PROBLEM +(.*)$", re.MULTILINE)


class Hole(NamedTuple):
    """Events of one incarnation that never came into the journal."""

    emitter: str
    incarnation: str
    first: int
    last: int


class Journal:
    """Follows a journal's files while it is written."""

    def __init__(self, directory: Path, config: Path) -> None:
        """``config`` is the Auditor's: it names the roster that statements are checked by."""
        self._directory = directory
        self._config = config
        self._read: dict[str, int] = {}
        self._noted: dict[str, tuple[int, str]] = {}
        self._next: dict[tuple[str, str], int] = {}
        self._heard: dict[str, int] = {}
        self._named: set[Hole] = set()
        self.holes: list[Hole] = []
        self.told: list[tuple[str, str]] = []
        """Regions and kinds of incidents, in the journal's order."""

    def note(self) -> None:
        """Remember what is in the journal now: all of it has to be there at the end."""
        for path in self._files():
            whole = _whole(path)
            self._noted[path.name] = len(whole), sha256(whole).hexdigest()

    def update(self) -> None:
        """Read what was written since."""
        for path in self._files():
            whole, behind = _whole(path), self._read.get(path.name, 0)
            for line in whole[behind:].splitlines():
                self._take(json.loads(line)["entry"]["content"])
            self._read[path.name] = len(whole)

    def unheard(self, names: Iterable[str], since_ms: int) -> list[str]:
        """Whose events of now are not in the journal."""
        self.update()
        return [name for name in names if self._heard.get(name, 0) < since_ms]

    def wrong(self, replaced: Iterable[str]) -> list[str]:
        """What must not be. ``replaced`` are regions whose audit stream was made anew."""
        self.update()
        found = [f"the journal lost what was in {name}" for name in self._lost()]
        found += [f"no incident names {hole}" for hole in self.holes if hole not in self._named]
        found += [
            f"no incident says that the audit stream of {region} was made anew"
            for region in replaced
            if (region, "stream-replaced") not in self.told
        ]
        said = self._verified()
        found += [f"kcm audit verify: {problem}" for problem in _PROBLEM.findall(said)]
        if not said.lower().endswith("sound\n"):
            found.append("kcm audit verify came to no end")
        gone = [
            Hole(name, incarnation, int(a), int(b))
            for name, incarnation, a, b in _GONE.findall(said)
        ]
        if gone != self.holes:
            found.append(f"kcm audit verify says that {gone} are gone, and {self.holes} are")
        return found

    def _lost(self) -> list[str]:
        there = {path.name: path for path in self._files()}
        return [
            name
            for name, (size, digest) in self._noted.items()
            if name not in there or sha256(_whole(there[name])[:size]).hexdigest() != digest
        ]

    def _verified(self) -> str:
        """What ``kcm audit verify`` says of a copy: a running Auditor is in the midst of a line."""
        with tempfile.TemporaryDirectory(prefix="kcm-journal-") as copy:
            target = Path(copy) / "journal"
            target.mkdir()
            for path in self._files():
                (target / path.name).write_bytes(_whole(path))
                if not (target / path.name).stat().st_size:
                    (target / path.name).unlink()
            command = [sys.executable, "-m", "kcm_auditor", "--verify", str(target)]
            command += ["--config", str(self._config)]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            shutil.rmtree(target)
        return done.stdout

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob("*.jsonl"))

    def _take(self, content: dict[str, Any]) -> None:
        match content["kind"]:
            case "batch":
                statement = base64.urlsafe_b64decode(content["statement"])
                self._count(decode(AuditBatch, read_signed(statement).body))
            case "incident":
                self.told.append((content["region"] or "", content["incident"]))
                if content["incident"] in ("gap", "dropped"):
                    incarnation = base64.urlsafe_b64decode(content["incarnation"]).hex()
                    span = content["first"], content["last"]
                    self._named.add(Hole(content["emitter"], incarnation, *span))

    def _count(self, batch: AuditBatch) -> None:
        incarnation = batch.emitter, batch.incarnation.hex()
        expected = self._next.get(incarnation, 1)
        if batch.first > expected:
            self.holes.append(Hole(*incarnation, expected, batch.first - 1))
        self._next[incarnation] = batch.first + len(batch.events)
        last = decode(AuditEvent, batch.events[-1])
        self._heard[batch.emitter] = max(self._heard.get(batch.emitter, 0), last.time_ms)


def _whole(path: Path) -> bytes:
    """A file up to its last finished line."""
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]
