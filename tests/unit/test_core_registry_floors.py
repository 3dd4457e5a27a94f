"""The file of floors: below what it names, a Core accepts nothing."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from kcm_core.registry.floors import Floors
from kcm_runtime.config import ConfigError


def test_floors_come_back_and_only_rise(tmp_path):
    path = tmp_path / "floors"
    floors = Floors(path)
    assert floors.fresh
    with pytest.raises(RuntimeError, match="begin"):
        floors.raise_to([(("link", "l"), (1, b"a" * 32))])
    assert Floors(path).fresh
    floors.begin([])
    key = ("tenant", "acme")
    floors.raise_to([(key, (2, b"b" * 32)), (("link", "l"), (1, b"a" * 32))])
    floors.raise_to([(key, (1, b"z" * 32))])
    again = Floors(path)
    assert dict(again.items())[key] == (2, b"b" * 32)
    assert not again.fresh
    with path.open("a") as file:
        file.write("tenant.acme 3 ")  # a crash in the middle of a line
    torn = Floors(path)
    assert dict(torn.items())[key] == (2, b"b" * 32)
    torn.raise_to([(key, (4, b"d" * 32))])
    assert dict(Floors(path).items())[key] == (4, b"d" * 32)


@pytest.mark.parametrize(
    "content", [b"tenant.acme two 00\n", b"tenant.actenant.b 1 00\n", b"\xff\n"]
)
def test_what_stops_a_core_names_no_command_that_does_not_exist(tmp_path, content):
    path = tmp_path / "floors"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="restore it from a backup") as caught:
        Floors(path)
    assert "kcm " not in str(caught.value)


def test_damaged_floors_stop_a_core(tmp_path):
    path = tmp_path / "floors"
    begun(path)
    with path.open("a") as file:
        file.write("tenant.acme two 00\n")
    with pytest.raises(ConfigError, match="damaged"):
        Floors(path)


def test_floors_that_were_cut_stop_a_core(tmp_path):
    """At a line's end, too, and to nothing: what is left is no baseline of what there was."""
    path = tmp_path / "floors"
    floors = begun(path)
    for number in range(3):
        floors.raise_to([(("tenant", f"t{number}"), (1, b"a" * 32))])
    content = path.read_bytes()
    assert len(Floors(path).items()) == 3
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ConfigError, match=r"was cut.*restore it from a backup; without one re"):
            Floors(path)
    path.write_bytes(content + b"tenant.t3 1 00")  # a crash before the line was in use
    assert len(Floors(path).items()) == 3
    assert path.read_bytes() == content


def test_a_crash_before_the_first_line_was_written_again_loses_nothing(tmp_path):
    path = tmp_path / "floors"
    floors = begun(path)
    first = path.read_bytes()
    floors.raise_to([(("tenant", "a"), (1, b"a" * 32))])
    path.write_bytes(first + path.read_bytes()[len(first) :])
    assert Floors(path).items() == floors.items()


@pytest.mark.parametrize("first", ["", "kcm-registry-floors 2 0000000000000000\n"])
def test_floors_without_the_version_stop_a_core(tmp_path, first):
    """Without its first line, a file that was cut could not be distinguished from a whole one."""
    path = tmp_path / "floors"
    path.write_text(f"{first}tenant.acme 3 {'ab' * 32}\n")
    with pytest.raises(ConfigError, match=r"does not begin with its version.*restore it"):
        Floors(path)
    whole = tmp_path / "whole"
    begun(whole).raise_to([(("tenant", "acme"), (3, b"a" * 32))])
    path.write_bytes(whole.read_bytes().split(b"\n", 1)[1])
    with pytest.raises(ConfigError, match="does not begin with its version"):
        Floors(path)


class Disk:
    """A disk that is full once, in the middle of a line."""

    def __init__(self, path, fits):
        self.path, self.fits, self.full = path, fits, True

    def fsync(self, fd):
        if self.full:
            self.full = False
            os.truncate(self.path, self.fits)
            raise OSError(errno.ENOSPC, "No space left on device")


def begun(path, *sync):
    floors = Floors(path, *sync)
    floors.begin([])
    return floors


def test_floors_that_did_not_fit_leave_nothing_of_their_line(tmp_path, monkeypatch):
    path = tmp_path / "floors"
    floors = begun(path)
    floors.raise_to([(("tenant", "a"), (1, b"a" * 32))])
    disk = Disk(path, path.stat().st_size + 30)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", disk.fsync)
        with pytest.raises(OSError, match="space"):
            floors.raise_to([(("tenant", "acme"), (5, b"b" * 32))])
    assert path.read_bytes().count(b"\n") == 2
    assert path.read_bytes().endswith(b"\n")
    assert ("tenant", "acme") not in dict(floors.items())
    floors.raise_to([(("tenant", "bank"), (7, b"c" * 32))])
    assert sorted(Floors(path).items()) == sorted(floors.items())


def test_what_a_failed_write_left_is_cut_off_before_the_next_one(tmp_path):
    """Also where it could not be cut off at once."""
    path = tmp_path / "floors"
    floors = begun(path)
    floors.raise_to([(("tenant", "a"), (1, b"a" * 32))])
    with path.open("a") as file:
        file.write("tenant.acme 5 0202")
    floors.raise_to([(("tenant", "bank"), (7, b"c" * 32))])
    assert sorted(Floors(path).items()) == sorted(floors.items())


def test_two_threads_that_raise_floors_do_not_cut_each_other_off(tmp_path, monkeypatch):
    path = tmp_path / "floors"
    floors = begun(path)
    both = threading.Barrier(2)

    def meet(fd):
        with suppress(threading.BrokenBarrierError):
            both.wait(0.05)  # only where both may write at once

    monkeypatch.setattr("os.fsync", meet)
    keys = [("tenant", name) for name in ("a", "b")]
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(floors.raise_to, [(key, (1, b"a" * 32))]) for key in keys]
    assert [one.result() for one in done] == [None, None]
    assert sorted(dict(Floors(path).items())) == keys


def test_the_name_of_a_new_file_of_floors_outlives_a_power_cut(tmp_path):
    synced = []
    floors = begun(tmp_path / "state" / "floors", synced.append)
    floors.raise_to([(("tenant", "a"), (1, b"a" * 32))])
    assert synced == [tmp_path / "state"]
    floors.raise_to([(("tenant", "a"), (2, b"a" * 32))])
    assert len(synced) == 1


def test_a_file_of_floors_that_vanished_is_written_anew_as_a_whole(tmp_path):
    path = tmp_path / "state" / "floors"
    floors = Floors(path)
    floors.begin([(("tenant", "a"), (1, b"a" * 32))])
    for harm in (path.unlink, lambda: path.parent.rename(tmp_path / "gone"), path.touch):
        harm()
        floors.raise_to([(("tenant", f"b{len(floors.items())}"), (1, b"b" * 32))])
        assert dict(Floors(path).items()) == dict(floors.items())
    path.write_bytes(b"")
    floors.raise_to([(("link", "l"), (1, b"c" * 32))])
    assert len(Floors(path).items()) == len(floors.items()) == 5
