"""Whether an entry of an allow-list covers a subject, as a server decides it."""

from __future__ import annotations

from collections.abc import Iterable


def covers(entries: Iterable[str], subject: str) -> bool:
    return any(_one(entry.partition(" ")[0].split("."), subject.split(".")) for entry in entries)


def _one(entry: list[str], subject: list[str]) -> bool:
    for at, token in enumerate(entry):
        if token == ">":
            return len(subject) > at
        if at >= len(subject) or token not in ("*", subject[at]):
            return False
    return len(entry) == len(subject)
