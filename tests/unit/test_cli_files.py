"""Files that a command encrypts: they come back exactly, or not at all."""

import io
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcm import cell_context, piece_context
from kcm._internal import file_format
from kcm._internal.context_binding import USER_CONTEXT_MAX
from kcm._internal.file_format import PIECE_SIZE, BrokenFileError
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_schemas import limits, record
from kcm_schemas.codes import Code

from tests.fakes.client import seal
from tests.unit.file_rig import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def pieces(path: Path) -> tuple[bytes, list[bytes]]:
    """A file's header, and its frames."""
    data = path.read_bytes()
    head, rest = data[: file_format.HEADER_SIZE], data[file_format.HEADER_SIZE :]
    frames = []
    while rest:
        size = 4 + int(struct.unpack(">I", rest[:4])[0])
        frames.append(rest[:size])
        rest = rest[size:]
    return head, frames


@pytest.mark.parametrize(
    "size", [0, 1, PIECE_SIZE - 1, PIECE_SIZE, PIECE_SIZE + 1, 19 * PIECE_SIZE + 5]
)
def test_a_file_comes_back_exactly(desk: Desk, size: int) -> None:
    content = os.urandom(size)
    sealed = desk.encrypted(content)
    assert len(pieces(sealed)[1]) == max(1, -(-size // PIECE_SIZE))
    assert desk.decrypt(sealed) == (Exit.OK, content)


def swap(frames: list[bytes]) -> list[bytes]:
    return [frames[1], frames[0], *frames[2:]]


def repeat(frames: list[bytes]) -> list[bytes]:
    return [frames[0], frames[0], *frames[1:]]


def drop_last(frames: list[bytes]) -> list[bytes]:
    return frames[:-1]


def drop_first(frames: list[bytes]) -> list[bytes]:
    return frames[1:]


def drop_middle(frames: list[bytes]) -> list[bytes]:
    return [frames[0], *frames[2:]]


def extend(frames: list[bytes]) -> list[bytes]:
    return [*frames, frames[-1]]


def flip(frames: list[bytes]) -> list[bytes]:
    return [*frames[:-1], frames[-1][:-20] + bytes([frames[-1][-20] ^ 1]) + frames[-1][-19:]]


@pytest.mark.parametrize("change", [swap, repeat, drop_last, drop_first, drop_middle, extend, flip])
def test_a_changed_file_gives_no_file(
    desk: Desk, change: Callable[[list[bytes]], list[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    sealed = desk.encrypted(os.urandom(2 * PIECE_SIZE + 100))
    head, frames = pieces(sealed)
    sealed.write_bytes(head + b"".join(change(frames)))
    assert desk.decrypt(sealed) == (Exit.REFUSED, None)
    assert "tampered" in capsys.readouterr().err
    assert sorted(path.name for path in desk.directory.iterdir() if "out" in path.name) == []


def test_pieces_of_two_files_do_not_mix(desk: Desk) -> None:
    first, second = (desk.encrypted(os.urandom(PIECE_SIZE + 100), name) for name in ("one", "two"))
    head, frames = pieces(first)
    first.write_bytes(head + frames[0] + pieces(second)[1][1])
    assert desk.decrypt(first) == (Exit.REFUSED, None)


@pytest.mark.parametrize("cut", [1, 10, file_format.HEADER_SIZE, file_format.HEADER_SIZE + 2, -1])
def test_a_cut_file_is_a_failed_check(
    desk: Desk, cut: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed = desk.encrypted(b"hello")
    sealed.write_bytes(sealed.read_bytes()[:cut])
    assert desk.decrypt(sealed) == (Exit.CHECK_FAILED, None)
    assert "broken_file" in capsys.readouterr().err


def test_an_older_file_stays_when_decrypting_fails(desk: Desk) -> None:
    sealed = desk.encrypted(b"new")
    sealed.write_bytes(sealed.read_bytes()[:-1])
    out = desk.path("kept", b"old")
    assert desk.run("decrypt", str(sealed), "-o", str(out)) == Exit.CHECK_FAILED
    assert out.read_bytes() == b"old"


def test_a_file_that_is_no_input_is_replaced(desk: Desk) -> None:
    sealed, path = desk.encrypted(b"content"), desk.path("other", b"older")
    path.chmod(0o644)
    assert desk.run("encrypt", str(sealed), "-o", str(path)) == Exit.OK
    assert path.read_bytes().startswith(file_format.MAGIC)
    assert desk.run("decrypt", str(sealed), "-o", str(path)) == Exit.OK
    assert path.read_bytes() == b"content"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_context_is_needed_again(desk: Desk) -> None:
    plain, sealed = desk.path("plain", b"x"), desk.path("sealed")
    assert desk.run("encrypt", str(plain), "-o", str(sealed), "--context-bytes", "2024") == Exit.OK
    assert desk.decrypt(sealed, "--context-bytes", "2024") == (Exit.OK, b"x")
    assert desk.decrypt(sealed) == (Exit.REFUSED, None)
    too_long = "x" * (USER_CONTEXT_MAX + 1)
    assert desk.decrypt(sealed, "--context-bytes", too_long) == (Exit.USAGE, None)


def test_a_bare_record_is_what_the_sdk_makes(desk: Desk) -> None:
    plain, sealed = desk.path("plain", b"hello"), desk.path("sealed")
    assert desk.run("encrypt", str(plain), "--record", "-o", str(sealed)) == Exit.OK
    assert sealed.read_bytes() == seal("eu", "acme", "docs", b"hello", b"")
    assert desk.decrypt(sealed) == (Exit.OK, b"hello")
    large = desk.path("large", bytes(limits.BODY_MAX))
    assert desk.run("encrypt", str(large), "--record", "-o", str(sealed)) == Exit.USAGE


def test_another_regions_file_is_refused_with_a_hint(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed = desk.encrypted(b"x")
    assert desk.decrypt(sealed, "--region", "us") == (Exit.REFUSED, None)
    err = capsys.readouterr().err
    assert "wrong_region" in err
    assert "kcm inspect" in err


def test_a_killed_tenants_file_gives_no_file(desk: Desk) -> None:
    sealed = desk.encrypted(b"x")
    head, frames = pieces(sealed)
    desk.system.gateways["eu"].refuse[frames[0][4:]] = Code.TENANT_KILLED
    assert head.startswith(file_format.MAGIC)
    assert desk.decrypt(sealed) == (Exit.REFUSED, None)


def test_inspect_needs_no_key_and_no_network(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed = desk.encrypted(bytes(PIECE_SIZE + 1))
    capsys.readouterr()
    assert run(["inspect", str(sealed), "-o", "table"]) == Exit.OK
    out = capsys.readouterr().out
    for said in ("acme", "docs", "eu", "524289"):
        assert said in out
    head, frames = pieces(sealed)
    foreign = file_format.frame(seal("us", "acme", "docs", b"", b""))
    sealed.write_bytes(head + frames[0] + foreign)
    assert run(["inspect", str(sealed)]) == Exit.CHECK_FAILED
    assert run(["inspect", str(desk.path("junk", b"junk"))]) == Exit.CHECK_FAILED
    assert run(["inspect", str(desk.path("short", record.MAGIC))]) == Exit.CHECK_FAILED
    bare = seal("eu", "acme", "docs", b"hello", b"")
    assert run(["inspect", str(desk.path("bare", bare)), "-o", "json"]) == Exit.OK


@given(st.binary(max_size=200))
def test_a_reader_of_anything_ends_well(data: bytes) -> None:
    source = io.BytesIO(file_format.header(bytes(16)) + data)
    try:
        file_format.read_header(source)
        found = list(file_format.records(source))
    except BrokenFileError:
        return
    assert [piece.last for piece in found] == [False] * (len(found) - 1) + [True]
    assert b"".join(file_format.frame(piece.data) for piece in found) == data


def test_places_never_share_a_context() -> None:
    contexts = {
        piece_context(file_id, index, last=last, user=user)
        for file_id in (bytes(16), b"\1" * 16)
        for index in (0, 1)
        for last in (False, True)
        for user in (b"", b"x")
    }
    assert len(contexts) == 16
    assert cell_context("a", b"bc") != cell_context("ab", b"c")
    longest = piece_context(bytes(16), 2**32 - 1, last=True, user=bytes(USER_CONTEXT_MAX))
    assert len(longest) <= limits.APP_CONTEXT_MAX
    assert len(cell_context("x" * 255, bytes(USER_CONTEXT_MAX))) <= limits.APP_CONTEXT_MAX
    with pytest.raises(ValueError, match="out of range"):
        piece_context(bytes(16), 2**32, last=True)
