"""Private keys of identities in files: 32 bytes, mode 600.

The seed is in a page of its own for a moment, which is left out of core dumps and wiped; from then
on the cryptographic library holds the key.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kcm_trust.identity import SEED_SIZE, Identity

from kcm_runtime.files.secret_file import read_secret, write_secret

_RANDOM: Final = Path("/dev/urandom")
"""Read straight into the page: a call that returns ``bytes`` would leave a copy."""


def load_identity(name: str, path: str, system: str) -> Identity:
    """Read a private key from a file of mode 600; raises ``SecretFileError``."""
    with _seed() as seed:
        read_secret(path, seed)
        return Identity(name, Ed25519PrivateKey.from_private_bytes(seed), system)


def create_identity(name: str, path: str, system: str) -> Identity:
    """Make a new key and its file; refuses to overwrite one."""
    with _seed() as seed:
        with _RANDOM.open("rb", buffering=0) as source:
            if source.readinto(seed) != len(seed):
                raise OSError("the kernel gave too little randomness")
        write_secret(path, seed)
        return Identity(name, Ed25519PrivateKey.from_private_bytes(seed), system)


@contextmanager
def _seed() -> Iterator[memoryview]:
    """Lend a seed's memory, and wipe it."""
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        page.madvise(mmap.MADV_DONTDUMP)
        page.madvise(mmap.MADV_DONTFORK)
        whole = memoryview(page)
        seed = whole[:SEED_SIZE]
        try:
            yield seed
        finally:
            seed[:] = bytes(SEED_SIZE)
            seed.release()
            whole.release()
