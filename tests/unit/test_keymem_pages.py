"""Where pages come from: secret ones, or locked ones, and what is said of it."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from pathlib import Path

import pytest
from kcm_keymem.arena import Arena
from kcm_keymem.page_source import SYSTEM, PageSource
from kcm_keymem.pages import PAGE, Pages, fill_random
from kcm_keymem.secret_pages import map_secret
from kcm_keymem.secure_memory import SecureMemory, secure_memory

from tests.fakes.secret_files import RefusedFiles

SOURCES = {"system": SYSTEM, "locked": PageSource(RefusedFiles())}


def written(pages: Pages) -> bytes:
    """Fill the pages, and return what is in them before they are unmapped."""
    ctypes.memset(pages.address, 7, pages.size)
    try:
        return bytes(memoryview(pages.buffer()).cast("B"))
    finally:
        pages.unmap()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (errno.ENOSYS, "the kernel has no memfd_secret"),
        (errno.EPERM, "memfd_secret is not possible: Operation not permitted"),
    ],
)
def test_a_kernel_that_refuses_is_asked_once(code: int, why: str) -> None:
    kernel = RefusedFiles(code)
    source = PageSource(kernel)
    for size in (1, PAGE, 3 * PAGE):
        assert written(source.map(size)) == bytes((7,)) * max(size, PAGE)
    assert kernel.asked == 1
    assert source.lacks == (why,)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_kernel_that_was_out_of_something_is_asked_again(code: int) -> None:
    kernel = RefusedFiles(code, errno.ENOSYS)
    source = PageSource(kernel)
    for _ in range(3):
        source.map(1).unmap()
    assert kernel.asked == 2
    said = f"memfd_secret is not possible: {os.strerror(code)}"
    assert set(source.lacks) == {said, "the kernel has no memfd_secret"}


def test_a_file_that_cannot_be_mapped_is_closed_and_replaced_by_other_pages() -> None:
    def readable_only() -> int:
        return os.open("/dev/null", os.O_RDONLY)

    before = len(list(Path("/proc/self/fd").iterdir()))
    source = PageSource(readable_only)
    assert written(source.map(1)) == bytes((7,)) * PAGE
    assert source.lacks == ("memfd_secret is not possible: Invalid argument",)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_mapped_file_is_closed(tmp_path: Path) -> None:
    """The file of this test is an ordinary one, so it works with every kernel."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    pages = map_secret(lambda: fd, PAGE + 1)
    assert pages.size == 2 * PAGE
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    assert written(pages) == bytes((7,)) * 2 * PAGE


def test_what_the_source_lacks_is_known_before_the_first_arena() -> None:
    kernel = RefusedFiles(errno.ENOSYS)
    assert PageSource(kernel).lacks == ("the kernel has no memfd_secret",)
    assert kernel.asked == 1


def test_too_much_is_a_memory_error_and_says_nothing_of_other_pages() -> None:
    source = PageSource(RefusedFiles(0, errno.ENOSYS))
    with pytest.raises(MemoryError):
        source.map(1 << 60)
    assert source.lacks == ("the kernel has no memfd_secret",), "of the page that came afterwards"


def test_the_state_is_full_or_says_what_is_missing() -> None:
    assert str(SecureMemory()) == "full"
    assert SecureMemory().full
    degraded = SecureMemory("core dumps are enabled")
    assert str(degraded) == "degraded (core dumps are enabled)"
    assert not degraded.full


def test_the_state_has_what_the_source_lacks() -> None:
    state = secure_memory(PageSource(RefusedFiles()))
    assert state.why.startswith("the kernel has no memfd_secret")
    assert not state.full


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_everything_that_writes_keys_into_an_arena_works(
    source: PageSource, tmp_path: Path
) -> None:
    """The kernel copies to the caller's addresses: ``readv``, ``recv``, ``getrandom``."""
    arena, file = Arena(2 * PAGE, source), tmp_path / "key"
    file.write_bytes(bytes(range(256)) * 24)
    ours, theirs = socket.socketpair()
    with arena.use() as view, ours, theirs, file.open("rb", buffering=0) as opened:
        assert os.readv(opened.fileno(), [view[:6000]]) == 6000
        assert view[:6000] == file.read_bytes()[:6000]
        assert os.writev(theirs.fileno(), [view[1:33]]) == 32
        assert ours.recv_into(view[6000:], 32) == 32
        assert view[6000:6032] == view[1:33]
        assert opened.seek(0) == 0
        assert opened.readinto(view[100:200]) == 100
        assert view[100:200] == bytes(range(100))
        fill_random(view)
        assert len(set(view)) == 256
    arena.purge()
