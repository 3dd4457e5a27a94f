"""Harms change exactly the files that they name, and the same way each time."""

import pytest

from tests.chaos import disks
from tests.chaos.disks import ALL_STREAMS, Harm

CONTROL, KEYS, REGISTRY, AUDIT = ALL_STREAMS


@pytest.fixture
def store(tmp_path):
    root = tmp_path / "broker"
    for stream in ALL_STREAMS:
        for name in ("msgs/1.blk", "msgs/2.blk", "msgs/index.db", "meta.inf", "meta.sum"):
            write(root / "jetstream" / "REGION" / "streams" / stream / name)
    for group in ("_meta_", "S-R3F-abc"):
        for name in ("msgs/1.blk", "peers.idx", "tav.idx", "snapshots/snap.1.3", "meta.inf"):
            write(root / "jetstream" / "$SYS" / "_js_" / group / name)
    return root


def write(path, content=bytes(range(200))):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def harm(part, act="flip", place=500, stream=CONTROL):
    return Harm(part, act, place, stream, orderly=False)


def content(store):
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def changed(store, one, earlier=None):
    before = content(store)
    count = disks.apply(store, one, earlier)
    after = content(store)
    names = {name for name in before if before[name] != after.get(name)}
    assert count == len(names) or one.act == "forget"
    return names


@pytest.mark.parametrize(
    ("part", "count"), [("block", 2), ("state", 1), ("meta", 2), ("raft", 6), ("snapshot", 2)]
)
@pytest.mark.parametrize("act", ["flip", "truncate", "roll-back"])
def test_a_harm_changes_the_files_of_its_part_and_no_others(store, part, count, act):
    names = changed(store, harm(part, act))
    assert len(names) == count
    inside = "$SYS/_js_" if part in disks.SHARED else f"streams/{CONTROL}/"
    assert all(inside in name for name in names)


def test_one_bit_is_flipped_where_it_says():
    before = bytes(100)
    for place in (0, 1, 499, 999):
        after = disks.flipped(before, place)
        (at,) = [n for n in range(100) if before[n] != after[n]]
        assert at == place // 10
        assert after[at].bit_count() == 1
    assert disks.flipped(b"", 500) == b""
    assert disks.truncated(before, 250) == bytes(25)
    assert disks.truncated(before, 0) == b""


def test_the_same_harm_does_the_same(store, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name, data in content(store).items():
        write(other / name, data)
    disks.apply(store, harm("block", place=731))
    disks.apply(other, harm("block", place=731))
    assert content(store) == content(other)


def test_files_go_back_to_an_earlier_copy_and_what_was_not_there_is_empty(store, tmp_path):
    earlier = tmp_path / "earlier"
    old = earlier / "jetstream" / "REGION" / "streams" / KEYS / "msgs" / "1.blk"
    write(old, b"old")
    changed(store, harm("block", "roll-back", stream=KEYS), earlier)
    msgs = store / "jetstream" / "REGION" / "streams" / KEYS / "msgs"
    assert (msgs / "1.blk").read_bytes() == b"old"
    assert (msgs / "2.blk").read_bytes() == b""


def test_a_forgotten_stream_leaves_the_others(store):
    names = changed(store, harm("stream", "forget", stream=REGISTRY))
    assert len(names) == 5
    assert all(f"streams/{REGISTRY}/" in name for name in names)


def test_a_server_without_such_files_is_not_changed(tmp_path):
    assert disks.apply(tmp_path, harm("snapshot")) == 0


def test_a_flipped_bit_of_a_block_is_in_a_subject_or_content():
    message = (40).to_bytes(4, "little") + (7).to_bytes(8, "little") + bytes(28)
    block = message * 3
    for place in range(disks.WHOLE):
        after = disks.damaged(block, place)
        at = next(n for n in range(len(block)) if after[n] != block[n])
        assert at % 40 >= disks.SUBJECT_AT
    assert disks.damaged(b"", 500) == b""


def test_a_message_gets_another_sequence():
    message = (40).to_bytes(4, "little") + (7).to_bytes(8, "little") + bytes(28)
    after = disks.misnumbered(message * 3, 500)
    assert int.from_bytes(after[44:52], "little") == 7 + (1 << 28)
    assert after[:44] + message[4:12] + after[52:] == message * 3
    assert disks.misnumbered(b"", 500) == b""


def test_a_message_gets_another_size():
    message = (40).to_bytes(4, "little") + (7).to_bytes(8, "little") + bytes(28)
    assert disks.missized(message * 3, 500) == message + b"\x29" + message[1:] + message
    assert disks.missized(b"", 500) == b""
