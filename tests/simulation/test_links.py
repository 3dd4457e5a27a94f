"""What the oracle takes for the link of a tenant, from what Cores said that they accepted."""

from tests.simulation.history import TenantFacts
from tests.simulation.links import ALWAYS, Links


def links():
    return Links.of_tenants([TenantFacts("acme", "link-a", "u", ("eu", "us"), "all", "byok")])


def test_a_tenant_is_where_it_began():
    known = links()
    assert known.of("acme", "eu") == {"link-a"}
    assert known.of("acme", "ap") == frozenset()
    assert known.since("acme", "eu") == ALWAYS
    assert known.revision("acme") == 1
    assert not known.moved("acme")


def test_between_the_offer_and_the_acceptance_it_is_in_doubt():
    known = links()
    known.offered("acme", "eu", 2, "link-c")
    assert known.of("acme", "eu") == frozenset()
    assert known.of("acme", "us") == {"link-a"}
    assert known.revision("acme") == 2
    assert known.accepted("acme", "eu", 2, "link-c", 5.0)
    assert known.of("acme", "eu") == {"link-c"}
    assert known.since("acme", "eu") == 5.0
    assert known.ever("acme") == {"link-a", "link-c"}
    assert known.beyond("acme", "eu", 2)
    assert not known.beyond("acme", "us", 2)


def test_what_is_accepted_again_is_no_news_and_an_older_record_neither():
    known = links()
    known.accepted("acme", "eu", 3, "link-c", 5.0)
    assert not known.accepted("acme", "eu", 3, "link-c", 6.0)
    assert not known.accepted("acme", "eu", 2, "link-a", 7.0)
    assert known.of("acme", "eu") == {"link-c"}
    assert known.since("acme", "eu") == 5.0


def test_of_a_fork_both_count_until_a_higher_one_comes():
    known = links()
    known.accepted("acme", "eu", 2, "link-c", 5.0)
    known.offered("acme", "eu", 2, "link-a")
    assert known.of("acme", "eu") == {"link-c"}
    assert known.unsettled("acme", "eu")
    known.accepted("acme", "eu", 2, "link-a", 6.0)
    assert known.of("acme", "eu") == {"link-a", "link-c"}
    assert known.unsettled("acme", "eu")
    known.accepted("acme", "eu", 3, "link-c", 7.0)
    assert known.of("acme", "eu") == {"link-c"}
    assert not known.unsettled("acme", "eu")


def test_what_was_shown_in_a_stream_that_went_back_counts_later():
    known = links()
    known.doubted("eu", 9.0)
    assert known.since("acme", "eu") == ALWAYS
    known.accepted("acme", "eu", 2, "link-c", 5.0)
    known.doubted("us", 8.0)
    assert known.since("acme", "eu") == 5.0
    known.doubted("eu", 9.0)
    assert known.since("acme", "eu") == 9.0
