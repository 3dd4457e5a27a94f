"""An output that is also an input: refused before anything is read or sent."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kcm.exit_codes import Exit

from tests.unit import operator_rig, roster_rig
from tests.unit.file_rig import Desk

OLD = b"text that is only here"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def was_asked(desk: Desk) -> bool:
    return any(gateway.requests for gateway in desk.system.gateways.values())


def same(path: Path) -> str:
    return str(path)


def spelled_otherwise(path: Path) -> str:
    (path.parent / "directory").mkdir()
    return f"{path.parent}/directory/../{path.name}"


def from_here(path: Path) -> str:
    os.chdir(path.parent)
    return path.name


def symbolic_link(path: Path) -> str:
    link = path.with_name("link")
    link.symlink_to(path.name)
    return str(link)


def hard_link(path: Path) -> str:
    link = path.with_name("link")
    link.hardlink_to(path)
    return str(link)


def link_of_the_directory(path: Path) -> str:
    link = path.parent / "directory"
    link.symlink_to(path.parent)
    return str(link / path.name)


NAMES = [same, spelled_otherwise, from_here, symbolic_link, hard_link, link_of_the_directory]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arguments", [["encrypt"], ["encrypt", "--record"], ["decrypt"]])
def test_a_file_is_not_replaced_by_what_is_made_of_it(
    desk: Desk,
    name: Callable[[Path], str],
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(desk.directory)
    command, *options = arguments
    path = desk.path("plain", OLD)
    code = desk.run(command, str(path), "-o", name(path), *options, "--format", "table")
    assert code == Exit.USAGE
    said = capsys.readouterr().err
    assert "is the file that the command reads (usage)" in said
    assert "hint: nothing was done; name another file with -o" in said
    assert path.read_bytes() == OLD
    assert not was_asked(desk)


def test_a_table_is_not_replaced_by_its_encryption(desk: Desk) -> None:
    path = desk.path("people.csv", b"name,ssn\nann,7\n")
    link = symbolic_link(path)
    assert desk.run("encrypt", link, "-o", str(path), "--fields", "ssn") == Exit.USAGE
    assert path.read_bytes() == b"name,ssn\nann,7\n"
    assert not was_asked(desk)


def test_the_file_behind_stdin_is_not_replaced(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = desk.path("plain", OLD)
    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert desk.run("encrypt", "-", "-o", str(path)) == Exit.USAGE
    assert path.read_bytes() == OLD
    assert "is the file that the command reads" in capsys.readouterr().err


def test_stdout_that_is_the_input_gets_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`kcm encrypt plain >> plain` would read what it wrote."""
    path = desk.path("plain", OLD)
    with path.open("a") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert desk.run("encrypt", str(path)) == Exit.USAGE
    assert path.read_bytes() == OLD
    assert "stdout is the file that the command reads" in capsys.readouterr().err


def test_a_device_may_be_input_and_output(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert desk.run("encrypt", "/dev/null", "-o", "/dev/null") == Exit.OK
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(OLD)))
    assert desk.run("encrypt", "-", "-o", str(desk.path("out"))) == Exit.OK


@pytest.mark.parametrize("name", ["context.toml", "roster"])
def test_a_file_of_the_context_is_not_replaced(desk: Desk, name: str) -> None:
    plain, path = desk.path("plain", OLD), desk.path(name)
    before = path.read_bytes()
    assert desk.run("encrypt", str(plain), "-o", str(path)) == Exit.USAGE
    assert path.read_bytes() == before
    assert not was_asked(desk)


def test_evidence_does_not_replace_the_roster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = operator_rig.Desk(tmp_path, capsys)
    path = desk.system.directory / "roster"
    before = path.read_bytes()
    code, _, err = desk.run("hold", "export", "01", "-o", str(path))
    assert (code, path.read_bytes()) == (Exit.USAGE, before)
    assert "is the file that the command reads" in err


@pytest.mark.parametrize("what", ["next", "known", "root"])
def test_a_signed_roster_replaces_nothing_that_was_read_for_it(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = roster_rig.Desk(tmp_path, capsys)
    draft, known = tmp_path / "next", tmp_path / "known"
    known.write_bytes((desk.system.directory / "roster").read_bytes())
    desk.run("roster", "retire", "bob", "--prepare", str(draft), key=False)
    root = tmp_path / "root"
    root.write_bytes((desk.system.directory / "root.key").read_bytes())
    root.chmod(0o600)
    path = tmp_path / what
    before = path.read_bytes()
    code, _, err = desk.run(
        "roster", "sign", str(draft), "--known", str(known), "--key", str(root), "--to",
        symbolic_link(path), key=False,
    )  # fmt: skip
    assert (code, path.read_bytes()) == (Exit.USAGE, before)
    assert "name another file with --to" in err


def test_a_prepared_roster_does_not_replace_the_context_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = roster_rig.Desk(tmp_path, capsys)
    path = desk.system.directory / "roster"
    before = path.read_bytes()
    code, _, err = desk.run("roster", "retire", "bob", "--prepare", str(path), key=False)
    assert (code, path.read_bytes()) == (Exit.USAGE, before)
    assert "name another file with --prepare" in err
