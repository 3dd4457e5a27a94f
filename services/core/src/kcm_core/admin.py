"""Operators' requests: each signed, each answered with a signature.

The request's own region, noun and verb have to be those of the subject it came on, so that nothing
that was signed for one place is of use in another. Puts are idempotent: the same record again is
fine, another one under the same name is a conflict. What is stored and not believed (any more) is
as good as absent, and may be replaced.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Final, TypeVar

from kcm_bus.clock import Clock
from kcm_bus.connection import Connection
from kcm_bus.emitting import Emit
from kcm_bus.membership import Membership
from kcm_bus.ports import Entry
from kcm_bus.refusals import Refusals
from kcm_bus.registry_feed import RegistryFeed
from kcm_bus.streams import last, put
from kcm_control.registry import Registry, replaces
from kcm_control.revocation import Revocations
from kcm_schemas import subjects
from kcm_schemas.admin import (
    AdminReply,
    AdminRequest,
    Empty,
    HoldQuery,
    PreviewQuery,
    PutStatement,
    ServiceView,
    TenantList,
    TenantQuery,
    TenantView,
)
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Link, Tenant
from kcm_schemas.roster import OperatorRole
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted

from kcm_core.keystore import KeyStore
from kcm_core.kills import Kills
from kcm_core.linking import Linker
from kcm_core.making import Maker
from kcm_core.relinking import Relinker
from kcm_core.vault import Vault
from kcm_core.wrapping import check_deadline

_REGISTRY: Final = subjects.bucket_stream(subjects.REGISTRY_BUCKET)

MAJORITY_MIN: Final = 3
"""Regions of a tenant that serves on when most of them are heard: of two, most are both."""

S = TypeVar("S")
T = TypeVar("T")

Handler = Callable[[AdminRequest], Awaitable[Message]]


class Admin:
    """Serves ``kcm.v1.<region>.admin.<noun>.<verb>``."""

    def __init__(
        self,
        *,
        membership: Membership,
        connection: Connection,
        feed: RegistryFeed,
        registry: Registry,
        revocations: Revocations,
        store: KeyStore,
        vault: Vault,
        maker: Maker,
        linker: Linker,
        relinker: Relinker,
        kills: Kills,
        emit: Emit,
        clock: Clock,
    ) -> None:
        self._me: Final = membership
        self._connection: Final = connection
        self._feed: Final = feed
        self._registry: Final = registry
        self._revocations: Final = revocations
        self._store: Final = store
        self._vault: Final = vault
        self._maker: Final = maker
        self._linker: Final = linker
        self._relinker: Final = relinker
        self._kills: Final = kills
        self._emit: Final = emit
        self._refusals: Final = Refusals("admin", emit, clock)
        self._clock: Final = clock
        admin, security = OperatorRole.ADMIN, OperatorRole.SECURITY
        self._verbs: Final[dict[tuple[str, str], tuple[frozenset[OperatorRole], Handler]]] = {
            ("tenant", "put"): (frozenset({admin}), self._put_tenant),
            ("tenant", "list"): (frozenset({admin, security}), self._list_tenants),
            ("tenant", "show"): (frozenset({admin, security}), self._show_tenant),
            ("link", "put"): (frozenset({admin}), self._put_link),
            ("service", "put"): (frozenset({admin}), self._put_service),
            ("hold", "put"): (frozenset({security}), self._put_hold),
            ("hold", "status"): (frozenset({admin, security}), self._hold_status),
            ("hold", "list"): (frozenset({admin, security}), self._list_holds),
            ("hold", "preview"): (frozenset({admin, security}), self._preview),
        }

    def serve(self, noun: str, verbs: Mapping[str, Handler]) -> None:
        """Serve further verbs, for whoever has any role."""
        for verb, handler in verbs.items():
            self._verbs[noun, verb] = (frozenset(OperatorRole), handler)

    async def handle(self, subject: str, body: bytes) -> bytes:
        """Serve one request. Only a request that is not believed is refused without a signature."""
        if not self._me.acts:
            raise KcmError(Code.UNAVAILABLE, "this Core is retired; ask another one")
        try:
            request, operator, roles = self._me.verifier.admin(body)
        except Untrusted as error:
            self._refusals.record(error)
            raise KcmError(Code.FORBIDDEN, str(error)) from None
        code, detail, payload = Code.OK, "", b""
        try:
            payload = encode(await self._serve(subject, request, roles))
        except KcmError as error:
            code, detail = error.code, error.detail
        self._emit(f"admin.{request.noun}-{request.verb}", actor=operator, code=code, detail=detail)
        reply = AdminReply(request=sha256(body).digest(), code=code, detail=detail, payload=payload)
        return encode(self._me.identity.sign(Kind.ADMIN_REPLY, reply))

    async def _serve(
        self, subject: str, request: AdminRequest, roles: frozenset[OperatorRole]
    ) -> Message:
        here = subjects.admin(self._me.region, request.noun, request.verb)
        if request.region != self._me.region or subject != here:
            raise KcmError(Code.FORBIDDEN, "the request was signed for another place")
        check_deadline(request.deadline_ms, self._clock.unix_ms())
        known = self._verbs.get((request.noun, request.verb))
        if known is None:
            raise KcmError(Code.MALFORMED, "no such noun and verb")
        allowed, handler = known
        if not roles & allowed:
            raise KcmError(Code.FORBIDDEN, "the operator has not the role for this")
        return await handler(request)

    async def _put_link(self, request: AdminRequest) -> Message:
        raw = decode(PutStatement, request.payload).statement
        link = _believed(self._me.verifier.link, raw)
        view = await self._linker.check(link)
        await self._put(raw, "link", link.link)
        self._emit("link.put", detail=f"link {link.link}: {view.mechanism} as {view.principal}")
        return view

    async def _put_tenant(self, request: AdminRequest) -> Message:
        raw = decode(PutStatement, request.payload).statement
        tenant = _believed(self._me.verifier.tenant, raw)
        if self._me.region not in tenant.regions:
            raise KcmError(Code.WRONG_REGION, "the tenant is not to be served in this region")
        if tenant.fence == "majority" and len(set(tenant.regions)) < MAJORITY_MIN:
            raise KcmError(Code.MALFORMED, "a majority needs three regions; with two, take all")
        link = self._registry.link(tenant.link) or await self._read_link(tenant.link)
        await self._expect(raw, "tenant", tenant.tenant)
        # Another Core may have moved it a moment ago.
        await self._feed.fetch("tenant", tenant.tenant)
        await self._relinker.prepare(tenant, link)
        await self._maker.root(tenant, link)
        await self._put(raw, "tenant", tenant.tenant)
        self._emit("tenant.create", tenant=tenant.tenant, detail=f"link {tenant.link}")
        await self._relinker.finish(tenant)
        return Empty()

    async def _put_service(self, request: AdminRequest) -> Message:
        raw = decode(PutStatement, request.payload).statement
        service = _believed(self._me.verifier.service, raw)
        if self._registry.tenant(service.tenant) is None:
            await self._feed.fetch("tenant", service.tenant)
        await self._expect(raw, "service", service.tenant, service.service)
        await self._maker.service(service)
        await self._put(raw, "service", service.tenant, service.service)
        return Empty()

    async def _list_tenants(self, request: AdminRequest) -> Message:
        decode(Empty, request.payload)
        return TenantList(tenants=[await self._view(t) for t in self._registry.tenants()])

    async def _show_tenant(self, request: AdminRequest) -> Message:
        name = decode(TenantQuery, request.payload).tenant
        tenant = self._registry.tenant(name)
        if tenant is None:
            await self._feed.fetch("tenant", name)
            tenant = self._registry.tenant(name)
        if tenant is None:
            raise KcmError(Code.UNKNOWN_TENANT)
        return await self._view(tenant)

    async def _put_hold(self, request: AdminRequest) -> Message:
        raw = decode(PutStatement, request.payload).statement
        status = await self._kills.place(raw, request.deadline_ms)
        self._emit("hold.placed", detail=status.hold_id.hex())
        return status

    async def _hold_status(self, request: AdminRequest) -> Message:
        return await self._kills.status(decode(HoldQuery, request.payload).hold_id)

    async def _list_holds(self, request: AdminRequest) -> Message:
        decode(Empty, request.payload)
        return self._kills.listing()

    async def _preview(self, request: AdminRequest) -> Message:
        query = decode(PreviewQuery, request.payload)
        return await self._kills.preview(query.scope, query.target)

    async def _view(self, tenant: Tenant) -> TenantView:
        link = self._registry.link(tenant.link)
        roots = await self._store.root(tenant.tenant)
        held = self._revocations.active(tenant.tenant)
        services = []
        for service in self._registry.services(tenant.tenant):
            keys = await self._store.service(tenant.tenant, service.service)
            version = keys.current if keys else 0
            services.append(ServiceView(service=service.service, l3_version=version))
        return TenantView(
            tenant=tenant.tenant,
            region=self._me.region,
            link=tenant.link,
            revision=tenant.revision,
            uri=link.uri if link else "",
            model=link.model if link else "",
            regions=list(tenant.regions),
            fence=tenant.fence,
            state="killed" if held else "open" if self._vault.ring(tenant.tenant) else "closed",
            l2_version=roots.current if roots else 0,
            services=services,
            holds=[record.raw for record in held],
        )

    async def _expect(self, raw: bytes, *key: str) -> tuple[Entry | None, int]:
        """The believed record under this key, and the sequence that a new one has to replace.

        Raises ``conflict`` when the record says something else than ``raw``, and ``raw`` may not
        take its place: an operator may sign the same twice.
        """
        subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, *key)
        stored = await last(self._connection, _REGISTRY, subject)
        if stored is None:
            return None, 0
        try:
            known = self._feed.verify(stored)
        except Untrusted:
            return None, stored.sequence
        wanted = _believed(self._feed.verify, Entry(stored.sequence, subject, raw))
        if known == wanted:
            return stored, stored.sequence
        if replaces(known, wanted):
            return None, stored.sequence
        raise KcmError(Code.CONFLICT, "another record has this name; is the revision higher?")

    async def _put(self, raw: bytes, *key: str) -> None:
        stored, sequence = await self._expect(raw, *key)
        subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, *key)
        if stored is None:
            try:
                sequence = await put(self._connection, subject, raw, expected=sequence)
            except KcmError as error:
                if error.code is not Code.CONFLICT or (await self._expect(raw, *key))[0] is None:
                    raise
            stored = Entry(sequence, subject, raw)
        self._feed.take(stored)

    async def _read_link(self, name: str) -> Link:
        await self._feed.fetch("link", name)
        link = self._registry.link(name)
        if link is None:
            raise KcmError(Code.MALFORMED, "no such link in this region; link the key first")
        return link


def _believed(verify: Callable[[S], T], raw: S) -> T:
    try:
        return verify(raw)
    except Untrusted as error:
        raise KcmError(Code.FORBIDDEN, str(error)) from None
