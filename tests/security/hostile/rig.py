"""A hostile PKCS#11 module, what it is after, and what it got."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kcm_core.providers.state import L1Error, L1State
from kcm_core.unsealer.client import Unsealer

HERE: Final = Path(__file__).parent
DEADLINE_S: Final = 30.0

FILES: Final = {
    "the seal key": "secrets/seal-key",
    "the Core's identity": "secrets/identity",
    "the credentials of the Core's broker": "secrets/region-bus.creds",
    "the credentials of another provider": "credentials/aws",
    "the PIN of another tenant": "pins/other",
    "a wrapped key of the second store": "keystore/tenant",
}
"""What is to be read, by the path of its file."""

OF_THE_UNSEALER: Final = ("the credentials of another provider", "the PIN of another tenant")
"""What an unsealer with a user of its own has, and the Core has not."""

OF_THE_CORE: Final = frozenset(FILES) - frozenset(OF_THE_UNSEALER) | {
    "the Core's memory through /proc",
    "the Core's memory by process_vm_readv",
    "a change of the Core's memory",
    "the Core's environment",
    "tracing of the Core",
    "a descriptor of the Core",
    "a signal to the Core",
    "the Core's limits",
    "a file in the Core's state",
    "a file in the second store",
}
"""What a user of its own keeps from the unsealer, without any confinement."""


@dataclass(slots=True)
class Prey:
    """A directory with everything that a Core has, and a process in the place of the Core."""

    directory: Path
    mark: str = field(default_factory=lambda: f"MARK-{secrets.token_hex(8)}")

    def __post_init__(self) -> None:
        for path in FILES.values():
            place = self.directory / path
            place.parent.mkdir(exist_ok=True, parents=True)
            place.write_text(self.mark)
            place.chmod(0o600)
        (self.directory / "state").mkdir(mode=0o700)
        self.pin.write_text("1234")

    @property
    def pin(self) -> Path:
        """The PIN of the module's own tenant."""
        return self.directory / "pins" / "own"

    @property
    def own_paths(self) -> list[Path]:
        """What the Core lists as its own."""
        return [self.directory / name for name in ("secrets", "state", "keystore")]

    def give_to(self, uid: int) -> None:
        """Let an unsealer of another user own what is the unsealer's."""
        for path in (self.pin, *(self.directory / FILES[name] for name in OF_THE_UNSEALER)):
            os.chown(path, uid, uid)

    @contextmanager
    def attempts(self) -> Iterator[dict[str, str]]:
        """Run the process; the attempts on it and on the files, by name."""
        name = f"kcm-{secrets.token_hex(8)}"
        file = self.directory / FILES["the seal key"]
        process = subprocess.Popen(
            [sys.executable, str(HERE / "target.py"), self.mark, str(file), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"VALUE": self.mark},
        )  # fmt: skip
        with process:
            assert process.stdout is not None
            pid, address, descriptor = process.stdout.readline().split()
            yield {
                **{what: f"read {self.directory / path}" for what, path in FILES.items()},
                "the Core's memory through /proc": f"mem {pid} {address}",
                "the Core's memory by process_vm_readv": f"readv {pid} {address}",
                "a change of the Core's memory": f"writev {pid} {address}",
                "the Core's environment": f"environ {pid}",
                "tracing of the Core": f"ptrace {pid}",
                "a descriptor of the Core": f"getfd {pid} {descriptor}",
                "a signal to the Core": f"kill {pid}",
                "the Core's limits": f"limits {pid}",
                "the Core's abstract socket": f"abstract {name}",
                "a file in the Core's state": f"write {self.directory / 'state'}",
                "a file in the second store": f"write {self.directory / 'keystore'}",
                "a listening port": "listen",
                "a port of its choice": f"port {free_port()}",
                "another program": "run",
                "a namespace of its own": "namespace",
                "tracing of the fork server": "ptrace-parent",
                "a signal to the fork server": "kill-parent",
            }


def free_port() -> int:
    """A port at which no process listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Hostile:
    """The module, compiled, and the directory by which a test talks to it."""

    directory: Path

    @classmethod
    def build(cls, directory: Path) -> Hostile:
        """Compile the module; AssertionError if there is no compiler."""
        directory.mkdir(mode=0o777)
        directory.chmod(0o777)
        built = cls(directory)
        command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(built.library)]
        done = subprocess.run(
            [*command, str(HERE / "module.c")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"apt-get install gcc libc6-dev: {done.stderr}"
        directory.chmod(0o755)
        built.exchange.mkdir()
        built.exchange.chmod(0o777)
        return built

    @property
    def library(self) -> Path:
        """The module."""
        return self.directory / "libhostile.so"

    @property
    def exchange(self) -> Path:
        """The directory that the module may write, as the directory of an HSM's tools."""
        return self.directory / "exchange"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of an unsealer that loads the module."""
        return {
            "HOSTILE_DIR": str(self.exchange),
            "KCM_L1_MODULES": str(self.library),
            "KCM_L1_WRITE": str(self.exchange),
        }

    async def results(
        self, unsealer: Unsealer, pin: Path, mark: str, attempts: Mapping[str, str]
    ) -> dict[str, str]:
        """Let the unsealer load the module; returns ``got`` or ``refused`` for each attempt."""
        lines = [f"{name}\t{what}\n" for name, what in attempts.items()]
        (self.exchange / "attempts").write_text("".join([f"{mark}\n", *lines]))
        found = self.exchange / "results"
        found.unlink(missing_ok=True)
        uri = f"pkcs11:token=t;object=o?module-path={self.library}&pin-source=file:{pin}"
        try:
            await unsealer.inspect(uri, deadline_s=DEADLINE_S)
        except L1Error as error:
            assert error.state is L1State.UNREACHABLE  # it has no function of a module
            assert found.exists(), error
        told = dict(line.split("\t") for line in found.read_text().splitlines())
        assert told.keys() == attempts.keys(), "the module did not make every attempt"
        return told
