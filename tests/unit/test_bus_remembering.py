"""Holds on a Core's disk."""

import stat

import pytest
from kcm_bus.config import ConfigError
from kcm_bus.remembering import HoldFiles

ID, OTHER = b"a" * 16, b"b" * 16


async def test_what_was_kept_is_recalled_in_its_latest_state(tmp_path):
    files = HoldFiles(tmp_path / "state" / "holds")
    assert files.recall() == []
    files.remember(ID, b"held")
    files.remember(OTHER, b"another")
    files.remember(ID, b"lifted")
    await files.close()
    assert sorted(HoldFiles(tmp_path / "state" / "holds").recall()) == [b"another", b"lifted"]


async def test_a_file_that_was_not_finished_is_nobody_s_word(tmp_path):
    files = HoldFiles(tmp_path)
    files.remember(ID, b"held")
    await files.close()
    (tmp_path / f"{OTHER.hex()}.new").write_bytes(b"half a sta")
    assert HoldFiles(tmp_path).recall() == [b"held"]


async def test_nobody_else_may_look_into_the_directory(tmp_path):
    HoldFiles(tmp_path / "holds").recall()
    assert stat.S_IMODE((tmp_path / "holds").stat().st_mode) == 0o700


def test_who_cannot_read_what_it_knew_does_not_go_on(tmp_path):
    (tmp_path / "holds").write_text("a file where a directory has to be")
    with pytest.raises(ConfigError, match="keeps known holds"):
        HoldFiles(tmp_path / "holds").recall()


async def test_a_disk_that_fails_is_logged_and_tried_again_with_the_next(tmp_path, caplog):
    files = HoldFiles(tmp_path / "holds")
    files.recall()
    (tmp_path / "holds").rename(tmp_path / "away")
    files.remember(ID, b"held")
    await files.close()
    assert "1 holds are not kept on disk" in caplog.text
    (tmp_path / "away").rename(tmp_path / "holds")
    files.remember(OTHER, b"another")
    await files.close()
    assert files.recall() == [b"another"]
