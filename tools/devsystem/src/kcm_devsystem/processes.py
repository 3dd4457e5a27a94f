"""Processes: started, recognised later, waited for, and ended.

Theory. A pid alone does not identify a process: after its end another process can get the same pid,
and a ``dev down`` could end the wrong one. So a process is identified by pid, start time and the
machine's ``boot_id``. It is signalled only through a *pidfd*, which is opened first and compared
with these values afterwards. A pidfd always refers to the same process, so there is no race between
the comparison and the signal. It also reports the end of a process that is not a child, without
polling for its pid.

Every process leads a separate session. So a Ctrl-C in the terminal reaches only the command that
started it, and the children of a process are ended with its group.

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
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, assert_never

from kcm_devsystem import parent_death
from kcm_devsystem.errors import DevError, NotReadyError, ProcessDiedError
from kcm_devsystem.logs import log_tail, open_log

READY_SECONDS: Final = 30.0
"""Maximum time until a process is ready; 1 to 2 s are usual, but machines are shared."""
STOP_SECONDS: Final = 10.0
"""Maximum time of a process to drain after SIGTERM; the longest request deadline is 5 s."""
KILL_SECONDS: Final = 5.0
"""Maximum time until a process has ended after SIGKILL."""
POLL_MILLISECONDS: Final = 20
"""Interval of the checks for readiness. The end of the process is reported at once."""

_GROUP: Final = 1 << 2
"""``PIDFD_SIGNAL_PROCESS_GROUP`` (Linux 6.9): signal the whole group of the process."""
_DEFAULT_SIGNALS: Final = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
"""Signals to reset: Python or its parent (``nohup``) may ignore some, and a child inherits that."""


@dataclass(frozen=True, slots=True)
class Process:
    """A started process. ``start_time`` is in clock ticks since ``boot_id``, a machine's start.

    The process writes its log from byte ``log_start`` on; earlier runs have written the rest. It is
    known only to the command that started the process.
    """

    name: str
    pid: int
    start_time: int
    boot_id: str
    log_path: Path
    log_start: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ReadyFile:
    """The process is ready once this file exists."""

    path: Path


@dataclass(frozen=True, slots=True)
class ListeningPort:
    """The process is ready once this port accepts. Only it may be able to take the port."""

    host: str
    port: int


class End(StrEnum):
    """How a process ended when it was stopped."""

    GONE = "gone"
    """It had ended before."""
    DRAINED = "drained"
    """It ended after SIGTERM."""
    KILLED = "killed"
    """It was ended by SIGKILL."""


def spawn(
    name: str,
    argv: Sequence[str],
    log_path: Path,
    env: Mapping[str, str],
    *,
    die_with_parent: bool,
    ready_file: Path | None = None,
) -> Process:
    """Start ``argv`` in a separate session, with exactly ``env`` and output to ``log_path``.

    ``argv[0]`` is a path. ``ready_file`` is removed first, because an earlier run that was killed
    may have left it. With ``die_with_parent`` the kernel ends the process with this one. The kernel
    regards the *thread* that starts the process as its parent, so only the main thread can use
    this. Raises ``DevError`` if the process cannot be started.
    """
    argv = list(argv)
    if not os.access(argv[0], os.X_OK):
        raise DevError(f"{name}: {argv[0]} is not an executable file")
    if die_with_parent:
        if threading.current_thread() is not threading.main_thread():
            raise DevError(f"{name}: only the main thread can start what dies with it")
        wrapper = [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid())]
        argv = wrapper + argv
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    log = open_log(log_path)
    log_start = os.fstat(log).st_size
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
    # A child stays visible, running or not, until it is waited for.
    process = identify(name, pid, log_path)
    if process is None:
        raise ProcessDiedError(f"{name}: ended at once", log_tail(log_path, log_start))
    return replace(process, log_start=log_start)


def identify(name: str, pid: int, log_path: Path) -> Process | None:
    """Return the process that has this pid now; ``None`` if there is none."""
    start_time = _start_time(pid)
    return None if start_time is None else Process(name, pid, start_time, _boot_id(), log_path)


def is_running(process: Process) -> bool:
    """Whether this very process, and not a later one with the same pid, runs."""
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
    """Whether this very process is stopped by a signal."""
    fields = _stat(process.pid)
    return (
        fields is not None and int(fields[19]) == process.start_time and fields[0] in (b"T", b"t")
    )


def wait_ready(
    process: Process, condition: ReadyFile | ListeningPort, timeout: float = READY_SECONDS
) -> None:
    """Wait until the process is ready, at most ``timeout`` seconds.

    Raises ``ProcessDiedError`` as soon as it has ended, and ``NotReadyError`` after the timeout.
    Both have the last lines of its log. This blocks; in an event loop, use a thread.
    """
    handle = open_handle(process)
    until = time.monotonic() + timeout
    try:
        while handle is not None and not _ended(handle, POLL_MILLISECONDS):
            if _holds(condition) and not _ended(handle, 0):
                return
            if time.monotonic() > until:
                raise NotReadyError(
                    f"{process.name}: not ready within {timeout:g} s", _log_of(process)
                )
        how = "" if handle is None else reap(handle)
        raise ProcessDiedError(f"{process.name}: ended{how} before it was ready", _log_of(process))
    finally:
        if handle is not None:
            os.close(handle)


def stop(
    processes: Iterable[Process], *, drain: float = STOP_SECONDS, kill: float = KILL_SECONDS
) -> dict[Process, End]:
    """End these processes together: SIGTERM, ``drain`` seconds, then SIGKILL for the rest.

    Returns how each one ended. Raises ``DevError`` with the names of those that still run ``kill``
    seconds after SIGKILL or belong to another user. Call it once per stage, components first.
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
                # A process of another user stays, and is named below.
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


def _log_of(process: Process) -> list[str]:
    return log_tail(process.log_path, process.log_start)


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
    """Open a pidfd of the process; ``None`` if it has ended, also if its pid was reused."""
    if process.boot_id != _boot_id():
        return None
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    # Compare after opening: from here on, the handle cannot refer to another process.
    if _start_time(process.pid) == process.start_time:
        return handle
    os.close(handle)
    return None


def _wait(handles: Mapping[Process, int], seconds: float) -> list[Process]:
    """Wait for all to end, and kill the rest of their groups. Returns those that ended in time."""
    until = time.monotonic() + seconds
    ended = []
    for process, handle in handles.items():
        remaining = max(0.0, until - time.monotonic())
        if _ended(handle, int(remaining * 1000)):
            reap(handle)
            # The group may be empty, and kernels before 6.9 cannot signal it safely.
            with suppress(OSError):
                signal.pidfd_send_signal(handle, signal.SIGKILL, None, _GROUP)
            ended.append(process)
    return ended


def _ended(handle: int, milliseconds: int) -> bool:
    """Whether the process has ended, or ends within that time."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(milliseconds))


def reap(handle: int) -> str:
    """Reap an ended child and return how it ended, as in `` with status 2``; else an empty text."""
    try:
        result = os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return ""
    if result is None:
        return ""
    what = "status" if result.si_code == os.CLD_EXITED else "signal"
    return f" with {what} {result.si_status}"


def _start_time(pid: int) -> int | None:
    """Return field 22 of ``/proc/PID/stat``, or ``None`` without such a process."""
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def _stat(pid: int) -> list[bytes] | None:
    """Return the fields of ``/proc/PID/stat`` from the third on; ``None`` without the process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name, which may contain blanks and parentheses.
    return stat.rpartition(b")")[2].split()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def _inherited() -> list[int]:
    """Return descriptors that a child must not inherit: those that our parent left open.

    Python's descriptors are closed automatically. A descriptor that is closed meanwhile is ignored.
    """
    numbers = []
    for number in map(int, (entry.name for entry in Path("/proc/self/fd").iterdir())):
        with suppress(OSError):
            if number > 2 and os.get_inheritable(number):
                numbers.append(number)
    return numbers
