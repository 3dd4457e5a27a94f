"""What a login may ask about streams, by the table of rights."""

from __future__ import annotations

from typing import Final

from kcm_broker import server_subjects as server
from kcm_broker.rights import rights
from kcm_broker.roles import INSTANCE_ROLES, Account, Role
from kcm_schemas.codes import KcmError

from kcm_deployment.doctor.plan import Address

_SOME: Final = "some-instance"
"""In place of a name that the configuration lacks: the streams are the same for all instances."""


def streams_of(address: Address) -> tuple[str, ...]:
    """Return the streams whose state this login may ask for."""
    role = address.role
    if role is None:
        return ()
    allowed = _published(role, address.account, address.region)
    return tuple(
        one for one in (*server.IN_REGION, *server.IN_VAULT) if server.info(one) in allowed
    )


def _published(role: Role, account: Account, region: str) -> tuple[str, ...]:
    try:
        return rights(role, account, region, _SOME if role in INSTANCE_ROLES else "").publish
    except KcmError:  # the role has no place in this account
        return ()
