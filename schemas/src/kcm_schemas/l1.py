"""What a customer's root key (L1) may say, whatever its make.

The whole kill switch hangs on one distinction. *Refused* means that somebody who may decide said
no: it kills at once. Everything else means that nobody said no: it never kills, service ends with
the lease and comes back by itself.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field


class L1State(StrEnum):
    """What is known about a customer's key after asking for it once."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    FORBIDDEN = "forbidden"
    PENDING_DELETION = "pending_deletion"
    DELETED = "deleted"
    UNREACHABLE = "unreachable"
    INVALID = "invalid"

    @property
    def refused(self) -> bool:
        """Whether somebody who may decide said no: these four kill at once."""
        return self in _REFUSED


_REFUSED: Final = frozenset(
    {L1State.DISABLED, L1State.FORBIDDEN, L1State.PENDING_DELETION, L1State.DELETED}
)


L1StateField = Annotated[L1State, Field(strict=False)]
"""A state as a field of a message: it arrives as text."""
