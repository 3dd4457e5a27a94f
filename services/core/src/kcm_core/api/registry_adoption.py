"""What operators ask of a Core about its region's registry: show it, and adopt it.

Where no Core of a region has memory of its registry, nobody can say by themselves that what the
stores have is the newest. An operator says so, and names what they saw by its digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from kcm_killswitch.model.registry import Registry
from kcm_runtime.instance import InstanceContext
from kcm_schemas.admin.registry import AdoptOrder, RegistryView
from kcm_schemas.admin.requests import AdminRequest, Empty
from kcm_schemas.audit import EventType
from kcm_schemas.codec import Message, decode
from kcm_schemas.roster import OperatorRole

from kcm_core.api.admin import NamedVerb
from kcm_core.registry.memory import RegistryMemory
from kcm_core.registry.recovery import RegistryRecovery, unkept


class RegistryAdoption:
    """Serves the noun ``registry``."""

    def __init__(
        self,
        *,
        membership: InstanceContext,
        registry: Registry,
        memory: RegistryMemory,
        joining: RegistryRecovery,
        compare: Callable[[], None],
    ) -> None:
        """``compare`` gives each store what the other one has, soon."""
        self._me: Final = membership
        self._registry: Final = registry
        self._memory: Final = memory
        self._joining: Final = joining
        self._compare: Final = compare

    @property
    def verbs(self) -> Mapping[str, NamedVerb]:
        """What is served: anybody may look, and an admin adopts."""
        return {
            "show": (frozenset(OperatorRole), self.show),
            "adopt": (frozenset({OperatorRole.ADMIN}), self.adopt),
        }

    async def show(self, request: AdminRequest, _: str) -> Message:
        """Show what this Core knows, and whether it remembers it."""
        decode(Empty, request.payload)
        return self._view()

    async def adopt(self, request: AdminRequest, operator: str) -> Message:
        """Remember what this Core knows, if that is what the operator named.

        A Core with memory has nothing to adopt: it says what it knows. Another one first asks those
        that have, whose word goes before an operator's. Raises ``conflict`` for another digest than
        this Core's or theirs, and ``unavailable`` while its disk is full.
        """
        order = decode(AdoptOrder, request.payload)
        if not self._memory.has:
            await self._joining.ask()
        if not self._memory.has:
            try:
                await self._memory.begin(EventType.REGISTRY_ADOPTED, order.digest, actor=operator)
            except OSError as error:
                raise unkept(error) from None
            self._compare()
        return self._view()

    def _view(self) -> RegistryView:
        known = self._registry
        return RegistryView(
            core=self._me.name,
            memory=self._memory.has,
            tenants=known.tenant_count,
            links=known.link_count,
            services=known.total_services,
            highest=known.highest_revision,
            digest=self._memory.digest,
            waits=self._joining.waits,
        )
