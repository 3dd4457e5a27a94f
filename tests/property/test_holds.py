"""The set of holds: a join, so that no order of messages, duplicate or issuer loses a kill."""

from functools import reduce
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st
from kcm_killswitch.model.hold_set import HoldSet, HoldState, join
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_schemas.control import Hold
from kcm_schemas.registry import Link, Tenant

IDS = [bytes([n]) * 16 for n in range(4)]
TARGETS = {
    IDS[0]: ("tenant", "a"),
    IDS[1]: ("tenant", "b"),
    IDS[2]: ("link", "l"),
    IDS[3]: ("tenant", "a"),
}


def record(hold_id, lift=None, raw=b"raw"):
    scope, target = TARGETS[hold_id]
    hold = Hold(
        id=hold_id, salt=bytes(16), scope=scope, target=target, cause="operator",
        origin="eu", issued_ms=1, reason="",
    )  # fmt: skip
    return HoldState(hold, raw, lift)


records = st.builds(
    record,
    st.sampled_from(IDS),
    st.none() | st.sampled_from([b"lift-1", b"lift-2"]),
    st.sampled_from([b"raw-1", b"raw-2"]),
)
sets = st.lists(records, max_size=6).map(HoldSet.of)


@given(sets, sets)
def test_merge_is_commutative(a, b):
    assert a.merge(b) == b.merge(a)


@given(sets, sets, sets)
def test_merge_is_associative(a, b, c):
    assert a.merge(b).merge(c) == a.merge(b.merge(c))


@given(sets)
def test_merge_is_idempotent(a):
    assert a.merge(a) == a
    assert a.merge(HoldSet()) == a


@given(st.lists(records, max_size=8), st.randoms())
def test_any_order_and_duplication_end_in_one_state(messages, random):
    shuffled = [*messages, *random.sample(messages, k=len(messages) // 2)]
    random.shuffle(shuffled)
    one_by_one = reduce(lambda state, message: state.add(message), shuffled, HoldSet())
    assert one_by_one == HoldSet.of(messages)


@given(st.lists(records, max_size=8), records)
def test_adding_changes_no_set_that_somebody_has(messages, added):
    before = HoldSet.of(messages)
    told, count, known = list(before.in_order()), len(before), before.get(added.hold.id)
    after = before.add(added)
    assert (list(before.in_order()), len(before), before.get(added.hold.id)) == (told, count, known)
    assert (after is before) == (after == before)
    assert after.get(added.hold.id) is not None


@given(st.lists(records, max_size=8))
def test_a_set_is_read_in_the_order_of_its_ids(messages):
    holds = HoldSet.of(messages)
    ids = [one.hold.id for one in holds.in_order()]
    assert ids == sorted({message.hold.id for message in messages})
    assert sorted(one.hold.id for one in holds) == ids
    for after in ids:
        assert [one.hold.id for one in holds.in_order(after)] == [one for one in ids if one > after]


@given(st.lists(records, max_size=8), st.randoms())
def test_a_hold_without_a_lift_always_kills(messages, random):
    """The oracle counts lifts by itself: a tenant is dark while one hold on it has none."""
    random.shuffle(messages)
    registry = Registry()
    registry.put(Tenant(tenant="a", revision=1, link="l", regions=["eu"], region_quorum="all"))
    registry.put(Tenant(tenant="b", revision=1, link="m", regions=["eu"], region_quorum="all"))
    state = Revocations(registry, "eu")
    for message in messages:
        state.learn(message)
    held = {m.hold.id for m in messages} - {m.hold.id for m in messages if m.lifted}
    assert state.killed("a") == bool(held & {IDS[0], IDS[2], IDS[3]})
    assert state.killed("b") == bool(held & {IDS[1]})
    for tenant in ("a", "b", "c"):
        assert state.killed(tenant) == bool(state.active(tenant))


@given(st.lists(records, max_size=8))
def test_every_first_hold_names_whom_to_purge_and_raises_the_generation(messages):
    registry = Registry()
    registry.put(Link(link="l", revision=1, uri="softkey:/x", model="byok"))
    registry.put(Tenant(tenant="a", revision=1, link="l", regions=["eu"], region_quorum="all"))
    state = Revocations(registry, "eu")
    for message in messages:
        before = state.holds.get(message.hold.id)
        generation = state.generation("a")
        learned = state.learn(message)
        concerns_a = message.hold.id in (IDS[0], IDS[2], IDS[3])
        if before is None and not message.lifted and concerns_a:
            assert "a" in learned.purge
            assert state.generation("a") == generation + 1
        if before is not None and before.lifted:
            assert learned.purge == ()


@given(sets)
def test_a_join_is_only_of_one_hold(a):
    for left in a:
        for right in a:
            if left.hold.id == right.hold.id:
                assert join(left, right) == left
            else:
                try:
                    join(left, right)
                except ValueError:
                    continue
                raise AssertionError("states of two holds were joined")


def digest_as_documented(holds):
    """Of ``docs/wire-format.md``, from ids and states alone."""
    parts = []
    for first in range(256):
        mine = sorted((one for one in holds if one.hold.id[0] == first), key=lambda r: r.hold.id)
        part = sha256(b"".join(one.hold.id for one in mine if not one.lifted)).digest()
        for origin in sorted({one.group for one in mine if one.lifted}):
            ids = b"".join(one.hold.id for one in mine if one.lifted and one.group == origin)
            part += sha256(origin.encode()).digest() + sha256(ids).digest()
        parts.append(sha256(part).digest())
    return sha256(b"".join(parts)).digest()


@given(sets, sets)
def test_sets_have_the_same_digest_when_each_hold_stands_the_same(left, right):
    assert left.digest == digest_as_documented(left)
    said = [[(one.hold.id, one.lifted) for one in holds.in_order()] for holds in (left, right)]
    assert (left.digest == right.digest) == (said[0] == said[1])


@given(sets, sets)
def test_who_learns_what_is_unlike_holds_everything(asker, asked):
    told = [one for prefix in range(256) for one in asked.unlike(asker.parts, prefix)]
    assert asker.merge(HoldSet.of(told)).digest == asker.merge(asked).digest
    assert [one.hold.id for one in told] == sorted(one.hold.id for one in told)
    assert not any(list(asked.unlike(asked.parts, prefix)) for prefix in range(256))
