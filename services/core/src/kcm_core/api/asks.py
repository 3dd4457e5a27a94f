"""Who asks for data keys through a Gateway, and whether that application may.

A Gateway gets a data key for which an application asks: the application has a session with this
Core, its tag covers the key, this Gateway and the time, and a grant covers the service. There are
two exceptions. An embedded Gateway is part of a process of its application: what that application
may do, it asks itself. A *plain* application has no session: for its grants, this Core relies on
the Gateway.
"""

from __future__ import annotations

from bisect import bisect_left
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

VERBS: Final = {"wrap": "encrypt", "unwrap": "decrypt"}
"""The verb of a grant for each operation of a Gateway."""

PLAIN: Final = "plain"
"""For whom keys are where a plain application covers a request."""

_CODES: Final = {STATUS_OK: Code.OK, STATUS_UNKNOWN_ASK: Code.UNKNOWN_ASK}

_LATER: Final = {Code.UNKNOWN_SESSION, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}
"""Refusals after which the application may ask again."""


@dataclass(frozen=True, slots=True)
class Unwrap:
    """What a Gateway wants to have unwrapped: ``wrapped`` has 72 bytes for each key."""

    gateway: Instance
    asked: DataSubject
    l3_version: int
    wrapped: memoryview


@dataclass(frozen=True, slots=True)
class Verdict:
    """Consecutive keys, from ``start`` to before ``stop``: for whom they are, and their status.

    ``target`` is ``app NAME`` if the tag of that application covers them or if the Gateway is
    embedded in it, and ``plain`` for a plain application. It is empty for an ask without such a
    tag: a Gateway alone puts no application's name into the audit.
    """

    start: int
    stop: int
    target: str
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

    def check_embedding(self, gateway: Instance, asked: DataSubject) -> None:
        """Refuse what the application of an embedded Gateway may not do now; never waits.

        Raises ``forbidden``, and ``unavailable`` while another Core has another entry of it.
        """
        if gateway.application is not None:
            self._applications.check_embedding(gateway.application, asked, VERBS[asked.operation])

    def judge(self, unwrap: Unwrap, asked: Sequence[Asked]) -> list[Verdict]:
        """Return the verdicts on all keys of a request, in their order; never waits."""
        count = len(unwrap.wrapped) // limits.WRAPPED_SIZE
        done, verdicts = 0, []
        for one in asked:
            stop = min(done + one.count, count)
            verdicts.append(self._verdict(unwrap, one, done, stop))
            done = stop
        if done < count:
            verdicts.append(self._unasked(unwrap, done, count))
        return verdicts

    def _verdict(self, unwrap: Unwrap, one: Asked, start: int, stop: int) -> Verdict:
        try:
            session = self.sessions.find(one.app, one.session_id)
        except KcmError:
            return Verdict(start, stop, "", STATUS_UNKNOWN_ASK)
        another = unwrap.gateway.application not in (None, one.app)
        if another or not self._tagged(unwrap, one, session, slice(start, stop)):
            return Verdict(start, stop, "", STATUS_FORBIDDEN)
        status = STATUS_OK
        try:
            check_deadline(one.deadline_ms, self._clock.unix_ms())
            check_granted(self.sessions.acting(session), unwrap.asked, "decrypt")
            self._applications.left_s(one.app)
        except KcmError as error:
            status = STATUS_UNKNOWN_ASK if error.code in _LATER else STATUS_FORBIDDEN
        else:
            self.sessions.used(session)
        return Verdict(start, stop, f"app {one.app}", status)

    def _tagged(self, unwrap: Unwrap, one: Asked, session: OpenSession, part: slice) -> bool:
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
        return session.keys.has_tagged(message, one.tag)

    def _unasked(self, unwrap: Unwrap, start: int, stop: int) -> Verdict:
        """Return the verdict on keys for which no application asks with a tag."""
        if unwrap.gateway.application is not None:  # it was checked when the keys were found open
            return Verdict(start, stop, target_of(unwrap.gateway), STATUS_OK)
        try:
            self._applications.check_plain(unwrap.asked, "decrypt")
        except KcmError:
            return Verdict(start, stop, "", STATUS_FORBIDDEN)
        return Verdict(start, stop, PLAIN, STATUS_OK)


def target_of(gateway: Instance) -> str:
    """Return the application for which a Gateway alone asks; empty if it is not embedded."""
    return f"app {gateway.application}" if gateway.application is not None else ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Keys for one target, with one code: how many, and how many failed."""

    target: str
    code: Code
    count: int
    failed: int


def outcomes(verdicts: Sequence[Verdict], bad: Sequence[int]) -> list[Outcome]:
    """Return the outcomes of an unwrap; at the positions ``bad``, in order, there is no key."""
    counts: dict[tuple[str, Code], list[int]] = {}
    for one in verdicts:
        both = counts.setdefault((one.target, one.code), [0, 0])
        both[0] += one.stop - one.start
        both[1] += bisect_left(bad, one.stop) - bisect_left(bad, one.start)
    return [Outcome(target, code, *both) for (target, code), both in counts.items()]
