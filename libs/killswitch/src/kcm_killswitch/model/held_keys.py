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

    def has(self, name: str, public_key: bytes) -> bool:
        """Whether a hold is on this key (32 bytes) of an application or an instance."""
        return self._revocations.key_held(self._scope, name, public_key)

    def listen(self, changed: Callable[[frozenset[str]], None]) -> None:
        """Call ``changed`` with the name when a hold on a key of it comes into force.

        That is before a receipt for the hold is sent.
        """

        def held(scope: str, name: str) -> None:
            if scope == self._scope:
                changed(frozenset({name}))

        self._revocations.listen(held)
