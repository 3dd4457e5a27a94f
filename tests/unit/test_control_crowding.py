"""How near the keys in use are to as many as may be: said at a change, and told with counts."""

from kcm_killswitch.model.key_budget import CALM_S, RECENT_MAX, RECENT_S, KeyBudget, Room

MOST = 100


def test_what_is_said_changes_before_the_room_is_used_up_and_once():
    crowding = KeyBudget()
    changes = [
        (count, crowding.room)
        for count in (0, 50, 89, 90, 91, 100, 95, 89, 81, 80, 90)
        if crowding.look(count, MOST, 1.0)
    ]
    assert changes == [(90, Room.FILLING), (80, Room.FREE), (90, Room.FILLING)]


def test_sealing_is_crowded_until_it_was_calm_for_a_while():
    crowding = KeyBudget()
    crowding.unloaded(3, 10.0)
    assert crowding.look(100, MOST, 10.0)
    assert (crowding.room, crowding.since) == (Room.CROWDED, 10.0)
    crowding.unloaded(2, 40.0)
    assert not crowding.look(100, MOST, 40.0 + CALM_S - 1)
    assert crowding.since == 10.0
    assert crowding.look(100, MOST, 40.0 + CALM_S)
    assert (crowding.room, crowding.since) == (Room.FILLING, 40.0 + CALM_S)
    assert crowding.look(10, MOST, 200.0)
    assert (crowding.room, crowding.unloaded_all, crowding.unloaded_at) == (Room.FREE, 5, 40.0)


def test_the_tenants_of_the_last_minutes_are_counted_in_little_room():
    crowding = KeyBudget()
    assert (crowding.recent(0.0), crowding.unloaded_at) == (0, None)
    for second in range(10_000):
        crowding.unloaded(1, second * 0.25)
    assert crowding.unloaded_all == 10_000
    assert 4 * RECENT_S - 80 <= crowding.recent(2_500.0) <= 4 * RECENT_S
    assert len(crowding) <= RECENT_MAX
    assert crowding.recent(2_500.0 + RECENT_S) == 0


def test_where_less_room_is_left_by_another_kind_of_key_that_is_a_change():
    crowding = KeyBudget()
    assert not crowding.look(80, 150, 1.0)
    assert crowding.look(80, 85, 2.0)
    assert crowding.room is Room.FILLING
