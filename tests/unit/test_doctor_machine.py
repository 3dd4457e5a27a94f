"""``kcm doctor``: the machine's checks, with the texts of a kernel that is not this one."""

from dataclasses import replace

import pytest
from kcm_deployment.doctor.checks.machine import CHECKS, MEMLOCK_MIN, check_machine
from kcm_deployment.doctor.machine_facts import MachineFacts, read_machine

LIMITS = "Limit  Soft  Hard  Units\nMax core file size         {}          unlimited     bytes\n"
SWAPS = "Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
GOOD = MachineFacts(
    memlock=MEMLOCK_MIN,
    swaps=SWAPS,
    core_pattern="core\n",
    limits=LIMITS.format(0),
    ptrace_scope="1\n",
    security_modules="lockdown,capability,landlock,yama",
    page_lacks=(),
    clock_in_step=True,
)


def test_a_good_machine_passes_every_check():
    found = check_machine(GOOD)
    assert {one.state for one in found} == {"ok"}
    assert len({one.check for one in found}) == len(CHECKS) == 7
    assert not any(one.fix for one in found)


@pytest.mark.parametrize(
    ("change", "check", "state"),
    [
        ({"memlock": -1}, "memlock", "ok"),
        ({"memlock": MEMLOCK_MIN - 1}, "memlock", "fail"),
        ({"swaps": SWAPS + "/dev/sda2 partition 1 0 -2\n"}, "swap", "warn"),
        ({"swaps": None}, "swap", "unknown"),
        ({"core_pattern": "|/usr/share/apport/apport %p\n"}, "core-dumps", "warn"),
        ({"core_pattern": None}, "core-dumps", "unknown"),
        ({"limits": LIMITS.format("unlimited")}, "core-dumps", "warn"),
        ({"limits": LIMITS.format("4096")}, "core-dumps", "warn"),
        ({"limits": None}, "core-dumps", "unknown"),
        ({"ptrace_scope": "0\n"}, "ptrace", "warn"),
        ({"ptrace_scope": None}, "ptrace", "unknown"),
        ({"page_lacks": ("the kernel has no memfd_secret",)}, "secret-memory", "warn"),
        ({"page_lacks": None}, "secret-memory", "fail"),
        ({"security_modules": "capability,nolandlock"}, "landlock", "warn"),
        ({"security_modules": None}, "landlock", "unknown"),
        ({"clock_in_step": False}, "clock", "warn"),
        ({"clock_in_step": None}, "clock", "unknown"),
    ],
)
def test_one_fact_changes_one_finding(change, check, state):
    found = {one.check: one for one in check_machine(replace(GOOD, **change))}
    assert found.pop(check).state == state
    assert {one.state for one in found.values()} == {"ok"}


def test_each_finding_that_is_not_ok_has_a_fix():
    worst = MachineFacts(0, None, None, None, None, None, None, None)
    assert all(one.fix for one in check_machine(worst))
    assert (
        "/dev/sda2" in check_machine(replace(GOOD, swaps=SWAPS + "/dev/sda2 file 1 0 -2"))[1].text
    )


def test_the_facts_are_the_texts_of_the_kernels_files():
    asked = []

    def read(path):
        asked.append(path)
        return path

    facts = read_machine(read, lambda: ("x",), lambda: None)
    assert facts.swaps == "/proc/swaps"
    assert facts.core_pattern == "/proc/sys/kernel/core_pattern"
    assert facts.ptrace_scope == "/proc/sys/kernel/yama/ptrace_scope"
    assert facts.security_modules == "/sys/kernel/security/lsm"
    assert facts.page_lacks == ("x",)
    assert len(asked) == 5


def test_memory_that_cannot_be_mapped_is_a_fact_and_no_fault():
    def lacks():
        raise MemoryError

    assert read_machine(lambda _: None, lacks, lambda: None).page_lacks is None


def test_this_machine_can_be_looked_at():
    facts = read_machine()
    assert facts.memlock >= -1
    assert len(check_machine(facts)) == len(CHECKS)
