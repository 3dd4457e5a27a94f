"""What was asked is remembered until its deadline, bounded by who asked."""

from kcm_runtime.requests import SeenRequests


def test_a_request_is_known_until_its_deadline():
    asked = SeenRequests(2)
    asked.add("alice", b"one", 100, 50, "made")
    assert asked.get("alice", b"one") == "made"
    assert asked.get("bob", b"one") is None
    asked.add("alice", b"one", 100, 60, "made anew")
    assert asked.get("alice", b"one") == "made anew"
    asked.add("alice", b"two", 300, 100, "made")
    assert asked.get("alice", b"one") is None, "its deadline has passed"
    assert not asked.full("alice", 100)


def test_nobody_pushes_out_what_another_one_asked():
    asked = SeenRequests(2)
    asked.add("alice", b"one", 100, 0, "made")
    for n in range(10):
        asked.add("mallory", bytes([n]), 200 - n, 0, "made")
    assert asked.get("alice", b"one") == "made"
    assert not asked.full("alice", 0)
    assert asked.full("mallory", 0)
    assert [n for n in range(10) if asked.get("mallory", bytes([n]))] == [0, 9]
    assert not asked.full("mallory", 191)
