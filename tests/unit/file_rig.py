"""Encryption of files against a Gateway in memory: what the tests of files share."""

from pathlib import Path

from kcm.cli.main import run
from kcm.exit_codes import Exit

from tests.fakes.client import FakeSystem


class Desk:
    """A directory with a system, and the two commands."""

    def __init__(self, directory: Path) -> None:
        self.system = FakeSystem(directory)
        self.directory = directory

    def run(self, command: str, *arguments: str) -> int:
        who = ("--tenant", "acme", "--service", "docs", "--context", str(self.system.context_file))
        return run([command, *arguments, *who], self.system.open, self.system.clock.around())

    def path(self, name: str, content: bytes | None = None) -> Path:
        path = self.directory / name
        if content is not None:
            path.write_bytes(content)
        return path

    def encrypted(self, content: bytes, name: str = "plain") -> Path:
        plain, sealed = self.path(name, content), self.path(f"{name}.kcm")
        assert self.run("encrypt", str(plain), "-o", str(sealed)) == Exit.OK
        return sealed

    def decrypt(self, sealed: Path, *arguments: str) -> tuple[int, bytes | None]:
        out = self.path("out")
        out.unlink(missing_ok=True)
        code = self.run("decrypt", str(sealed), "-o", str(out), *arguments)
        return code, out.read_bytes() if out.exists() else None
