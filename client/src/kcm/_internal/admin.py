"""Operators' requests, one method for each: tenants, links, holds, the roster, registry and audit.

``admin_channel`` signs the requests and verifies the replies.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from kcm_runtime.ownership import Once
from kcm_schemas import auditor
from kcm_schemas.admin.apps import AppListQuery, AppPage, AppQuery, AppRow, AppView
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
from kcm_schemas.admin.requests import Empty, PutStatement
from kcm_schemas.admin.roster import (
    EndorsementsPage,
    EndorsementsQuery,
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
from kcm_schemas.app import App
from kcm_schemas.auditor import AuditorStatus, TailPage, TailQuery
from kcm_schemas.control import Scope
from kcm_schemas.roster import Retirement, Role
from kcm_trust.endorsements import Endorsements, page_count
from kcm_trust.verify import Untrusted

from kcm._internal.admin_channel import ADMIN_S, AdminChannel
from kcm._internal.client_context import ClientContext
from kcm._internal.pages import OnPage, Page, follow, just_before, silent
from kcm._internal.rpc import Environment
from kcm._internal.transport import Opener, open_nats
from kcm.errors import UntrustedReply


@dataclass(frozen=True, slots=True)
class AppAt:
    """An application as a region has it; ``forked`` and ``held`` as in an ``AppView``."""

    entry: App
    forked: bool
    held: bool


class Admin(AdminChannel):
    """An operator's requests to the Cores and Auditors of all regions of a context."""

    @classmethod
    def open(
        cls,
        context: ClientContext | str | Path | None = None,
        *,
        opener: Opener = open_nats,
        around: Environment | None = None,
    ) -> Once[Admin]:
        """Return a context manager that yields an ``Admin`` and disconnects at the end."""

        async def run() -> AsyncGenerator[Admin, None]:
            found = context if isinstance(context, ClientContext) else ClientContext.load(context)
            admin = cls(found, opener=opener, around=around)
            try:
                yield admin
            finally:
                await admin.close()

        return Once("Admin.open()", run)

    async def put(self, region: str, noun: str, statement: bytes) -> None:
        """Send a signed tenant, service or application to a region.

        A repetition changes nothing.
        """
        await self.ask(region, noun, "put", PutStatement(statement=statement), Empty)

    async def put_link(
        self, region: str, statement: bytes, *, deadline_s: float = ADMIN_S
    ) -> LinkView:
        """Send a signed link to a region. A Core there first tests the key and reports the result.

        A repetition changes nothing. Raises ``ServiceError`` with the reason if the key fails the
        test; nothing is linked then.
        """
        put = PutStatement(statement=statement)
        return await self.ask(region, "link", "put", put, LinkView, deadline_s=deadline_s)

    async def put_hold(
        self, region: str, statement: bytes, *, deadline_s: float = ADMIN_S
    ) -> HoldStatus:
        """Send a signed hold or lift to a region, which replies when it is durable there."""
        put = PutStatement(statement=statement)
        return await self.ask(region, "hold", "put", put, HoldStatus, deadline_s=deadline_s)

    async def tenants(
        self, region: str, *, limit: int | None = None, on_page: OnPage = silent, after: str = ""
    ) -> tuple[list[TenantRow], int]:
        """Return a region's tenants after ``after`` by name, and the number of all its tenants.

        With ``limit``, return at most so many rows.
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
        """Return a region's links after ``after`` by name, also those that no tenant uses.

        With ``limit``, return at most so many rows.
        """

        async def ask(after: str, rows: int) -> Page[LinkRow]:
            query = LinkListQuery(after=after, limit=rows)
            page = await self.ask(region, "link", "list", query, LinkPage, deadline_s=deadline_s)
            return Page(page.links, page.more, page.total)

        return (await follow(ask, lambda row: row.link, after, limit))[0]

    async def has_link(self, region: str, name: str, *, deadline_s: float = ADMIN_S) -> bool:
        """Return whether a region has a link of this name. Reads one row."""
        rows = await self.links(region, limit=1, after=just_before(name), deadline_s=deadline_s)
        return [row.link for row in rows] == [name]

    async def key_use(self, region: str, core: str, *, deadline_s: float = ADMIN_S) -> KeyUse:
        """Return how many root keys one Core of a region uses. Each Core has its own count."""
        use = await self.ask(
            region, "key", "status", Empty(), KeyUse, deadline_s=deadline_s, at=core
        )
        if (use.core, use.region) != (core, region):
            raise UntrustedReply("a Core answered about another Core")
        return use

    async def find(self, region: str, name: str) -> TenantRow:
        """Return a tenant from a Core's memory. No store and no key version is read."""
        return await self.ask(region, "tenant", "find", TenantQuery(tenant=name), TenantRow)

    async def tenant(self, region: str, name: str, *, on_page: OnPage = silent) -> TenantView:
        """Return a region's view of a tenant, with its services and the versions of their keys."""
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
        """Return a tenant's services after ``after`` by name, as they were signed.

        With ``limit``, return at most so many rows.
        """

        async def ask(after: str, rows: int) -> Page[ServiceRow]:
            query = ServiceListQuery(tenant=tenant, after=after, limit=rows)
            page = await self.ask(region, "service", "list", query, ServicePage)
            return Page(page.services, page.more, page.total)

        return (await follow(ask, lambda row: row.service, after, limit))[0]

    async def apps(self, region: str, *, limit: int | None = None, after: str = "") -> list[AppRow]:
        """Return a region's applications after ``after`` by name, without their grants."""

        async def ask(after: str, rows: int) -> Page[AppRow]:
            query = AppListQuery(after=after, limit=rows)
            page = await self.ask(region, "app", "list", query, AppPage)
            return Page(page.apps, page.more, page.total)

        return (await follow(ask, lambda row: row.app, after, limit))[0]

    async def app(self, region: str, name: str) -> AppAt:
        """Return a region's entry of an application, and what the region says about it.

        The operators' signatures are verified: what a Core claims is not signed again as it is.
        """
        view = await self.ask(region, "app", "show", AppQuery(app=name), AppView)
        try:
            entry = self.verifier.registered(view.entry, region)
        except Untrusted as error:
            raise UntrustedReply(f"the entry in the reply is not trusted: {error}") from None
        if not isinstance(entry, App) or (view.app, entry.app) != (name, name):
            raise UntrustedReply("the signed reply is about another application")
        return AppAt(entry, forked=view.forked, held=view.held)

    async def holds(self, region: str, after: bytes, *, everything: bool) -> HoldPage:
        """Return one page of a region's holds with ids above ``after``, in order of their ids.

        Only holds in force, or with ``everything`` lifted ones too.
        """
        query = HoldPageQuery(after=after, everything=everything)
        return await self.ask(region, "hold", "list", query, HoldPage)

    async def matching_holds(self, region: str, prefix: str) -> HoldMatches:
        """Return the holds whose ids begin with ``prefix`` (hexadecimal digits): two at most."""
        return await self.ask(region, "hold", "show", HoldPrefix(prefix=prefix), HoldMatches)

    async def hold_status(
        self, region: str, hold_id: bytes, *, deadline_s: float = ADMIN_S
    ) -> HoldStatus:
        """Return the progress of a hold in all regions, as a Core of ``region`` sees it."""
        query = HoldQuery(hold_id=hold_id)
        return await self.ask(region, "hold", "status", query, HoldStatus, deadline_s=deadline_s)

    async def export_hold(self, region: str, hold_id: bytes) -> HoldExport:
        """Return a hold with its lift and its result, as they were signed."""
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
        """Return what a hold would affect.

        No hold is signed for this, because a broker could put a signed hold in force. Without
        ``instances``, the region replies from its registry and asks no other region.
        """
        query = PreviewQuery(scope=scope, target=target, instances=instances)
        return await self.ask(region, "hold", "preview", query, BlastRadius, deadline_s=deadline_s)

    async def roster(self, region: str) -> RosterView:
        """Return the roster that a Core of a region uses, as it was signed."""
        return await self.ask(region, "roster", "show", Empty(), RosterView)

    async def put_roster(self, region: str, raw: bytes) -> None:
        """Send a roster to a region, which replies when it is stored for every instance there."""
        await self.ask(region, "roster", "put", PutStatement(statement=raw), Empty)

    async def put_endorsements(self, region: str, name: str, page: int, digests: bytes) -> None:
        """Send one page of a retired signer's endorsements to a region, before the roster."""
        content = EndorsementsPage(name=name, page=page, digests=digests)
        await self.ask(region, "roster", "endorsements", content, Empty)

    async def endorsements(self, region: str, name: str, said: Retirement) -> bytes | None:
        """Return a retired signer's endorsements, or ``None`` if the region has other ones.

        ``said`` is the roster's entry, with their number and digest.
        """
        parts = []
        for page in range(page_count(said)):
            query = EndorsementsQuery(name=name, page=page)
            found = await self.ask(region, "roster", "listed", query, EndorsementsPage)
            parts.append(found.digests)
        raw = b"".join(parts)
        try:
            Endorsements.read(raw, said)
        except ValueError:
            return None
        return raw

    async def signed_by(self, region: str, name: str) -> list[SignedEntry]:
        """Return all statements of a signer in force in a region that an endorsement could list."""
        found: list[SignedEntry] = []
        while True:
            after = found[-1].what if found else ""
            query = SignedQuery(name=name, after=after)
            page = await self.ask(region, "roster", "signed", query, SignedPage)
            found += page.entries
            if not page.more or not page.entries:
                return found

    def cores(self, region: str) -> list[str]:
        """Return the names of a region's Cores by the context's roster, without retired ones."""
        return sorted(
            one.instance
            for one in self.verifier.roster.instances
            if (one.role, one.region) == (Role.CORE, region) and one.retired is None
        )

    async def registry(
        self, region: str, core: str, *, deadline_s: float = ADMIN_S
    ) -> RegistryView:
        """Return what one Core knows of its region's registry, and whether it remembers it."""
        return await self.ask(
            region, "registry", "show", Empty(), RegistryView, at=core, deadline_s=deadline_s
        )

    async def adopt(self, region: str, core: str, digest: bytes) -> RegistryView:
        """Order one Core without a baseline to adopt the registry with this digest.

        A Core with a baseline changes nothing and returns what it knows. Raises ``ServiceError``:
        ``conflict`` if the Core, or another Core with a baseline, knows another registry.
        """
        order = AdoptOrder(digest=digest)
        return await self.ask(region, "registry", "adopt", order, RegistryView, at=core)

    async def audit_tail(self, region: str, *, limit: int, before: int = 0) -> TailPage:
        """Return the last ``limit`` journal entries before entry ``before`` (0: the newest)."""
        query = TailQuery(limit=limit, before=before)
        return await self.ask(region, auditor.NOUN, "tail", query, TailPage)

    async def audit_status(self, region: str) -> AuditorStatus:
        """Return which regions an Auditor follows, how far, and what is wrong."""
        return await self.ask(region, auditor.NOUN, "status", Empty(), AuditorStatus)
