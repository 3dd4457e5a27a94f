"""Starting processes, knowing them again later, waiting for them, and ending them.

Theory. A pid alone is no name: it is given to another process as soon as its own is gone, and a
``dev down`` that trusted it would end a stranger. A process is therefore recorded by pid, start
time and the machine's boot, and is only ever signalled through a *pidfd* that was opened
first and compared with the record afterwards. A pidfd keeps meaning the same process, so nothing
can slip in between the comparison and the signal; it also tells when a process that is not our
child has ended, without asking again and again for its pid.

Every process leads a session of its own, so a Ctrl-C in the terminal reaches only the command
that started it, and whatever a process left behind is ended with its group.

Linux only.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, assert_never

from kcm_devsystem import parent_death
from kcm_devsystem.errors import DevError, NotReadyError, ProcessDiedError
from kcm_devsystem.logs import log_tail, open_log

READY_SECONDS: Final = 30.0
"""How long a process may take to serve; a service needs 1 to 2 s, and machines are shared."""
STOP_SECONDS: Final = 10.0
"""How long a process may drain after SIGTERM; the longest request deadline is 5 s."""
KILL_SECONDS: Final = 5.0
"""How long the kernel may take to end a process after SIGKILL."""
POLL_MILLISECONDS: Final = 20
"""How often readiness is looked for; the process's death is noticed at once."""

_GROUP: Final = 1 << 2
"""``PIDFD_SIGNAL_PROCESS_GROUP`` (Linux 6.9): signal all that the process left in its group."""
_DEFAULT_SIGNALS: Final = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
"""Python, or who started it (``nohup``), may ignore some; a child would go on ignoring them."""


@dataclass(frozen=True, slots=True)
class Process:
    """A started process. ``start_time`` is in clock ticks since ``boot_id``, the machine's boot."""

    name: str
    pid: int
    start_time: int
    boot_id: str
    log_path: Path


@dataclass(frozen=True, slots=True)
class ReadyFile:
    """The process serves once this file exists."""

    path: Path


@dataclass(frozen=True, slots=True)
class ListeningPort:
    """The process serves once this port accepts; nobody else may be able to take the port."""

    host: str
    port: int


class End(StrEnum):
    """How a process ended when it was stopped."""

    GONE = "gone"
    """It was not running any more."""
    DRAINED = "drained"
    """It ended after SIGTERM."""
    KILLED = "killed"
    """It had to be ended by SIGKILL."""


def spawn(
    name: str,
    argv: Sequence[str],
    log_path: Path,
    env: Mapping[str, str],
    *,
    die_with_parent: bool,
    ready_file: Path | None = None,
) -> Process:
    """Start ``argv`` with exactly ``env``, writing to ``log_path``, in a session of its own.

    ``argv[0]`` is a path. ``ready_file`` is removed first: an earlier run that was killed could
    not do so, and nobody shall take its word for this one's. With ``die_with_parent`` the kernel
    ends the process with this one; since it takes the *thread* that started it for the parent,
    only the main thread may ask.
    Raises ``DevError`` when nothing could be started.
    """
    argv = list(argv)
    if not os.access(argv[0], os.X_OK):
        raise DevError(f"{name}: there is nothing to execute at {argv[0]}")
    if die_with_parent:
        if threading.current_thread() is not threading.main_thread():
            raise DevError(f"{name}: only the main thread can start what dies with it")
        wrapper = [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid())]
        argv = wrapper + argv
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    log = open_log(log_path)
    try:
        pid = os.posix_spawn(
            argv[0],
            argv,
            dict(env),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
                *((os.POSIX_SPAWN_CLOSE, number) for number in _inherited()),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULT_SIGNALS,
        )
    except OSError as error:
        raise DevError(f"{name}: cannot be started: {error.strerror}") from error
    finally:
        os.close(log)
    # Our own child stays visible, dead or alive, until somebody waits for it.
    process = identify(name, pid, log_path)
    if process is None:
        raise ProcessDiedError(f"{name}: ended at once\n{log_tail(log_path)}")
    return process


def identify(name: str, pid: int, log_path: Path) -> Process | None:
    """The process that has this pid now, to be known again later; None when there is none."""
    start_time = _start_time(pid)
    return None if start_time is None else Process(name, pid, start_time, _boot_id(), log_path)


def is_running(process: Process) -> bool:
    """Whether this very process, and not a later one of the same pid, still runs."""
    handle = open_handle(process)
    if handle is None:
        return False
    try:
        ended = _ended(handle, 0)
        if ended:
            reap(handle)
        return not ended
    finally:
        os.close(handle)


def is_paused(process: Process) -> bool:
    """Whether a signal stopped this very process, and nobody let it go on."""
    fields = _stat(process.pid)
    return (
        fields is not None and int(fields[19]) == process.start_time and fields[0] in (b"T", b"t")
    )


def wait_ready(
    process: Process, condition: ReadyFile | ListeningPort, timeout: float = READY_SECONDS
) -> None:
    """Wait until the process serves, at most ``timeout`` seconds.

    Raises ``ProcessDiedError`` as soon as it has ended, ``NotReadyError`` when the time is over;
    both show the end of its log. Blocks: in an event loop, use a thread.
    """
    handle = open_handle(process)
    until = time.monotonic() + timeout
    try:
        while handle is not None and not _ended(handle, POLL_MILLISECONDS):
            if _holds(condition) and not _ended(handle, 0):
                return
            if time.monotonic() > until:
                raise NotReadyError(
                    f"{process.name}: not ready within {timeout:g} s\n{log_tail(process.log_path)}"
                )
        how = "" if handle is None else reap(handle)
        raise ProcessDiedError(
            f"{process.name}: ended{how} before it was ready\n{log_tail(process.log_path)}"
        )
    finally:
        if handle is not None:
            os.close(handle)


def stop(
    processes: Iterable[Process], *, drain: float = STOP_SECONDS, kill: float = KILL_SECONDS
) -> dict[Process, End]:
    """End these processes together: SIGTERM, ``drain`` seconds, SIGKILL for the rest.

    Returns how each ended. Raises ``DevError`` naming those that survive SIGKILL for ``kill``
    seconds, or that belong to another user. Call it once per stage: services before brokers.
    """
    ends: dict[Process, End] = {}
    handles: dict[Process, int] = {}
    try:
        for process in processes:
            handle = open_handle(process)
            if handle is None:
                ends[process] = End.GONE
            else:
                handles[process] = handle
        for end, number, seconds in (
            (End.DRAINED, signal.SIGTERM, drain),
            (End.KILLED, signal.SIGKILL, kill),
        ):
            waiting = {p: h for p, h in handles.items() if p not in ends}
            for handle in waiting.values():
                # Who belongs to another user stays, and is named below.
                with suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(handle, number)
            for process in _wait(waiting, seconds):
                ends[process] = end
        survivors = [process.name for process in handles if process not in ends]
        if survivors:
            raise DevError(f"these processes cannot be ended: {', '.join(survivors)}")
        return ends
    finally:
        for handle in handles.values():
            os.close(handle)


def _holds(condition: ReadyFile | ListeningPort) -> bool:
    match condition:
        case ReadyFile(path):
            return path.exists()
        case ListeningPort(host, port):
            try:
                socket.create_connection((host, port), timeout=1.0).close()
            except OSError:
                return False
            return True
        case _:
            assert_never(condition)


def open_handle(process: Process) -> int | None:
    """Get a handle on the process, or None when it is gone or its pid is another's now."""
    if process.boot_id != _boot_id():
        return None
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    # Compared after the handle is open: from here on it cannot come to mean anybody else.
    if _start_time(process.pid) == process.start_time:
        return handle
    os.close(handle)
    return None


def _wait(handles: Mapping[Process, int], seconds: float) -> list[Process]:
    """Wait for all to end, and end what they left in their groups. Returns who ended in time."""
    until = time.monotonic() + seconds
    ended = []
    for process, handle in handles.items():
        remaining = max(0.0, until - time.monotonic())
        if _ended(handle, int(remaining * 1000)):
            reap(handle)
            # Nobody may be left in the group, and kernels before 6.9 cannot signal it safely.
            with suppress(OSError):
                signal.pidfd_send_signal(handle, signal.SIGKILL, None, _GROUP)
            ended.append(process)
    return ended


def _ended(handle: int, milliseconds: int) -> bool:
    """Whether the process has ended, or does so within that time."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(milliseconds))


def reap(handle: int) -> str:
    """Take an ended child away and say how, as in `` with status 2``; empty for any other one."""
    try:
        result = os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return ""
    if result is None:
        return ""
    what = "status" if result.si_code == os.CLD_EXITED else "signal"
    return f" with {what} {result.si_status}"


def _start_time(pid: int) -> int | None:
    """Field 22 of ``/proc/PID/stat``, or None when there is no such process."""
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def _stat(pid: int) -> list[bytes] | None:
    """The fields of ``/proc/PID/stat`` from the third on, or None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name, which may hold blanks and parentheses.
    return stat.rpartition(b")")[2].split()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def _inherited() -> list[int]:
    """List what a child would get and should not: what our own parent left open to us.

    Python's own descriptors close by themselves; what is gone by then is no error.
    """
    numbers = []
    for number in map(int, (entry.name for entry in Path("/proc/self/fd").iterdir())):
        with suppress(OSError):
            if number > 2 and os.get_inheritable(number):
                numbers.append(number)
    return numbers
