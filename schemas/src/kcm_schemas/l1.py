"""What the provider of a customer's root key (L1) can answer, whatever its kind.

The kill switch depends on one distinction. *Refused* is an explicit denial by the key's owner or
its provider: it causes a hold at once. Every other failure is not an explicit denial and never
causes a hold: service ends with the key lease and resumes by itself.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field


class L1State(StrEnum):
    """The state of a customer's key after one request to it."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    FORBIDDEN = "forbidden"
    PENDING_DELETION = "pending_deletion"
    DELETED = "deleted"
    UNREACHABLE = "unreachable"
    INVALID = "invalid"

    @property
    def refused(self) -> bool:
        """Whether the answer is an explicit denial: these four states cause a hold at once."""
        return self in _REFUSED


_REFUSED: Final = frozenset(
    {L1State.DISABLED, L1State.FORBIDDEN, L1State.PENDING_DELETION, L1State.DELETED}
)


L1StateField = Annotated[L1State, Field(strict=False)]
"""A state as a field of a message: it arrives as text."""
