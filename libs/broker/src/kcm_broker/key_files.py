"""Keys of the broker in files that only their owner may read, each made once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from kcm_runtime.files.atomic import place
from kcm_runtime.files.private_files import make_directory
from kcm_runtime.files.secret_file import SecretFileError, check_access
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
    """Read a key of this kind.

    Raises ``SecretFileError`` if it cannot be read or others can read it, and ``malformed``.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SecretFileError(f"cannot read {path}: {error.strerror}") from None
    try:
        check_access(str(path), os.fstat(fd), _SIZE)
        raw = os.read(fd, _SIZE)
    finally:
        os.close(fd)
    try:
        key = SigningKey.from_seed(raw.decode("ascii").rstrip("\n"))
    except UnicodeDecodeError:
        key = None
    if key is None or key.kind is not kind:
        raise KcmError(Code.MALFORMED, f"{path} has no key of the kind {kind.name.lower()}")
    return key
