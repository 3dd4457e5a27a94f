"""An application's sessions with Cores, which Gateways carry, and the tags that it makes in them.

A Core unwraps data keys for a Gateway only if an application asks for them
(``kcm_schemas.asks``). A Gateway can withhold what it carries; it can neither read nor replace it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from kcm_runtime.clock import Clock
from kcm_schemas import data_subjects, limits
from kcm_schemas.asks import Ask, keys_digest, split, to_tag, version_of
from kcm_schemas.data_subjects import OPEN_APP, DataSubject
from kcm_schemas.roster import Role
from kcm_sealing.memory import SecretRandomness
from kcm_sessions.caller import Caller
from kcm_sessions.peer_sessions import PeerSessions
from kcm_sessions.session_opener import PeerSession

from kcm._internal.session_memory import SessionMemory

TICKETS: Final = 8
"""Sessions that are given up, because Gateways say that Cores do not know them, without a pause."""

TICKET_S: Final = 60.0
"""Seconds until another one may be given up. A Core remembers 8,192 tickets of an application, so
a Gateway that lies does not use them up."""

Carry = Callable[[str, str, bytes, float], Awaitable[bytes]]
"""Has a Gateway pass on a verb and a body to a Core; takes also a timeout in seconds."""


class AsksEnded(Exception):
    """The sessions ended before a tag was made in one: get others."""


class CoreAsks:
    """Makes the tags of one application for the Cores of one region."""

    def __init__(
        self, me: Caller, carry: Carry, clock: Clock, randomness: SecretRandomness
    ) -> None:
        """``me`` is the application as the caller of Gateways."""
        self._region: Final = me.region
        self._clock: Final = clock
        caller = replace(me, peers=Role.CORE, subject_of=_subject, told=_ignore)

        async def ask(subject: str, body: bytes, timeout_s: float) -> bytes:
            core, verb = data_subjects.read_core_session(subject)
            return await carry(core, verb, body, timeout_s)

        self._sessions: Final = PeerSessions(ask, caller, clock, randomness, SessionMemory)
        self._tickets = float(TICKETS)
        self._counted = clock.elapsed()

    async def sessions(self) -> list[PeerSession]:
        """Return the open sessions with Cores; opens one if there is none; raises ``KcmError``."""
        return (await self._sessions.several())[: limits.ASKS_MAX]

    def asks(
        self,
        sessions: Sequence[PeerSession],
        gateway: str,
        asked: DataSubject,
        names: Sequence[bytes],
        within_s: float,
    ) -> list[Ask]:
        """Return the tags for these data keys: 76 bytes each, in the order of the request.

        They are for one Gateway, and end in ``within_s`` seconds. Raises ``AsksEnded``.
        """
        deadline_ms = self._clock.unix_ms() + max(1, int(within_s * 1000))
        lists = [
            (
                version_of(names[positions[0]]),
                keys_digest(b"".join([names[one][4:] for one in positions])),
            )
            for positions in split(names, range(len(names)))
        ]
        found = []
        for session in sessions:
            if session.keys.closed:
                continue
            session_id = session.keys.info.session_id
            about = (session_id, self._region, gateway, asked.tenant, asked.service, deadline_ms)
            tags = b"".join(
                session.keys.tag(to_tag(*about, version, keys)) for version, keys in lists
            )
            core = session.peer
            found.append(Ask(core=core, session_id=session_id, deadline_ms=deadline_ms, tags=tags))
        if sessions and not found:
            raise AsksEnded
        return found

    def doubt(self, sessions: Sequence[PeerSession]) -> bool:
        """Give up sessions that a Gateway reports as unknown; whether another try may help.

        A Gateway cannot make a flood of tickets: a session with one Core is given up at most every
        few seconds, and after ``TICKETS`` of them only one in ``TICKET_S``.
        """
        now = self._clock.elapsed()
        self._tickets = min(TICKETS, self._tickets + (now - self._counted) / TICKET_S)
        self._counted = now
        helps = False
        for one in sessions:
            if one.forgotten:
                helps = True
            elif self._tickets >= 1 and self._sessions.doubt(one):
                self._tickets -= 1
                helps = True
        return helps

    def close(self) -> None:
        """Wipe the keys of the sessions."""
        self._sessions.close()


def _ignore(_core: str, _version: int) -> None:
    """A Core says by which roster it acts; the application asks Gateways for the roster."""


def _subject(region: str, core: str, verb: str) -> str:
    return data_subjects.core_session(region, core, OPEN_APP if verb == "open" else verb)
