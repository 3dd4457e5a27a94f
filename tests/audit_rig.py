"""What the audit tests share: a roster with its keys, signed batches, a clock, a patient wait.

Nothing here is mocked: identities sign with real keys and a real verifier checks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kcm_runtime.audit.event_chain import Chain
from kcm_runtime.files.identity_file import create_identity
from kcm_runtime.instance import InstanceContext
from kcm_runtime.roster.store import Rosters
from kcm_schemas.audit import AuditBatch, AuditEvent, EventType
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code
from kcm_schemas.roster import Instance, Operator, OperatorRole, Role, Roster
from kcm_schemas.signed import Kind
from kcm_trust.identity import ROOT, Identity
from kcm_trust.verify import Verifier

REGION = "eu"


class FakeClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def unix_ms(self) -> int:
        return int(self.now * 1000) + 1_700_000_000_000

    def elapsed(self) -> float:
        return self.now


@dataclass
class System:
    """A roster in a directory, with everybody's key."""

    directory: Path
    version: int = 1
    identities: dict[str, Identity] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)

    def identity(self, name: str) -> Identity:
        if name not in self.identities:
            self.identities[name] = create_identity(name, str(self.key_path(name)), "test")
        return self.identities[name]

    def key_path(self, name: str) -> Path:
        return self.directory / f"{name}.key"

    def add(self, name: str, role: Role, region: str = REGION) -> Identity:
        identity = self.identity(name)
        self.instances.append(
            Instance(instance=name, role=role, region=region, public_key=identity.public, grants=[])
        )
        return identity

    def add_operator(self, name: str, *roles: OperatorRole) -> Identity:
        identity = self.identity(name)
        self.operators.append(
            Operator(operator=name, roles=list(roles), public_key=identity.public)
        )
        return identity

    @property
    def roster(self) -> Roster:
        return Roster(
            system="test",
            version=self.version,
            issued_ms=1,
            instances=self.instances,
            operators=self.operators,
            regions=[],
        )

    @property
    def verifier(self) -> Verifier:
        return Verifier(self.roster)

    @property
    def roster_path(self) -> Path:
        return self.directory / "roster"

    def write_roster(self) -> Path:
        fresh = self.directory / "roster.new"
        fresh.write_bytes(encode(self.identity(ROOT).sign(Kind.ROSTER, self.roster)))
        fresh.replace(self.roster_path)
        return self.roster_path

    def instance_context(self, name: str, incarnation: bytes) -> InstanceContext:
        rosters = self.rosters()
        entry = rosters.verifier.instance(name)
        return InstanceContext(self.identities[name], entry, rosters, incarnation)

    def rosters(self) -> Rosters:
        """Whom an instance believes that was started now."""
        return Rosters(self.verifier, root_public=self.identity(ROOT).public)


def event(kind: str = EventType.DATA_ENCRYPT, *, time_ms: int = 5, detail: str = "") -> bytes:
    return encode(
        AuditEvent(
            type=kind,
            time_ms=time_ms,
            actor=None,
            tenant="acme",
            service="billing",
            target="",
            hold=None,
            code=Code.OK,
            count=1,
            failed=0,
            detail=detail,
        )
    )


@dataclass
class Emitting:
    """One incarnation of an emitter, telling its story batch by batch, also a false one."""

    system: System
    name: str
    incarnation: bytes = b"b" * 16
    region: str = REGION
    chain: Chain = field(default_factory=Chain)

    def batch(self, events: Sequence[bytes]) -> AuditBatch:
        batch = AuditBatch(
            emitter=self.name,
            incarnation=self.incarnation,
            role=Role.GATEWAY,
            region=self.region,
            first=self.chain.next_seq,
            previous=self.chain.head,
            events=list(events),
        )
        self.chain = self.chain.extend(events)
        return batch

    def signed(self, events: Sequence[bytes]) -> bytes:
        return self.sign(self.batch(events))

    def sign(self, batch: AuditBatch) -> bytes:
        return encode(self.system.identities[self.name].sign(Kind.AUDIT, batch))


async def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Wait until a condition holds; fails when it does not."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.01)
