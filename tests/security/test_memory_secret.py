"""What another process reads of keys that are in use: nothing, where secure memory says so.

A child holds keys in an arena, in a slot and in scratch, and another one in ordinary memory. Its
parent, which is its user or root, reads its memory. The control finds that other key. Without
``memfd_secret`` all are found: what the child says of its memory must be what is seen.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.security import scan

ROOT = Path(__file__).parents[2]

PROGRAM = """
import ctypes, os, sys
from kcm_keymem.arena import Arena, ScratchPool
from kcm_keymem.page_source import SYSTEM
from kcm_keymem.pages import PAGE, fill_random
from kcm_keymem.slots import Slots
from kcm_runtime.hardening import make_undumpable
from kcm_schemas.limits import KEY_SIZE
from tests.security.old_kernel import refuse_memfd_secret

if sys.argv[1] == "old":
    refuse_memfd_secret()
arena, pool, slots = Arena(3 * PAGE), ScratchPool(), Slots()
ordinary = bytearray(KEY_SIZE)
with arena.use() as large, pool.borrow(KEY_SIZE) as scratch, slots.lend().use(KEY_SIZE) as slot:
    for key in (large[:KEY_SIZE], large[-KEY_SIZE:], scratch, slot, memoryview(ordinary)):
        fill_random(key)
        assert os.writev(1, [key]) == KEY_SIZE
    addresses = (ctypes.addressof(ctypes.c_char.from_buffer(one)) for one in (large, ordinary))
    said = "; ".join(SYSTEM.lacks) or "full"
    os.write(1, " ".join((*map(str, addresses), said)).encode() + b"\\n")
    sys.stdin.read(1)
"""
"""Says its keys, where two of them are, and what its memory lacks; ends with its input."""

KEYS = 4
"""Keys that are in arenas; the fifth one is in ordinary memory."""


@dataclass(frozen=True)
class Holder:
    """A process that holds keys: which, where the first and the last one are, what it lacks."""

    pid: int
    keys: list[bytes]
    in_arena: int
    in_ordinary: int
    said: str


@contextmanager
def holder(kernel: str) -> Iterator[Holder]:
    """A process with live keys, on this kernel (``this``) or without ``memfd_secret`` (``old``)."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kernel],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as child:
        try:
            assert child.stdout is not None
            raw = child.stdout.read(32 * (KEYS + 1))
            told = child.stdout.readline().decode().strip()
            arena, ordinary, said = told.split(" ", 2)
            keys = [raw[at : at + 32] for at in range(0, len(raw), 32)]
            yield Holder(child.pid, keys, int(arena), int(ordinary), said)
        finally:
            child.kill()


def read_by_the_kernel(pid: int, address: int) -> bytes:
    """Read a key with ``process_vm_readv``, as a debugger does; empty if that is refused."""

    class Part(ctypes.Structure):
        _fields_ = (("at", ctypes.c_void_p), ("size", ctypes.c_size_t))

    buffer = ctypes.create_string_buffer(32)
    here, there = Part(ctypes.addressof(buffer), 32), Part(address, 32)
    libc = ctypes.CDLL(None, use_errno=True)
    one = ctypes.c_ulong(1)
    got = libc.process_vm_readv(
        pid, ctypes.byref(here), one, ctypes.byref(there), one, ctypes.c_ulong(0)
    )
    return buffer.raw if got == 32 else b""


@pytest.mark.parametrize("kernel", ["this", "old"])
def test_live_keys_are_seen_exactly_where_secure_memory_is_not_full(kernel: str) -> None:
    with holder(kernel) as child:
        search = scan.Search({str(number): key for number, key in enumerate(child.keys)})
        seen = search.names(child.pid)
        assert str(KEYS) in seen, "the search finds what is in ordinary memory"
        inside = seen - {str(KEYS)}
        assert read_by_the_kernel(child.pid, child.in_ordinary) == child.keys[KEYS]
        if child.said == "full":
            assert not inside
            assert read_by_the_kernel(child.pid, child.in_arena) == b""
        else:
            assert child.said == "the kernel has no memfd_secret"
            assert len(inside) == KEYS
            assert read_by_the_kernel(child.pid, child.in_arena) == child.keys[0]


def test_a_kernel_that_has_memfd_secret_is_used() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(447, os.O_CLOEXEC)
    with holder("this") as child:
        assert (child.said == "full") == (fd >= 0)
    if fd >= 0:
        os.close(fd)


def test_without_memfd_secret_the_memory_is_not_full() -> None:
    with holder("old") as child:
        assert child.said == "the kernel has no memfd_secret"


def test_the_file_of_the_pages_cannot_be_opened_again() -> None:
    """``/proc/PID/map_files`` leads root to the file of a mapping."""
    with holder("this") as child:
        found = 0
        for line in Path(f"/proc/{child.pid}/maps").read_text(encoding="utf-8").splitlines():
            if "/secretmem" in line:
                found += 1
                span = "-".join(text.lstrip("0") for text in line.split()[0].split("-"))
                with pytest.raises(OSError, match=r"No such device|not permitted"):
                    os.open(f"/proc/{child.pid}/map_files/{span}", os.O_RDWR)
        assert found == (3 if child.said == "full" else 0)
        assert not [
            one
            for one in Path(f"/proc/{child.pid}/fd").iterdir()
            if "secretmem" in str(one.readlink())
        ]
