"""Streams that are closed or full: who may not be told is not told, and no kill fails for it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from kcm.exit_codes import Exit

from tests.unit.operator_rig import Cores, Desk


@pytest.fixture
def cores(desk: Desk) -> Cores:
    return Cores(desk.system, looks=1)


@pytest.fixture
def full() -> Iterator[TextIO]:
    with Path("/dev/full").open("w") as file:
        yield file


def said(err: str) -> dict[str, str]:
    report: dict[str, str] = json.loads(err.splitlines()[-1])
    return report


def test_a_full_stderr_keeps_no_kill_back(
    desk: Desk, cores: Cores, full: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", full)
    assert desk.run("kill", "acme", "-o", "json")[0] == Exit.OK
    assert len(cores.held) == 1


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_closed_stream_keeps_no_kill_back(
    desk: Desk, cores: Cores, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    monkeypatch.setattr(sys, stream, None)
    code, _, err = desk.run("kill", "acme", "-o", "json")
    ((hold_id, _),) = cores.held.items()
    assert code == (Exit.OK if stream == "stderr" else Exit.FAULT)
    if stream == "stdout":
        assert said(err)["error"] == "io"
        assert said(err)["detail"].startswith("cannot write stdout: it is closed; the hold")
        assert hold_id.hex() in said(err)["hint"]


def test_a_kill_whose_result_finds_no_room_is_said_to_stand(
    desk: Desk, cores: Cores, full: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", full)
    code, _, err = desk.run("kill", "acme", "-o", "json")
    ((hold_id, _),) = cores.held.items()
    assert code == Exit.FAULT
    text = f"; the hold {hold_id.hex()} on tenant acme is in force"
    assert said(err)["detail"] == f"cannot write stdout: No space left on device{text}"


@pytest.mark.parametrize(
    "arguments", [("tenant", "list"), ("lift", "ab", "--reason", "x"), ("roster", "show")]
)
def test_nothing_is_done_where_nobody_could_read_the_result(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    code, _, err = desk.run(*arguments, "-o", "json")
    assert (code, said(err)["detail"]) == (Exit.USAGE, "cannot write stdout: it is closed")


@pytest.mark.parametrize("arguments", ["--help", "inspect /dev/null", "", "lift --tenant acme"])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_of_a_process_are_no_unexpected_fault(arguments: str, closed: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -m kcm {arguments} {closed}', sys.executable],
        env={"PATH": os.defpath, "KCM_CONTEXT": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, Exit.USAGE, Exit.CHECK_FAILED}
    assert "an unexpected fault" not in done.stderr
    assert "Traceback" not in done.stderr


def test_no_other_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """What a library prints would go there."""
    script = (
        "import os, sys; from kcm.cli.streams import prepare; prepare(); "
        "file = open(sys.argv[1], 'w'); os.write(1, b'x'); sys.exit(file.fileno() < 3)"
    )
    done = subprocess.run(
        ["bash", "-c", 'exec "$0" -c "$1" "$2" <&- >&-', sys.executable, script, tmp_path / "f"],
        check=False,
    )
    assert done.returncode == 0
    assert (tmp_path / "f").read_bytes() == b""


def test_help_on_a_full_disk_says_so(full: TextIO) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kcm", "--help"], stdout=full, stderr=subprocess.PIPE, check=False
    )
    assert done.returncode == Exit.FAULT
    assert said(done.stderr.decode())["detail"] == "cannot write stdout: No space left on device"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_name_is_shown_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    name = tmp_path / "Öl-\udcff"
    done = subprocess.run(
        [sys.executable, "-m", "kcm", "inspect", name, "-o", "table"],
        env={"PATH": os.defpath, "PYTHONIOENCODING": encoding, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == Exit.USAGE
    assert b"cannot read" in done.stderr


@pytest.fixture
def unread() -> Iterator[TextIO]:
    """A pipe whose reader is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as file:
        yield file


def test_a_list_whose_reader_is_gone_ends_without_a_word(
    desk: Desk, cores: Cores, unread: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", unread)
    assert desk.run("hold", "list", "-o", "json") == (Exit.READER_GONE, "", "")


def test_a_kill_whose_reader_is_gone_is_said_to_stand(
    desk: Desk, cores: Cores, unread: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", unread)
    code, _, err = desk.run("kill", "acme", "-o", "json")
    ((hold_id, _),) = cores.held.items()
    assert code == Exit.FAULT
    assert f"the hold {hold_id.hex()} on tenant acme is in force" in said(err)["detail"]


def test_help_whose_reader_is_gone_ends_without_a_word(unread: TextIO) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kcm", "--help"], stdout=unread, stderr=subprocess.PIPE, check=False
    )
    assert (done.returncode, done.stderr) == (Exit.READER_GONE, b"")
