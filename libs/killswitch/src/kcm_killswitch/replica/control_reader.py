"""The reader of the region's control stream: it routes every entry, and nothing in it waits.

Reading gives the lease, too: ``LeaseKeeper`` writes this incarnation's lease entry, and the entry
counts once everything before it was delivered. When the stream was rolled back, or when it was
delivered incorrectly, all freshness is void and the stream is read from its start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.changes import Changes
from kcm_runtime.config import ConfigError
from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import Entry, StreamLog, Subscription
from kcm_runtime.roster.follower import RosterFollower
from kcm_runtime.tasks import TaskSet
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import KeyUseAttestation, PeerLease
from kcm_trust.verify import Forged, Retired, Untrusted

from kcm_killswitch.model.log_position import LogPosition
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.hold_keeper import HoldKeeper
from kcm_killswitch.replica.invalid_entries import InvalidEntries
from kcm_killswitch.replica.lease_keeper import RETRY_S, LeaseKeeper
from kcm_killswitch.replica.stream_audit import StreamAudit
from kcm_killswitch.replica.stream_replay import StreamReplay

log = logging.getLogger(__name__)

READ_BACK_S: Final = 5.0
"""Seconds to wait for our own lease entry to be read back: it arrives at once or not at all."""

OnPeerLease = Callable[[PeerLease], None]
OnAttestation = Callable[[KeyUseAttestation], None]


class ControlReader:
    """``kcm_runtime.nats.ports.LogFollower`` of the region's control stream."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        stream: StreamLog,
        holds: HoldKeeper,
        rosters: RosterFollower,
        refusals: RejectionLog,
        changes: Changes,
        unheard: Callable[[], Awaitable[None]],
    ) -> None:
        """``unheard`` is called repeatedly while no write was acknowledged for half a lease."""
        self._me: Final = host.me
        self._clock: Final = host.clock
        self._freshness: Final = replica_state.freshness
        self._holds: Final = holds
        self._rosters: Final = rosters
        self._refusals: Final = refusals
        self._changes: Final = changes
        self._tasks: Final = TaskSet()
        self._on_peer_lease: OnPeerLease = _ignore
        self._on_attestation: OnAttestation | None = None
        self._on_registry: Callable[[], None] = _nothing
        self._invalid: Final = InvalidEntries(host, stream=stream)
        self.leases: Final = LeaseKeeper(
            host,
            replica_state,
            stream=stream,
            judged=lambda: self.replay.judged,
            registry_differs=self._registry_differs,
            went_back=self._read_again,
            changed=changes.notify,
            unheard=unheard,
        )
        self.replay: Final = StreamReplay(
            host.me.rosters, stream, holds.take_again, self.leases.renew
        )
        self._audit: Final = StreamAudit(host.me, stream, (holds.replicator, holds.pages, rosters))
        self._following: Final[Subscription] = stream.follow(self)

    async def start(self) -> None:
        """Replay the stream, and register. Raises ``ConfigError`` if this instance may not act."""
        self.replay.begin()
        await self._following.start()
        # The first lease entry cannot name its own sequence; the second one does.
        for _ in range(2):
            await self._catch_up_somehow()

    def keep(self) -> None:
        """Renew the lease from now on; a Core also compares the stream with what it knows."""
        self._audit.start()
        self._tasks.spawn(self.leases.keep())

    def stop(self) -> None:
        """Stop the background work."""
        self._audit.close()
        self.replay.close()
        self._invalid.close()

    async def close(self) -> None:
        """State that this incarnation holds no key any more, and stop following."""
        self._tasks.close()
        await self.leases.end()
        await self._following.close()

    def listen(self, on_peer_lease: OnPeerLease, on_attestation: OnAttestation) -> None:
        """Set the callbacks for valid peer leases and attestations, after they took effect."""
        self._on_peer_lease, self._on_attestation = on_peer_lease, on_attestation

    def on_registry(self, differs: Callable[[], None]) -> None:
        """Set the callback for a Core of the region that shows a registry other than ours."""
        self._on_registry = differs

    async def caught_up(self) -> LogPosition:
        """Read everything that was durable at the call; returns the log position that proves it.

        This writes our own lease entry, and waits until the entry is read back after everything
        before it. Raises ``unavailable``.
        """
        position = await self.leases.renew()
        era = self._freshness.era
        await self._following.reached(position.sequence)
        # A later entry of ours may replace it before delivery; or the stream was rolled back.
        await self._changes.until(
            lambda: era != self._freshness.era or self._freshness.read_back(position), READ_BACK_S
        )
        if era != self._freshness.era or not self._freshness.read_back(position):
            raise KcmError(Code.UNAVAILABLE, "our own lease entry was not read back in time")
        return position

    # The methods of a follower of the region's stream.

    def anchor(self) -> int:
        """The sequence of our last lease entry; entries above it may differ after a rollback."""
        return self._freshness.anchor

    def resumed(self, behind: int) -> None:
        """Entries above the anchor count when they are delivered again."""
        self.leases.incarnations.resumed(behind, self._clock.elapsed())
        self._freshness.resumed(behind)
        self._holds.forget(behind)
        self._rosters.forget(behind)
        self._audit.hurry()

    def went_back(self) -> None:
        """Forget all freshness: after a rollback, none of it is valid."""
        self.leases.restart()
        self._changes.notify()

    def receive(self, entry: Entry) -> None:
        """Process an entry of the stream, of any kind; nothing here waits."""
        self.leases.incarnations.delivered(entry.sequence, self._clock.elapsed())
        try:
            self._route(entry)
        except Forged as error:
            self._refusals.record(error)
            self._invalid.clear(entry)
        except Untrusted as error:
            self._refused(error, entry)
        if not self._freshness.delivered(entry.sequence):
            self.leases.lost("another entry is where ours was acknowledged: a rollback")
        self._changes.notify()

    def take_peer_lease(self, peer_lease: PeerLease) -> None:
        """Process a verified peer lease. Raises ``Untrusted`` if it is of another region."""
        if peer_lease.region != self._me.region:
            raise Untrusted("a peer lease of another region")
        if peer_lease.roster > self.replay.judged:
            return  # a hold of the other region may count as lifted only here
        position, highest = (
            LogPosition(peer_lease.position, peer_lease.nonce),
            LogPosition(peer_lease.stored, peer_lease.hold),
        )
        if self._freshness.peer_leased(peer_lease.other, position, highest):
            self._on_peer_lease(peer_lease)

    def _route(self, entry: Entry) -> None:
        """Give an entry to the part for its kind. Raises ``Untrusted``."""
        match subjects.control_noun(entry.subject):
            case "hold":
                self._holds.take(entry)
            case "lifts":
                self._holds.pages.receive(entry)
            case "lease":
                self.leases.take(entry)
            case "peer-lease":
                self.take_peer_lease(self._me.verifier.peer_lease(entry.data))
            case "key-use" if self._on_attestation is not None:
                # A Gateway does not use them, and they are most of the entries.
                attestation = self._me.verifier.key_use(entry.data)
                if attestation.region != self._me.region:
                    raise Untrusted("an attestation of another region")
                self._on_attestation(attestation)
            case "roster" | "endorsements":
                self._rosters.receive(entry)

    def _refused(self, error: Untrusted, entry: Entry) -> None:
        """Record the refusal, unless the signer may have retired only after it signed."""
        before = not self._holds.applier.live or self._rosters.precedes(entry.sequence)
        if not (before and isinstance(error, Retired)):
            self._refusals.record(error)

    async def _catch_up_somehow(self) -> None:
        """Catch up with retries: without a current lease entry an instance must not serve."""
        while True:
            if not self._me.acts:
                raise ConfigError("this instance is retired, or not on the roster any more")
            try:
                await self.caught_up()
            except KcmError as error:
                log.warning(
                    "this incarnation is not registered in the region's stream yet, it tries "
                    "again: %s",
                    error.detail,
                    extra=fields(
                        region=self._me.region, instance=self._me.name, code=error.code.value
                    ),
                )
                await asyncio.sleep(RETRY_S)
            else:
                return

    def _registry_differs(self) -> None:
        self._on_registry()

    def _read_again(self) -> None:
        self._holds.forget()
        self._following.again()


def _nothing() -> None:
    """Do nothing: no callback is set."""


def _ignore(_: object) -> None:
    """Ignore the argument: no callback is set."""
