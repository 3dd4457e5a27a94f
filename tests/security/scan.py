"""Searching the memory of another process for keys, in the forms in which they leak."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

CHUNK: Final = 16 * 1024 * 1024
"""Bytes read at once."""

WINDOW: Final = 8
"""Bytes by which a form is recognised, at any address; then it is compared as a whole."""

OVERLAP: Final = 64
"""Bytes by which chunks overlap: the length of the longest form."""


def forms(key: bytes) -> list[bytes]:
    """A key of 32 bytes as it may lie in memory.

    Raw and reversed halves, the round keys of AES-256, hexadecimal, and base64 at each of the three
    places that it may have in a longer text.
    """
    turned = key[::-1]
    found = [key[:16], key[16:], turned[:16], turned[16:]]
    found += round_keys(key)[2:]
    found += [key[:16].hex().encode(), key[:16].hex().upper().encode()]
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(bytes(before) + key)
            found.append(text[4 if before else 0 :][:36])
    return found


def round_keys(key: bytes) -> list[bytes]:
    """The 15 round keys of AES-256 (FIPS 197, section 5.2), 16 bytes each."""
    words = [key[at : at + 4] for at in range(0, 32, 4)]
    rcon = 1
    for number in range(8, 60):
        word = words[-1]
        if number % 8 == 0:
            word = _substituted(word[1:] + word[:1])
            word = bytes((word[0] ^ rcon,)) + word[1:]
            rcon = rcon << 1
        elif number % 8 == 4:
            word = _substituted(word)
        words.append(bytes(a ^ b for a, b in zip(words[-8], word, strict=True)))
    return [b"".join(words[at : at + 4]) for at in range(0, 60, 4)]


class Search:
    """Looks for many keys at once: the time does not depend on their number."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """``keys`` have names, which ``names`` returns."""
        self._forms: Final[dict[int, list[tuple[str, bytes]]]] = {}
        for name, key in keys.items():
            for form in forms(key):
                window = int.from_bytes(form[:WINDOW], "little")
                self._forms.setdefault(window, []).append((name, form))
        self._windows: Final = frozenset(self._forms)

    def names(self, pid: int) -> frozenset[str]:
        """The names of the keys that are anywhere in the readable memory of a process."""
        return frozenset(name for chunk in memory(pid) for name in self.within(chunk))

    def within(self, chunk: bytes) -> Iterator[str]:
        """The names of the keys in some bytes."""
        for start in range(WINDOW):
            end = start + (len(chunk) - start) // WINDOW * WINDOW
            words = memoryview(chunk)[start:end].cast("Q")
            for window in self._windows.intersection(words):
                for name, form in self._forms[window]:
                    if form in chunk:
                        yield name


def found(pid: int, keys: list[bytes]) -> int:
    """How many of ``keys`` are anywhere in the readable memory of ``pid``, in any form."""
    return len(Search({str(number): key for number, key in enumerate(keys)}).names(pid))


def memory(pid: int) -> Iterator[bytes]:
    """The readable memory of a process, but for its code and for pages of zeros."""
    read = False
    with open_memory(pid) as fd:
        for start, end in _writable(pid):
            for at in range(start, end, CHUNK):
                try:
                    chunk = os.pread(fd, min(CHUNK + OVERLAP, end - at), at)
                except OSError:
                    continue  # pages that the kernel does not give: no attacker reads them either
                read = True
                if chunk.count(0) != len(chunk):
                    yield chunk
    assert read, f"no memory of process {pid} could be read"


def _writable(pid: int) -> Iterator[tuple[int, int]]:
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
        span, rights, *rest = line.split()
        of_a_file = len(rest) > 3 and rest[-1].startswith("/")
        if "r" not in rights or (of_a_file and "w" not in rights):
            continue  # unreadable, or a library's code
        if rest[-1] in {"[vvar]", "[vvar_vclock]", "[vsyscall]"}:
            continue
        start, end = (int(text, 16) for text in span.split("-"))
        yield start, end


class open_memory:  # noqa: N801 - reads like the function that it is
    """``/proc/PID/mem``, or a failure that says what the test needs."""

    def __init__(self, pid: int) -> None:
        try:
            self.fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        except PermissionError:
            raise AssertionError(
                "this test reads the memory of another process: run it as root, or with "
                "kernel.yama.ptrace_scope at 0 or 1 and as the process's parent"
            ) from None

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _sbox() -> bytes:
    """The S-box of AES, computed: the inverse in GF(2^8), then the affine map."""
    powers = [1]
    for _ in range(254):
        last = powers[-1]
        doubled = (last << 1 ^ (0x11B if last & 0x80 else 0)) & 0x1FF
        powers.append(last ^ doubled)
    logs = {value: at for at, value in enumerate(powers)}
    out = []
    for value in range(256):
        inverse = powers[-logs[value] % 255] if value else 0
        bits = inverse
        for shift in range(1, 5):
            bits ^= (inverse << shift | inverse >> 8 - shift) & 0xFF
        out.append(bits ^ 0x63)
    return bytes(out)


_SBOX: Final = _sbox()


def _substituted(word: bytes) -> bytes:
    return word.translate(_SBOX)


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that these started."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    return list(_below(parents, pid))


def _below(parents: Mapping[int, Iterable[int]], pid: int) -> Iterator[int]:
    for child in parents.get(pid, ()):
        yield child
        yield from _below(parents, child)
