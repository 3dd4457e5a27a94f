"""The oracle: judges everything that happens by true time and its own history.

It never asks production's merge what is killed. It hears of statements when they come into being,
of what each region's majority stored, of purges and operations at every instance, of what clients
accepted, and of what customers' keys answered; and it checks the invariants at each such event.

1. Nothing is accepted after a kill was reported complete, until it is lifted. And when a Core says
   that it is complete, no instance would serve whom it kills, were it asked at that moment.
2. No instance would serve later than the bound, were it asked, and nothing is accepted later than
   it, without the D that is claimed: every answer carries what is left of the leases, and is
   accepted only within that, counted from the sending of its request. So acceptance ends with the
   lease; D only covers receivers that count otherwise. And everything accepted lies within the
   lease of a use of the customer's key, which the key allowed, in that region.
3. No operation that began before a purge has an output after it at that instance.
4. After healing and lifting every record decrypts.
5. A key that cannot be reached makes no hold.
6. After healing all regions agree.
7. Tenants that nobody killed are refused with codes that pass, if at all.
8. No instance would serve a tenant by a record later than the bound after another one counts: a
   higher one, or of a fork the other one.
9. Once a result is concluded, its words never change (``tests/simulation/words.py``).
10. A Core opens only keys for which an application asks it, and executes no request twice
   (``tests/simulation/asks.py``). ``tests/simulation/apps.py`` judges 1, 2, 7 and 8 for keys.

Whom a hold on a link reaches in a region is told by the highest record of the tenant that a Core of
the region accepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from kcm_schemas.codes import RETRYABLE, Code
from kcm_trust.verify import Untrusted, VerifiedHold, VerifiedLift, Verifier

from tests.simulation.coverage import Coverage
from tests.simulation.history import Bounds, Events, HoldFacts, TenantFacts
from tests.simulation.judgement import Judgement
from tests.simulation.l1 import CustomerKeys
from tests.simulation.limits import Limits
from tests.simulation.links import Links
from tests.simulation.loop import SimLoop
from tests.simulation.operations import Operations
from tests.simulation.reach import Reach

SLACK_S: Final = 1e-6
"""Of comparisons between times that were computed in different ways."""

SHOW_AGAIN_S: Final = 10.0
"""Seconds in which a Core notices that its record was lost, and writes it again."""


class Violation(Exception):
    """An invariant broke."""

    def __init__(self, invariant: int, text: str) -> None:
        self.invariant: Final = invariant
        super().__init__(f"invariant {invariant}: {text}")


class Oracle:
    """Sees everything and changes nothing."""

    def __init__(
        self,
        loop: SimLoop,
        verifier: Verifier,
        tenants: Iterable[TenantFacts],
        bounds: Bounds,
        keys: CustomerKeys,
        uris: Mapping[str, str] | None = None,
        *,
        apart: bool = False,
    ) -> None:
        """``uris`` has the keys of links on which no tenant is yet.

        ``apart``: a region's registry has its own tenants alone.
        """
        self._loop: Final = loop
        self._verifier: Final = verifier
        self.bounds: Final = bounds
        self.tenants: Final = {tenant.name: tenant for tenant in tenants}
        self.links: Final = Links.of_tenants(self.tenants.values())
        self.damaged: Final[set[str]] = set()
        """Regions whose registry somebody has set back: who starts there may know no tenant."""
        self.holds: Final[dict[bytes, HoldFacts]] = {}
        self.coverage: Final = Coverage()
        self.events: Final = Events()
        self.accepted_count = 0
        self.raw: Final[dict[bytes, bytes]] = {}
        """Every hold as it was signed."""
        known = {one.link: one.uri for one in self.tenants.values()} | dict(uris or {})
        self.judgement: Final = Judgement(
            verifier, self.holds, self.raw, lambda: loop.now, self.note
        )
        self.reach: Final = Reach(loop, self.tenants, self.links, apart=apart)
        self.limits: Final = Limits(
            loop, bounds, self.reach, known, self.judgement.roster_at, self.note
        )
        self.operations: Final = Operations(self.note, self._broken)
        self.revived: Final[list[HoldFacts]] = []
        """Holds whose lift counts no more by the highest roster."""
        keys.on_answer.append(self.limits.key_answered)

    # What comes into being.

    def issued(self, raw: bytes, how: str) -> HoldFacts | None:
        """A hold or a lift exists: an operator signed it, or it was seen for the first time."""
        try:
            verified = self._verifier.hold_or_lift(raw)
        except Untrusted:
            return None
        held = verified if isinstance(verified, VerifiedHold) else verified.held
        hold = held.hold
        facts = self.holds.get(hold.id)
        if facts is None:
            facts = HoldFacts(
                hold.id, hold.scope, hold.target, hold.cause, hold.origin, held.issuer,
                self._loop.now,
            )  # fmt: skip
            self.holds[hold.id] = facts
            self.raw[hold.id] = held.raw
            self._new_hold(facts, how)
        if isinstance(verified, VerifiedLift) and raw not in self.judgement.lifts:
            self.judgement.lifts[raw] = verified.issuer
            if not self.judgement.counts(raw):
                self._void(facts)
        if verified is not held and facts.lifted_at is None and self.judgement.counts(raw):
            self._may_lift(facts, how)
            facts.lifted_at = self._loop.now
            self.note(f"lift of {hold.id.hex()[:8]} ({how})")
            if facts.cause == "l1":
                self.coverage.saw("a lift caused by a key")
        return facts

    def _may_lift(self, facts: HoldFacts, how: str) -> None:
        """Operators lift what operators held; a key's hold is lifted when the key has settled."""
        name = facts.hold_id.hex()[:8]
        if facts.cause == "operator":
            if not how.startswith("lifted by"):
                self._broken(1, f"hold {name} is lifted, and no operator did it")
            return
        since = facts.durable.get(facts.origin, self._loop.now)
        settled = since + self.bounds.settle_s / (1 + self.bounds.clock_error)
        if self._loop.now < settled - SLACK_S:
            self._broken(1, f"hold {name} is lifted before its key has settled, at {settled:.4f}")

    def stored(self, region: str, raw: bytes) -> None:
        """A majority of a region has a hold or a lift."""
        facts = self.issued(raw, f"stored in {region}")
        if facts is not None and facts.again.get(region) == float("inf"):
            facts.again[region] = self._loop.now
        if facts is not None:
            lifted = isinstance(self._verifier.hold_or_lift(raw), VerifiedLift)
            (facts.lifts_stored if lifted else facts.stored).add(region)
        if facts is not None and region not in facts.durable:
            facts.durable[region] = self._loop.now
            self.note(f"hold {facts.hold_id.hex()[:8]} durable in {region}")

    def believes_durable(self, core: str, region: str, hold_id: bytes, *, lifted: bool) -> None:
        """A Core believes that its region has a hold, or its lift: a majority there had it."""
        facts = self.holds[hold_id]
        if region not in (facts.lifts_stored if lifted else facts.stored | facts.lifts_stored):
            what = f"{'the lift of ' if lifted else ''}hold {hold_id.hex()[:8]}"
            self._broken(1, f"{core} takes {what} for durable in {region}, which never had it")

    def complete(
        self,
        hold_id: bytes,
        asked_at: float | None = None,
        roster: int = 1,
    ) -> None:
        """A kill was reported complete to whoever asked, by a Core with this roster."""
        facts = self.holds[hold_id]
        if facts.complete_at is None and not self.outdated(hold_id, roster):
            facts.complete_at = self._loop.now
            facts.asked_at = self._loop.now if asked_at is None else asked_at
            self.note(f"hold {hold_id.hex()[:8]} complete")

    def accepted_record(
        self, known: Links, name: str, region: str, revision: int, now: str
    ) -> None:
        """A Core says that it accepted a record of a tenant or an application, and shows it."""
        if known.accepted(name, region, revision, now, self._loop.now):
            self.note(f"{name} has {now[:8]} in {region}, by revision {revision}")

    def doubted(self, region: str, known: Links) -> None:
        """A region's control stream went back: what Cores showed there they have to show again."""
        known.doubted(region, self._loop.now + self.bounds.stretched(SHOW_AGAIN_S))

    def said_complete(self, hold_id: bytes, core: str, admission: list[str]) -> None:
        """A Core says that a kill is complete, while these would serve: invariant 1."""
        if admission:
            name = hold_id.hex()[:8]
            self._broken(1, f"{core} says that hold {name} is complete, and {admission[0]}")

    # Rosters.

    def left(self, judge: Verifier, name: str) -> None:
        """The root signed a roster on which somebody is retired: by it all is judged now."""
        self.judgement.left(judge)
        self.note(f"roster {judge.roster.version}: {name} is retired")
        for facts in self.holds.values():
            lifts = self.judgement.lifts_about(facts.hold_id)
            if lifts and not all(map(self.judgement.counts, lifts)):
                self._void(facts)
            if facts.lifted_at is not None and not any(map(self.judgement.counts, lifts)):
                facts.lifted_at = None
                self.coverage.saw("a lift that does not count any more")
                self.revived.append(facts)

    def outdated(self, hold_id: bytes, roster: int) -> bool:
        """Whether a Core's word on a hold is by a roster by which it may be lifted."""
        return self.holds[hold_id].void and roster < self.judgement.version

    def _void(self, facts: HoldFacts) -> None:
        """Whoever has not heard of the highest roster takes this hold for lifted."""
        facts.void, facts.complete_at = True, None

    # What instances do.

    def serves(
        self,
        instance: str,
        tenant: TenantFacts,
        region: str,
        by: Iterable[str] | None = None,
        *,
        has_keys: bool = True,
    ) -> None:
        """An instance would serve a tenant, were it asked at this moment: invariants 2 and 8.

        ``by`` are the links by which it would be killed there. Who has no key of the tenant only
        passes on what others serve, and may lack a hold that the stream lost, until that is written
        again.
        """
        counts = self.links.of(tenant.name, region)
        limit = self.limits.record_limit(tenant, region)
        if by is not None and not counts <= set(by) and self._loop.now > limit + SLACK_S:
            text = f"{instance} serves {tenant.name} by {', '.join(sorted(by))}"
            self._broken(8, f"{text} and not {', '.join(sorted(counts))} since {limit:.4f}")
        for hold in self.holds.values():
            if self.reach.reaches(hold, tenant, region) and hold.active(self._loop.now):
                limit = self.limits.limit(hold, tenant, region)
                if not has_keys and region in hold.again:
                    limit = max(limit, hold.again[region] + self.limits.lease_s)
                if self._loop.now > limit + SLACK_S:
                    name = hold.hold_id.hex()[:8]
                    text = f"{instance} serves {tenant.name}; the bound of hold {name} was"
                    self._broken(2, f"{text} {limit:.4f}")

    def went_back(self, region: str, left: Iterable[bytes]) -> None:
        """A region's stream lost everything but these holds."""
        for hold in self.holds.values():
            if region in hold.durable and hold.hold_id not in left:
                hold.again[region] = float("inf")

    def lost(self, hold_id: bytes, region: str) -> None:
        """A region lost a hold with everybody who would have written it again."""
        facts = self.holds[hold_id]
        facts.durable.pop(region, None)
        facts.complete_at = None
        self.note(f"hold {hold_id.hex()[:8]} is lost in {region}")

    def forgotten(self, region: str) -> None:
        """A region's stream and all Cores' disks there lose what they had of holds."""
        for hold in self.holds.values():
            hold.durable.pop(region, None)

    # What clients see.

    def accepted(self, tenant: str, region: str, what: str, sent_at: float) -> None:
        """A client accepts an answer of a region: invariants 1 and 2."""
        self.accepted_count += 1
        now, facts = self._loop.now, self.tenants[tenant]
        said = f"{what} of {tenant} in {region}, asked at {sent_at:.4f}"
        for hold in self.holds.values():
            if not (self.reach.reaches(hold, facts, region) and hold.active(now)):
                continue
            name = hold.hold_id.hex()[:8]
            known = hold.complete_at is not None and self.reach.kills(
                hold, facts, region, hold.asked_at
            )
            if known and not self.limits.in_flight(hold.complete_at or 0.0, sent_at):
                self._broken(1, f"{said}, accepted; hold {name} complete {hold.complete_at:.4f}")
            limit = self.limits.limit(hold, facts, region)
            if now > limit + SLACK_S:
                self._broken(2, f"{said}, accepted; the bound of hold {name} was {limit:.4f}")
        limit = self.limits.key_limit(facts, region)
        if now > limit + SLACK_S:
            self._broken(2, f"{said}, accepted; the bound of the key was {limit:.4f}")

    def refused(self, tenant: str, region: str, code: Code) -> None:
        """A client is refused: invariant 7."""
        if code in RETRYABLE:
            return
        if code in (Code.UNKNOWN_TENANT, Code.UNKNOWN_SERVICE) and region in self.damaged:
            return
        killed = code is Code.TENANT_KILLED
        facts = self.tenants[tenant]
        if not (killed and any(self.reach.may_reach(h, facts) for h in self.holds.values())):
            self._broken(7, f"{tenant} is refused in {region} with {code.value}")

    # When all is over.

    def agree(self, views: Mapping[str, Mapping[bytes, bool]]) -> list[str]:
        """What still differs from the history, by who is asked: hold ids and whether lifted."""
        expected = {hold_id: facts.lifted_at is not None for hold_id, facts in self.holds.items()}
        kept = {hold_id for hold_id, facts in self.holds.items() if facts.durable}
        wrong = []
        for who, view in views.items():
            lacks = [i for i in kept if view.get(i) is not expected[i]]
            wrong += [f"{who}: {hold_id.hex()[:8]} is {view.get(hold_id)}" for hold_id in lacks]
        return wrong

    def never_healed(self, invariant: int, text: str) -> None:
        """Something that has to hold after healing does not."""
        self._broken(invariant, text)

    def note(self, text: str) -> None:
        """Remember an event for whoever reads a violation."""
        self.events.add(self._loop.now, text)

    def _new_hold(self, facts: HoldFacts, how: str) -> None:
        name = facts.hold_id.hex()[:8]
        self.note(f"hold {name} on {facts.scope} {facts.target} by {facts.issuer} ({how})")
        if facts.scope == "link" and self.links.came(facts.target, self._loop.now - 2.0):
            self.coverage.saw("a kill of a link just after a tenant came to it")
        if facts.cause == "l1":
            self.coverage.saw("a hold caused by a key")
            if not self.limits.refused(facts.target, facts.origin):
                self._broken(5, f"hold {name} on {facts.target}, which refused nobody there")
            return
        others = [
            other
            for other in self.holds.values()
            if other is not facts and other.target == facts.target and other.cause == "operator"
        ]
        if any(o.issuer != facts.issuer and facts.first_at - o.first_at < 2 for o in others):
            self.coverage.saw("two operators at once")
        lifts = [other.lifted_at for other in others if other.lifted_at is not None]
        if lifts:
            self.coverage.saw("kill, lift, kill")
            if facts.first_at - max(lifts) < 2:
                self.coverage.saw("a lift races a kill")

    def _broken(self, invariant: int, text: str) -> None:
        self.note(f"VIOLATION {invariant}: {text}")
        self._loop.fail(Violation(invariant, text))
