"""Exit statuses of processes whose parent has ended.

The command that started a system has ended when a process of the system ends, so no parent receives
the exit status. The watcher holds a *pidfd* of each process and asks the kernel through it (Linux
6.15 and later). For its own children it uses ``waitid``. It stores the result in ``run/NAME.end``.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from pathlib import Path
from typing import Final

from kcm_runtime.files.private_files import write_private

from kcm_devsystem import processes
from kcm_devsystem.processes import Process

BYTES_MAX: Final = 4096
"""Maximum bytes of a result; usually about a hundred."""

_INFO: Final = struct.Struct("=QQ11Ii")
"""``struct pidfd_info`` of <linux/pidfd.h>, first version: mask, cgroup, eleven ids, exit code."""
_GET_INFO: Final = 0xC000FF0B | _INFO.size << 16
"""``PIDFD_GET_INFO``."""
_EXIT: Final = 1 << 3
"""``PIDFD_INFO_EXIT``."""


class Witness:
    """Records how the processes of one directory end. Used by the watcher."""

    def __init__(self, root: Path) -> None:
        self._root: Final = root
        self._handles: dict[Process, int] = {}

    def look(self, known: list[Process]) -> None:
        """Record the processes that ended since the last call, and begin to watch new ones."""
        for process in [one for one in self._handles if one not in known]:
            self._forget(process)
        for process in known:
            handle = self._handles.get(process)
            if handle is None:
                handle = processes.open_handle(process)
                if handle is not None:
                    self._handles[process] = handle
            elif how := processes.reap(handle) or _asked(handle):
                _note(self._root, process, how)
                self._forget(process)

    def _forget(self, process: Process) -> None:
        os.close(self._handles.pop(process))

    def close(self) -> None:
        """Stop watching all processes."""
        for process in list(self._handles):
            self._forget(process)


def noted(root: Path, process: Process) -> str:
    """Return how a process ended, as in `` with status 2``; empty if it is not known."""
    try:
        with _path(root, process).open("rb") as file:
            said = json.loads(file.read(BYTES_MAX))
        if (said["pid"], said["start_time"]) == (process.pid, process.start_time):
            return str(said["how"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return ""


def _asked(handle: int) -> str:
    """Ask the kernel how a reaped process ended; return an empty text if it does not know."""
    buffer = bytearray(_INFO.pack(_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(handle, _GET_INFO, buffer)
    except OSError:
        return ""
    mask, *_, status = _INFO.unpack(buffer)
    if not mask & _EXIT:
        return ""
    code = os.waitstatus_to_exitcode(status)
    return f" with status {code}" if code >= 0 else f" with signal {-code}"


def _note(root: Path, process: Process, how: str) -> None:
    said = {"pid": process.pid, "start_time": process.start_time, "how": how}
    write_private(_path(root, process), json.dumps(said) + "\n")


def _path(root: Path, process: Process) -> Path:
    return root / "run" / f"{process.name}.end"
