"""An instance goes on from the highest roster it ever accepted, and takes over a higher one."""

from pathlib import Path

import pytest
from kcm_runtime.config import ConfigError
from kcm_runtime.files.identity_file import create_identity
from kcm_runtime.roster.store import ROSTER, RosterFiles, Rosters, open_rosters
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Operator, OperatorRole, Retirement, Roster
from kcm_schemas.signed import Kind
from kcm_trust.endorsements import (
    PAGE_BYTES,
    PAGES_MAX,
    STAGED_MAX,
    Endorsements,
    StagedEndorsements,
    pages,
)
from kcm_trust.identity import ROOT, Identity
from kcm_trust.verify import Untrusted

LISTED = Endorsements([bytes([n]) * 32 for n in range(3)])


@pytest.fixture
def root(tmp_path):
    return create_identity(ROOT, str(tmp_path / "root"), "test")


def signed(root, version, *, retired=None, operators=("alice",), issued_ms=0):
    roster = Roster(
        system="test",
        version=version,
        issued_ms=issued_ms,
        instances=[],
        operators=[
            Operator(
                operator=name,
                roles=[OperatorRole.SECURITY],
                public_key=name.encode().ljust(32, b"."),
                retired=retired if name == "alice" else None,
            )
            for name in operators
        ],
        regions=[],
    )
    return encode(root.sign(Kind.ROSTER, roster))


class Place:
    """An instance's configured roster and its state directory."""

    def __init__(self, path: Path, root: Identity) -> None:
        self.path, self.state, self.root = path / "roster", path / "state", root

    def configure(self, raw: bytes) -> None:
        self.path.write_bytes(raw)

    def open(self) -> Rosters:
        return open_rosters(self.path, self.root.public, self.state)


@pytest.fixture
def place(tmp_path, root):
    return Place(tmp_path, root)


def test_the_highest_roster_counts_whatever_the_file_says(place, root):
    place.configure(signed(root, 3))
    assert place.open().version == 3
    place.configure(signed(root, 2))
    assert place.open().version == 3
    place.configure(signed(root, 4))
    assert place.open().version == 4
    place.configure(signed(root, 3))
    assert place.open().version == 4


def test_two_rosters_of_one_version_are_not_both_believed(place, root):
    place.configure(signed(root, 3))
    place.open()
    place.open()
    place.configure(signed(root, 3, issued_ms=1))
    with pytest.raises(Untrusted, match="same version"):
        place.open()


@pytest.mark.parametrize("garbage", [b"", b"garbage"])
def test_a_damaged_copy_is_not_an_absent_one(place, root, garbage):
    place.configure(signed(root, 3))
    place.state.mkdir()
    (place.state / ROSTER).write_bytes(garbage)
    with pytest.raises(ConfigError, match="damaged"):
        place.open()


def test_another_root_is_not_believed(tmp_path, place):
    place.configure(signed(create_identity(ROOT, str(tmp_path / "other"), "test"), 9))
    with pytest.raises(Untrusted, match="operator root"):
        place.open()


def test_a_file_that_brings_somebody_back_from_retirement_is_refused(place, root):
    place.configure(signed(root, 3, retired=Endorsements().retirement()))
    place.open()
    place.configure(signed(root, 4))
    with pytest.raises(Untrusted, match="retired"):
        place.open()


def test_a_higher_roster_counts_and_is_on_the_disk(place, root):
    place.configure(signed(root, 3))
    rosters = place.open()
    told = []
    rosters.listen(told.append)
    new = signed(root, 4, retired=Endorsements().retirement())
    assert rosters.take(new)
    assert told == [frozenset({"alice"})]
    assert (place.state / ROSTER).read_bytes() == new
    assert rosters.verifier.roster.version == rosters.version == 4
    assert not rosters.take(new)
    assert place.open().version == 4


@pytest.mark.parametrize(
    "change",
    [
        {"version": 3},
        {"version": 4, "issued_ms": 1},
        {"version": 5, "retired": None},
    ],
)
def test_what_does_not_follow_changes_nothing(place, root, change):
    place.configure(signed(root, 4, retired=Endorsements().retirement()))
    rosters = place.open()
    known = rosters.verifier
    with pytest.raises(Untrusted):
        rosters.take(signed(root, **change))
    with pytest.raises(Untrusted):
        rosters.take(b"garbage")
    assert rosters.verifier is known


class FullDisk(RosterFiles):
    full = True

    def write(self, raw: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().write(raw)


def test_a_roster_that_cannot_be_kept_counts_and_is_kept_later(tmp_path, place, root):
    """It may say that a stolen key's lift counts no more. Who asks is told, and asks again."""
    place.configure(signed(root, 3))
    verifier = place.open().verifier
    disk = FullDisk(tmp_path)
    rosters = Rosters(verifier, root_public=root.public, files=disk)
    new = signed(root, 4)
    for _ in range(2):
        with pytest.raises(KcmError) as refused:
            rosters.take(new)
        assert refused.value.code is Code.UNAVAILABLE
        assert rosters.version == 4
    disk.full = False
    rosters.keep()
    assert disk.read() == new
    assert not rosters.take(new)


def test_a_higher_one_is_recognized_that_must_not_follow(place, root):
    place.configure(signed(root, 4, retired=Endorsements().retirement()))
    rosters = place.open()
    assert rosters.outbid_by(signed(root, 5, retired=None))
    assert not rosters.outbid_by(signed(root, 4, retired=Endorsements().retirement()))
    assert not rosters.outbid_by(b"garbage")


def test_one_who_fails_keeps_nobody_else_from_hearing(place, root):
    place.configure(signed(root, 3))
    rosters, told = place.open(), []

    def fail(_: frozenset[str]) -> None:
        raise RuntimeError("a fault")

    rosters.listen(fail)
    rosters.listen(told.append)
    rosters.take(signed(root, 4))
    assert told == [frozenset()]


def test_a_list_counts_once_it_is_here_and_after_a_start(place, root):
    place.configure(signed(root, 4, retired=LISTED.retirement()))
    rosters, told = place.open(), []
    rosters.listen(told.append)
    assert list(rosters.missing()) == ["alice"]
    with pytest.raises(ValueError, match="not the list"):
        rosters.take_list("alice", LISTED.raw()[:-32])
    rosters.take_list("alice", LISTED.raw())
    rosters.take_list("mallory", LISTED.raw())
    assert told == [frozenset({"alice"})]
    assert not rosters.missing()
    again = place.open()
    assert len(again.verifier.endorsements["alice"]) == 3
    assert again.take(signed(root, 5, retired=LISTED.retirement(), operators=("alice", "bob")))
    assert len(again.verifier.endorsements["alice"]) == 3


def test_a_damaged_list_is_asked_for_again(place, root):
    place.configure(signed(root, 4, retired=LISTED.retirement()))
    place.open().take_list("alice", LISTED.raw())
    (found,) = place.state.glob("endorsements-*")
    found.write_bytes(b"garbage")
    assert list(place.open().missing()) == ["alice"]


def test_pages_are_put_together_in_any_order():
    large = Endorsements(n.to_bytes(32, "big") for n in range(PAGE_BYTES // 32 + 7))
    staged, parts = StagedEndorsements(), pages(large)
    assert len(parts) == 2
    staged.take("alice", 1, parts[1])
    assert staged.whole("alice", large.retirement()) is None
    staged.take("alice", 0, parts[0])
    assert staged.whole("bob", large.retirement()) is None
    assert staged.whole("alice", large.retirement()) == large.raw()
    staged.forget("alice")
    assert staged.whole("alice", large.retirement()) is None


def test_pages_of_nobody_take_bounded_room():
    staged = StagedEndorsements()
    for n in range(64):
        staged.take(f"name-{n}", n % PAGES_MAX, bytes(PAGE_BYTES))
    for bad in (b"", bytes(31), bytes(PAGE_BYTES + 32)):
        staged.take("alice", 0, bad)
    staged.take("alice", PAGES_MAX, bytes(32))
    assert staged.size <= STAGED_MAX
    assert staged.whole("alice", Retirement(endorsements=bytes(32), count=1)) is None
