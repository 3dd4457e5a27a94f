"""The users of a region's broker by role, with passwords: for a broker without its own operator.

A user stands for all instances of a role, or for all applications. So a right that the table gives
to one instance, or for one grant, is given to every instance of the role, or for every grant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kcm_schemas.codes import Code, KcmError

from kcm_broker.rights import rights
from kcm_broker.roles import GRANT, INSTANCE_ROLES, NAME, SUBJECT, Account, Role

_ANY: Final = "any-instance"
"""In place of an instance's name, which becomes ``*``."""

USERS: Final[Mapping[str, tuple[Account, tuple[tuple[Role, Account], ...]]]] = {
    # The wrapped keys are in the account REGION: only operators' accounts separate them.
    "core": (Account.REGION, ((Role.CORE, Account.REGION), (Role.CORE, Account.VAULT))),
    "gateway": (Account.REGION, ((Role.GATEWAY, Account.REGION),)),
    "auditor": (Account.REGION, ((Role.AUDITOR, Account.REGION),)),
    "app": (
        Account.REGION,
        ((Role.APPLICATION, Account.REGION), (Role.PLAIN, Account.REGION)),
    ),
    "operator": (Account.REGION, ((Role.OPERATOR, Account.REGION),)),
    "provisioner": (
        Account.REGION,
        ((Role.PROVISIONER, Account.REGION), (Role.PROVISIONER, Account.VAULT)),
    ),
    "core-control": (Account.CONTROL, ((Role.CORE, Account.CONTROL),)),
    "gateway-control": (Account.CONTROL, ((Role.GATEWAY, Account.CONTROL),)),
}
"""Each user's account, and the rows of the table whose rights it has."""


@dataclass(frozen=True, slots=True)
class UserRights:
    """The subjects that a user may publish and subscribe, in order."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]

    def block(self) -> dict[str, Any]:
        """Return the user's permissions, as a server's configuration has them."""
        return {
            "publish": {"allow": list(self.publish)},
            "subscribe": {"allow": list(self.subscribe)},
        }


def user_rights(region: str, user: str) -> UserRights:
    """Return the rights of one of ``USERS``; raises ``malformed`` for another name."""
    if user not in USERS:
        raise KcmError(Code.MALFORMED, f"the users of a broker are {', '.join(USERS)}")
    publish: set[str] = set()
    subscribe: set[str] = set()
    for role, account in USERS[user][1]:
        found = rights(role, account, region, _ANY if role in INSTANCE_ROLES else "")
        publish |= {_general(one) for one in found.publish}
        subscribe |= {_general(one) for one in found.subscribe}
    return UserRights(tuple(sorted(publish)), tuple(sorted(subscribe)))


def users_text(region: str) -> str:
    """Return ``users.conf`` of a region: its accounts, its users and their permissions.

    The hash of each password is a variable, ``$KCM_CORE_HASH`` and so on. Raises ``malformed``.
    """
    accounts: dict[Account, list[str]] = {Account.REGION: [], Account.CONTROL: []}
    for user, (account, _) in USERS.items():
        hashed = f"$KCM_{user.upper().replace('-', '_')}_HASH"
        block = json.dumps(user_rights(region, user).block(), indent=2).replace("\n", "\n      ")
        accounts[account].append(
            f"      {{user: {user}, password: {hashed}, permissions: {block}}}"
        )
    region_users, control_users = ("\n".join(accounts[one]) for one in accounts)
    return (
        "accounts: {\n"
        f"  REGION: {{\n    jetstream: enabled\n    users: [\n{region_users}\n    ]\n  }}\n"
        f"  CONTROL: {{\n    users: [\n{control_users}\n    ]\n  }}\n"
        "}\n"
    )


def inbox(user: str, name: str) -> str:
    """Return where a user receives replies; ``name`` is that of the instance or client."""
    role = "application" if user == "app" else user.removesuffix("-control")
    return f"_INBOX.{role}.{name}"


def _general(entry: str) -> str:
    for name, general in ((GRANT, "*.*.*"), (SUBJECT, "*"), (NAME, "*"), (_ANY, "*")):
        entry = entry.replace(name, general)
    return entry
