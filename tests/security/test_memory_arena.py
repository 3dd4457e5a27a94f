"""What the kernel does for an arena: guards that fault, no copy in a child, no swap, no dump.

Both for secret pages and for those that take their place on a kernel without ``memfd_secret``.
"""

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
from kcm_keymem.page_source import SYSTEM, PageSource
from kcm_keymem.pages import PAGE, fill_random, map_anonymous

from tests.fakes.secret_files import RefusedFiles

ROOT = Path(__file__).parents[2]

PROLOGUE = """
import ctypes, os, resource, sys
from kcm_keymem.arena import Arena, Purged
from kcm_keymem.page_source import SYSTEM, PageSource
from kcm_keymem.pages import PAGE, fill_random
from kcm_keymem.secure_memory import secure_memory
from kcm_runtime.hardening import make_undumpable
from tests.fakes.secret_files import RefusedFiles
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
source = SYSTEM if sys.argv[1] == "secret" else PageSource(RefusedFiles())
arena = Arena(source=source)
view = arena.enter()
fill_random(view)
address = ctypes.addressof(ctypes.c_char.from_buffer(view))
"""


KINDS = ("secret", "locked")
"""The pages of this kernel (secret ones, if it has them), and those without ``memfd_secret``."""


def run(code: str, kind: str) -> subprocess.CompletedProcess[str]:
    """Run code beside a filled arena in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", PROLOGUE + textwrap.dedent(code), kind],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "place", ["address - 1", "address - PAGE", "address + PAGE", "address + 2 * PAGE - 1"]
)
@pytest.mark.parametrize("call", ["ctypes.memset({}, 0, 1)", "ctypes.string_at({}, 1)"])
def test_guard_pages_fault(place: str, call: str, kind: str) -> None:
    done = run(call.format(place), kind)
    assert done.returncode == -signal.SIGSEGV, done.stderr


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["address", "address + PAGE - 1"])
def test_between_the_guards_nothing_faults(place: str, kind: str) -> None:
    done = run(f"ctypes.memset({place}, 0, 1)", kind)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_of_a_purged_and_unmapped_arena_faults(kind: str) -> None:
    done = run("arena.leave(); arena.purge(); view[0]", kind)
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_forked_child_that_touches_keys_dies(kind: str) -> None:
    done = run(FORKED.format("view[0]"), kind)
    assert done.stdout.strip() == str(-signal.SIGSEGV.value), done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_forked_child_that_asks_for_keys_is_refused(kind: str) -> None:
    asked = "try: arena.enter()\n    except Purged: os._exit(7)"
    done = run(FORKED.format(asked), kind)
    assert done.stdout.strip() == "7", done.stderr


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("act", ["arena.purge()", "arena.__del__()"])
def test_a_forked_child_does_no_harm(act: str, kind: str) -> None:
    done = run(FORKED.format(act), kind)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_that_is_forked_while_another_thread_maps_has_none_of_the_files(kind: str) -> None:
    done = run(
        """
        import threading
        ending = threading.Event()
        def work():
            while not ending.is_set():
                Arena(source=source).purge()
        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        inherited = 0
        for _ in range(200):
            child = os.fork()
            if not child:
                with open("/proc/self/maps") as maps:
                    has = maps.read()
                for name in os.listdir("/proc/self/fd"):
                    try: has += os.readlink(f"/proc/self/fd/{name}")
                    except OSError: pass  # the listing's own
                os._exit("secretmem" in has)
            inherited += os.waitpid(child, 0)[1] != 0
        ending.set()
        print(inherited)
    """,
        kind,
    )
    assert done.stdout.strip() == "0", done.stderr


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


@pytest.mark.parametrize("source", [SYSTEM, PageSource(RefusedFiles())], ids=KINDS)
def test_the_kernel_locks_it_keeps_it_from_dumps_and_from_children(source: PageSource) -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    assert limit == resource.RLIM_INFINITY or limit >= 8 * PAGE, "raise the memlock limit"
    arena = Arena(source=source)
    found = flags(address_of(arena))
    arena.purge()
    assert {"lo", "dd", "dc"} <= found


@pytest.mark.parametrize(
    ("kind", "lacks"), [("secret", []), ("locked", ["the kernel has no memfd_secret"])]
)
def test_core_dumps_degrade_until_the_process_cannot_be_dumped(kind: str, lacks: list[str]) -> None:
    done = run(
        """
        print(secure_memory(source).why)
        make_undumpable()
        print(secure_memory(source).why)
    """,
        kind,
    )
    if kind == "secret":  # what this kernel has is for another test
        lacks = list(PageSource().lacks)
    expected = ["; ".join([*lacks, "core dumps are enabled"]), "; ".join(lacks)]
    assert done.stdout.splitlines() == expected, done.stderr


def test_purge_unmaps() -> None:
    arena = Arena()
    address = address_of(arena)
    assert flags(address)
    arena.purge()
    assert not flags(address)


@pytest.mark.parametrize("kind", KINDS)
def test_a_low_memlock_limit_degrades_and_says_so(kind: str) -> None:
    done = run(
        """
        make_undumpable()
        before = source.lacks
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        if os.geteuid() == 0:
            os.seteuid(65534)
        Arena(source=source)
        assert "memlock" not in "".join(before)
        assert set(source.lacks) == {*before, "the memlock limit is too low"}, source.lacks
        assert "the memlock limit is too low" in secure_memory(source).why
        assert not secure_memory(source).full
        view[0] = 1
    """,
        kind,
    )
    assert done.returncode == 0, done.stderr


def test_a_mapping_that_the_limit_refuses_leaves_none_of_its_pages_mapped() -> None:
    done = run(
        """
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        if os.geteuid() == 0:
            os.seteuid(65534)
        def mapped():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[0])
        arenas = [Arena(source=source) for _ in range(20)]
        before, files = mapped(), len(os.listdir("/proc/self/fd"))
        arenas += [Arena(source=source) for _ in range(200)]
        assert mapped() - before <= 200 * 3 + 512, "an arena has a page and two guards"
        assert len(os.listdir("/proc/self/fd")) == files
    """,
        "secret",
    )
    assert done.returncode == 0, done.stderr


def test_pages_are_rounded_up_and_start_as_zeros() -> None:
    pages = map_anonymous(PAGE + 1)
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


@pytest.mark.parametrize("kind", KINDS)
def test_the_child_in_these_tests_is_a_child(kind: str) -> None:
    """``run`` shows the exit status of its code, so the cases above can fail."""
    assert run("sys.exit(3)", kind).returncode == 3
    assert run(FORKED.format("os._exit(5)"), kind).stdout.strip() == "5"
