"""A customer's key holds links on which its own region has a tenant; while in doubt, it counts."""

import itertools

import pytest
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_schemas.control import Hold
from kcm_schemas.registry import Tenant


def tenant(name="acme", revision=1, link="acme-root", regions=("eu",)):
    return Tenant(
        tenant=name, revision=revision, link=link, regions=sorted(regions), region_quorum="all"
    )


def held(origin="us", *, cause="l1", link="acme-root", lift=None):
    hold = Hold(
        id=origin.encode().ljust(16, b"."), salt=bytes(16), scope="link", target=link, cause=cause,
        origin=origin, issued_ms=5, reason="refused",
    )  # fmt: skip
    return HoldState(hold, b"hold", lift=lift)


def learn(*what):
    """Take holds and tenants in this order; the revocations, and every tenant that was purged."""
    revocations, purged = Revocations(Registry(), "eu"), []
    for one in what:
        taken = revocations.learn(one).purge if isinstance(one, HoldState) else None
        purged += revocations.register(one).purge if taken is None else taken
    return revocations, purged


def test_a_key_of_a_region_without_a_tenant_on_the_link_kills_nobody():
    revocations, purged = learn(tenant(), held("us"))
    assert not revocations.killed("acme")
    assert purged == []
    assert revocations.held_links == []
    assert len(revocations.holds) == 1
    assert learn(tenant(), held("us"))[0].learn(held("us")).ignored is False
    fresh, _ = learn(tenant())
    assert fresh.learn(held("us")).ignored


@pytest.mark.parametrize(
    "known", [(tenant(regions=("eu", "us")),), (tenant(), tenant("beta", regions=("us",)))]
)
def test_a_key_of_a_region_with_a_tenant_on_it_kills_everybody_there(known):
    revocations, purged = learn(*known, held("us"))
    assert revocations.killed("acme")
    assert "acme" in purged


def test_an_operator_kills_any_link():
    assert learn(tenant(), held("us", cause="operator"))[0].killed("acme")


def test_in_doubt_the_hold_counts():
    """No tenant on the link is known here, or an earlier revision had it there."""
    assert learn(held("us"))[0].held_links == ["acme-root"]
    moved = (tenant(regions=("eu", "us")), tenant(revision=2), held("us"))
    assert learn(*moved)[0].killed("acme")
    old = (tenant(revision=2), tenant(regions=("eu", "us")), held("us"))
    assert learn(*old)[0].killed("acme")


def test_a_tenant_that_comes_later_makes_it_count_and_is_purged_for():
    revocations, purged = learn(tenant(), held("us"), tenant("beta", regions=("us",)))
    assert revocations.killed("acme")
    assert purged.count("acme") == 1


def test_a_lift_ends_it_also_where_it_is_ignored():
    revocations, _ = learn(tenant(), held("us"), held("us", lift=b"lift"))
    revocations.register(tenant(revision=2, regions=("eu", "us")))
    assert not revocations.killed("acme")


def test_the_order_does_not_matter():
    what = [
        tenant(), tenant(revision=2, regions=("eu", "ap")), tenant("beta", regions=("us",)),
        held("us"), held("ap"), held("sa"),
    ]  # fmt: skip
    for some in itertools.chain.from_iterable(itertools.combinations(what, n) for n in (3, 6)):
        ends = {
            tuple(
                sorted(one.hold.origin for one in learn(*order)[0].active_on("link", "acme-root"))
            )
            for order in itertools.permutations(some)
        }
        assert len(ends) == 1


def test_a_region_holds_what_it_serves():
    revocations, _ = learn(tenant(), tenant("beta", link="beta-root", regions=("us",)))
    assert revocations.serves_here("acme-root")
    assert not revocations.serves_here("beta-root")
    assert not revocations.serves_here("none")


def test_a_record_that_is_not_believed_any_more_is_forgotten_and_purged():
    revocations, _ = learn(tenant())
    assert revocations.unregister(tenant(revision=2)) == ()
    assert revocations.unregister(tenant()) == ("acme",)
    assert revocations.generation("acme") == 1
    assert revocations.held("link", "acme-root") == ()
    # Keys that it opened may still be here.
    assert revocations.reach("link", "acme-root") == ("acme",)
