"""The filter of system calls, run by an interpreter of its instructions."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from kcm_core.unsealer.confinement.seccomp import packed, program
from kcm_core.unsealer.confinement.syscall_numbers import ARCHITECTURES, DENIED, EXECUTING

ALLOWED, KILLED = 0x7FFF0000, 0x80000000
REFUSED = 0x00050000 | errno.EPERM
NEW_USER_NAMESPACE = 0x10000000
THREAD = 0x3D0F00
ARCH = pytest.mark.parametrize("name", sorted(ARCHITECTURES))


def decide(code, *, audit, number, first=0):
    """Run the filter as the kernel does, on one system call."""
    data = struct.pack("=IIQ6Q", number, audit, 0, first, 0, 0, 0, 0, 0)
    at, word = 0, 0
    while True:
        operation, true, false, value = code[at]
        at += 1
        match operation:
            case 0x20:
                (word,) = struct.unpack_from("=I", data, value)
            case 0x15:
                at += true if word == value else false
            case 0x35:
                at += true if word >= value else false
            case 0x45:
                at += true if word & value else false
            case 0x06:
                return value


def decisions(name, *, may_execute=False):
    known = ARCHITECTURES[name]
    code = program(known, may_execute=may_execute)

    def of(call, first=0):
        number = known.numbers[call] if isinstance(call, str) else call
        return decide(code, audit=known.audit, number=number, first=first)

    return of


@ARCH
def test_what_is_on_the_list_is_refused_and_the_rest_is_not(name):
    of, numbers = decisions(name), ARCHITECTURES[name].numbers
    listed = {numbers[call] for call in (*DENIED, *EXECUTING) if call in numbers}
    judged = {numbers[call] for call in ("clone3", "socket")}
    for number in range(500):
        if number not in judged:
            assert of(number) == (REFUSED if number in listed else ALLOWED), number


@ARCH
def test_programs_are_run_only_where_a_provider_needs_it(name):
    for call in EXECUTING:
        assert decisions(name)(call) == REFUSED
        assert decisions(name, may_execute=True)(call) == ALLOWED


@ARCH
def test_a_process_may_fork_but_make_no_namespace(name):
    of = decisions(name)
    assert of("clone", 17) == of("clone", THREAD) == ALLOWED
    assert of("clone", NEW_USER_NAMESPACE | 17) == REFUSED
    assert of("clone3") == 0x00050000 | errno.ENOSYS


@ARCH
def test_limits_of_another_process_stay(name):
    of = decisions(name)
    assert of("prlimit64", 0) == ALLOWED
    assert of("prlimit64", 4711) == REFUSED


@ARCH
def test_sockets_are_of_known_families(name):
    of = decisions(name)
    for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
        assert of("socket", int(family)) == ALLOWED
    for family in (0, 17, 38, 40, 44):
        assert of("socket", family) == REFUSED


def test_another_interface_to_the_kernel_does_not_pass():
    known = ARCHITECTURES["x86_64"]
    code = program(known, may_execute=False)
    assert decide(code, audit=known.audit, number=0x40000000 | 101) == REFUSED
    assert decide(code, audit=0x40000003, number=26) == KILLED


@ARCH
def test_the_kernel_gets_eight_bytes_for_each_instruction(name):
    code = program(ARCHITECTURES[name], may_execute=False)
    assert len(packed(code)) == 8 * len(code)
    assert len(code) <= 4096
    for at, (operation, true, false, _) in enumerate(code):
        if operation in {0x15, 0x35, 0x45}:
            assert at + 1 + max(true, false) < len(code)
