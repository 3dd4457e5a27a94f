"""The users of a region's broker: their passwords, and what they may do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from kcm._internal.client_context import ClientContext
from kcm_runtime.config import BusAddress

from kcm_devsystem import brokers
from kcm_devsystem.broker_rights import inbox, permissions_of
from kcm_devsystem.brokers import Account, Login, Permissions, Role, Rule
from kcm_devsystem.files import password

PermissionsOf = Callable[[str, Role, Account], Permissions | None]
"""Returns a user's permissions by region, role and account; ``None``: the whole account."""


@dataclass(frozen=True, slots=True)
class Users:
    """What the users of the brokers may do.

    With ``visitor``, each account has a user for whom the broker refuses nothing.
    """

    permissions: PermissionsOf = permissions_of
    visitor: bool = False


USERS: Final = Users()
"""The users of a system that is no test's."""


def logins(root: Path, region: str, users: Users) -> tuple[Login, ...]:
    """Return the users of a region's broker, with their passwords and permissions."""
    more = (Role.VISITOR,) if users.visitor else ()
    return tuple(
        Login(
            role,
            account,
            password(password_path(root, region, role, account)),
            _answering(users, users.permissions(region, role, account)),
        )
        for account, roles in brokers.ROLES.items()
        for role in (*roles, *more)
    )


def _answering(users: Users, permissions: Permissions | None) -> Permissions | None:
    """Let a user also answer a visitor, if there is one."""
    if permissions is None or not users.visitor:
        return permissions
    more = (f"_INBOX.{Role.VISITOR.value}.>",)
    return replace(permissions, publish=Rule(permissions.publish.allow + more))


def password_path(root: Path, region: str, role: Role, account: Account) -> Path:
    """Return the path of the password of a role in an account."""
    return root / "secrets" / region / brokers.login_name(role, account)


def visitors_address(
    context: ClientContext,
    root: Path,
    region: str,
    account: Account = Account.REGION,
) -> BusAddress:
    """Return how a system with a visitor lets it in."""
    at = context.operator_address(region)
    return BusAddress(
        url=at.url,
        also=at.also,
        user=brokers.login_name(Role.VISITOR, account),
        password_file=password_path(root, region, Role.VISITOR, account),
        inbox=inbox(Role.VISITOR, "test"),
    )
