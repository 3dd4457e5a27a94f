"""The machine: locked memory, swap, core dumps, tracing, confinement and the clock."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from kcm_deployment.doctor.finding import Finding, bad, good, unknown, warn
from kcm_deployment.doctor.machine_facts import MachineFacts

MEMLOCK_MIN: Final = 8 << 20
"""Bytes that an instance locks for its keys at least: the limit that Linux gives to every user."""

_AS_ROOT: Final = "run the command as root, or on the machine and not in a container"
_CORE_LIMIT: Final = re.compile(r"^Max core file size +(\d+|unlimited)", re.MULTILINE)


def memlock(facts: MachineFacts) -> Finding:
    """Whether keys can be locked in memory."""
    if facts.memlock < 0:
        return good("memlock", "this process may lock memory without a limit")
    text = f"this process may lock {facts.memlock >> 10} KiB of memory"
    if facts.memlock >= MEMLOCK_MIN:
        return good("memlock", text)
    fix = "set LimitMEMLOCK=64M in the unit, or `ulimits: memlock` of the container"
    return bad("memlock", f"{text}; an instance needs {MEMLOCK_MIN >> 10} KiB", fix)


def swap(facts: MachineFacts) -> Finding:
    """Whether memory can reach a disk. Keys are locked, and what is around them is not."""
    if facts.swaps is None:
        return unknown("swap", "/proc/swaps cannot be read", _AS_ROOT)
    names = [line.split()[0] for line in facts.swaps.splitlines()[1:] if line.strip()]
    if not names:
        return good("swap", "no swap is active")
    fix = "encrypt the swap or remove it with `swapoff -a`, and keep MemorySwapMax=0 in the units"
    return warn("swap", f"swap is active: {', '.join(names)}", fix)


def core_dumps(facts: MachineFacts) -> Finding:
    """Whether a process that ends by a fault leaves its memory in a file."""
    if facts.core_pattern is None:
        text = "/proc/sys/kernel/core_pattern cannot be read"
        return unknown("core-dumps", text, _AS_ROOT)
    if facts.core_pattern.startswith("|"):
        text = "core dumps go to a program, which ignores the limit of a process"
        fix = "set `sysctl kernel.core_pattern=core`, or Storage=none in coredump.conf"
        return warn("core-dumps", text, fix)
    found = _CORE_LIMIT.search(facts.limits or "")
    if found is None:
        text = "the core limit of the starting process cannot be read"
        return unknown("core-dumps", text, "look at `ulimit -c`: it has to be 0")
    if found[1] != "0":
        text = "processes may write core dumps"
        return warn("core-dumps", text, "set `ulimit -c 0`, and LimitCORE=0 in the units")
    return good("core-dumps", "core dumps are off, and go to no program")


def ptrace(facts: MachineFacts) -> Finding:
    """Whether a process may read the memory of others of its user."""
    if facts.ptrace_scope is None:
        text = "the kernel has no Yama, or hides it"
        return unknown("ptrace", text, "enable `yama` in `lsm=` of the kernel's command line")
    if facts.ptrace_scope.strip() == "0":
        text = "a process may trace all others of its user"
        return warn("ptrace", text, "set `sysctl kernel.yama.ptrace_scope=1` or higher")
    return good("ptrace", "a process may trace its own children at most")


def secret_memory(facts: MachineFacts) -> Finding:
    """Whether keys are in memory that the kernel cannot read."""
    if facts.page_lacks is None:
        text = "no memory for a key could be mapped"
        return bad("secret-memory", text, "raise the memlock limit, and free some memory")
    if not facts.page_lacks:
        return good("secret-memory", "keys are in memory that the kernel itself cannot read")
    fix = (
        "see `secure_memory` in docs/deployment.md: a kernel with `secretmem.enable=1`, and limits"
    )
    return warn("secret-memory", "; ".join(facts.page_lacks), fix)


def landlock(facts: MachineFacts) -> Finding:
    """Whether the unsealer can give up access to files."""
    if facts.security_modules is None:
        return unknown("landlock", "/sys/kernel/security/lsm cannot be read", _AS_ROOT)
    if "landlock" in facts.security_modules.strip().split(","):
        return good("landlock", "the kernel has Landlock, which confines the unsealer")
    fix = "start a kernel from 5.13 on with `landlock` in `lsm=`"
    return warn("landlock", "Landlock is off: the unsealer's access to files is not confined", fix)


def clock(facts: MachineFacts) -> Finding:
    """Whether a time service keeps the clock. Signed statements have times."""
    if facts.clock_in_step is None:
        text = "the kernel does not say whether the clock is synchronised"
        return unknown("clock", text, "look at `timedatectl`")
    if facts.clock_in_step:
        return good("clock", "the clock is synchronised")
    return warn("clock", "the clock is not synchronised", "set `timedatectl set-ntp true`")


CHECKS: Final[tuple[Callable[[MachineFacts], Finding], ...]] = (
    memlock,
    swap,
    core_dumps,
    ptrace,
    secret_memory,
    landlock,
    clock,
)


def check_machine(facts: MachineFacts) -> tuple[Finding, ...]:
    """Return the findings about a machine."""
    return tuple(check(facts) for check in CHECKS)
