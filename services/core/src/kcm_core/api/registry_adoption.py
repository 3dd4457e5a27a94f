"""Operators' requests about a region's registry: show it, and adopt it.

If no Core of a region remembers its registry, no component can determine that the stores have the
newest state. An operator states this, and names the registry that they saw by its digest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kcm_killswitch.model.registry import Registry
from kcm_runtime.instance import InstanceContext
from kcm_schemas.admin.registry import AdoptOrder, RegistryView
from kcm_schemas.admin.requests import AdminRequest, Empty
from kcm_schemas.audit import EventType
from kcm_schemas.codec import Message, decode

from kcm_core.registry.baseline import RegistryBaseline, unkept
from kcm_core.registry.recovery import RegistryRecovery


class RegistryAdoption:
    """Serves the noun ``registry``."""

    def __init__(
        self,
        *,
        me: InstanceContext,
        registry: Registry,
        baseline: RegistryBaseline,
        recovery: RegistryRecovery,
        compare: Callable[[], None],
    ) -> None:
        """``compare`` synchronizes the two stores soon."""
        self._me: Final = me
        self._registry: Final = registry
        self._baseline: Final = baseline
        self._recovery: Final = recovery
        self._compare: Final = compare

    async def show(self, request: AdminRequest) -> Message:
        """Show what this Core knows, and whether it remembers it."""
        decode(Empty, request.payload)
        return self._view()

    async def adopt(self, request: AdminRequest, operator: str) -> Message:
        """Remember what this Core knows, if that is what the operator named.

        A Core with a baseline has nothing to adopt: it shows what it knows. A Core without one
        first asks those that have it; their answer takes precedence over the operator's. Raises
        ``conflict`` if the digest is not this Core's or theirs, and ``unavailable`` while its disk
        is full.
        """
        order = decode(AdoptOrder, request.payload)
        if not self._baseline.present:
            await self._recovery.ask()
        if not self._baseline.present:
            try:
                await self._baseline.begin(EventType.REGISTRY_ADOPTED, order.digest, actor=operator)
            except OSError as error:
                raise unkept(error) from None
            self._compare()
        return self._view()

    def _view(self) -> RegistryView:
        known = self._registry
        return RegistryView(
            core=self._me.name,
            baseline=self._baseline.present,
            tenants=known.tenant_count,
            links=known.link_count,
            services=known.total_services,
            apps=known.app_count,
            highest=known.highest_revision,
            digest=self._baseline.digest,
            waits=self._recovery.waits,
        )
