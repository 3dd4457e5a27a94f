"""The engine for the one application in whose process it runs: within that application's grants.

The grants are checked before and after the work, by the registry and by what is held now. A Core
checks them again before it wraps or unwraps, so a process that skips this gains nothing from it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from kcm_killswitch.replica.applications import Applications
from kcm_runtime.audit.port import AuditRoom
from kcm_runtime.host import Host
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data_subjects import DataSubject
from kcm_trust.verify import may_ask

from kcm_gateway.data_events import check_room, recorded
from kcm_gateway.engine import Batch, DekScope, Gateway, check_names
from kcm_gateway.engine_status import EngineStatus

Call = Callable[[], Awaitable[Batch]]


class ApplicationEngine:
    """Encrypts and decrypts as its application; each call is recorded in the application's name."""

    def __init__(
        self, host: Host, engine: Gateway, applications: Applications, room: AuditRoom
    ) -> None:
        self._me: Final = host.me
        self._emit: Final = host.emit
        self._engine: Final = engine
        self._applications: Final = applications
        self._room: Final = room

    async def encrypt(
        self,
        tenant: str,
        service: str,
        plaintexts: Sequence[bytes],
        contexts: Sequence[bytes] | bytes | None = None,
        *,
        dek_scope: DekScope = "record",
    ) -> Batch:
        """Encrypt as ``kcm_gateway.engine.Gateway.encrypt`` does; also raises ``forbidden``."""
        return await self._done(
            "encrypt",
            tenant,
            service,
            len(plaintexts),
            lambda: self._engine.encrypt(
                tenant, service, plaintexts, contexts, dek_scope=dek_scope
            ),
        )

    async def decrypt(
        self,
        tenant: str,
        service: str,
        records: Sequence[bytes],
        contexts: Sequence[bytes] | bytes | None = None,
    ) -> Batch:
        """Decrypt as ``kcm_gateway.engine.Gateway.decrypt`` does; also raises ``forbidden``."""
        return await self._done(
            "decrypt",
            tenant,
            service,
            len(records),
            lambda: self._engine.decrypt(tenant, service, records, contexts),
        )

    def status(self) -> EngineStatus:
        """Count what is in memory and in progress."""
        return self._engine.status()

    async def _done(self, verb: str, tenant: str, service: str, count: int, call: Call) -> Batch:
        check_names(tenant, service)
        check_room(self._room)
        asked = DataSubject(verb, tenant, service)
        with recorded(self._emit, asked, actor=self._me.entry.application) as tally:
            tally.count = count
            self._check(asked)
            done = await call()
            left = self._check(asked)
            tally.failed = done.failed
        return done.within(left)

    def _check(self, asked: DataSubject) -> float:
        """Return for how many seconds the application may do this; raises ``forbidden``."""
        entry = self._me.entry
        name = entry.application
        if name is None:
            raise KcmError(Code.FORBIDDEN, "the roster does not name this Gateway's application")
        if not may_ask(entry, asked.tenant, asked.service):
            raise KcmError(
                Code.FORBIDDEN,
                f"the roster grants {entry.instance} nothing for tenant {asked.tenant}, service"
                f" {asked.service}: the plan of `kcm init` has its grants",
            )
        return self._applications.check_embedding(name, asked, asked.operation)
