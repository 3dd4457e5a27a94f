"""The rosters of a run: the one it begins with, and the one that retires an operator.

The root signs the second one at some moment, and it is brought to one region after another, to some
of them only when everything is mended. What an instance has accepted outlives its incarnations on
the disk of its machine.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from kcm_runtime.roster.store import Rosters
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import KcmError
from kcm_schemas.roster import Roster
from kcm_schemas.signed import Kind
from kcm_trust.endorsements import Endorsements, pages
from kcm_trust.envelopes import statement_digest
from kcm_trust.roster import verify_roster
from kcm_trust.verify import envelope

from tests.simulation.disk import SimDisk
from tests.simulation.trust import ROOT_KEY, SimRosterFiles, SimRosters, Verifiers

if TYPE_CHECKING:
    from tests.simulation.core import SimCore
    from tests.simulation.world import World

BRING_S: Final = 1.0
"""Seconds until an operator tries again to bring a roster to a region."""


class RosterRequests:
    """Who has which roster, and how the next one comes to them."""

    def __init__(self, world: World, first: Roster) -> None:
        self._world: Final = world
        self._verifiers: Final = Verifiers()
        self.first: Final = first
        self.raw: bytes = encode(ROOT_KEY.sign(Kind.ROSTER, first))
        """The highest that there is."""
        self._first_raw: Final = self.raw
        self._endorsements: dict[str, Endorsements] = {}
        self._asked: set[str] = set()
        """Regions in which somebody asks again for what does not count as lifted any more."""
        self._missing: set[str] = set()
        """Regions to which nobody has brought it yet."""
        self.unbrought: Final[set[str]] = set()
        """Regions to which nobody brings it before everything is mended."""

    @property
    def retired(self) -> bool:
        """Whether the second roster was signed."""
        return self.raw != self._first_raw

    @property
    def gone(self) -> set[str]:
        """Who is retired on it."""
        return set(self._endorsements)

    def open(self, disk: SimDisk) -> Rosters:
        """What an instance begins with: as ``kcm_runtime.roster.store.open_rosters``."""
        files = SimRosterFiles(disk)
        raw = files.read() or self._first_raw
        roster = verify_roster(raw, ROOT_KEY.public, 0)
        endorsements = {
            name: found
            for name, found in self._endorsements.items()
            if files.read_list(found.retirement()) is not None
        }
        verifier = self._verifiers.of(roster, endorsements if roster.version > 1 else {})
        return SimRosters(self._verifiers, verifier, raw=raw, files=files)

    def retire(self, name: str, *, listed: bool, lasts: float) -> None:
        """Sign the roster that retires an operator, and bring it to one region after another."""
        if self.retired:
            return
        world = self._world
        endorsements = Endorsements(
            self._digest(raw) for raw in world.oracle.judgement.lifts_of(name) if listed
        )
        first = self.first
        roster = first.model_copy(
            update={
                "version": first.version + 1,
                "operators": [
                    one.model_copy(update={"retired": endorsements.retirement()})
                    if one.operator == name
                    else one
                    for one in first.operators
                ],
            }
        )
        self.raw = encode(ROOT_KEY.sign(Kind.ROSTER, roster))
        self._endorsements = {name: endorsements}
        world.coverage.saw("a signer who is retired")
        world.oracle.left(self._verifiers.of(roster, self._endorsements), name)
        regions = world.random.sample(world.plan.regions, len(world.plan.regions))
        self._missing = set(regions)
        late = {regions[-1]} if len(regions) > 1 and world.random.random() < 0.5 else set()
        for region in regions:
            if region not in (self.unbrought or late):
                world.loop.after(lasts * world.random.random(), self._bring, region)

    def heal(self) -> None:
        """Bring it to every region that lacks it."""
        if self.retired:
            for region in sorted(self._missing):
                self._bring(region)

    def differing(self) -> list[str]:
        """Who does not have the highest roster, or its lists; streams, too."""
        world, wrong = self._world, []
        for name, one in sorted(world.running.items()):
            if one.me.rosters.raw != self.raw or one.me.rosters.missing():
                wrong.append(f"{name} has roster {one.me.rosters.version}")
        lacking = [region for region in world.streams if not self.stored(region)]
        return wrong + [f"the stream of {region} lacks the highest roster" for region in lacking]

    def stored(self, region: str) -> bool:
        """Whether a region's stream has the highest roster."""
        entries = self._world.streams[region].entries()
        found = {entry.subject: entry.data for entry in entries}
        return found.get(subjects.control_roster(region)) == self.raw

    def _bring(self, region: str) -> None:
        """Have a Core of a region take it, and try again until the region's stream has it."""
        cores = [core for core in self._world.cores(region) if core.ready]
        if region in self._missing and cores:
            core = self._world.random.choice(cores)
            self._world.loop.spawn(core.node, self._put(core))
        if region in self._missing:
            self._world.loop.after(BRING_S, self._bring, region)

    async def _put(self, core: SimCore) -> None:
        """As ``kcm_core.api.roster_requests`` does it: pages first, then the roster."""
        feed: Any = core.switch.rosters
        try:
            for name, endorsements in self._endorsements.items():
                for page, raw in enumerate(pages(endorsements)):
                    await feed.publish(name, page, raw)
            core.me.rosters.take(self.raw)
            self._ask_again(core.who.region)
            feed.mend()
            while not feed.stored:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.1)
        except KcmError:
            return  # tried again
        self._missing.discard(core.who.region)

    def _ask_again(self, region: str) -> None:
        if region not in self._asked:
            self._asked.add(region)
            for facts in self._world.oracle.revived:
                if facts.origin == region:
                    self._world.on_revived(facts)

    @staticmethod
    def _digest(raw: bytes) -> bytes:
        return statement_digest(envelope(raw, Kind.LIFT))
