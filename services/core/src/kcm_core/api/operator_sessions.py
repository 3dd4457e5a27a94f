"""The sessions that operators opened with this Core: callers are operators on the roster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_schemas.roster import Operator
from kcm_sealing.memory import Lend
from kcm_sessions.session_keys import SessionKeys
from kcm_sessions.sessions import OPERATORS, Sessions


class OperatorCallers:
    """Operators by the roster in force; implements ``kcm_sessions.sessions.Callers``."""

    def __init__(self, me: InstanceContext) -> None:
        self._me: Final = me

    def acting(self, caller: str) -> Operator:
        """Return an operator's entry; raises ``Untrusted`` for one that is retired."""
        return self._me.verifier.acting_operator(caller)

    def ticket(self, caller: str, signature: bytes, message: bytes) -> Operator:
        """Verify a ticket of an operator; raises ``Untrusted``."""
        return self._me.verifier.operator_ticket(caller, signature, message)

    def listen(self, changed: Callable[[frozenset[str]], None]) -> None:
        """Report operators whose roster entry changed."""
        self._me.rosters.listen(changed)


def operator_sessions(host: Host, keys: SessionKeys, lend: Lend) -> Sessions[Operator]:
    """Make the sessions; ``lend`` makes the memory of one."""
    return Sessions(host, keys, OperatorCallers(host.me), lend, OPERATORS)
