"""What the kernel does for an arena: guards that fault, no copy in a child, no swap, no dump."""

from __future__ import annotations

import ctypes
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from kcm_keymem.arena import Arena
from kcm_keymem.pages import PAGE, fill_random, map_pages

PROLOGUE = """
import ctypes, os, resource, sys
from kcm_keymem.arena import Arena, Purged
from kcm_keymem.pages import PAGE, fill_random
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
arena = Arena()
view = arena.enter()
fill_random(view)
address = ctypes.addressof(ctypes.c_char.from_buffer(view))
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code beside a filled arena in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", PROLOGUE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "place", ["address - 1", "address - PAGE", "address + PAGE", "address + 2 * PAGE - 1"]
)
@pytest.mark.parametrize("call", ["ctypes.memset({}, 0, 1)", "ctypes.string_at({}, 1)"])
def test_guard_pages_fault(place: str, call: str) -> None:
    done = run(call.format(place))
    assert done.returncode == -signal.SIGSEGV, done.stderr


@pytest.mark.parametrize("place", ["address", "address + PAGE - 1"])
def test_between_the_guards_nothing_faults(place: str) -> None:
    done = run(f"ctypes.memset({place}, 0, 1)")
    assert done.returncode == 0, done.stderr


def test_a_view_of_a_purged_and_unmapped_arena_faults() -> None:
    done = run("arena.leave(); arena.purge(); view[0]")
    assert done.returncode == -signal.SIGSEGV, done.stderr


FORKED = """
child = os.fork()
if not child:
    {}
    os._exit(0)
_, status = os.waitpid(child, 0)
print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
assert any(view), "the child's doings reached the parent's keys"
"""


def test_a_forked_child_that_touches_keys_dies() -> None:
    done = run(FORKED.format("view[0]"))
    assert done.stdout.strip() == str(-signal.SIGSEGV.value), done.stderr


def test_a_forked_child_that_asks_for_keys_is_refused() -> None:
    asked = "try: arena.enter()\n    except Purged: os._exit(7)"
    done = run(FORKED.format(asked))
    assert done.stdout.strip() == "7", done.stderr


@pytest.mark.parametrize("act", ["arena.purge()", "arena.__del__()"])
def test_a_forked_child_does_no_harm(act: str) -> None:
    done = run(FORKED.format(act))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0"


def address_of(arena: Arena) -> int:
    """Where an arena's keys are."""
    with arena.use() as view:
        return ctypes.addressof(ctypes.c_char.from_buffer(view))


def flags(address: int) -> set[str]:
    """The kernel's own word on the mapping at ``address``."""
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            start, end = (int(text, 16) for text in first.split("-"))
            inside = start <= address < end
        elif inside and first == "VmFlags:":
            return set(line.split()[1:])
    return set()


def test_the_kernel_locks_it_keeps_it_from_dumps_and_from_children() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    assert limit == resource.RLIM_INFINITY or limit >= 8 * PAGE, "raise the memlock limit"
    arena = Arena()
    found = flags(address_of(arena))
    arena.purge()
    assert {"lo", "dd", "dc"} <= found
    done = run("""
        from kcm_keymem.arena import secure_memory
        assert secure_memory() == ("full", ()), secure_memory()
    """)
    assert done.returncode == 0, done.stderr


def test_purge_unmaps() -> None:
    arena = Arena()
    address = address_of(arena)
    assert flags(address)
    arena.purge()
    assert not flags(address)


def test_a_low_memlock_limit_degrades_and_says_so() -> None:
    done = run("""
        from kcm_keymem.arena import secure_memory
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        if os.geteuid() == 0:
            os.seteuid(65534)
        assert secure_memory() == ("full", ())
        Arena()
        assert secure_memory() == ("degraded", ("mlock",)), secure_memory()
    """)
    assert done.returncode == 0, done.stderr


def test_pages_are_rounded_up_and_start_as_zeros() -> None:
    pages = map_pages(PAGE + 1)
    try:
        assert pages.size == 2 * PAGE
        assert not any(memoryview(pages.buffer()).cast("B"))
    finally:
        pages.unmap()


def test_fill_random_fills_everything() -> None:
    size = 3 * 1024 * 1024 + 17
    data = bytearray(size)
    fill_random(memoryview(data))
    blocks = {bytes(data[at : at + 32]) for at in range(0, size - 32, 32)}
    assert len(blocks) == (size - 32 + 31) // 32
    assert bytes(32) not in blocks
    assert any(data[-17:])


def test_the_child_in_these_tests_is_a_child() -> None:
    """``run`` shows the exit status of its code, so the cases above can fail."""
    assert run("sys.exit(3)").returncode == 3
    assert run(FORKED.format("os._exit(5)")).stdout.strip() == "5"
