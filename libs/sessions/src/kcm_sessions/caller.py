"""Who opens sessions: an instance, or an application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kcm_schemas.roster import Instance, Role
from kcm_trust.verify import Untrusted, Verifier

SubjectOf = Callable[[str, str, str], str]
"""Returns the subject of a verb (``key``, ``open``) by region and instance."""


def _not_held(_name: str, _public_key: bytes) -> bool:
    """No hold is known."""
    return False


def _ignore(_peer: str, _version: int) -> None:
    """An instance follows the roster by itself."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller's name, its key, the roster by which it trusts instances, and whom it calls.

    ``verifier`` returns the verifier of the roster in force, and ``listen`` reports the names whose
    entry on it changed. ``peers`` is the role of the instances that are called, and ``subject_of``
    where they serve what begins a session.
    """

    name: str
    region: str
    incarnation: bytes
    sign: Callable[[bytes], bytes]
    verifier: Callable[[], Verifier]
    listen: Callable[[Callable[[frozenset[str]], None]], None]
    peers: Role
    subject_of: SubjectOf
    told: Callable[[str, int], None] = _ignore
    """Gets a peer and the version of the roster by which it acts, when it opens a session."""
    held: Callable[[str, bytes], bool] = _not_held
    """Whether an operator took this instance, with this key, out of service."""

    def peer(self, name: str) -> Instance:
        """Return the entry of an instance that may be called now; raises ``Untrusted``."""
        entry = self.verifier().acting(name)
        if entry.application is not None:
            raise Untrusted("the instance is a part of an application, and serves no others", name)
        if self.held(name, entry.public_key):
            raise Untrusted("an operator took the instance out of service", name)
        return entry
