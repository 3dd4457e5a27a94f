"""Encryption of tables against a Gateway in memory: what the tests of tables share."""

import io
import json
import sys
from pathlib import Path

import pytest
from kcm.cli.main import run
from kcm.exit_codes import Exit

from tests.fakes.client import FakeSystem


class Desk:
    """A directory with a system, and the two commands on tables."""

    def __init__(self, directory: Path) -> None:
        self.system = FakeSystem(directory)
        self.directory = directory
        self.gateway = self.system.gateways["eu"]

    def command(self, *arguments: str) -> int:
        who = ("--tenant", "acme", "--service", "crm", "--context", str(self.system.context_file))
        around = self.system.clock.around()
        return run([*arguments, *who, "--format", "json"], self.system.open, around)

    def run(
        self, command: str, content: bytes | str, name: str, *more: str
    ) -> tuple[int, bytes | None]:
        data = content.encode() if isinstance(content, str) else content
        given, out = self.directory / name, self.directory / f"out-{name}"
        given.write_bytes(data)
        out.unlink(missing_ok=True)
        code = self.command(command, str(given), "-o", str(out), *more)
        return code, out.read_bytes() if out.exists() else None

    def sealed(self, content: bytes | str, name: str, *more: str) -> bytes:
        code, sealed = self.run("encrypt", content, name, *more)
        assert (code, sealed is not None) == (Exit.OK, True)
        return sealed or b""

    def comes_back(self, content: bytes | str, name: str, *more: str) -> bytes:
        """Encrypt and decrypt; the result is what it was, byte for byte. Returns the middle."""
        sealed = self.sealed(content, name, *more)
        data = content.encode() if isinstance(content, str) else content
        assert self.run("decrypt", sealed, name, *more) == (Exit.OK, data)
        return sealed

    def piped(
        self, monkeypatch: pytest.MonkeyPatch, content: str, *arguments: str
    ) -> tuple[int, bytes]:
        out = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
            patch.setattr(sys, "stdout", io.TextIOWrapper(out))
            code = self.command(*arguments)
            return code, out.getvalue()


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]
