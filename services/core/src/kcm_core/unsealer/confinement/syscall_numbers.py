"""The numbers of system calls, for each processor on which the product runs.

Source: the kernel's tables, ``asm/unistd_64.h`` and ``asm-generic/unistd.h``. The list of those
that are denied is the same for all; a processor lacks some of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Architecture:
    """A processor: its name in the kernel's audit, and the numbers of its system calls."""

    audit: int
    numbers: Mapping[str, int]

    @property
    def denied(self) -> list[int]:
        """The numbers of the calls that always fail."""
        return [self.numbers[name] for name in DENIED if name in self.numbers]

    @property
    def executing(self) -> list[int]:
        """The numbers of the calls that start another program."""
        return [self.numbers[name] for name in EXECUTING]


EXECUTING: Final = ("execve", "execveat")

DENIED: Final = (
    # They read or change another process.
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "kcmp",
    "pidfd_getfd",
    "process_madvise",
    "process_mrelease",
    "move_pages",
    "migrate_pages",
    # Other processes and machines come to it.
    "listen",
    # Large parts of the kernel that no library here needs.
    "bpf",
    "userfaultfd",
    "perf_event_open",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    # Keys that the kernel holds.
    "keyctl",
    "add_key",
    "request_key",
    # Another view of the files.
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "move_mount",
    "open_tree",
    "mount_setattr",
    "unshare",
    "setns",
    "open_by_handle_at",
    "fanotify_init",
    # The machine.
    "quotactl",
    "quotactl_fd",
    "acct",
    "swapon",
    "swapoff",
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "reboot",
    "syslog",
    "settimeofday",
    "clock_settime",
    "adjtimex",
    "clock_adjtime",
    "sethostname",
    "setdomainname",
    "vhangup",
    "personality",
    "iopl",
    "ioperm",
    "modify_ldt",
    "lookup_dcookie",
    "nfsservctl",
    # The processor's time, also of other processes of this user.
    "setpriority",
    "ioprio_set",
    "sched_setscheduler",
    "sched_setparam",
    "sched_setattr",
    "sched_setaffinity",
)

_X86_64: Final = {
    "clone": 56,
    "clone3": 435,
    "socket": 41,
    "listen": 50,
    "prlimit64": 302,
    "execve": 59,
    "execveat": 322,
    "ptrace": 101,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "kcmp": 312,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "process_mrelease": 448,
    "move_pages": 279,
    "migrate_pages": 256,
    "bpf": 321,
    "userfaultfd": 323,
    "perf_event_open": 298,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "keyctl": 250,
    "add_key": 248,
    "request_key": 249,
    "mount": 165,
    "umount2": 166,
    "pivot_root": 155,
    "chroot": 161,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "move_mount": 429,
    "open_tree": 428,
    "mount_setattr": 442,
    "unshare": 272,
    "setns": 308,
    "open_by_handle_at": 304,
    "fanotify_init": 300,
    "quotactl": 179,
    "quotactl_fd": 443,
    "acct": 163,
    "swapon": 167,
    "swapoff": 168,
    "kexec_load": 246,
    "kexec_file_load": 320,
    "init_module": 175,
    "finit_module": 313,
    "delete_module": 176,
    "reboot": 169,
    "syslog": 103,
    "settimeofday": 164,
    "clock_settime": 227,
    "adjtimex": 159,
    "clock_adjtime": 305,
    "sethostname": 170,
    "setdomainname": 171,
    "vhangup": 153,
    "personality": 135,
    "iopl": 172,
    "ioperm": 173,
    "modify_ldt": 154,
    "lookup_dcookie": 212,
    "nfsservctl": 180,
    "setpriority": 141,
    "ioprio_set": 251,
    "sched_setscheduler": 144,
    "sched_setparam": 142,
    "sched_setattr": 314,
    "sched_setaffinity": 203,
}
_AARCH64: Final = {
    "clone": 220,
    "clone3": 435,
    "socket": 198,
    "listen": 201,
    "prlimit64": 261,
    "execve": 221,
    "execveat": 281,
    "ptrace": 117,
    "process_vm_readv": 270,
    "process_vm_writev": 271,
    "kcmp": 272,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "process_mrelease": 448,
    "move_pages": 239,
    "migrate_pages": 238,
    "bpf": 280,
    "userfaultfd": 282,
    "perf_event_open": 241,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "keyctl": 219,
    "add_key": 217,
    "request_key": 218,
    "mount": 40,
    "umount2": 39,
    "pivot_root": 41,
    "chroot": 51,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "move_mount": 429,
    "open_tree": 428,
    "mount_setattr": 442,
    "unshare": 97,
    "setns": 268,
    "open_by_handle_at": 265,
    "fanotify_init": 262,
    "quotactl": 60,
    "quotactl_fd": 443,
    "acct": 89,
    "swapon": 224,
    "swapoff": 225,
    "kexec_load": 104,
    "kexec_file_load": 294,
    "init_module": 105,
    "finit_module": 273,
    "delete_module": 106,
    "reboot": 142,
    "syslog": 116,
    "settimeofday": 170,
    "clock_settime": 112,
    "adjtimex": 171,
    "clock_adjtime": 266,
    "sethostname": 161,
    "setdomainname": 162,
    "vhangup": 58,
    "personality": 92,
    "lookup_dcookie": 18,
    "nfsservctl": 42,
    "setpriority": 140,
    "ioprio_set": 30,
    "sched_setscheduler": 119,
    "sched_setparam": 118,
    "sched_setattr": 274,
    "sched_setaffinity": 122,
}

ARCHITECTURES: Final = {
    "x86_64": Architecture(0xC000003E, _X86_64),
    "aarch64": Architecture(0xC00000B7, _AARCH64),
}
"""By the name that ``uname`` gives."""
