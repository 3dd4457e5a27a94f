"""A kill under load, beside a bare broadcast on the same topology, turn by turn.

A hold is published on the control account of one region, as the Core does that takes an operator's
kill. From then until the last receipt of any incarnation in any region arrived back at the
publisher: an incarnation sends its receipt after it purged, so its arrival is later than the purge,
and by as much as an acknowledgement of the bare broadcast takes to come back. The last accepted
answer is by the clients of the killed tenant, in every region, all of whom ask all the time.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from kcm import Admin
from kcm._internal import statements
from kcm_runtime.clock import SystemClock
from kcm_schemas import limits, subjects
from kcm_schemas.codec import decode
from kcm_schemas.codes import KcmError
from kcm_schemas.control import Receipt
from kcm_schemas.roster import Role
from kcm_schemas.signed import Signed
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg

from benchmarks.bare import connected, written
from benchmarks.kill import echo
from benchmarks.kill.living import (
    Helper,
    System,
    helpers,
    make_links,
    make_tenants,
    open_tenants,
    tenant_name,
)
from benchmarks.kill.sample import Figure, beside, spread
from benchmarks.measure import in_turns

PART: Final = "a kill under load"

PURGE_TARGET: Final = 3.0
DARK_TARGET: Final = 5.0
"""Times the bare broadcast's 99th percentile, at most."""

WAIT_S: Final = 30.0
"""Seconds until a turn that did not end is a failure."""

HOLD_SIZE: Final = 350
RECEIPT_SIZE: Final = 250
"""Bytes of the bare messages until the first hold and receipt were seen."""

QUIET_S: Final = 0.05
"""Seconds between turns: what the one before left to be done is not the next one's."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much there is, and how long it goes on."""

    tenants: int
    links: int
    kills: int
    pause_s: float
    """Between two requests of the other tenants, in each region."""
    streams: int = 1
    """Clients of the killed tenant in each region."""
    victim_pause_s: float = 0.02
    """Between two of their turns, each of which encrypts and decrypts."""
    passes: int = 2


@dataclass(slots=True)
class Taken:
    """What was measured, one entry a round; seconds."""

    bare: list[float] = field(default_factory=list)
    purged: list[float] = field(default_factory=list)
    dark: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    """The longest purge, as the incarnation itself measured it."""
    last: list[str] = field(default_factory=list)
    """The role of whoever's receipt came last."""


async def measure(at: System, load: Load) -> list[Figure]:
    """Make and open the tenants, then kill one after the other."""
    async with Admin.open(at.context) as admin:
        await make_links(at, admin, load.links)
        making = await make_tenants(at, admin, load.tenants, load.links)
        opening = await open_tenants(at, load.tenants, load.passes)
        _tell(f"{load.tenants} tenants made in {making:.0f} s, opened in {opening:.0f} s")
        programs = [*_subscribers(at), *clients(at, load)]
        async with helpers(programs) as started, connected(at.control(at.regions[0])) as bus:
            askers = started[-len(at.regions) :]
            rounds = Rounds(at, admin, bus, askers, len(started) - len(askers))
            await rounds.listen()
            before = busy()
            for number in range(load.kills):
                await rounds.round(number, tenant_name(number % load.tenants))
            after = busy()
            others = [await asker.ask(WAIT_S, do="others") for asker in askers]
    failed = sum(sum(one["codes"].values()) for one in others)
    answered = sum(one["answers"] for one in others)
    worked, passed = (after[one] - before[one] for one in (0, 1))
    return [
        Figure(PART, f"{load.tenants} tenants made in every region", making, "s"),
        Figure(PART, "each of them opened through every Gateway", opening, "s"),
        *figures(rounds.taken),
        Figure(PART, "answers to other tenants meanwhile", answered, ""),
        Figure(PART, "other tenants' requests that failed", failed, "", 0),
        Figure(PART, "the machine was busy for", 100 * worked / passed, "%"),
    ]


def figures(taken: Taken) -> list[Figure]:
    """What is said of the rounds."""
    gateways = taken.last.count(Role.GATEWAY.value) / len(taken.last)
    return [
        *spread(PART, "bare broadcast to the last acknowledgement", taken.bare),
        *spread(PART, "hold to the last receipt", taken.purged),
        *spread(PART, "hold to the last accepted answer", taken.dark),
        *spread(PART, "the purge itself, slowest incarnation", taken.inside),
        *beside(PART, "hold to the last receipt", taken.purged, taken.bare, PURGE_TARGET),
        *beside(PART, "hold to the last accepted answer", taken.dark, taken.bare, DARK_TARGET),
        Figure(PART, "kills of which a Gateway's receipt was the last", 100 * gateways, "%"),
    ]


class Rounds:
    """One round after another: a bare broadcast, and a kill with its lift."""

    def __init__(
        self, at: System, admin: Admin, bus: Nats, clients: Sequence[Helper], subscribers: int
    ) -> None:
        self._home: Final = at.regions[0]
        self._admin: Final = admin
        self._bus: Final = bus
        self._clients: Final = clients
        self._expected: Final = subscribers
        self._clock: Final = SystemClock()
        self._arrived: dict[str, list[tuple[float, bytes]]] = {}
        self._more: Final = asyncio.Event()
        self._hold_size = HOLD_SIZE
        self.taken: Final = Taken()

    async def listen(self) -> None:
        """Note when anything arrives; it is looked at later."""

        async def receive(message: Msg) -> None:
            now = self._clock.elapsed()
            key = message.subject.rpartition(".")[2]
            self._arrived.setdefault(key, []).append((now, message.data))
            self._more.set()

        await self._bus.subscribe(subjects.receipts(), cb=receive)
        await self._bus.subscribe(echo.HEARD, cb=receive)
        await written(self._bus)

    async def round(self, number: int, victim: str) -> None:
        """Let both take a turn, while the tenant's clients are served."""
        for what in in_turns(number, ("bare", "kill")):
            await self._all(do="serve", tenant=victim)
            await asyncio.sleep(QUIET_S)
            if what == "bare":
                self.taken.bare.append(await self._bare())
            else:
                await self._kill(victim)
            self._arrived.clear()

    async def _bare(self) -> float:
        key = os.urandom(limits.ID_SIZE).hex()
        started = self._clock.elapsed()
        await self._bus.publish(f"{echo.PROBE}.{self._home}.told.{key}", bytes(self._hold_size))
        return await self._last(key) - started

    async def _kill(self, victim: str) -> None:
        hold_id, raw = statements.hold(
            self._admin.identity,
            scope="tenant",
            target=victim,
            origin=self._home,
            issued_ms=self._clock.unix_ms(),
            reason="benchmark",
            salt=os.urandom(limits.ID_SIZE),
        )
        self._hold_size = len(raw)
        subject = subjects.broadcast_hold(self._home, "tenant", hold_id)
        started = self._clock.elapsed()
        await self._bus.publish(subject, raw)
        purged = await self._last(hold_id.hex()) - started
        receipts = self._receipts(hold_id)
        dark = max(one["last"] for one in await self._all(do="dark"))
        self.taken.purged.append(purged)
        self.taken.dark.append(max(0.0, dark - started))
        self.taken.inside.append(max(one.purge_us for one in receipts) / 1e6)
        self.taken.last.append(receipts[-1].role.value)
        lift = statements.lift(
            self._admin.identity, raw, issued_ms=self._clock.unix_ms(), reason="benchmark"
        )
        status = await self._admin.put_hold(self._home, lift)
        if not status.lifted:
            raise RuntimeError("a hold of this very run was not lifted")

    async def _last(self, key: str) -> float:
        """When the first word of the last one arrived; everybody speaks once or more."""
        async with asyncio.timeout(WAIT_S):
            while len(self._first(key)) < self._expected:
                self._more.clear()
                await self._more.wait()
        return max(self._first(key).values())

    def _first(self, key: str) -> dict[bytes, float]:
        """When everybody was heard first, by their first words.

        A Core speaks again when it has stored the hold; what it says then comes after its purge.
        """
        first: dict[bytes, float] = {}
        speakers: set[object] = set()
        for moment, data in self._arrived.get(key, ()):
            speaker = _speaker(data)
            if speaker not in speakers:
                speakers.add(speaker)
                first[data] = moment
        return first

    def _receipts(self, hold_id: bytes) -> list[Receipt]:
        """The receipts, verified, in the order of their arrival."""
        found = [self._admin.verifier.receipt(raw) for raw in self._first(hold_id.hex())]
        if len({(one.instance, one.incarnation) for one in found}) < self._expected:
            raise RuntimeError("somebody receipted for somebody else")
        return found

    async def _all(self, **what: object) -> list[dict[str, float]]:
        return await asyncio.gather(*(client.ask(WAIT_S, **what) for client in self._clients))


@lru_cache(maxsize=4096)
def _speaker(data: bytes) -> object:
    """Whose receipt it says it is, not verified; a bare message speaks for itself."""
    try:
        receipt = decode(Receipt, decode(Signed, data).body)
    except KcmError:
        return data
    return receipt.instance, receipt.incarnation


def _subscribers(at: System) -> list[tuple[str, dict[str, object]]]:
    """One for each instance that hears a hold, in its region."""
    return [
        (
            "benchmarks.kill.echo",
            {
                "name": member.name,
                "region": member.region,
                "size": RECEIPT_SIZE,
                "address": at.control(member.region).model_dump(mode="json"),
            },
        )
        for member in at.options.members
        if member.role is not Role.AUDITOR
    ]


def clients(at: System, load: Load) -> list[tuple[str, dict[str, object]]]:
    """A process of clients in each region."""
    return [
        (
            "benchmarks.kill.traffic",
            {
                "context": str(at.context_file),
                "region": region,
                "tenants": load.tenants,
                "pause_s": load.pause_s,
                "streams": load.streams,
                "victim_pause_s": load.victim_pause_s,
            },
        )
        for region in at.regions
    ]


def busy() -> tuple[int, int]:
    """Ticks for which the machine's processors worked, and ticks in all, since it started."""
    fields = [int(one) for one in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
