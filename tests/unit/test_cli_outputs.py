"""Outputs of a command: terminals, pipes, and files of other users."""

import io
import os
import secrets
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kcm._internal import file_format
from kcm.exit_codes import Exit

from tests.fakes.terminal import stdout_on_terminal
from tests.unit.file_rig import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_binary_does_not_go_to_a_terminal(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    text, binary = desk.path("text", b"hello\n"), desk.path("binary", b"\x1b[2J")
    sealed_text, sealed_binary = (
        desk.encrypted(path.read_bytes(), path.name) for path in (text, binary)
    )
    with stdout_on_terminal() as shown:
        assert desk.run("encrypt", str(text)) == Exit.USAGE
        assert desk.run("decrypt", str(sealed_binary)) == Exit.USAGE
        assert desk.run("decrypt", str(sealed_text)) == Exit.OK
    assert b"".join(shown) == b"hello\r\n"
    assert "-o FILE" in capsys.readouterr().err


def test_a_pipe_is_read_and_written(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[bytes] = []
    given = b"through a pipe" * 50_000
    for command in ("encrypt", "decrypt"):
        data = streams[-1] if streams else given
        out = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
            patch.setattr(sys, "stdout", io.TextIOWrapper(out))
            assert desk.run(command, "-") == Exit.OK
            streams.append(out.getvalue())
    assert streams[0].startswith(file_format.MAGIC)
    assert streams[1] == given


def test_what_is_missing_is_wrong_usage(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk.run("encrypt", str(desk.path("none")), "-o", str(desk.path("out"))) == Exit.USAGE
    assert "cannot read" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["nodir/out", "plain/out", "."])
def test_an_output_that_cannot_be_is_wrong_usage(
    desk: Desk, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = desk.path("plain", b"text")
    place = desk.path(output)
    assert desk.run("encrypt", str(plain), "-o", str(place), "--format", "table") == Exit.USAGE
    assert f"cannot write {place}: " in capsys.readouterr().err


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make a link or a pipe another user's, as far as the command can tell."""

    def make(path: Path) -> None:
        if os.geteuid() == 0:
            os.lchown(path, 4242, 4242)
        else:
            monkeypatch.setattr("kcm.cli.output_file.trusted_users", set)

    return make


def test_a_link_that_another_user_planted_is_not_followed(
    desk: Desk, foreign: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever may write to a directory chooses what is replaced, by a link of the name."""
    plain, own = desk.path("plain", b"text"), desk.path("own", b"mine")
    # As root a link can be given away; else one in a directory of root's is needed.
    place = desk.directory if os.geteuid() == 0 else Path("/tmp")
    link = place / f"out-{secrets.token_hex(8)}"
    link.symlink_to(own)
    try:
        assert desk.run("encrypt", str(plain), "-o", str(link)) == Exit.OK
        assert own.read_bytes() != b"mine"
        own.write_bytes(b"mine")
        foreign(link)
        assert desk.run("encrypt", str(plain), "-o", str(link)) == Exit.USAGE
        assert own.read_bytes() == b"mine"
        assert f"{link} is a link of another user" in capsys.readouterr().err
    finally:
        link.unlink()


def test_a_pipe_of_another_user_gets_nothing(
    desk: Desk, foreign: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    sealed, pipe = desk.encrypted(b"secret"), desk.path("pipe")
    os.mkfifo(pipe, 0o666)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert desk.run("decrypt", str(sealed), "-o", str(pipe)) == Exit.OK
        assert os.read(reader, 100) == b"secret"
        foreign(pipe)
        assert desk.run("decrypt", str(sealed), "-o", str(pipe)) == Exit.USAGE
        assert os.read(reader, 100) == b""
        assert "pipe of another user" in capsys.readouterr().err
    finally:
        os.close(reader)


def test_a_pipe_that_the_shell_opened_is_written(desk: Desk) -> None:
    sealed = desk.encrypted(b"secret")
    reader, writer = os.pipe()
    try:
        assert desk.run("decrypt", str(sealed), "-o", f"/dev/fd/{writer}") == Exit.OK
        assert os.read(reader, 100) == b"secret"
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize(("chosen", "mode"), [((), 0o644), (("--fields", "ssn"), 0o600)])
def test_what_has_plaintext_is_its_owners_alone(
    desk: Desk, chosen: tuple[str, ...], mode: int
) -> None:
    """The columns that were not chosen stay in clear."""
    table, out = desk.path("people.csv", b"name,ssn\nAda,1\n"), desk.path("out.csv")
    table.chmod(0o600)
    before = os.umask(0o022)
    try:
        assert desk.run("encrypt", str(table), *chosen, "-o", str(out)) == Exit.OK
    finally:
        os.umask(before)
    assert stat.S_IMODE(out.stat().st_mode) == mode
