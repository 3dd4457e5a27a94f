"""Operators' requests about applications: put one, show one, list them."""

from __future__ import annotations

from typing import Final

from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.host import Host
from kcm_schemas.admin.apps import AppListQuery, AppPage, AppQuery, AppRow, AppView
from kcm_schemas.admin.requests import AdminRequest, Empty, PutStatement
from kcm_schemas.app import App
from kcm_schemas.audit import EventType
from kcm_schemas.codec import Message, decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.text import counted
from kcm_trust.roster import entries, name_of
from kcm_trust.verify import Untrusted

from kcm_core.api.registry_requests import RegistryRequests
from kcm_core.api.tenant_list import page_of


class AppRequests:
    """Serves ``app put``, ``app show`` and ``app list``."""

    def __init__(
        self,
        host: Host,
        registry: Registry,
        revocations: Revocations,
        feed: RegistryFollower,
        puts: RegistryRequests,
    ) -> None:
        self._me: Final = host.me
        self._emit: Final = host.emit
        self._registry: Final = registry
        self._revocations: Final = revocations
        self._feed: Final = feed
        self._puts: Final = puts

    async def put(self, request: AdminRequest) -> Message:
        """Accept an application; raises ``conflict`` for a key that has another name already."""
        raw = decode(PutStatement, request.payload).statement
        try:
            app = self._me.verifier.app(raw)
        except Untrusted as error:
            raise KcmError(Code.FORBIDDEN, str(error)) from None
        self._check_key(app)
        before = self._registry.known(("app", app.app))
        same_key = isinstance(before, App) and before.public_key == app.public_key
        if self._held(app) and not same_key and not app.revoked:
            raise KcmError(Code.CONFLICT, "a hold keeps the public key out; make another one")
        await self._puts.put(raw, app)
        if before != app:
            self._emit(EventType.APP_PUT, target=f"app {app.app}", detail=_detail(app))
        return Empty()

    async def show(self, request: AdminRequest) -> Message:
        """Answer ``app show``; raises ``unknown_app``."""
        name = decode(AppQuery, request.payload).app
        found = self._registry.known(("app", name))
        if found is None:
            await self._feed.fetch("app", name)
            found = self._registry.known(("app", name))
        entry = self._feed.raw(("app", name))
        if found is None or entry is None:
            raise KcmError(Code.UNKNOWN_APP, f"this region has no application {name}")
        return AppView(
            app=name,
            region=self._me.region,
            entry=entry,
            forked=self._forked(name),
            held=isinstance(found, App) and self._held(found),
        )

    async def page(self, request: AdminRequest) -> Message:
        """Answer ``app list``."""
        query = decode(AppListQuery, request.payload)
        found = self._registry.apps_after(query.after, query.limit + 1)
        rows, cut = page_of([self._row(one) for one in found[: query.limit]])
        return AppPage(
            apps=rows, total=self._registry.app_count, more=cut or len(found) > query.limit
        )

    def _check_key(self, app: App) -> None:
        """Raise ``conflict`` if the key is another application's or is on the roster.

        A signature must not count under two names.
        """
        names = [
            name_of(entry)
            for entry in entries(self._me.verifier.roster)
            if entry.public_key == app.public_key
        ] + [
            f"application {other.app}"
            for other in self._registry.apps_after("", self._registry.app_count)
            if other.public_key == app.public_key and other.app != app.app
        ]
        if names:
            raise KcmError(Code.CONFLICT, f"the public key is that of {names[0]}; make another one")

    def _row(self, app: App) -> AppRow:
        return AppRow(
            app=app.app,
            region=self._me.region,
            revision=app.revision,
            public_key=app.public_key,
            grants=len(app.grants),
            regions=list(app.regions),
            not_before_ms=app.not_before_ms,
            not_after_ms=app.not_after_ms,
            plain=app.plain,
            revoked=app.revoked,
            forked=self._forked(app.app),
            held=self._held(app),
        )

    def _held(self, app: App) -> bool:
        return self._revocations.key_held("app", app.app, app.public_key)

    def _forked(self, name: str) -> bool:
        return self._registry.forked(("app", name))


def _detail(app: App) -> str:
    """Say what an entry is now; the beginning of the key shows a rotation."""
    parts = [
        f"revision {app.revision}",
        "revoked" if app.revoked else counted(len(app.grants), "grant"),
        f"key {app.public_key.hex()[:16]}",
        *(["plain"] if app.plain else []),
    ]
    return ", ".join(parts)
