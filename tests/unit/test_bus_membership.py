"""An instance remembers the newest roster it has seen, and believes no other one."""

import pytest
from kcm_bus.config import ConfigError
from kcm_bus.membership import load_roster
from kcm_schemas.codec import encode
from kcm_schemas.roster import Roster
from kcm_schemas.signed import Kind
from kcm_trust.identity import ROOT, Identity
from kcm_trust.verify import Untrusted


@pytest.fixture
def root(tmp_path):
    return Identity.create(ROOT, str(tmp_path / "root"), "test")


def write(path, root, version, issued_ms=0):
    roster = Roster(
        system="test", version=version, issued_ms=issued_ms, instances=[], operators=[], regions=[]
    )
    path.write_bytes(encode(root.sign(Kind.ROSTER, roster)))


def test_an_older_roster_is_refused_for_ever(tmp_path, root):
    path, seen = tmp_path / "roster", tmp_path / "state" / "seen"
    write(path, root, 3)
    assert load_roster(path, root.public, seen).roster.version == 3
    write(path, root, 2)
    with pytest.raises(Untrusted, match="older"):
        load_roster(path, root.public, seen)
    write(path, root, 4)
    assert load_roster(path, root.public, seen).roster.version == 4
    write(path, root, 3)
    with pytest.raises(Untrusted, match="older"):
        load_roster(path, root.public, seen)


def test_two_rosters_of_one_version_are_not_both_believed(tmp_path, root):
    path, seen = tmp_path / "roster", tmp_path / "seen"
    write(path, root, 3)
    load_roster(path, root.public, seen)
    load_roster(path, root.public, seen)
    write(path, root, 3, issued_ms=1)
    with pytest.raises(Untrusted, match="same version"):
        load_roster(path, root.public, seen)


def test_a_damaged_memory_is_not_an_empty_one(tmp_path, root):
    path, seen = tmp_path / "roster", tmp_path / "seen"
    write(path, root, 3)
    seen.write_text("garbage")
    with pytest.raises(ConfigError, match="damaged"):
        load_roster(path, root.public, seen)


def test_another_root_is_not_believed(tmp_path, root):
    path = tmp_path / "roster"
    write(path, Identity.create(ROOT, str(tmp_path / "other"), "test"), 9)
    with pytest.raises(Untrusted, match="operator root"):
        load_roster(path, root.public, tmp_path / "seen")


def test_a_roster_that_may_be_forgotten_is_not_used(tmp_path, root):
    """What cannot be remembered could be rolled back by whoever brings an older file."""
    path = tmp_path / "roster"
    write(path, root, 3)
    (tmp_path / "a-file").write_text("")
    with pytest.raises(ConfigError, match="roster was seen last"):
        load_roster(path, root.public, tmp_path / "a-file" / "seen")
    (tmp_path / "seen.new").mkdir()
    with pytest.raises(ConfigError, match="cannot write"):
        load_roster(path, root.public, tmp_path / "seen")
    (tmp_path / "seen.new").rmdir()
    assert load_roster(path, root.public, tmp_path / "seen").roster.version == 3
