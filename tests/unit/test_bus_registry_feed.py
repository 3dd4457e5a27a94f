"""What the feed remembers of the registry, when a new roster does not believe somebody any more."""

import pytest
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.registry_lease import RegistryLease
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.ports import Entry
from kcm_runtime.roster.store import Rosters
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.registry import Accepted, RegistryEntry, Tenant
from kcm_schemas.roster import Operator, OperatorRole
from kcm_schemas.signed import Kind
from kcm_trust.envelopes import statement_digest
from kcm_trust.identity import ROOT
from kcm_trust.verify import Verifier

from tests.fakes.virtual import VirtualClock
from tests.unit import trust_rig
from tests.vectors.families.messages import identity

PLACE = subjects.bucket_subject(subjects.REGISTRY_BUCKET, "tenant", "acme")
SECOND = Operator(
    operator="admin-2", roles=[OperatorRole.ADMIN], public_key=identity("admin-2").public
)
FIRST = trust_rig.roster()
BOTH = FIRST.model_copy(update={"operators": [*FIRST.operators, SECOND]})


class Bus:
    def on_reconnect(self, _):
        """Never."""


def entry(signer, tenant, at):
    statement = identity(signer).sign(Kind.TENANT, tenant)
    word = Accepted(statement=statement_digest(statement), region="eu", roster=3)
    accepted = identity("core-eu").sign(Kind.ACCEPTED, word)
    raw = encode(RegistryEntry(statement=encode(statement), accepted=encode(accepted)))
    return Entry(at, PLACE, raw, 0)


def tenant(link):
    return Tenant(tenant="acme", revision=2, link=link, regions=["eu"], region_quorum="all")


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("honest_first", [True, False])
def test_of_a_fork_the_record_goes_whose_signer_was_removed(number, honest_first):
    """Whichever counts, and whichever came first."""
    raw = encode(identity(ROOT).sign(Kind.ROSTER, BOTH))
    rosters = Rosters(Verifier(BOTH), raw=raw, root_public=identity(ROOT).public)
    core = rosters.verifier.instance("core-eu")
    me = InstanceContext(identity("core-eu"), core, rosters, bytes(16))
    registry, purged = Registry(), []
    feed = RegistryFollower(
        Bus(), me, Revocations(registry, "eu"), lambda name: purged.append(name) or 0,
        RegistryLease(), VirtualClock(),
    )  # fmt: skip
    feed.read_again = lambda: None
    entries = [
        entry("admin", tenant(f"honest-{number}"), 1),
        entry("admin-2", tenant(f"thief-{number}"), 2),
    ]
    for one in entries if honest_first else reversed(entries):
        feed.take(one)
    assert len(registry.links_of("acme")) == 2
    removed = FIRST.model_copy(update={"version": BOTH.version + 1})
    purged.clear()
    rosters.take(encode(identity(ROOT).sign(Kind.ROSTER, removed)))
    assert registry.links_of("acme") == [f"honest-{number}"]
    assert feed.raw(("tenant", "acme")) == entries[0].data
    assert purged == ["acme"]
