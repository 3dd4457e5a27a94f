"""Operators' requests: signed by the operator, answered by a Core's signature.

The broker is not believed. A request is a signed statement that names its region, noun, verb and a
random id; the answer is a statement, signed by a Core *of that region* on the roster, over the
SHA-256 of exactly that request. So an answer cannot be made up, brought from another request or
another region, or be an old one. An unsigned answer can only ever be reported as a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from kcm_runtime.clock import Randomness, SystemRandomness
from kcm_runtime.ownership import Once, Owner
from kcm_schemas import auditor, limits, subjects
from kcm_schemas.admin.holds import (
    BlastRadius,
    HoldExport,
    HoldMatches,
    HoldPage,
    HoldPageQuery,
    HoldPrefix,
    HoldQuery,
    PreviewQuery,
)
from kcm_schemas.admin.key_budget import KeyUse
from kcm_schemas.admin.kill_status import HoldStatus
from kcm_schemas.admin.links import LinkListQuery, LinkPage, LinkRow, LinkView
from kcm_schemas.admin.registry import AdoptOrder, RegistryView
from kcm_schemas.admin.requests import AdminRequest, Empty, PutStatement
from kcm_schemas.admin.roster import (
    LastingPage,
    LastingQuery,
    RosterView,
    SignedEntry,
    SignedPage,
    SignedQuery,
)
from kcm_schemas.admin.tenants import (
    ServiceListQuery,
    ServicePage,
    ServiceRow,
    ServiceView,
    TenantListQuery,
    TenantPage,
    TenantQuery,
    TenantRow,
    TenantShowQuery,
    TenantView,
)
from kcm_schemas.auditor import AuditorStatus, TailPage, TailQuery
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Scope
from kcm_schemas.roster import Retirement, Role
from kcm_schemas.signed import Kind, Signed
from kcm_trust.endorsements import Endorsements, page_count
from kcm_trust.identity import Identity, digest
from kcm_trust.verify import Untrusted, Verifier

from kcm._internal.client_context import ClientContext
from kcm._internal.pages import OnPage, Page, follow, just_before, silent
from kcm._internal.retry import repeated
from kcm._internal.rpc import Environment, ask_once, attempt_s, pause, read_reply
from kcm._internal.transport import Opener, Transport, open_nats
from kcm.errors import ServiceError, UntrustedReply, error_for

ADMIN_S: Final = 30.0
"""Seconds that an operator's request may take, retries included: an L1 may be slow."""

ADMIN_WIRE_S: Final = 20.0
"""Seconds that one attempt may take: making a tenant's root asks an L1 several times."""

M = TypeVar("M", bound=Message)


class Admin:
    """Speaks to the Cores of all regions of a context in an operator's name."""

    def __init__(
        self,
        context: ClientContext,
        *,
        opener: Opener = open_nats,
        around: Environment | None = None,
        randomness: Randomness | None = None,
    ) -> None:
        """Read roster and key; raises ``ContextError``. Connections are made when needed."""
        self.context: Final = context
        self.identity: Final[Identity] = context.identity()
        self.verifier: Final[Verifier] = context.verifier()
        self.around: Final = around or Environment()
        self.randomness: Final = randomness or SystemRandomness()
        self._opener: Final = opener
        self._owner: Final = Owner("the operator's client")
        self._transports: dict[str, Transport] = {}
        self._locks: Final = {region: asyncio.Lock() for region in context.regions}

    @classmethod
    def open(
        cls,
        context: ClientContext | str | Path | None = None,
        *,
        opener: Opener = open_nats,
        around: Environment | None = None,
    ) -> Once[Admin]:
        """An ``Admin`` that disconnects at the end."""

        async def run() -> AsyncGenerator[Admin, None]:
            found = context if isinstance(context, ClientContext) else ClientContext.load(context)
            admin = cls(found, opener=opener, around=around)
            try:
                yield admin
            finally:
                await admin.close()

        return Once("Admin.open()", run)

    async def close(self) -> None:
        """Disconnect everywhere. After a fork, the connections are the parent's."""
        if self._owner.elsewhere:
            return
        self._owner.close()
        transports = list(self._transports.values())
        self._transports.clear()
        await asyncio.gather(*(transport.close() for transport in transports))

    async def put(self, region: str, noun: str, statement: bytes) -> None:
        """Give a region a signed tenant or service. The same one again changes nothing."""
        await self.ask(region, noun, "put", PutStatement(statement=statement), Empty)

    async def put_link(
        self, region: str, statement: bytes, *, deadline_s: float = ADMIN_S
    ) -> LinkView:
        """Give a region a signed link; a Core there tries the key first, and says what it found.

        The same one again changes nothing. Raises ``ServiceError`` with the reason when the key
        does not do what it has to; nothing is linked then.
        """
        put = PutStatement(statement=statement)
        return await self.ask(region, "link", "put", put, LinkView, deadline_s=deadline_s)

    async def put_hold(
        self, region: str, statement: bytes, *, deadline_s: float = ADMIN_S
    ) -> HoldStatus:
        """Give a region a signed hold or lift; it answers when that is durable there."""
        put = PutStatement(statement=statement)
        return await self.ask(region, "hold", "put", put, HoldStatus, deadline_s=deadline_s)

    async def tenants(
        self, region: str, *, limit: int | None = None, on_page: OnPage = silent, after: str = ""
    ) -> tuple[list[TenantRow], int]:
        """All tenants of a region behind ``after`` by name, or the first ``limit`` of them.

        And how many the region has.
        """

        async def ask(after: str, rows: int) -> Page[TenantRow]:
            query = TenantListQuery(after=after, limit=rows)
            page = await self.ask(region, "tenant", "list", query, TenantPage)
            return Page(page.tenants, page.more, page.total)

        return await follow(ask, lambda row: row.tenant, after, limit, on_page)

    async def links(
        self,
        region: str,
        *,
        limit: int | None = None,
        after: str = "",
        deadline_s: float = ADMIN_S,
    ) -> list[LinkRow]:
        """All links of a region behind ``after`` by name, or the first ``limit`` of them.

        Whether a tenant is on them or not.
        """

        async def ask(after: str, rows: int) -> Page[LinkRow]:
            query = LinkListQuery(after=after, limit=rows)
            page = await self.ask(region, "link", "list", query, LinkPage, deadline_s=deadline_s)
            return Page(page.links, page.more, page.total)

        return (await follow(ask, lambda row: row.link, after, limit))[0]

    async def has_link(self, region: str, name: str, *, deadline_s: float = ADMIN_S) -> bool:
        """Whether a region has a link of this name; one row is read."""
        rows = await self.links(region, limit=1, after=just_before(name), deadline_s=deadline_s)
        return [row.link for row in rows] == [name]

    async def key_use(self, region: str, core: str, *, deadline_s: float = ADMIN_S) -> KeyUse:
        """How many root keys one Core of a region has in use: each has its own count."""
        use = await self.ask(
            region, "key", "status", Empty(), KeyUse, deadline_s=deadline_s, at=core
        )
        if (use.core, use.region) != (core, region):
            raise UntrustedReply("a Core answered about another Core")
        return use

    async def find(self, region: str, name: str) -> TenantRow:
        """A tenant as a region has it in memory: no store is read, and no key's version."""
        return await self.ask(region, "tenant", "find", TenantQuery(tenant=name), TenantRow)

    async def tenant(self, region: str, name: str, *, on_page: OnPage = silent) -> TenantView:
        """A tenant as a region sees it, with all of its services and their keys' versions."""
        views: list[TenantView] = []

        async def ask(after: str, rows: int) -> Page[ServiceView]:
            query = TenantShowQuery(tenant=name, after=after, limit=rows)
            view = await self.ask(region, "tenant", "show", query, TenantView)
            views.append(view)
            return Page(view.services, view.more, view.total)

        services, total = await follow(ask, lambda row: row.service, "", None, on_page)
        changed = {"services": services, "total": total, "more": False}
        return views[-1].model_copy(update=changed)

    async def services(
        self, region: str, tenant: str, *, limit: int | None = None, after: str = ""
    ) -> list[ServiceRow]:
        """All services of a tenant behind ``after`` by name, or the first ``limit`` of them.

        As they were signed.
        """

        async def ask(after: str, rows: int) -> Page[ServiceRow]:
            query = ServiceListQuery(tenant=tenant, after=after, limit=rows)
            page = await self.ask(region, "service", "list", query, ServicePage)
            return Page(page.services, page.more, page.total)

        return (await follow(ask, lambda row: row.service, after, limit))[0]

    async def holds(self, region: str, after: bytes, *, everything: bool) -> HoldPage:
        """Holds that a region knows with ids above ``after``, by id: one page.

        Those in force, or with ``everything`` lifted ones too.
        """
        query = HoldPageQuery(after=after, everything=everything)
        return await self.ask(region, "hold", "list", query, HoldPage)

    async def matching_holds(self, region: str, prefix: str) -> HoldMatches:
        """The holds whose ids begin with ``prefix`` (hexadecimal digits), two at most."""
        return await self.ask(region, "hold", "show", HoldPrefix(prefix=prefix), HoldMatches)

    async def hold_status(
        self, region: str, hold_id: bytes, *, deadline_s: float = ADMIN_S
    ) -> HoldStatus:
        """How far a hold has come in all regions, as a Core of ``region`` sees it."""
        query = HoldQuery(hold_id=hold_id)
        return await self.ask(region, "hold", "status", query, HoldStatus, deadline_s=deadline_s)

    async def export_hold(self, region: str, hold_id: bytes) -> HoldExport:
        """A hold and what became of it, as it was signed."""
        query = HoldQuery(hold_id=hold_id)
        return await self.ask(region, "hold", "export", query, HoldExport)

    async def preview(
        self,
        region: str,
        scope: Scope,
        target: str,
        *,
        instances: bool = True,
        deadline_s: float = ADMIN_S,
    ) -> BlastRadius:
        """What a hold would reach. No hold is signed for this: a broker could put it in force.

        Without ``instances`` the region answers from its registry, and asks no other region.
        """
        query = PreviewQuery(scope=scope, target=target, instances=instances)
        return await self.ask(region, "hold", "preview", query, BlastRadius, deadline_s=deadline_s)

    async def roster(self, region: str) -> RosterView:
        """The roster that counts for a Core of a region, as it was signed."""
        return await self.ask(region, "roster", "show", Empty(), RosterView)

    async def put_roster(self, region: str, raw: bytes) -> None:
        """Give a region a roster; it answers when that is stored there, for every instance."""
        await self.ask(region, "roster", "put", PutStatement(statement=raw), Empty)

    async def put_lasting(self, region: str, name: str, page: int, digests: bytes) -> None:
        """Give a region a page of the list of what lasts of somebody, before the roster."""
        content = LastingPage(name=name, page=page, digests=digests)
        await self.ask(region, "roster", "lasting", content, Empty)

    async def lasting(self, region: str, name: str, said: Retirement) -> bytes | None:
        """The list of what lasts of somebody, as the roster names it; ``None``: it is not there."""
        parts = []
        for page in range(page_count(said)):
            query = LastingQuery(name=name, page=page)
            found = await self.ask(region, "roster", "listed", query, LastingPage)
            parts.append(found.digests)
        raw = b"".join(parts)
        try:
            Endorsements.read(raw, said)
        except ValueError:
            return None
        return raw

    async def signed_by(self, region: str, name: str) -> list[SignedEntry]:
        """Everything that may last of what somebody signed, as a region has it in force."""
        found: list[SignedEntry] = []
        while True:
            after = found[-1].what if found else ""
            query = SignedQuery(name=name, after=after)
            page = await self.ask(region, "roster", "signed", query, SignedPage)
            found += page.entries
            if not page.more or not page.entries:
                return found

    def cores(self, region: str) -> list[str]:
        """The Cores of a region by name, by the context's roster; not those that are retired."""
        return sorted(
            one.instance
            for one in self.verifier.roster.instances
            if (one.role, one.region) == (Role.CORE, region) and one.retired is None
        )

    async def registry(
        self, region: str, core: str, *, deadline_s: float = ADMIN_S
    ) -> RegistryView:
        """What one Core knows of its region's registry, and whether it remembers it."""
        return await self.ask(
            region, "registry", "show", Empty(), RegistryView, at=core, deadline_s=deadline_s
        )

    async def adopt(self, region: str, core: str, digest: bytes) -> RegistryView:
        """Let one Core without memory remember the registry with this digest.

        Raises ``ServiceError``: ``conflict`` when it knows another one, or when a Core with memory
        does. One with memory changes nothing, and says what it knows.
        """
        order = AdoptOrder(digest=digest)
        return await self.ask(region, "registry", "adopt", order, RegistryView, at=core)

    async def audit_tail(self, region: str, *, limit: int, before: int = 0) -> TailPage:
        """Entries of an Auditor's journal, the last ``limit`` before entry ``before`` (0: all)."""
        query = TailQuery(limit=limit, before=before)
        return await self.ask(region, auditor.NOUN, "tail", query, TailPage)

    async def audit_status(self, region: str) -> AuditorStatus:
        """What an Auditor has, of which regions, and what is wrong."""
        return await self.ask(region, auditor.NOUN, "status", Empty(), AuditorStatus)

    async def ask(
        self,
        region: str,
        noun: str,
        verb: str,
        payload: Message,
        reply: type[M],
        *,
        at: str = "",
        deadline_s: float = ADMIN_S,
    ) -> M:
        """Ask a region's Cores, or its Auditor; again, while a retry may help and time is left.

        With ``at`` ask that Core: the answer of another one is not believed. Raises
        ``ServiceError``: the signed refusal, a failure to ask, or ``UntrustedReply``.
        """
        self._owner.check()
        place = _place(region, noun, verb, at)
        until, attempt = self.around.until(deadline_s), 0
        # Once connected, the transport comes back by itself: only questions are asked again.
        transport = await self._transport(region)
        while True:
            try:
                return await self._attempt(transport, place, payload, reply, until)
            except ServiceError as error:
                if not error.retryable or not await pause(self.around, attempt, until):
                    raise
            attempt += 1

    async def _attempt(
        self, transport: Transport, place: _Place, payload: Message, reply: type[M], until: float
    ) -> M:
        """Ask once, under one id, and again byte for byte while no answer comes."""
        clock = self.around.clock
        end = clock.elapsed() + attempt_s(until - clock.elapsed(), ADMIN_WIRE_S)
        request = b""

        def build(deadline_ms: int) -> bytes:
            nonlocal request
            request = request or self._request(place, payload, deadline_ms)
            return request

        def read(body: bytes) -> tuple[M, float]:
            read_reply(Signed, body)  # raises what an unsigned failure says
            return self._verified(body, place, request, reply), ADMIN_WIRE_S

        def ask() -> Awaitable[M]:
            left_s = end - clock.elapsed()
            return ask_once(self.around, transport, place.subject, build, read, left_s)

        return await repeated(ask)

    def _request(self, place: _Place, payload: Message, deadline_ms: int) -> bytes:
        request = AdminRequest(
            region=place.region,
            noun=place.noun,
            verb=place.verb,
            request_id=self.randomness.public(limits.ID_SIZE),
            deadline_ms=deadline_ms,
            payload=encode(payload),
        )
        return encode(self.identity.sign(Kind.ADMIN, request))

    def _verified(self, body: bytes, place: _Place, request: bytes, model: type[M]) -> M:
        """The payload of an answer signed by the right one to this very request."""
        try:
            reply, signer = self.verifier.admin_reply(body, place.role)
        except Untrusted as error:
            raise UntrustedReply(f"an answer was not believed: {error}") from None
        if signer.region != place.region:
            raise UntrustedReply("an answer was not believed: its signer is of another region")
        if place.instance not in ("", signer.instance):
            raise UntrustedReply("an answer was not believed: another Core than the one asked")
        if reply.request != digest(request):
            raise UntrustedReply("an answer was not believed: it answers another request")
        if reply.code is not Code.OK:
            raise error_for(reply.code, reply.detail)
        try:
            return decode(model, reply.payload)
        except KcmError:
            raise UntrustedReply("a signed answer holds something else than asked for") from None

    async def _transport(self, region: str) -> Transport:
        async with self._locks[region]:
            transport = self._transports.get(region)
            if transport is None:
                address = self.context.operator_address(region)
                transport = self._transports[region] = await self._opener(address, "kcm-operator")
            return transport


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a request goes, and in which role its answer has to be signed."""

    subject: str
    role: Role
    region: str
    noun: str
    verb: str
    instance: str = ""
    """Who has to sign; empty: any of that role and region."""


def _place(region: str, noun: str, verb: str, instance: str) -> _Place:
    if instance:
        subject = subjects.admin_at(region, noun, verb, instance)
        return _Place(subject, Role.CORE, region, noun, verb, instance)
    if noun == auditor.NOUN:
        return _Place(subjects.auditor(region, verb), Role.AUDITOR, region, noun, verb)
    return _Place(subjects.admin(region, noun, verb), Role.CORE, region, noun, verb)
