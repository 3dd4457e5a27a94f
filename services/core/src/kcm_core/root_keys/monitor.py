"""The key monitor: uses every root key by which something is open, and acts on the result.

A use is a real decryption of a canary in the unsealer's child process; the unsealing of a tenant
root is also a use. If the key is enabled: an attestation, with the log position of this incarnation
from before the call, for all instances of the region. If the key refuses: a purge, before anything
else; then a hold on the link, for every instance. If the key is unreachable: nothing until the key
lease ends; then the keys of its tenants are unloaded, and loaded again when the key answers.

If this region placed the hold, it continues to probe the key, and lifts the hold after the key has
been usable for long enough.

The number of probes in a second is limited. If more keys are open than can be probed in time, the
keys of the least recently used tenants are unloaded; the next request loads them again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from kcm_killswitch.model.key_leases import AttestedKey, Target
from kcm_killswitch.model.log_position import LogPosition
from kcm_killswitch.model.probe_scheduler import PROBES_PER_S, ProbeScheduler, Verdict
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.purge import purge_each
from kcm_runtime.error_text import describe
from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import StreamLog
from kcm_runtime.tasks import TaskSet
from kcm_schemas import labels, subjects
from kcm_schemas.admin.key_budget import KeyUse
from kcm_schemas.audit import EventType
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import KeyUseAttestation
from kcm_schemas.l1 import L1State
from kcm_schemas.labels import ctx
from kcm_schemas.registry import WrappedRoot
from kcm_schemas.signed import Kind

from kcm_core.keys.canaries import Canaries, Canary
from kcm_core.keys.observer import Ask
from kcm_core.providers.context import provider_context
from kcm_core.providers.state import L1Error
from kcm_core.root_keys.automatic_holds import AutomaticHolds
from kcm_core.root_keys.key_budget import KeysInUse
from kcm_core.root_keys.probed_keys import Watched
from kcm_core.unsealer.port import UnsealerPort

log = logging.getLogger(__name__)

TICK_S: Final = 0.25
"""Longest time in seconds between two checks for probes that are due."""

PROBES_MAX: Final = 32
"""Concurrent probes: a thousand links must not start a thousand child processes."""


class KeyMonitor:
    """The key monitor of one Core."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        canaries: Canaries,
        unsealer: UnsealerPort,
        holds: AutomaticHolds,
        stream: StreamLog,
        unload: Callable[[str], int],
        probes_per_s: float = PROBES_PER_S,
    ) -> None:
        """``unload`` overwrites a tenant's keys, and returns their number."""
        self._me: Final = host.me
        self._clock: Final = host.clock
        self._emit: Final = host.emit
        self._revocations: Final = replica_state.revocations
        self._freshness: Final = replica_state.freshness
        self._admission: Final = replica_state.admission
        self._canaries: Final = canaries
        self._unsealer: Final = unsealer
        self._holds: Final = holds
        self._stream: Final = stream
        self._unload: Final = unload
        timing = replica_state.freshness.timing
        self._plan: Final = ProbeScheduler(timing, host.chance, probes_per_s)
        self._watched: Final = Watched(
            self._plan, replica_state.admission, replica_state.registry, timing
        )
        self._in_use: Final = KeysInUse(host.me, self._plan, host.emit, host.clock)
        self._principals: dict[Target, str] = {}
        self._written: dict[AttestedKey, float] = {}
        self._tasks: Final = TaskSet()
        self._probes = 0

    def start(self) -> None:
        """Start monitoring."""
        self._tasks.spawn(self._watch())

    def close(self) -> None:
        """Stop monitoring."""
        self._tasks.close()

    def ask(self, tenant: str, root: WrappedRoot) -> Ask:
        """A tenant root is about to be unsealed, which is a use of the key."""
        target = self._canaries.add(tenant, root)
        return Ask(target, self._freshness.position, self._clock.elapsed())

    def answered(self, ask: Ask, state: L1State, principal: str = "") -> None:
        """Act on the result of a call to a key. Nothing here waits."""
        target = ask.target
        match self._plan.ended(target, state, ask.began, self._clock.elapsed()):
            case Verdict.KEY_USE if ask.position is not None:
                self._prove(AttestedKey(target, principal), ask.position)
            case Verdict.HOLD:
                self._hold(target, state)
            case Verdict.UNLOAD_HERE:
                self._unload_each(self._revocations.reach("link", target.link))
                self._incident(target.link, "this instance may not use the key, and never could")
            case Verdict.INCIDENT:
                self._incident(target.link, "the key's answer does not authenticate")
            case _:
                pass

    def hinted(self, key: str) -> None:
        """Probe a key at once, because of a hint; ``key`` is its provider's name for it."""
        now = self._clock.elapsed()
        for link in self._watched.hinted(key, now):
            log.info("a hint about a key: the key is probed now", extra=fields(link=link))
            self._plan.soon(link, now)

    def opened(self, tenant: str, ask: Ask, principal: str) -> None:
        """A tenant root was opened by that key: the tenant's key lease begins."""
        self._admission.open(tenant, AttestedKey(ask.target, principal))

    def on_attestation(self, attestation: KeyUseAttestation) -> None:
        """Accept a verified attestation of this region's stream, including our own."""
        if attestation.state is not L1State.ENABLED:
            self._holds.refused(attestation.link)
            return
        key = AttestedKey(
            Target(attestation.link, attestation.link_revision, attestation.key_version),
            attestation.principal,
        )
        position = LogPosition(attestation.position, attestation.nonce)
        if not self._freshness.attested(key, position):
            return
        self._written[key] = self._clock.elapsed()
        moment = self._freshness.lease.moment(position.sequence)
        if moment is None:
            return
        if self._principals.get(key.target) == key.principal:
            # Begun between ``moment`` and now. The earliest time would cause nearly twice as many
            # probes as needed. The latest time would let an attacker stop the probes with a
            # repeated attestation.
            late = moment + self._freshness.timing.probe_interval_s / 2
            self._plan.attested(key.target, min(late, self._clock.elapsed()))
        lifted = self._holds.succeeded(attestation.link, position.sequence, moment)
        if lifted:
            self._emit(EventType.KEY_SETTLED, count=lifted, detail=f"link {attestation.link}")

    def use(self) -> KeyUse:
        """The number of keys in use here, and the largest possible number."""
        return self._in_use.told()

    async def _watch(self) -> None:
        tick = min(TICK_S, self._freshness.timing.probe_interval_s / 8)
        while not self._tasks.closed:
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 - keep monitoring after any error
                log.warning("the key monitor: %s", describe(error))
            await asyncio.sleep(tick)

    async def _look(self) -> None:
        now = self._clock.elapsed()
        self._unload_each(self._admission.lapsed(now))
        if not self._admission.remembers:
            return  # its links may be outdated, and others would rely on its attestation
        self._watched.follow(await self._canaries.of_links(self._holds.links), now)
        self._make_room(now)
        self._in_use.look(now)
        for target in self._plan.take(now, PROBES_MAX - self._probes):
            self._probes += 1
            self._tasks.spawn(self._probe(target))

    def _make_room(self, now: float) -> None:
        """Unload the least recently used tenants until every open key can be probed in time."""
        opened = self._admission.opened
        while self._plan.crowded:
            key = opened.least_used()
            if key is None:
                return
            tenants = opened.tenants(key)
            self._unload_each(tenants)
            if key in opened:
                return  # the purge failed: the next check tries again
            self._in_use.unloaded(len(tenants), now)
            self._watched.follow(self._watched.held, now)

    async def _probe(self, target: Target) -> None:
        ask = Ask(target, self._freshness.position, self._clock.elapsed())
        state, principal = L1State.UNREACHABLE, ""
        try:
            canary = self._canaries.find(target)
            if canary is not None:
                state, principal = await self._use(canary)
        finally:
            self._probes -= 1
            self.answered(ask, state, principal)

    async def _use(self, canary: Canary) -> tuple[L1State, str]:
        root = canary.root
        try:
            probe = await self._unsealer.probe(
                canary.uri,
                root.canary,
                provider_context(canary.tenant, self._me.region, root.version),
                root.mechanism,
                root.canary_digest,
                deadline_s=self._freshness.timing.probe_deadline_s,
            )
        except L1Error as error:
            if not error.state.refused:
                log.warning(
                    "a probe of a customer's key had no answer: %s",
                    error,
                    extra=fields(tenant=canary.tenant, link=root.link),
                )
            return error.state, ""
        return L1State.ENABLED, probe.principal

    def _prove(self, key: AttestedKey, position: LogPosition) -> None:
        now = self._clock.elapsed()
        if self._freshness.attested(key, position):
            if self._principals.get(key.target, key.principal) != key.principal:
                self._admission.renamed(key)  # a session's name ends with it; leases do not
            self._principals[key.target] = key.principal
        # A thousand roots that are opened at once on one link need one attestation.
        fresh = now - self._written.get(key, float("-inf"))
        if fresh >= self._freshness.timing.probe_interval_s / 4:
            self._written[key] = now
            self._tasks.spawn(self._write(key, L1State.ENABLED, position))

    def _hold(self, target: Target, state: L1State) -> None:
        """Purge first; then place a hold, so that every instance purges."""
        link = target.link
        self._unload_each(self._revocations.reach("link", link))
        self._freshness.attestations.refuse(link)
        self._holds.place(link, state)
        position = self._freshness.position
        if position is not None:
            self._tasks.spawn(self._write(AttestedKey(target, ""), state, position))
        self._emit(EventType.KEY_REFUSED, detail=f"link {link}: {state.value}")

    def _unload_each(self, tenants: Sequence[str]) -> None:
        closed = [tenant for tenant in tenants if self._admission.is_open(tenant)]
        purge_each(self._unload, tenants)
        for tenant in closed:
            self._emit(EventType.ROOT_UNLOAD, tenant=tenant, code=Code.TENANT_UNAVAILABLE)

    def _incident(self, link: str, what: str) -> None:
        log.error("%s", what, extra=fields(link=link))
        self._emit(
            EventType.KEY_INCIDENT, code=Code.TENANT_UNAVAILABLE, detail=f"link {link}: {what}"
        )

    async def _write(self, key: AttestedKey, state: L1State, position: LogPosition) -> None:
        attestation = KeyUseAttestation(
            region=self._me.region,
            link=key.target.link,
            link_revision=key.target.link_revision,
            key_version=key.target.key_version,
            principal=key.principal,
            state=state,
            position=position.sequence,
            nonce=position.nonce,
        )
        body = encode(self._me.identity.sign(Kind.KEY_USE, attestation))
        try:
            await self._stream.put(self._place(key), body)
        except KcmError as error:
            log.warning(
                "an attestation was not stored: %s",
                error.detail,
                extra=fields(link=key.target.link, code=error.code.value),
            )

    def _place(self, key: AttestedKey) -> str:
        target = key.target
        named = ctx(labels.KEY_USE, target.link_revision, target.key_version, key.principal)
        return subjects.control_key_use(self._me.region, target.link, sha256(named).digest())
