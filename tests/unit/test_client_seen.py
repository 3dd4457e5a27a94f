"""A client that has seen a roster goes back to no older one."""

import multiprocessing
import resource
import shutil
from pathlib import Path

import pytest
from kcm._internal.admin import Admin
from kcm._internal.client_context import ContextError
from kcm._internal.seen_roster import SeenRoster
from kcm.ops.roster_changes import Refused, highest
from kcm_schemas.admin.roster import RosterView
from kcm_schemas.codec import encode
from kcm_schemas.signed import Kind

from tests.fakes.client import FakeSystem


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return FakeSystem(tmp_path)


def signed(system: FakeSystem, version: int, **changes: object) -> bytes:
    roster = system.roster.model_copy(update={"version": version, **changes})
    return encode(system.root.sign(Kind.ROSTER, roster))


def seen_by(system: FakeSystem) -> Path:
    return SeenRoster(system.context().roster_path, system.root.public).directory


def test_an_older_file_does_not_count_any_more(system: FakeSystem) -> None:
    path = system.context().roster_path
    old = path.read_bytes()
    path.write_bytes(signed(system, 5))
    assert system.context().verifier().roster.version == 5
    path.write_bytes(old)
    assert system.context().verifier().roster.version == 5
    path.write_bytes(signed(system, 6))
    assert system.context().verifier().roster.version == 6


def test_another_roster_of_the_same_version_is_refused(system: FakeSystem) -> None:
    system.context().verifier()
    system.context().roster_path.write_bytes(signed(system, 1, issued_ms=7))
    with pytest.raises(ContextError, match="differs from one of the same version"):
        system.context().verifier()


async def test_what_a_region_showed_once_is_seen_and_an_older_one_later_is_not_taken(
    system: FakeSystem,
) -> None:
    shown, around = signed(system, 4), system.clock.around()
    system.everywhere(
        "roster",
        "show",
        lambda _request, _who: RosterView(instance="core-eu", roster=shown, missing=[]),
    )
    async with Admin.open(system.context_file, opener=system.open, around=around) as admin:
        assert (await highest(admin, ["eu"]))[1].version == 4
    shown = signed(system, 2)  # broker and Cores of the region are set back
    async with Admin.open(system.context_file, opener=system.open, around=around) as admin:
        assert admin.verifier.roster.version == 4
        assert (await highest(admin, ["eu"]))[1].version == 4
        shown = signed(system, 4, issued_ms=7)
        with pytest.raises(Refused, match="differs"):
            await highest(admin, ["eu"])


def test_what_was_seen_and_is_damaged_is_said(system: FakeSystem) -> None:
    system.context().verifier()
    (seen_by(system) / "roster").write_bytes(b"x")
    with pytest.raises(ContextError, match=r"roster\.seen.* is damaged") as caught:
        system.context().verifier()
    assert "then remove it" in caught.value.hint


def test_what_cannot_be_kept_counts_all_the_same_and_is_said(system: FakeSystem, caplog) -> None:
    seen_by(system).parent.write_bytes(b"in the way")
    with pytest.raises(ContextError, match="cannot read"):
        system.context().verifier()  # whether something was seen is not known
    seen_by(system).parent.unlink()
    seen_by(system).mkdir(parents=True)
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, room[1]))
    try:
        assert system.context().verifier().roster.version == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
    assert "cannot keep the roster" in caplog.text
    assert not (seen_by(system) / "roster").exists()
    system.context().verifier()
    assert (seen_by(system) / "roster").exists()


def _see(directory: str, root: bytes, raws: list[bytes]) -> None:
    from kcm_trust.verify import verify_roster

    for raw in raws:
        SeenRoster(Path(directory) / "roster", root).highest(raw, verify_roster(raw, root, 0))


def test_of_processes_that_write_at_once_the_highest_stays(system: FakeSystem) -> None:
    raws = [signed(system, version) for version in range(1, 41)]
    spawn = multiprocessing.get_context("spawn")
    arguments = (str(system.directory), system.root.public)
    writers = [spawn.Process(target=_see, args=(*arguments, raws[start::3])) for start in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert (seen_by(system) / "roster").read_bytes() == raws[-1]


def test_another_root_begins_anew(system: FakeSystem, tmp_path: Path) -> None:
    system.context().verifier()
    (tmp_path / "other").mkdir()
    other = FakeSystem(tmp_path / "other")
    shutil.copytree(seen_by(system).parent, tmp_path / "other" / "roster.seen")
    assert other.context().verifier().roster.version == 1
