"""No key is left in a process's memory once it was purged: read from outside, through the kernel.

Two controls must be found, so the search itself is known to work.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.security import scan
from tests.security.memory_child import COUNT, NONCES
from tests.vectors import decoder

ROOT = Path(__file__).parents[2]
BOUND = {"LD_BIND_NOW": "1"}
"""What every process that holds keys is started with: when a call is bound as it is first made, the
registers are saved on the stack, with what the last cipher call left in them."""

CORE_ALLOCATOR = BOUND | {
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.perturb=85:glibc.malloc.tcache_count=0",
}
"""What a Core is started with: freed memory is overwritten."""


def leaked(
    pattern: str,
    allocator: dict[str, str] | None = None,
    file: Path | None = None,
    program: str = "memory_child",
    more: Callable[[list[bytes]], list[bytes]] = lambda _: [],
) -> tuple[int, int]:
    """How many keys of a pattern are found after it, and how many there were.

    ``more`` returns further ones that follow from them.
    """
    reader, writer = os.pipe()
    arguments = [sys.executable, "-m", f"tests.security.{program}", pattern, str(writer)]
    child = subprocess.Popen(
        [*arguments, *([str(file)] if file else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[writer],
        cwd=ROOT,
        env=os.environ | (allocator or BOUND),
    )
    os.close(writer)
    with child, os.fdopen(reader, "rb") as told:
        try:
            raw = told.read()
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            keys = [raw[at : at + 32] for at in range(0, len(raw), 32)]
            keys += more(keys)
            if file:
                keys.append(file.read_bytes())
            return scan.found(child.pid, keys), len(keys)
        finally:
            child.kill()


def of_messages(keys: list[bytes]) -> list[bytes]:
    """The keys that XAES derived in ``envelope``, for each nonce."""
    return [decoder.xaes_key(keys[COUNT], nonce) for nonce in NONCES]


@pytest.mark.parametrize("pattern", ["envelope", "caller", "unused", "tagged", "identity"])
@pytest.mark.parametrize("allocator", [BOUND, CORE_ALLOCATOR], ids=["default", "core"])
def test_nothing_is_left(pattern: str, allocator: dict[str, str]) -> None:
    more = of_messages if pattern == "envelope" else list[bytes]
    found, keys = leaked(pattern, allocator, more=more)
    assert keys >= COUNT
    assert found == 0


def test_nothing_is_left_of_a_callee() -> None:
    """Opening a ticket passes through ``bytes`` once, which is what the allocator is set for."""
    found, keys = leaked("callee", CORE_ALLOCATOR)
    assert keys > COUNT
    assert found == 0


def test_nothing_is_left_of_a_secret_file(tmp_path: Path) -> None:
    path = tmp_path / "seal.key"
    path.write_bytes(os.urandom(32))
    path.chmod(0o600)
    assert leaked("secret_file", file=path) == (0, 1)


def test_the_search_finds_what_is_there() -> None:
    assert leaked("unpurged") == (COUNT, COUNT)


def test_the_search_finds_keys_that_became_bytes() -> None:
    found, keys = leaked("as_bytes")
    assert keys == COUNT
    assert found >= COUNT // 2  # some are overwritten by chance
