"""Keys of the broker in files that only their owner may read, each made once."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kcm_runtime.files.atomic import place
from kcm_runtime.files.private_files import make_directory
from kcm_runtime.files.secret_file import read_private
from kcm_runtime.nats.nkeys import SEED_LENGTH, KeyKind, SigningKey
from kcm_schemas.codes import Code, KcmError

_SIZE: Final = SEED_LENGTH + 1
"""Bytes of a file: the seed and the end of its line."""


def kept_key(path: Path, kind: KeyKind, *, known: bool = False) -> SigningKey:
    """Return the key of a file, or make it there; raises as ``read_key``.

    ``known``: the key was in use before, so a missing file is a ``conflict``: another key would
    lock everything out that has the old one.
    """
    if path.exists():
        return read_key(path, kind)
    if known:
        raise KcmError(Code.CONFLICT, f"{path} is missing, and its key is in use: restore it")
    key = SigningKey.generate(kind)
    make_directory(path.parent)
    place(path, f"{key.seed()}\n".encode("ascii"), replace=False)
    return key


def read_key(path: Path, kind: KeyKind) -> SigningKey:
    """Read a key of this kind; raises as ``read_private``, and ``malformed``."""
    raw = read_private(path, _SIZE)
    try:
        key = SigningKey.from_seed(raw.decode("ascii").rstrip("\n"))
    except (UnicodeDecodeError, KcmError):
        key = None
    if key is None or key.kind is not kind:
        raise KcmError(Code.MALFORMED, f"{path} has no key of the kind {kind.name.lower()}")
    return key
