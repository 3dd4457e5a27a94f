"""Applications, by the registry of this region: which of them may act here, and for what.

An entry is read for every request, so a change counts as soon as this instance has it, and so does
a hold on an application's key. Both are relied on only while this instance has its control lease,
and while the Cores of the region have no other entry: so the leases bound how long a broker can
withhold a revocation, and a refusal is not about what was lifted long ago.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kcm_runtime.clock import Clock
from kcm_schemas.app import App
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data_subjects import DataSubject
from kcm_schemas.limits import SKEW_MS
from kcm_trust.envelopes import Unknown, Untrusted
from kcm_trust.identity import check

from kcm_killswitch.model.control_lease import EXPIRED, FOREVER
from kcm_killswitch.model.freshness import Freshness
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.registry_objects import shard_of

_EMBEDDED: Final = (
    "an operator took a key of the application out of service, and with it its embedded Gateways,"
    " until that hold is lifted"
)
_LAPSED: Final = "this instance has heard nothing of its region for too long"
_OTHERS: Final = "this instance knows other applications than a Core of its region"


class Applications:
    """Implements ``kcm_sessions.sessions.Callers`` for applications."""

    def __init__(
        self,
        registry: Registry,
        freshness: Freshness,
        region: str,
        clock: Clock,
        held: HeldKeys,
    ) -> None:
        self._registry: Final = registry
        self._freshness: Final = freshness
        self._held: Final = held
        self._region: Final = region
        self._clock: Final = clock

    def acting(self, caller: str) -> App:
        """Return the entry of an application that may act here now.

        Raises ``Untrusted``, and ``unavailable`` if a Core of the region has another entry.
        """
        self.left_s(caller)
        app = self._registry.app(caller)
        if app is None:
            raise Unknown("the application is not known in this region", caller)
        refusal = self._refusal(app)
        if refusal:
            raise Untrusted(refusal, caller)
        return app

    def ticket(self, caller: str, signature: bytes, message: bytes) -> App:
        """Verify a ticket by the application's key; raises as ``acting`` does."""
        app = self.acting(caller)
        if not check(app.public_key, signature, message):
            raise Untrusted("the application has another key", caller)
        return app

    def listen(self, changed: Callable[[frozenset[str]], None]) -> None:
        """Do nothing: entries and holds are read for every request.

        So a refusal is sealed, and its application learns the cause.
        """

    def has_tenant(self, tenant: str) -> bool:
        """Whether the registry of this region has a tenant."""
        return self._registry.tenant(tenant) is not None

    def left_s(self, caller: str) -> float:
        """Return for how many seconds an application's entry may be relied on.

        Raises ``unavailable`` if it may not be.
        """
        left = self._left(caller)
        if left <= 0:
            raise self._unknowing()
        return left

    def check_embedding(self, name: str, asked: DataSubject, verb: str) -> float:
        """Return for how many seconds an application that embeds a Gateway may do this there.

        The Gateway has a key of its own, and a thief of the other one may have it, too:
        a hold on any key of the application counts, also after a rotation. Raises ``forbidden``,
        and ``unavailable`` as ``left_s`` does.
        """
        try:
            app = self.acting(name)
        except Untrusted as error:
            raise KcmError(Code.FORBIDDEN, str(error)) from None
        if self._held.any_of(name):
            raise KcmError(Code.FORBIDDEN, f"{_EMBEDDED}: {name}")
        check_granted(app, asked, verb)
        return self._left(name)

    def check_plain(self, asked: DataSubject, verb: str) -> float:
        """Return for how many seconds a request without a key is covered by a plain application.

        Raises ``forbidden`` if it is not, and ``unavailable`` while a Core of the region has
        another registry, which may have such an application.
        """
        covering = (
            self._left(name)
            for name in self._registry.plain_apps
            if (app := self._registry.app(name)) is not None
            and not self._refusal(app)
            and app.covers(verb, asked.tenant, asked.service)
        )
        left, now = max(covering, default=EXPIRED), self._clock.elapsed()
        agrees = self._freshness.registry.until(now) == FOREVER
        if left <= 0 and not (agrees and self._freshness.lease.until() > now):
            raise self._unknowing()
        if left <= 0:
            raise KcmError(
                Code.FORBIDDEN,
                f"no plain application may {verb} for tenant {asked.tenant}, service"
                f" {asked.service}: this needs an application's key",
            )
        return left

    def _left(self, name: str) -> float:
        now = self._clock.elapsed()
        agrees_until = self._freshness.registry.until(now, [shard_of(name)])
        return min(self._freshness.lease.until(), agrees_until) - now

    def _unknowing(self) -> KcmError:
        """Return the error of an instance that may not know all that counts."""
        lapsed = self._freshness.lease.until() <= self._clock.elapsed()
        return KcmError(Code.UNAVAILABLE, _LAPSED if lapsed else _OTHERS)

    def _refusal(self, app: App) -> str:
        """Return why an application may not act here now; empty if it may."""
        now_ms = self._clock.unix_ms()
        if app.revoked:
            return "the application is revoked"
        if self._held.has(app.app, app.public_key):
            return "an operator took the application's key out of service"
        if self._region not in app.regions:
            return "the application may not act in this region"
        if now_ms < app.not_before_ms - SKEW_MS:
            return "the application is not valid yet, by the clock of this instance"
        if now_ms >= app.not_after_ms + SKEW_MS:
            return "the application has expired, by the clock of this instance"
        return ""


def check_granted(app: App, asked: DataSubject, verb: str) -> None:
    """Raise ``forbidden`` unless a grant of the application covers a request."""
    if not app.covers(verb, asked.tenant, asked.service):
        raise KcmError(
            Code.FORBIDDEN,
            f"application {app.app} has no grant to {verb} for tenant {asked.tenant},"
            f" service {asked.service}",
        )
