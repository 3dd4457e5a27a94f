"""Specifications of the backbone and of the regions' brokers, and their theory.

Each region has a separate broker with its own JetStream domain and two accounts. ``REGION`` carries
requests, keys, the control stream and audit, and has no link to another region. ``CONTROL`` is
linked to a small backbone that has no JetStream and no clients. The link is a leaf node connection
bound to ``CONTROL`` alone, so a mistake of a component cannot send a request, a key or a payload
out of a region.

On the backbone every region has a separate account. Each account exports two things: as a stream,
the subjects with its region's name (holds, receipts, probes), and as a service, the pulls addressed
to it. Each account imports those of the others. All other messages stay in their account. A region
therefore cannot send in another region's name, answer or intercept another region's pulls, or read
the replies to them, even if its broker's configuration is changed.

Why no shared account with permissions: the server enforces a *deny* on what a region may receive on
both ends of the link, also against what it may send (seen with server 2.15.1). A region that is
denied another region's pulls could then not pull from it, as soon as any client subscribed to more
than one subject.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePath
from typing import Final

from kcm_schemas.names import is_name

from kcm_devsystem.errors import DevError, ImpossibleShapeError

LOOPBACK: Final = "127.0.0.1"
"""Where development brokers listen."""
STORE_BYTES_MAX: Final = 1 << 30
"""Bytes of streams on disk per development region."""
LEAF_VERSION_MIN: Final = "2.12.7"
"""The oldest server that a backbone accepts as a leaf node."""

_RESERVED: Final = frozenset({"ctl", "backbone"})
"""Names that a region cannot have: a token of the subjects, and the backbone's name."""


class Account(StrEnum):
    """The two accounts of a region's broker."""

    REGION = "REGION"
    CONTROL = "CONTROL"


class Role(StrEnum):
    """The kinds of client of a region's broker."""

    CORE = "core"
    GATEWAY = "gateway"
    AUDITOR = "auditor"
    APP = "app"
    OPERATOR = "operator"
    PROVISIONER = "provisioner"
    """It creates the streams, and nothing else."""
    VISITOR = "visitor"
    """A test's user, for whom the broker refuses nothing."""


ROLES: Final[Mapping[Account, tuple[Role, ...]]] = {
    Account.REGION: tuple(role for role in Role if role is not Role.VISITOR),
    Account.CONTROL: (Role.CORE, Role.GATEWAY),
}
"""The roles with a user in each account. Only components that hold keys need CONTROL."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Allowed and denied subjects. An empty ``allow`` allows all but the denied ones."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that a user may publish and subscribe to.

    ``responses`` is the maximum number of replies to one request that the user received.
    """

    publish: Rule = Rule()
    subscribe: Rule = Rule()
    responses: int = 0


@dataclass(frozen=True, slots=True)
class Login:
    """One user of a region's broker. Without ``permissions`` it may use the whole account."""

    role: Role
    account: Account
    password: str = field(repr=False)
    permissions: Permissions | None = None

    @property
    def user(self) -> str:
        """The user's name, unique across the broker's accounts."""
        return login_name(self.role, self.account)


@dataclass(frozen=True, slots=True)
class LeafLogin:
    """A region's user on the backbone."""

    region: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """The backbone: it connects the regions' CONTROL accounts, and stores nothing.

    It listens on ``host``. If that is a wildcard, clients use ``reached_as``. The server requires
    a client ``port``; no user may use it. ``monitor_port`` of ``None`` disables HTTP monitoring.
    """

    host: str
    port: int
    leaf_port: int
    leaves: tuple[LeafLogin, ...]
    ports_dir: PurePath | None = None
    monitor_port: int | None = None
    reached_as: str = ""
    name: str = "backbone"

    @property
    def url(self) -> str:
        """Where leaf nodes connect, without a password."""
        return f"nats-leaf://{self.reached_as or self.host}:{self.leaf_port}"


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """A node's place in its region's cluster. ``routes`` are the other nodes, without passwords.

    ``advertise`` is the address that the node sends to the others; empty: where it listens.
    """

    port: int
    routes: tuple[str, ...]
    password: str = field(repr=False)
    advertise: str = ""


@dataclass(frozen=True, slots=True)
class RegionSpec:
    """One region's broker, or one node of it. ``leaf_url`` is the backbone's, without a password.

    In a cluster this is the first node, and ``others`` are the other nodes.
    """

    name: str
    host: str
    port: int
    store_dir: PurePath
    leaf_url: str
    leaf: LeafLogin
    users: tuple[Login, ...]
    ports_dir: PurePath | None = None
    monitor_port: int | None = None
    reached_as: str = ""
    server: str = ""
    """The server's name; empty: the region's name."""
    cluster: ClusterSpec | None = None
    others: tuple[RegionSpec, ...] = ()

    @property
    def server_name(self) -> str:
        """The name of the server, its files and its process."""
        return self.server or self.name

    @property
    def nodes(self) -> tuple[RegionSpec, ...]:
        """Every server of the region."""
        return (self, *self.others)

    @property
    def url(self) -> str:
        """Where clients connect, without a password."""
        return f"nats://{self.reached_as or self.host}:{self.port}"

    def login(self, role: Role, account: Account) -> Login:
        """Return the user of a role in an account. Raises ``DevError`` if there is none."""
        for login in self.users:
            if (login.role, login.account) == (role, account):
                return login
        raise DevError(f"region {self.name} has no user {login_name(role, account)}")


def login_name(role: Role, account: Account) -> str:
    """Return the user name of a role: ``core`` in REGION, ``core-control`` in CONTROL."""
    return role.value if account is Account.REGION else f"{role}-{account.lower()}"


def region_name(name: str) -> str:
    """Return ``name`` if a region can have it; raises ``ImpossibleShapeError`` otherwise."""
    if not is_name(name) or name in _RESERVED:
        raise ImpossibleShapeError(
            f"no region can be called {name}: a name has 1 to 63 characters of a-z, 0-9 and -, "
            f"and is not one of {', '.join(sorted(_RESERVED))}"
        )
    return name
