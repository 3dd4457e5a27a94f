"""All that a Core reaches outside itself, and the state with which it begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kcm_killswitch.coordinator.lift_compaction import EVERY_S, KEEP_S, LEAST
from kcm_killswitch.coordinator.result_store import ResultStore
from kcm_killswitch.model.probe_scheduler import PROBES_PER_S
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.hold_store_port import HoldStore
from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.audit.port import AuditRoom
from kcm_runtime.host import Host
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.ports import PubSub, StreamLog
from kcm_schemas.roster import Region
from kcm_sessions.session_keys import SessionKeys

from kcm_core.config import ANSWER_LEASE_MS, L1_DEADLINE_S
from kcm_core.keys.file_store import FileKeyStore
from kcm_core.keys.store import KeyStore
from kcm_core.keys.vault import Vault
from kcm_core.registry.floors import Floors
from kcm_core.unsealer.port import UnsealerPort


@dataclass(frozen=True, slots=True)
class PageLimits:
    """When lifted holds are moved to pages; see ``kcm_killswitch.coordinator.lift_compaction``."""

    every_s: float = EVERY_S
    keep_s: float = KEEP_S
    least: int = LEAST


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an answer may be used, how long a root key may take, how often keys are probed."""

    lease_ms: int = ANSWER_LEASE_MS
    l1_deadline_s: float = L1_DEADLINE_S
    probes_per_s: float = PROBES_PER_S
    pages: PageLimits = field(default_factory=PageLimits)


@dataclass(frozen=True, slots=True)
class Ports:
    """The product makes them in ``production``; tests, simulation and benchmarks replace them.

    ``purge`` overwrites a tenant's keys because of a hold, ``unload`` because a lease ended or too
    many keys are open; both return the number of keys. ``buckets`` is the connection to the
    buckets of the account REGION, ``second_store`` is the region's second key store, and ``store``
    reads that one and the bucket of wrapped keys. ``region`` is the region's entry on the roster.
    """

    host: Host
    replica_state: ReplicaState
    region: Region
    region_bus: PubSub
    buckets: Connection
    control_bus: PubSub
    stream: StreamLog
    hold_store: HoldStore
    results: ResultStore
    feed: RegistryFollower
    floors: Floors
    second_store: FileKeyStore
    store: KeyStore
    vault: Vault
    session_keys: SessionKeys
    unsealer: UnsealerPort
    purge: Callable[[str], int]
    unload: Callable[[str], int]
    audit_room: AuditRoom
    limits: Limits = field(default_factory=Limits)
