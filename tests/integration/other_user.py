"""An unsealer under another user than the tests', started as systemd starts it. For root only."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kcm_core.unsealer.client import Unsealer
from kcm_core.unsealer.socket_server import Address, SocketServers

UID: Final = 64_321
"""A user that no machine has."""

PATIENCE_S: Final = 60.0

REPOSITORY: Final = Path(__file__).resolve().parents[2]

LAUNCH: Final = """
import os, sys
descriptor, uid, *command = sys.argv[1:]
os.dup2(int(descriptor), 3)
os.setgroups([])
os.setresgid(int(uid), int(uid), int(uid))
os.setresuid(int(uid), int(uid), int(uid))
os.execve(command[0], command, {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
"""

MOVE: Final = """
closed=$1; shift
for kept in $(eval echo "$KEPT"); do
  stage=$(mktemp -d) && mount --bind "$kept" "$stage" && stages="$stages $stage:$kept" || exit 1
done
mount -t tmpfs -o mode=755 none "$closed" || exit 1
for one in $stages; do
  mkdir -p "${one#*:}" && mount --move "${one%%:*}" "${one#*:}" && rmdir "${one%%:*}" || exit 1
done
exec "$@"
"""
"""In a mount name space of its own, opens the way to what a closed directory has of Python."""


def reachable(
    command: list[str], environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return the command and its environment so that another user can run this Python."""
    needed = {Path(sys.base_prefix), Path(sys.prefix), REPOSITORY}
    closed = {
        directory
        for path in needed
        for directory in (path, *path.parents)
        if not directory.stat().st_mode & 0o001
    }
    if not closed:
        return command, dict(environment)
    top = min(closed, key=lambda path: len(path.parts))
    assert all(one.is_relative_to(top) for one in closed), closed
    kept = [str(path) for path in needed if path.is_relative_to(top)]
    moved = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOVE, "move", str(top)]
    return [*moved, *command], {**environment, "KEPT": " ".join(kept), "PATH": os.defpath}


@dataclass
class OtherUser:
    """A directory that the other user may enter, and the unsealer's socket in it."""

    directory: Path
    environment: Mapping[str, str]
    core_uid: int = field(default_factory=os.geteuid)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        assert os.geteuid() == 0, "another user's process is started by root"
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listening.bind(str(self.socket))
        self.socket.chmod(0o660)
        self.listening.listen()

    @property
    def socket(self) -> Path:
        return self.directory / "unsealer.sock"

    def start(self) -> None:
        """Start the unsealer with the socket, which stays when it ends."""
        own = self.listening.fileno()
        command = [sys.executable, "-I", "-m", "kcm_core.unsealer.listen"]
        command += ["--core-uid", str(self.core_uid)]
        launched, environment = reachable(
            [sys.executable, "-I", "-c", LAUNCH, str(own), str(UID), *command], self.environment
        )
        self.process = subprocess.Popen(
            launched, pass_fds=[own], env=environment, cwd="/", stderr=self._log()
        )

    def _log(self) -> int:
        return os.open(self.directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    @property
    def log(self) -> str:
        """What the unsealer wrote."""
        return (self.directory / "log").read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the unsealer and return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    @property
    def servers(self) -> str:
        """The process ids of the fork servers."""
        assert self.process is not None
        pid = self.process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text()

    def unsealer(self, uid: int = UID) -> Unsealer:
        """A Core's unsealer that uses this one."""
        return Unsealer({}, servers=SocketServers(Address(self.socket, uid)))


@contextmanager
def open_directory() -> Iterator[Path]:
    """Make a directory that every user may enter, and nobody else may write."""
    directory = Path(tempfile.mkdtemp(prefix="kcm-other-user-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def other_user(directory: Path, environment: Mapping[str, str]) -> Iterator[OtherUser]:
    """Run an unsealer under the other user."""
    running = OtherUser(directory, environment)
    running.start()
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            running.stop()
        running.listening.close()
