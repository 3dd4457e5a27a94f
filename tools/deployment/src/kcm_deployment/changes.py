"""What a repetition of ``kcm init`` changed, for the person who carries the bundles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal

Change = Literal["made", "changed", "same"]

_KEYS: Final = frozenset({"seal-key", "identity", "operator.key", "app.key"})
"""Copies of keys, which never change, and which are not read here."""

State = Mapping[str, Mapping[str, str]]
"""By bundle, the digests of its files; a bundle without files is not there."""


def state(directory: Path, bundles: Iterable[str]) -> State:
    """Return the present state of bundles below ``directory``."""
    return {bundle: files for bundle in bundles if (files := _digests(directory / bundle))}


def changes(before: State, after: State) -> dict[str, Change]:
    """Return what became of each bundle."""
    return {bundle: _change(before.get(bundle), files) for bundle, files in after.items()}


def _change(before: Mapping[str, str] | None, after: Mapping[str, str]) -> Change:
    if before is None:
        return "made"
    return "same" if before == after else "changed"


def _digests(bundle: Path) -> dict[str, str]:
    return {
        str(path.relative_to(bundle)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(bundle.rglob("*"))
        if path.is_file() and path.name not in _KEYS
    }
