"""What a purge costs, by how many other tenants are open, and by how many holds there ever were.

No network: a Core's vault and a Gateway's engine with a tenant's keys open, and the production way
of a hold into an incarnation: verify, join, raise the generation, wipe. Everything else in the
process is there only to be in the way.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from kcm_core.keys.vault import SealKey, Vault
from kcm_deployment.members import Member
from kcm_deployment.trust_files import Trust
from kcm_devsystem.identities import OPERATOR, SYSTEM, make_trust
from kcm_gateway.config import EngineSettings
from kcm_gateway.core_client import CoreClient, caller_of
from kcm_gateway.engine import Gateway
from kcm_gateway.keys.lease import Lease
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.admission import Admission, Permit
from kcm_killswitch.model.control_lease import FOREVER
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.model.timing import Timing
from kcm_killswitch.replica.hold_applier import HoldApplier
from kcm_runtime.clock import SystemClock, SystemRandomness
from kcm_runtime.files.identity_file import load_identity
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.roster.store import Rosters
from kcm_schemas import limits
from kcm_schemas.codes import Code
from kcm_schemas.control import Scope
from kcm_schemas.registry import Link, Tenant
from kcm_schemas.roster import Role
from kcm_sessions.caller import Caller
from kcm_trust import statements
from kcm_trust.identity import Identity
from kcm_trust.verify import Verifier, verify_roster

from benchmarks.measure import Case, Turn

REGION: Final = "eu-de"
SERVICE: Final = "records"
VICTIM: Final = "victim"

TENANTS: Final = (1, 100, 10_000)
HOLDS: Final = (1, 1_000, 100_000)
"""Earlier holds, lifted: they stay as tombstones."""

KILLS: Final = 20
"""Kills of a turn."""

NOISE: Final = 0.8
"""Ratio of speed at which two of these are the same: turns of one differ by as much."""

SCOPES: Final[tuple[Scope, ...]] = ("tenant", "link")

Part = Literal["core", "gateway"]


@dataclass(frozen=True, slots=True)
class Making:
    """Who signs and who verifies."""

    trust: Trust
    verifier: Verifier
    operator: Identity
    me: InstanceContext


@asynccontextmanager
async def cases(tenants: Sequence[int], holds: Sequence[int]) -> AsyncIterator[list[Case]]:
    """Every case of a tenant's and of a link's hold, with what they need until they are done."""
    directory = Path(tempfile.mkdtemp(prefix="kcm-bench-"))
    houses: list[House] = []
    try:
        making = make_trusted(directory)
        made = []
        for part in ("core", "gateway"):
            crowds: dict[str, House] = {}
            for count in tenants:
                house = await _house(making, part, count, 0)
                crowds[f"{count} open"] = house
                houses.append(house)
            made += [_case(f"{part}, a {s}'s hold", s, crowds) for s in SCOPES]
        pasts: dict[str, House] = {}
        for count in holds:
            house = await _house(making, "core", 1, count)
            pasts[f"{count} earlier holds"] = house
            houses.append(house)
        made.append(_case("core, after earlier holds", "tenant", pasts))
        yield made
    finally:
        for house in houses:
            house.close()
        shutil.rmtree(directory)


def _case(name: str, scope: Scope, houses: dict[str, House]) -> Case:
    first = next(iter(houses))
    return Case(
        name,
        "kill",
        {label: house.turn(scope) for label, house in houses.items()},
        {label: NOISE for label in houses if label != first},
        baseline=first,
    )


class House:
    """One process's worth of open tenants, one of whom is killed again and again."""

    def __init__(
        self,
        making: Making,
        purge: Callable[[str], int],
        reopen: Callable[[str], Awaitable[None]],
        close: Callable[[], None],
    ) -> None:
        self._making: Final = making
        self._reopen: Final = reopen
        self.close: Final = close
        host = Host(making.me, SystemClock(), SystemRandomness(), emit_nothing)
        state = ReplicaState.empty(REGION, Timing())
        self.registry: Final = state.registry
        self.revocations: Final = state.revocations
        self.learning: Final = HoldApplier(host, state, purge=purge, changed=lambda _: None)

    async def fill(self, tenants: int, holds: int) -> None:
        """Open the victim and everybody else, and live through some holds."""
        for name in (VICTIM, *(f"t{number}" for number in range(1, tenants))):
            self.registry.put(Link(link=name, revision=1, uri="softkey:/x", model="byok"))
            self.registry.put(
                Tenant(tenant=name, revision=1, link=name, regions=[REGION], region_quorum="local")
            )
            await self._reopen(name)
        for _ in range(holds):
            _, lift = self.hold_and_lift("tenant")
            self.learning.learn(lift)  # it has its hold: whoever was away learns both by it
        await self._reopen(VICTIM)

    def turn(self, scope: Scope) -> Turn:
        """Kill and lift; what counts is the CPU time of the hold's way alone, its keys wiped."""

        async def turn() -> list[float]:
            took = []
            for _ in range(KILLS):
                held, lift = self.hold_and_lift(scope)
                started = time.process_time()
                self.learning.learn(held)
                took.append(time.process_time() - started)
                if not self.revocations.killed(VICTIM):
                    raise AssertionError("a hold of this very run had no effect")
                self.learning.learn(lift)
                await self._reopen(VICTIM)
            return took

        return turn

    async def reopen(self) -> None:
        """Open the one that is killed again."""
        await self._reopen(VICTIM)

    def hold_and_lift(self, scope: Scope) -> tuple[bytes, bytes]:
        """Signed: a new hold that reaches the victim, and its lift."""
        operator = self._making.operator
        _, held = statements.hold(
            operator,
            scope=scope,
            target=VICTIM,
            cause="operator",
            origin=REGION,
            issued_ms=0,
            reason="",
            salt=os.urandom(limits.ID_SIZE),
        )
        return held, statements.lift(operator, held, issued_ms=0, reason="")


async def _house(making: Making, part: Part, tenants: int, holds: int) -> House:
    make = _core_house if part == "core" else _gateway_house
    house = make(making)
    await house.fill(tenants, holds)
    return house


def _core_house(making: Making) -> House:
    region = making.verifier.roster.regions[0]
    seal = SealKey(region.seal_key_id, str(making.trust.seal_key(REGION)))
    vault = Vault(REGION, seal, SystemKeyRandomness())
    inner: dict[str, bytearray] = {}

    async def reopen(tenant: str) -> None:
        root = inner.setdefault(tenant, vault.make_root(tenant, 1))
        vault.open_root(tenant, 1, memoryview(root), house.revocations.generation(tenant))

    def close() -> None:
        for tenant in vault.open_tenants:
            vault.purge(tenant)

    house = House(making, vault.purge, reopen, close)
    return house


def _gateway_house(making: Making) -> House:
    gateway = make_gateway(making)

    async def reopen(tenant: str) -> None:
        await gateway.encrypt(tenant, SERVICE, [b""])

    return House(making, gateway.purge, reopen, gateway.close)


def make_gateway(making: Making) -> Gateway:
    """Make one that admits everything and needs no Core."""
    clock, randomness = SystemClock(), SystemKeyRandomness()
    return Gateway(
        Host(making.me, clock, randomness, emit_nothing),
        AdmitsAll.make(),
        core=NoCore(nobody, _caller(making.me), clock, randomness, 1.0),
        randomness=randomness,
        settings=EngineSettings(),
    )


def _caller(me: InstanceContext) -> Caller:
    return caller_of(me, HeldKeys(Revocations(Registry(), REGION), "instance"))


class AdmitsAll(Admission):
    """Admits every operation."""

    @classmethod
    def make(cls) -> Self:
        """Make one over an empty state."""
        state = ReplicaState.empty(REGION, Timing())
        return cls(state.freshness, state.revocations, state.registry, REGION)

    def admit(self, tenant: str, now: float) -> Permit:  # noqa: ARG002 - an Admission
        """Admit it."""
        return Permit(tenant, 0, FOREVER)

    def recheck(self, permit: Permit, now: float) -> float:  # noqa: ARG002 - an Admission
        """Accept its output."""
        return FOREVER


class NoCore(CoreClient):
    """Wraps to something at once: what the keys are wrapped to does not matter for a purge."""

    async def wrap(
        self,
        tenant: str,  # noqa: ARG002 - a CoreClient
        service: str,  # noqa: ARG002
        purpose: str,  # noqa: ARG002
        keys: memoryview,
    ) -> tuple[Lease, bytes]:
        """As many blobs as keys."""
        return Lease(1, 0.0, FOREVER), bytes(len(keys) // limits.KEY_SIZE * limits.WRAPPED_SIZE)


async def nobody(_subject: str, _body: bytes, _timeout_s: float) -> bytes:
    """Ask no Core: none is there."""
    raise AssertionError("nobody is asked")


def emit_nothing(
    type: str,  # noqa: A002
    *,
    actor: str | None = None,
    tenant: str | None = None,
    service: str | None = None,
    code: Code = Code.OK,
    count: int = 0,
    failed: int = 0,
    detail: str = "",
) -> None:
    """An ``Emit`` that records nothing."""


def make_trusted(directory: Path) -> Making:
    """Identities and a roster in a directory."""
    core = Member(Role.CORE, REGION, 1)
    public = make_trust(directory, [core], [REGION], time.time_ns() // 1_000_000)
    trust = Trust(directory)
    verifier = Verifier(verify_roster(trust.roster.read_bytes(), public, 0))
    me = InstanceContext(
        load_identity(core.name, str(trust.key(core.name)), SYSTEM),
        verifier.instance(core.name),
        Rosters(verifier),
        os.urandom(limits.ID_SIZE),
    )
    operator = load_identity(OPERATOR, str(trust.key(OPERATOR)), SYSTEM)
    return Making(trust, verifier, operator, me)
