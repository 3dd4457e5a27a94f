"""The keys of applications, or of instances, that holds keep out of service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from kcm_killswitch.model.revocations import Revocations


class HeldKeys:
    """The keys of one scope, by the holds that are in force here."""

    def __init__(self, revocations: Revocations, scope: Literal["app", "instance"]) -> None:
        self._revocations: Final = revocations
        self._scope: Final = scope
        self._targets: Final[dict[str, set[str]]] = {}
        """By name, every key of it that was ever held since this instance started."""
        for state in revocations.in_force():
            self._note(state.hold.scope, state.hold.target)
        revocations.listen(self._note)

    def has(self, name: str, public_key: bytes) -> bool:
        """Whether a hold is on this key (32 bytes) of an application or an instance."""
        return self._revocations.key_held(self._scope, name, public_key)

    def any_of(self, name: str) -> bool:
        """Whether a hold is on any key of an application or an instance, also on an earlier one."""
        targets = self._targets.get(name, ())
        return any(self._revocations.active_on(self._scope, target) for target in targets)

    def listen(self, changed: Callable[[frozenset[str]], None]) -> None:
        """Call ``changed`` with the name when a hold on a key of it comes into force.

        That is before a receipt for the hold is sent.
        """

        def held(scope: str, target: str) -> None:
            if scope == self._scope:
                changed(frozenset({_name_of(target)}))

        self._revocations.listen(held)

    def _note(self, scope: str, target: str) -> None:
        if scope == self._scope:
            self._targets.setdefault(_name_of(target), set()).add(target)


def _name_of(target: str) -> str:
    return target.partition(".")[0]
