"""What a broker keeps on its disk, and how that goes bad: changes to a stopped server's files.

JetStream keeps, of a stream, ``msgs/*.blk`` (the messages), ``msgs/index.db`` and ``msgs/thw.db``
(what it knows of them, written at an orderly end and now and then before), ``meta.inf`` and its
checksum ``meta.sum``. A node of a cluster also keeps, below ``$SYS/_js_``, a log for each stream
and one, ``_meta_``, for the list of streams: ``msgs/*.blk``, ``peers.idx``, ``tav.idx`` and
``snapshots/*``. What each harm does to a server is in ``docs/chaos.md``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kcm_schemas import subjects

STREAMS = (
    subjects.CONTROL_STREAM,
    subjects.bucket_stream(subjects.KEYS_BUCKET),
    subjects.bucket_stream(subjects.REGISTRY_BUCKET),
)
"""The streams that hold what a system knows."""

ALL_STREAMS = (*STREAMS, subjects.AUDIT_STREAM)
"""The same, and the one of events: its messages may be lost, and what is journalled may not."""

Act = Literal["flip", "misnumber", "missize", "truncate", "roll-back", "forget"]
Part = Literal["block", "state", "meta", "raft", "snapshot", "stream"]

PARTS: dict[Part, tuple[str, ...]] = {
    "block": ("msgs/*.blk",),
    "state": ("msgs/index.db", "msgs/thw.db"),
    "meta": ("meta.inf", "meta.sum"),
    "raft": ("msgs/*.blk", "tav.idx", "peers.idx"),
    "snapshot": ("snapshots/*",),
    "stream": ("",),
}
"""By part, its files: below a stream's directory, and for the last three below a raft group's."""

SHARED: frozenset[Part] = frozenset({"raft", "snapshot"})
"""Parts of the groups in which nodes agree; only a cluster has them."""

SEQUENCE = range(4, 12)
"""The bytes of a message in a block that are its sequence."""

SUBJECT_AT = 22
"""Where its subject starts: behind its size (4 bytes), sequence, time, and the subject's length."""

WHOLE = 1000
"""The places of a file: a harm hits byte ``place * size // WHOLE``."""


@dataclass(frozen=True, slots=True)
class Harm:
    """What happens to which files. Pure data: the same harm changes the same file the same way."""

    part: Part
    act: Act
    place: int
    """Where in each file, in thousandths of its size."""
    stream: str
    """The stream that is harmed; of a group's files, all groups are."""
    orderly: bool
    """The server was ended by SIGTERM, and so wrote down what it knows of its files, or SIGKILL."""

    @property
    def noticed(self) -> bool:
        """Whether somebody looks at that disk and repairs it before the end."""
        return self.place % 2 == 0

    def __str__(self) -> str:
        ended = "after an orderly end" if self.orderly else "after a kill"
        where = "" if self.part in SHARED else f" of {self.stream}"
        return f"{self.act} {self.part}{where} at {self.place / 10:.0f} % {ended}"


def files(store: Path, harm: Harm) -> list[Path]:
    """What a harm hits in a server's store, in order; nothing where there is no such file."""
    if harm.part in SHARED:
        roots: Iterable[Path] = store.glob("jetstream/$SYS/_js_/*")
    else:
        roots = store.glob(f"jetstream/*/streams/{harm.stream}")
    return sorted(
        path for root in roots for pattern in PARTS[harm.part] for path in _below(root, pattern)
    )


def apply(store: Path, harm: Harm, earlier: Path | None = None) -> int:
    """Harm the files of a server that is down; returns how many changed.

    ``earlier`` is a copy of the store from before, for files that go back to it.
    """
    changed = 0
    for path in files(store, harm):
        changed += _apply(
            path, harm, None if earlier is None else earlier / path.relative_to(store)
        )
    return changed


def flipped(content: bytes, place: int) -> bytes:
    """One bit is another one."""
    if not content:
        return content
    return _flipped_at(content, place * len(content) // WHOLE, 1 << place % 8)


def damaged(block: bytes, place: int) -> bytes:
    """A bit of a message's subject or content is another one, but none of what stands before.

    With another size, sequence or length of the subject the broker does not find the message after
    it either. ``misnumbered`` and ``missized`` do that.
    """
    at = place * len(block) // WHOLE
    start = _message_at(block, at)
    if start is None or at - start >= SUBJECT_AT:
        return flipped(block, place)
    return _flipped_at(block, start + SUBJECT_AT, 1 << place % 8)


def misnumbered(block: bytes, place: int) -> bytes:
    """A message of a block has another sequence, which is higher by many millions."""
    start = _message_at(block, place * len(block) // WHOLE)
    return block if start is None else _flipped_at(block, start + SEQUENCE.start + 3, 1 << 4)


def missized(block: bytes, place: int) -> bytes:
    """A message of a block has another size, by one byte."""
    start = _message_at(block, place * len(block) // WHOLE)
    return block if start is None else _flipped_at(block, start, 1)


def _message_at(block: bytes, at: int) -> int | None:
    """Where the message with this byte starts. A message begins with its size and its sequence."""
    start = 0
    while start + SEQUENCE.stop <= len(block):
        size = int.from_bytes(block[start : start + 4], "little") & 0x7FFFFFFF
        if start <= at < start + size:
            return start
        if size == 0:
            break
        start += size
    return None


def _flipped_at(content: bytes, at: int, bit: int) -> bytes:
    return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]


def truncated(content: bytes, place: int) -> bytes:
    """The file ends earlier."""
    return content[: place * len(content) // WHOLE]


def _below(root: Path, pattern: str) -> Iterable[Path]:
    return root.glob(pattern) if pattern else [root]


def _apply(path: Path, harm: Harm, earlier: Path | None) -> bool:
    if harm.act == "forget":
        shutil.rmtree(path)
        return True
    content = path.read_bytes()
    match harm.act:
        case "flip":
            fresh = (damaged if harm.part == "block" else flipped)(content, harm.place)
        case "misnumber":
            fresh = misnumbered(content, harm.place)
        case "missize":
            fresh = missized(content, harm.place)
        case "truncate":
            fresh = truncated(content, harm.place)
        case "roll-back":
            fresh = earlier.read_bytes() if earlier is not None and earlier.exists() else b""
    path.write_bytes(fresh)
    return fresh != content
