"""A development system takes no directory of somebody else's, and removes only what it made."""

import json
import os
from pathlib import Path

import pytest
from kcm._internal.client_context import ClientContext
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_devsystem import mark, system
from kcm_devsystem.errors import ForeignDirectoryError, NoSystemError


@pytest.fixture
def made(tmp_path: Path) -> Path:
    place = tmp_path / "system"
    system.init(system.Options(place, regions=("eu",), cores=1))
    return place


def test_the_mark_is_the_first_file(tmp_path):
    mark.claim(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == [mark.MARK]
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    mark.claim(tmp_path / "new")


@pytest.mark.parametrize("command", [["up"], ["init"], ["key", "acme", "--kind", "softkey"],
                                     ["down"], ["down", "--wipe"], ["status"]])  # fmt: skip
def test_another_directory_is_refused_and_unchanged(tmp_path, capsys, command):
    (tmp_path / ".git").mkdir()
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "root").write_text("mine")
    (tmp_path / "brokers").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert run(["dev", *command, "--dir", str(tmp_path), "-o", "json"]) == Exit.USAGE
    said = json.loads(capsys.readouterr().err)
    assert said["error"] == "foreign_directory"
    assert str(tmp_path) in said["detail"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", [["status"], ["down"], ["down", "--wipe"]])
def test_where_there_is_no_system_that_is_said_and_nothing_is_made(tmp_path, capsys, command):
    place = tmp_path / "none"
    assert run(["dev", *command, "--dir", str(place), "-o", "json"]) == Exit.UNAVAILABLE
    captured = capsys.readouterr()
    assert json.loads(captured.err)["error"] == "no_system"
    assert captured.out == ""
    assert not place.exists()


def test_an_empty_home_directory_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ForeignDirectoryError):
        mark.claim(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_no_mark(tmp_path):
    mark.claim(tmp_path / "real")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / mark.MARK).symlink_to(tmp_path / "real" / mark.MARK)
    with pytest.raises(ForeignDirectoryError):
        mark.wipe(tmp_path / "other")


def test_a_wipe_removes_all_that_was_made(made):
    (made / f".kcm-{'0' * 32}.part").write_text("cut off")
    (made / "roster.seen").mkdir()
    (made / "roster.seen" / "dev").write_text("what a client saw")
    system.down(made, wipe=True)
    assert not made.exists()
    with pytest.raises(NoSystemError):
        mark.wipe(made)


def test_a_directory_that_was_there_stays(tmp_path):
    (tmp_path / "empty").mkdir()
    mark.claim(tmp_path / "empty")
    assert mark.wipe(tmp_path / "empty") == []
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_wipe_leaves_and_names_what_others_put_there(made, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    (made / "state").symlink_to(outside)
    (made / "secrets" / "link").symlink_to(outside)
    (made / "notes.txt").write_text("mine")
    (made / ".git").mkdir()
    told: list[str] = []
    system.down(made, wipe=True, tell=told.append)
    assert sorted(path.name for path in made.iterdir()) == [".git", "notes.txt", "state"]
    assert (outside / "file").read_text() == "mine"
    assert told == [f"not made by the system, and left in {made}: .git, notes.txt, state"]


@pytest.mark.parametrize("place", ["keys/mine", "journal", "state/back\\040up"])
def test_nothing_is_wiped_where_something_is_mounted(made, monkeypatch, tmp_path, place):
    """A bind mount of the same file system looks like a directory, and so is emptied with it."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        f"23 22 254:0 / {made}/{place} rw,relatime shared:1 - ext4 /dev/vda rw\n"
    )
    before = sorted(made.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(mark, "MOUNTS", mounts)
        with pytest.raises(ForeignDirectoryError, match=place.replace("\\040", " ")):
            mark.wipe(made)
    assert sorted(made.rglob("*")) == before
    assert mark.wipe(made) == []


def test_the_system_says_what_is_mounted():
    lines = mark.MOUNTS.read_text().splitlines()
    assert any(line.split(" ")[4] == "/proc" for line in lines)


@pytest.mark.parametrize("whose", ["", mark.MARK, "state.json", "keys"])
def test_a_directory_of_another_user_is_not_taken(made, monkeypatch, whose):
    """Its files say which processes are ended, and where root keys are written."""
    (made / "state.json").touch()
    place = made / whose
    if os.geteuid() == 0:
        os.lchown(place, 4242, 4242)
    else:
        me = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
        place = made
    for refuse in (mark.claim, mark.require, mark.wipe):
        with pytest.raises(ForeignDirectoryError, match=f"{place} belongs to another user"):
            refuse(made)


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_directory_that_others_may_write_to_is_not_taken(made, tmp_path, mode):
    (tmp_path / "empty").mkdir()
    for place in (made, tmp_path / "empty"):
        place.chmod(mode)
        with pytest.raises(ForeignDirectoryError, match="chmod go-w"):
            mark.claim(place)
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--nodes", "eu-de=2"),
        ("--nodes", "eu-de=9"),
        ("--nodes", "mars=3"),
        ("--region", "backbone"),
    ],
)
@pytest.mark.parametrize("command", ["up", "init"])
def test_what_can_be_no_system_makes_nothing(tmp_path, capsys, command, option, value):
    place = tmp_path / "new"
    asked = ["dev", command, "--dir", str(place), option, value, "-o", "json"]
    assert run(asked) == Exit.USAGE
    said = json.loads(capsys.readouterr().err)
    assert said["error"] == "usage"
    assert value.partition("=")[0] in said["detail"]
    assert not place.exists()


def test_identities_are_told_where_they_are_made(tmp_path):
    told = []
    for cores in (1, 1, 2):
        system.init(system.Options(tmp_path / "system", regions=("eu",), cores=cores), told.append)
        told.append("done")
    made = "made identities, and the signed roster"
    assert told == [made, "done", "done", made, "done"]


def test_what_clients_keep_beside_the_roster_goes_with_it(made):
    ClientContext.load(str(made / "context.toml")).verifier()
    assert (made / "roster.seen").is_dir()
    assert mark.wipe(made) == []
    assert not made.exists()
