"""Private keys of identities in files: 32 bytes, mode 600.

For a moment the seed is in its own page, which is excluded from core dumps and wiped; from then on
the cryptography library holds the key.
"""

from __future__ import annotations

import mmap
import os
import stat
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
    """Create a new key and its file; raises ``FileExistsError`` if there is one."""
    with _seed() as seed:
        os.getrandom(1)  # waits until the kernel's generator is seeded
        with _RANDOM.open("rb", buffering=0) as source:
            if not stat.S_ISCHR(os.fstat(source.fileno()).st_mode):
                raise OSError(f"{_RANDOM} is not a device")
            if source.readinto(seed) != len(seed):
                raise OSError("the kernel returned too few random bytes")
        write_secret(path, seed)
        return Identity(name, Ed25519PrivateKey.from_private_bytes(seed), system)


@contextmanager
def _seed() -> Iterator[memoryview]:
    """Lend the memory of a seed, and wipe it afterwards."""
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
