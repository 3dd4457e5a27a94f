"""Pages of lifted holds: they end what they name, in any order, and nothing else."""

from hashlib import sha256
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st
from kcm_killswitch.model import id_set
from kcm_killswitch.model.hold_set import HoldSet, HoldState
from kcm_killswitch.model.lift_pages import FORMS_MAX, Page, Pages, Place
from kcm_schemas.control import Hold

each_id = st.binary(min_size=15, max_size=15).map(lambda rest: b"\x07" + rest)
many = st.lists(each_id, max_size=12)
causes = st.sampled_from(["operator", "l1"])


def record(hold_id, cause="operator", lift=b"lift"):
    hold = Hold(
        id=hold_id, salt=bytes(16), scope="link", target="l", cause=cause,
        origin="eu", issued_ms=1, reason="",
    )  # fmt: skip
    return HoldState(hold, b"raw", lift)


def page(them, signer="security", cause="operator"):
    joined = id_set.of(them)
    raw = sha256(repr((signer, cause)).encode() + joined).digest()
    return Page(Place(cause, "eu", signer, 7), joined, raw)


@given(many, many, each_id)
def test_ids_in_order_are_a_set(left, right, one):
    a, b = id_set.of(left), id_set.of(right)
    assert set(id_set.each(a)) == set(left)
    assert list(id_set.each(a)) == sorted(set(left))
    assert set(id_set.each(id_set.union(a, b))) == set(left) | set(right)
    assert id_set.union(a, b) == id_set.union(b, a)
    assert set(id_set.each(id_set.without(a, b))) == set(left) - set(right)
    assert id_set.has(a, one) == (one in left)
    assert all(id_set.has(a, other) for other in left)


@given(st.lists(st.tuples(each_id, causes, st.sampled_from([None, b"lift"])), max_size=12), many)
def test_compacting_lifted_holds_changes_no_digest(told, more):
    records = [record(*one) for one in {one[0]: one for one in told}.values()]
    before = HoldSet.of(records)
    paged = id_set.of(one.hold.id for one in records if one.lifted and one.hold.cause == "l1")
    after, gone = before.turned(7, "l1.eu", paged)
    assert after.digest == before.digest
    assert after.paged_count == len(gone) == sum(map(after.ends, records))
    assert len(after) == len(before) - len(gone)
    # Whoever comes later with what a page ends tells nothing new, held or lifted.
    for one in records:
        for lift in (None, b"lift"):
            if after.ends(one):
                assert after.add(record(one.hold.id, one.hold.cause, lift)) is after
    # Ids of other holds are another state.
    added = id_set.of([*more, *id_set.each(paged)])
    assert (after.turned(7, "l1.eu", added)[0].digest == before.digest) == (added == paged)


@given(
    st.lists(st.tuples(each_id, causes, st.sampled_from([None, b"lift"])), max_size=4),
    many,
    st.randoms(),
)
def test_holds_and_pages_in_any_order_end_in_one_state(told, more, random):
    unique = {one[0]: one for one in told}
    paged = id_set.of([*random.sample(sorted(unique), len(unique) // 2), *more])
    steps = [*(record(*one) for one in unique.values()), paged]
    results = []
    for order in permutations(steps):
        state = HoldSet()
        for step in order:
            state = state.add(step) if isinstance(step, HoldState) else (
                state.turned(7, "operator.eu", step)[0]
            )  # fmt: skip
        results.append(state)
    assert len({one.digest for one in results}) == 1
    assert all(one == results[0] for one in results)
    for one in unique.values():
        ended = one[1] == "operator" and one[0] in id_set.each(paged)
        found = results[0].get(one[0])
        # A page of one cause ends no hold of another one.
        assert (found is None) == ended
        assert found is None or found.lifted == (one[2] is not None)


@given(st.lists(many.filter(bool), min_size=1, max_size=FORMS_MAX), st.randoms())
def test_pages_of_one_signer_count_together_whoever_came_first(told, random):
    made = [page(them) for them in told]
    orders = [random.sample(made, len(made)) for _ in range(3)]
    known = [Pages() for _ in orders]
    for pages, order in zip(known, orders, strict=True):
        for one in order + order:
            pages.put(one)
    for pages in known:
        assert set(id_set.each(pages.ids("operator.eu", 7))) == {
            one for them in told for one in them
        }
        assert pages.own(made[0].place) == pages.ids("operator.eu", 7)
        best = pages.best(made[0].place)
        assert best is not None
        assert len(best.ids) == max(len(one.ids) for one in made)
        assert [one.key for one in pages.unlike(bytes(4096), 7)] == sorted(one.key for one in pages)
        assert list(pages.unlike(pages.digests, 7)) == []


def test_of_pages_of_several_signers_each_counts_and_a_smaller_one_of_the_same_does_not():
    a, b = b"\x07" * 16, b"\x07" + b"\x08" * 15
    pages = Pages()
    assert pages.put(page([a, b]))
    assert not pages.put(page([a]))
    assert pages.put(page([a], "security-2"))
    assert len(list(pages)) == 2
    pages.drop(page([a, b]))
    assert pages.ids("operator.eu", 7) == a
    assert pages.ids("l1.eu", 7) == b""
    pages.drop(page([a], "security-2"))
    assert list(pages) == []
    assert pages.digests == Pages().digests
