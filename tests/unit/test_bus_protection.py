"""What a broker acknowledged, compared with what was asked for."""

import pytest
from kcm_runtime.nats.stream_protection import Unfit, differences, mended, unsafe

WANTED = {
    "name": "S",
    "subjects": ["s.>"],
    "retention": "limits",
    "storage": "file",
    "discard": "old",
    "num_replicas": 3,
    "max_msgs_per_subject": 1,
    "deny_delete": True,
    "deny_purge": True,
    "allow_rollup_hdrs": False,
    "allow_msg_ttl": True,
    "allow_direct": False,
    "duplicate_window": 0,
}

SERVER = {
    "max_consumers": -1,
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "max_msg_size": -1,
    "duplicate_window": 120_000_000_000,
    "compression": "none",
    "mirror_direct": False,
    "sealed": False,
    "consumer_limits": {},
    "metadata": {"_nats.level": "5"},
}
"""What a server adds by itself."""


def test_what_a_server_adds_differs_in_nothing():
    assert differences(WANTED, WANTED | SERVER) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("deny_purge", False),
        ("deny_delete", False),
        ("allow_rollup_hdrs", True),
        ("subject_delete_marker_ttl", 60_000_000_000),
        ("max_age", 1),
        ("max_msgs", 10**9),
        ("max_bytes", 10**12),
        ("max_msg_size", 10**6),
        ("max_consumers", 100),
        ("max_msgs_per_subject", -1),
        ("subjects", ["s.a"]),
        ("subjects", ["s.>", "t.>"]),
        ("mirror", {"name": "T"}),
        ("sources", [{"name": "T"}]),
        ("subject_transform", {"src": ">", "dest": "t.>"}),
        ("republish", {"src": ">", "dest": "t.>"}),
        ("discard", "new"),
        ("retention", "workqueue"),
        ("storage", "memory"),
        ("persist_mode", "async"),
        ("num_replicas", 1),
        ("sealed", True),
        ("no_ack", True),
        ("allow_msg_counter", True),
        ("allow_msg_ttl", False),
    ],
)
def test_every_loss_of_protection_is_unsafe_and_named(field, value):
    found = differences(WANTED, WANTED | SERVER | {field: value})
    assert [(one.field, one.unsafe) for one in found] == [(field, True)]
    with pytest.raises(Unfit, match=f"S: {field} .*provision the region again"):
        raise unsafe(found)


@pytest.mark.parametrize("field", ["deny_purge", "deny_delete"])
def test_a_field_that_an_old_server_leaves_out_is_not_granted(field):
    without = {key: value for key, value in WANTED.items() if key != field}
    assert [one.field for one in differences(WANTED, without) if one.unsafe] == [field]


def test_more_protection_than_asked_for_is_told_and_safe():
    asked = WANTED | {"deny_purge": False, "max_bytes": 1000}
    stricter = asked | SERVER | {"deny_purge": True, "max_bytes": -1}
    found = differences(asked, stricter)
    assert [(one.field, one.unsafe) for one in found] == [
        ("deny_purge", False),
        ("max_bytes", False),
    ]


def test_a_smaller_limit_than_asked_for_is_unsafe_and_a_larger_one_is_not():
    asked = WANTED | {"max_bytes": 1000}
    assert [one.unsafe for one in differences(asked, asked | {"max_bytes": 999})] == [True]
    assert [one.unsafe for one in differences(asked, asked | {"max_bytes": 1001})] == [False]


def test_a_setting_that_nobody_here_knows_is_told():
    found = differences(WANTED, WANTED | SERVER | {"allow_something_new": True})
    assert [(one.field, one.unsafe) for one in found] == [("allow_something_new", False)]


def test_more_copies_are_fine_and_who_does_not_know_their_number_says_how_many_at_least():
    assert differences(WANTED, WANTED | {"num_replicas": 5}) == []
    assert differences(WANTED, WANTED | {"num_replicas": 3}, copies=3) == []
    (found,) = differences(WANTED, WANTED | {"num_replicas": 1}, copies=2)
    assert found.unsafe


def test_mending_gives_back_protection_and_changes_nothing_else():
    weak = WANTED | SERVER | {"deny_purge": False, "allow_rollup_hdrs": True, "num_replicas": 5}
    weak |= {"subject_delete_marker_ttl": 10**9, "max_age": 1, "storage": "memory"}
    whole = mended(WANTED, weak)
    assert [one.field for one in differences(WANTED, whole) if one.unsafe] == ["storage"]
    assert whole["num_replicas"] == 5
    assert whole["duplicate_window"] == SERVER["duplicate_window"]
