"""Who asks for data keys through a Gateway, and whether that application may.

A Gateway gets a data key for which an application asks: the application has a session with this
Core, its tag covers the key, this Gateway and the time, and a grant covers the service. There are
two exceptions. An embedded Gateway serves only its own process, so it asks for itself. A *plain*
application has no session: for its grants, this Core relies on the Gateway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kcm_killswitch.replica.applications import Applications, check_granted
from kcm_runtime.host import Host
from kcm_runtime.requests import check_deadline
from kcm_schemas import limits
from kcm_schemas.app import App
from kcm_schemas.asks import Asked, keys_digest, to_tag
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data_subjects import DataSubject
from kcm_schemas.roster import Instance
from kcm_schemas.vault import STATUS_FORBIDDEN, STATUS_OK, STATUS_UNKNOWN_ASK
from kcm_sealing.memory import Lend
from kcm_sessions.session_keys import SessionKeys
from kcm_sessions.sessions import APPLICATIONS, OpenSession, Sessions

PLAIN: Final = "plain"
"""In place of an application's name where a plain application covers a request."""

_CODES: Final = {STATUS_OK: Code.OK, STATUS_UNKNOWN_ASK: Code.UNKNOWN_ASK}


@dataclass(frozen=True, slots=True)
class Unwrap:
    """What a Gateway wants to have unwrapped: ``wrapped`` has 72 bytes for each key."""

    gateway: Instance
    asked: DataSubject
    l3_version: int
    wrapped: memoryview


@dataclass(frozen=True, slots=True)
class Verdict:
    """Consecutive keys, from ``start`` to before ``stop``: who asks for them, and their status.

    ``app`` is empty for a Gateway that asks for itself.
    """

    start: int
    stop: int
    app: str
    status: int

    @property
    def code(self) -> Code:
        """The status as a code."""
        return _CODES.get(self.status, Code.FORBIDDEN)


class Asks:
    """Judges asks, by the sessions that applications have with this Core."""

    def __init__(
        self, host: Host, keys: SessionKeys, applications: Applications, lend: Lend
    ) -> None:
        """``lend`` makes the memory of a session."""
        self._region: Final = host.me.region
        self._clock: Final = host.clock
        self._applications: Final = applications
        self.sessions: Final[Sessions[App]] = Sessions(host, keys, applications, lend, APPLICATIONS)

    def judge(self, unwrap: Unwrap, asked: Sequence[Asked]) -> list[Verdict]:
        """Return the verdicts on all keys of a request, in their order; never waits."""
        count = len(unwrap.wrapped) // limits.WRAPPED_SIZE
        done, verdicts = 0, []
        acting: dict[tuple[str, bytes], OpenSession | int] = {}
        for one in asked:
            stop = min(done + one.count, count)
            key = (one.app, one.session_id)
            if key not in acting:
                acting[key] = self._session(unwrap, one)
            status = self._status(unwrap, one, acting[key], slice(done, stop))
            verdicts.append(Verdict(done, stop, one.app, status))
            done = stop
        if done < count:
            verdicts.append(self._unasked(unwrap, done, count))
        return verdicts

    def _session(self, unwrap: Unwrap, one: Asked) -> OpenSession | int:
        """Return the session of an application that may ask for this service, or a status."""
        try:
            session = self.sessions.find(one.app, one.session_id)
            check_granted(self.sessions.acting(session), unwrap.asked, "decrypt")
            self._applications.left_s(one.app)
        except KcmError as error:
            unknown = error.code in (Code.UNKNOWN_SESSION, Code.UNAVAILABLE)
            return STATUS_UNKNOWN_ASK if unknown else STATUS_FORBIDDEN
        self.sessions.used(session)
        return session

    def _status(self, unwrap: Unwrap, one: Asked, session: OpenSession | int, part: slice) -> int:
        if isinstance(session, int):
            return session
        try:
            check_deadline(one.deadline_ms, self._clock.unix_ms())
        except KcmError:
            return STATUS_FORBIDDEN
        size = limits.WRAPPED_SIZE
        message = to_tag(
            one.session_id,
            self._region,
            unwrap.gateway.instance,
            unwrap.asked.tenant,
            unwrap.asked.service,
            one.deadline_ms,
            unwrap.l3_version,
            keys_digest(unwrap.wrapped[part.start * size : part.stop * size]),
        )
        return STATUS_OK if session.keys.has_tagged(message, one.tag) else STATUS_FORBIDDEN

    def _unasked(self, unwrap: Unwrap, start: int, stop: int) -> Verdict:
        """Return the verdict on keys for which no application asks with a tag."""
        if unwrap.gateway.embedded:
            return Verdict(start, stop, "", STATUS_OK)
        try:
            self._applications.check_plain(unwrap.asked, "decrypt")
        except KcmError:
            return Verdict(start, stop, "", STATUS_FORBIDDEN)
        return Verdict(start, stop, PLAIN, STATUS_OK)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Keys for which one application asked, with one code: how many, and how many failed."""

    app: str
    code: Code
    count: int
    failed: int


def outcomes(verdicts: Sequence[Verdict], bad: Sequence[int]) -> list[Outcome]:
    """Return the outcomes of an unwrap; at the positions ``bad`` there is no key."""
    counts: dict[tuple[str, Code], list[int]] = {}
    for one in verdicts:
        both = counts.setdefault((one.app, one.code), [0, 0])
        both[0] += one.stop - one.start
        both[1] += sum(one.start <= position < one.stop for position in bad)
    return [Outcome(app, code, *both) for (app, code), both in counts.items()]
