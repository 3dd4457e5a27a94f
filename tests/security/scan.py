"""Searching the memory of another process for keys, in the forms in which they leak."""

from __future__ import annotations

import base64
import os
from pathlib import Path

CHUNK = 16 * 1024 * 1024
"""Bytes read at once."""

OVERLAP = 64
"""Bytes by which chunks overlap: the length of the longest form."""


def forms(key: bytes) -> list[bytes]:
    """A key as it may lie in memory: halves, reversed, hexadecimal, base64."""
    turned = key[::-1]
    return [
        key[:16],
        key[16:],
        turned[:16],
        turned[16:],
        key[:16].hex().encode(),
        key[:16].hex().upper().encode(),
        base64.b64encode(key)[:40],
        base64.urlsafe_b64encode(key)[:40],
    ]


def found(pid: int, keys: list[bytes]) -> int:
    """How many of ``keys`` are anywhere in the readable memory of ``pid``, in any form."""
    chunks = _memory(pid)
    return sum(any(form in chunk for form in forms(key) for chunk in chunks) for key in keys)


def _memory(pid: int) -> list[bytes]:
    chunks = []
    with open_memory(pid) as fd:
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
            span, rights, *rest = line.split()
            of_a_file = len(rest) > 3 and rest[-1].startswith("/")
            if "r" not in rights or (of_a_file and "w" not in rights):
                continue  # unreadable, or a library's code
            if rest[-1] in {"[vvar]", "[vvar_vclock]", "[vsyscall]"}:
                continue
            start, end = (int(text, 16) for text in span.split("-"))
            chunks += _read(fd, start, end)
    assert chunks, "no memory of the child could be read"
    return chunks


def _read(fd: int, start: int, end: int) -> list[bytes]:
    chunks = []
    for at in range(start, end, CHUNK):
        try:
            chunks.append(os.pread(fd, min(CHUNK + OVERLAP, end - at), at))
        except OSError:
            continue  # pages that the kernel does not give: not readable by an attacker either
    return chunks


class open_memory:  # noqa: N801 - reads like the function that it is
    """``/proc/PID/mem``, or a failure that says what the test needs."""

    def __init__(self, pid: int) -> None:
        try:
            self.fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        except PermissionError:
            raise AssertionError(
                "this test reads the memory of its own child: run it as root, or with "
                "kernel.yama.ptrace_scope at 0 or 1 and as the child's parent"
            ) from None

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
