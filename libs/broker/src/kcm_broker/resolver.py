"""Bringing an account's token to every node of a broker.

A node accepts too much: an older token of the same account brings a revoked user back, and a token
of a foreign broker operator is stored with the answer "updated" and locks the account out at the
next restart. So a token is verified here before it is sent, it has to be later than the present
one, and afterwards every node is asked for what it has. A token of the system account that lacks
the pusher's own scope would end all pushes, so it is refused, too.

A node that was down gets the token by its own comparison with the others, or at once when the same
token is pushed again.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Protocol

from kcm_runtime.clock import Clock
from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from kcm_broker.claims import verify_account
from kcm_broker.server_subjects import SYSTEM_UPDATE, system_lookup
from kcm_broker.tokens import Claims

ANSWER_S: Final = 3.0
"""Seconds that the nodes have to answer one question."""

NODES_MAX: Final = 64
"""Nodes of one broker; further answers are not read."""


class Nodes(Protocol):
    """The nodes of a broker, asked together in the system account."""

    async def ask(self, subject: str, body: bytes, answers: int) -> list[bytes]:
        """Return the answers that came in time, at most ``answers``; raises ``unavailable``."""
        ...


class SystemAccount:
    """``Nodes`` over a connection of the role ``pusher``."""

    def __init__(self, client: Client, clock: Clock, wait_s: float = ANSWER_S) -> None:
        self._client: Final = client
        self._clock: Final = clock
        self._wait_s: Final = wait_s

    async def ask(self, subject: str, body: bytes, answers: int) -> list[bytes]:
        """Publish a question, and collect so many answers, or those that come in time."""
        inbox = self._client.new_inbox()
        until = self._clock.elapsed() + self._wait_s
        found: list[bytes] = []
        try:
            subscription = await self._client.subscribe(inbox)
            try:
                await self._client.publish(subject, body, reply=inbox)
                while len(found) < answers:
                    left = until - self._clock.elapsed()
                    message = await subscription.next_msg(timeout=max(left, 0.001))
                    if _unheard(message):
                        break
                    found.append(message.data)
            finally:
                await subscription.unsubscribe()
        except (nats_errors.TimeoutError, TimeoutError):
            return found
        except nats_errors.Error:
            raise KcmError(Code.UNAVAILABLE, "the broker cannot be asked") from None
        return found


@dataclass(frozen=True, slots=True)
class Pushed:
    """A token that all nodes have; ``nodes`` are the servers' names."""

    claims: Claims
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OwnScope:
    """The system account, and the pusher's signing key there, both as public keys."""

    account: str
    key: str


class Pusher:
    """Pushes tokens of the accounts of one broker operator."""

    def __init__(self, nodes: Nodes, operators: Collection[str], count: int, own: OwnScope) -> None:
        """``operators`` are the operator's key and its signing keys; ``count`` nodes must answer.

        Raises ``ValueError`` for a number of nodes that is not from 1 to ``NODES_MAX``.
        """
        if not 0 < count <= NODES_MAX:
            raise ValueError(f"a broker has 1 to {NODES_MAX} nodes")
        self._nodes: Final = nodes
        self._operators: Final = frozenset(operators)
        self._count: Final = count
        self._own: Final = own

    async def push(self, token: str) -> Pushed:
        """Bring a token to all nodes; the token that they have already may be pushed again.

        Raises ``malformed`` or ``forbidden`` before anything is sent, ``conflict`` if a node has
        one that is not earlier, or that has a revocation which this one lacks, and ``unavailable``
        if not all nodes have the token afterwards.
        """
        claims = verify_account(token, self._operators)
        self._check_own_scope(claims)
        for present in await self.present(claims.subject):
            if present.token != token and present.issued >= claims.issued:
                raise KcmError(Code.CONFLICT, "a node has a token of the account that is as new")
            self._check_revocations(present, claims)
        answers = await self._nodes.ask(SYSTEM_UPDATE, token.encode("ascii"), self._count)
        names = sorted(_accepted(answer) for answer in answers)
        self._check_count(len(set(names)), "took the token")
        found = await self._lookup(claims.subject)
        self._check_count(len(found), "can be asked for the account")
        if any(one != token for one in found):
            raise KcmError(Code.UNAVAILABLE, "a node has another token of the account")
        return Pushed(claims, tuple(names))

    @staticmethod
    def _check_revocations(present: Claims, later: Claims) -> None:
        """Raise ``conflict`` if the later token would let a user in that is revoked now."""
        wanted = later.body.get("revocations") or {}
        found = present.body.get("revocations") or {}
        back = sorted(user for user, at in found.items() if wanted.get(user, 0) < at)
        if back:
            text = f"the token lets in {len(back)} revoked users, {back[0]} for example"
            raise KcmError(Code.CONFLICT, f"{text}; it comes from an old copy of the directory")

    async def present(self, account: str) -> list[Claims]:
        """Return what the nodes have of an account (public key), as far as the operator signed it.

        What another party signed is left out: a push replaces it. Raises ``unavailable``.
        """
        found = []
        for token in await self._lookup(account):
            try:
                claims = verify_account(token, self._operators)
            except KcmError:
                continue
            if claims.subject == account:
                found.append(claims)
        return found

    def _check_own_scope(self, claims: Claims) -> None:
        """Raise ``forbidden`` for a system account in which this pusher could do nothing."""
        keys = claims.body.get("signing_keys")
        scopes = [one for one in keys if isinstance(one, dict)] if isinstance(keys, list) else []
        mine = [one for one in scopes if one.get("key") == self._own.key]
        pushes = [one for one in mine if SYSTEM_UPDATE in json.dumps(one.get("template"))]
        if claims.subject == self._own.account and not pushes:
            raise KcmError(Code.FORBIDDEN, "the system account would lack the scope of the pusher")

    async def _lookup(self, account: str) -> list[str]:
        answers = await self._nodes.ask(system_lookup(account), b"", self._count)
        return [answer.decode("ascii", "replace") for answer in answers if answer]

    def _check_count(self, found: int, what: str) -> None:
        if found < self._count:
            text = f"{found} of {self._count} nodes {what}"
            raise KcmError(Code.UNAVAILABLE, text)


def _unheard(message: Msg) -> bool:
    """Whether this is the broker's own notice that no node listens."""
    return not message.data and (message.headers or {}).get("Status") == "503"


def _accepted(raw: bytes) -> str:
    """Return the name of a server that took a token; raises ``unavailable``."""
    try:
        answer = json.loads(raw)
        name, data = answer["server"]["name"], answer.get("data") or {}
        accepted = isinstance(name, str) and "error" not in answer and data.get("code") == 200
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise KcmError(Code.UNAVAILABLE, "unexpected form of a node's answer") from None
    if not accepted:
        raise KcmError(Code.UNAVAILABLE, "a node does not take the token")
    return str(name)
