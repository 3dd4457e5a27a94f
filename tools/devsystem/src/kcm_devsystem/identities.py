"""The identities of a development system: its operators, its application, and its instances.

In production the operator root is created and stored offline, and only the signed roster reaches
the instances. Here it is in the same directory, so this is for development only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kcm_deployment import trust_files
from kcm_deployment.members import Member, Person
from kcm_deployment.trust_files import Planned
from kcm_schemas.roster import OperatorRole

SYSTEM: Final = "dev"
OPERATOR: Final = "operator"
APPROVER: Final = "approver"
"""A second operator, with role security: some orders need two."""

OPERATORS: Final = (
    Person(OPERATOR, (OperatorRole.ADMIN, OperatorRole.SECURITY)),
    Person(APPROVER, (OperatorRole.SECURITY,)),
)

APP: Final = "app"
"""The name of the application in the context; `kcm app create` gives it grants."""


def make_trust(root: Path, members: Sequence[Member], regions: Sequence[str], now_ms: int) -> bytes:
    """Create missing files, sign the roster, and return the root's public key."""
    planned = Planned(SYSTEM, regions, members, OPERATORS, (APP,))
    return trust_files.make_trust(root, planned, now_ms)
