"""Operators' requests that put links, tenants and services into the registry.

Puts are idempotent: the same statement again succeeds, and another one under the same name is a
conflict. A stored entry that does not verify (any more) counts as absent, and may be replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.registry_objects import (
    REVISION_STEP_MAX,
    RegistryObject,
    follows,
    key_of,
    replaces,
)
from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.host import Host
from kcm_schemas.admin.requests import AdminRequest, Empty, PutStatement
from kcm_schemas.app import App
from kcm_schemas.audit import EventType
from kcm_schemas.codec import Message, decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Link
from kcm_trust.verify import Untrusted, majority_is_possible

from kcm_core.keys.creation import KeyCreator
from kcm_core.keys.root_rewrap import RootRewrapper
from kcm_core.registry.keeper import RegistryKeeper
from kcm_core.root_keys.link_validation import LinkValidator

S = TypeVar("S")
T = TypeVar("T")


class RegistryRequests:
    """Puts entries into the region's registry, and makes the keys that belong to them."""

    def __init__(
        self,
        host: Host,
        registry: Registry,
        *,
        feed: RegistryFollower,
        creator: KeyCreator,
        linker: LinkValidator,
        rewrapper: RootRewrapper,
        keeper: RegistryKeeper,
    ) -> None:
        self._me: Final = host.me
        self._emit: Final = host.emit
        self._registry: Final = registry
        self._feed: Final = feed
        self._creator: Final = creator
        self._linker: Final = linker
        self._rewrapper: Final = rewrapper
        self._keeper: Final = keeper

    async def put_link(self, request: AdminRequest) -> Message:
        """Check that the link's key can be used, and accept the link."""
        raw = decode(PutStatement, request.payload).statement
        link = _believed(self._me.verifier.link, raw)
        view = await self._linker.check(link)
        await self.put(raw, link)
        self._emit(
            EventType.LINK_PUT,
            target=f"link {link.link}",
            detail=f"{view.mechanism} as {view.principal}",
        )
        return view

    async def put_tenant(self, request: AdminRequest) -> Message:
        """Accept a tenant, and make its root key or wrap it again under another link."""
        raw = decode(PutStatement, request.payload).statement
        tenant = _believed(self._me.verifier.tenant, raw)
        if self._me.region not in tenant.regions:
            raise KcmError(Code.WRONG_REGION, "the tenant is not to be served in this region")
        if not majority_is_possible(tenant):
            raise KcmError(Code.MALFORMED, "a majority needs three regions; with two, take all")
        link = self._registry.link(tenant.link) or await self._read_link(tenant.link)
        await self._expect(tenant)
        # Another Core may have just moved the tenant.
        await self._feed.fetch("tenant", tenant.tenant)
        await self._rewrapper.prepare(tenant, link)
        await self._creator.root(tenant, link)
        await self.put(raw, tenant)
        self._emit(EventType.TENANT_CREATE, tenant=tenant.tenant, detail=f"link {tenant.link}")
        await self._rewrapper.finish(tenant)
        return Empty()

    async def put_service(self, request: AdminRequest) -> Message:
        """Accept a service of a tenant, and make its key."""
        raw = decode(PutStatement, request.payload).statement
        service = _believed(self._me.verifier.service, raw)
        if self._registry.tenant(service.tenant) is None:
            await self._feed.fetch("tenant", service.tenant)
        await self._expect(service)
        await self._creator.service(service)
        await self.put(raw, service)
        return Empty()

    async def _expect(self, obj: RegistryObject) -> None:
        """Raise ``conflict`` if another entry has this name and this one may not replace it.

        The same entry again is accepted: an operator may sign it twice.
        """
        await self._feed.fetch(*key_of(obj))
        known = self._registry.known(key_of(obj))
        if known not in (None, obj) and not replaces(known, obj):
            raise KcmError(Code.CONFLICT, _difference(known, obj))
        most = self._registry.highest(key_of(obj)) + REVISION_STEP_MAX
        if obj.revision > most:
            raise KcmError(
                Code.MALFORMED,
                f"revision {obj.revision} is too far above the last one; take at most {most}",
            )

    async def put(self, raw: bytes, obj: RegistryObject) -> None:
        """Accept a verified statement; raises ``conflict``, ``malformed`` and ``unavailable``."""
        await self._expect(obj)
        await self._keeper.accept(raw, obj)

    async def _read_link(self, name: str) -> Link:
        await self._feed.fetch("link", name)
        link = self._registry.link(name)
        if link is None:
            raise KcmError(Code.UNKNOWN_LINK, f"this region has no link {name}")
        return link


def _difference(known: RegistryObject | None, new: RegistryObject) -> str:
    """The reason why an entry may not replace the known entry of the same name."""
    noun, *names = key_of(new)
    exists = f"the {noun} {'/'.join(names)} exists already"
    if isinstance(known, Link) and isinstance(new, Link) and known.uri != new.uri:
        return f"{exists}, with another URI"
    if known is None or new.revision < known.revision:
        return f"{exists}, with a higher revision than {new.revision}"
    if isinstance(known, App) and known.revoked:
        return f"{exists}, and was revoked for good"
    if isinstance(new, App) and not follows(known, new):
        return f"{exists}, and was changed since this change was prepared"
    fields = [name for name in type(new).model_fields if name != "revision"]
    other = [name for name in fields if getattr(known, name) != getattr(new, name)]
    return f"{exists}, with revision {known.revision}, and differs in: {', '.join(other)}"


def _believed(verify: Callable[[S], T], raw: S) -> T:
    try:
        return verify(raw)
    except Untrusted as error:
        raise KcmError(Code.FORBIDDEN, str(error)) from None
