"""A configuration that somebody edited is kept; one that nobody edited is made anew."""

import json
from pathlib import Path

import pytest
from kcm_devsystem import generated, system
from kcm_devsystem.configs import config_file
from kcm_devsystem.errors import DevError
from kcm_devsystem.generated import Generated
from kcm_devsystem.options import Options
from kcm_runtime.files.private_files import write_private


def test_what_nobody_edited_is_made_anew_and_private(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "config" / "a.toml"
    for text in ("one", "two", "two", "three"):
        Generated(tmp_path, told.append).write(path, text)
        assert path.read_text() == text
    assert path.stat().st_mode & 0o777 == 0o600
    assert told == []


def test_what_somebody_edited_is_kept_and_named_until_they_remove_it(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "a.toml"
    Generated(tmp_path, told.append).write(path, "one")
    path.write_text("mine")
    for text in ("one", "two"):
        Generated(tmp_path, told.append).write(path, text)
        assert path.read_text() == "mine"
    assert len(told) == 2
    assert str(path) in told[0]
    path.unlink()
    Generated(tmp_path, told.append).write(path, "two")
    assert path.read_text() == "two"
    assert len(told) == 2


def test_a_crash_between_the_digest_and_the_file_makes_nobody_an_editor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    path = tmp_path / "a.toml"
    Generated(tmp_path, told.append).write(path, "one")

    def crash(target: Path, content: str) -> None:
        if target == path:
            raise KeyboardInterrupt
        write_private(target, content)

    with monkeypatch.context() as patched:
        patched.setattr(generated, "write_private", crash)
        with pytest.raises(KeyboardInterrupt):
            Generated(tmp_path, told.append).write(path, "two")
    assert path.read_text() == "one"
    Generated(tmp_path, told.append).write(path, "three")
    assert path.read_text() == "three"
    assert told == []


def test_digests_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    for content in ("", "[]", "[" * 100_000, '{"a": 1}'):
        (tmp_path / generated.FILE).write_text(content)
        with pytest.raises(DevError, match="cannot be parsed") as caught:
            Generated(tmp_path, lambda _: None)
        assert "remove it" in caught.value.hint


def test_an_edited_configuration_outlives_the_next_making_of_the_system(tmp_path: Path) -> None:
    told: list[str] = []
    options = Options(tmp_path / "s", regions=("eu",), cores=1)
    system.init(options)
    path = config_file(options.directory, options.members[0])
    untouched = config_file(options.directory, options.members[1])
    path.write_text("probes_per_s = 1.0\n" + path.read_text())
    mine, theirs = path.read_text(), untouched.read_text()
    system.init(options, told.append)
    assert (path.read_text(), untouched.read_text()) == (mine, theirs)
    assert [line for line in told if "edited" in line] == told
    assert len(told) == 1
    digests = json.loads((options.directory / generated.FILE).read_text())
    names = {"brokers/eu.conf", "config/core-eu-1.toml", "context.toml"}
    assert names <= digests.keys()
