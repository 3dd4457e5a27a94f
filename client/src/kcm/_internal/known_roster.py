"""The instances that an application trusts: by the roster, and by holds on their keys.

The roster is the context's, or a newer one of a Gateway. Every Gateway hands out the roster in
force, and the holds that it knows. The operator root, whose key the context pins, signed the one,
and operators signed the others, so a broker can withhold them but not forge them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from kcm_runtime.clock import Clock
from kcm_runtime.config import ConfigError
from kcm_schemas import data_subjects
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import KcmError
from kcm_schemas.roster import Role
from kcm_schemas.session import Standing, StandingQuery
from kcm_trust.roster import changed
from kcm_trust.verify import STATEMENT_MAX, Untrusted, Verifier

from kcm._internal.client_context import ClientContext
from kcm._internal.known_holds import KnownHolds
from kcm._internal.transport import Transport

log = logging.getLogger(__name__)

ASK_S: Final = 0.5
"""Seconds that a Gateway has to hand out the roster."""

EVERY_S: Final = 5.0
"""Minimum seconds between two questions."""

OLD_S: Final = 60.0
"""Seconds after which a roster is asked for again, also while every request succeeds."""

OnChange = Callable[[frozenset[str]], None]


class KnownRoster:
    """The highest roster of one context."""

    def __init__(
        self, context: ClientContext, transport: Transport, region: str, clock: Clock
    ) -> None:
        """Read the context's roster; raises ``ContextError``."""
        self._context: Final = context
        self._transport: Final = transport
        self._region: Final = region
        self._clock: Final = clock
        self._raw, roster = context.highest()
        self._verifier = Verifier(roster)
        self._holds: Final = KnownHolds(region)
        self._listeners: Final[list[OnChange]] = []
        self._asked = self._answered = -OLD_S
        self._turn = -1

    @property
    def verifier(self) -> Verifier:
        """The verifier of the roster in force: read it for every decision."""
        return self._verifier

    def listen(self, on_change: OnChange) -> None:
        """Call ``on_change`` with names whose entry a newer roster changes, or that are held."""
        self._listeners.append(on_change)

    def held(self, name: str, public_key: bytes) -> bool:
        """Whether an operator took an instance with this key out of service."""
        return self._holds.has(name, public_key)

    @property
    def old(self) -> bool:
        """Whether a Gateway should be asked for a newer roster."""
        return self._clock.elapsed() - self._answered >= OLD_S

    async def refresh(self) -> None:
        """Ask any Gateway for a newer roster, or each in turn; without a reply, nothing changes."""
        now = self._clock.elapsed()
        if now - self._asked < EVERY_S:
            return
        self._asked = now
        self._turn += 1
        names = [None, *self._gateways()]
        await self.ask(names[self._turn % len(names)])

    async def ask(self, gateway: str | None) -> None:
        """Ask this Gateway for a newer roster, and for holds; ``None`` asks any."""
        subject = (
            data_subjects.gateway_roster(self._region)
            if gateway is None
            else data_subjects.gateway_session(self._region, gateway, "roster")
        )
        with suppress(KcmError):
            query = encode(StandingQuery(known=self._holds.ids))
            answer = decode(Standing, await self._transport.request(subject, query, ASK_S))
            self._answered = self._clock.elapsed()
            if answer.roster != self._raw and len(answer.roster) <= STATEMENT_MAX:
                self._take(answer.roster)
            self._tell(self._holds.take(answer.holds, self._verifier))

    def _gateways(self) -> list[str]:
        return [
            one.instance
            for one in self._verifier.roster.instances
            if (one.role, one.region, one.retired) == (Role.GATEWAY, self._region, None)
            and one.application is None
        ]

    def _take(self, raw: bytes) -> None:
        known = self._verifier.roster
        try:
            new = self._context.believe(raw, known.version)
            self._raw, new = self._context.seen(raw, new)
        except (Untrusted, ConfigError) as error:
            log.warning("a Gateway handed out a roster that does not count: %s", error)
            return
        if new.version > known.version:
            self._verifier = Verifier(new)
            self._tell(changed(known, new) | self._holds.judge(self._verifier))

    def _tell(self, names: frozenset[str]) -> None:
        for on_change in self._listeners if names else ():
            on_change(names)
