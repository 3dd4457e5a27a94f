"""What a backbone and a region's broker are configured to be.

Theory. A region is a broker of its own with its own JetStream domain and two accounts:
``REGION`` (requests, keys, control stream, audit), which no link carries, and ``CONTROL``, from
which each region is linked to a small backbone that has no JetStream and no clients. The link is
a leaf node connection bound to ``CONTROL`` alone, so a request, a key or a payload cannot leave
a region by a service's mistake.

On the backbone every region has an account of its own, and the accounts share two things: each
exports, as a stream, what bears its region's name (holds, receipts, shreds) and, as a service,
the pulls that ask it; each imports those of the others. All else ends in the account where it
came in. A region therefore cannot speak in another's name, answer or swallow another's pulls, or
read the replies to them, whatever its broker is rewritten to send.

Why no shared account with permissions: a *deny* on what a region may receive is enforced on both
ends of the link, also against what it may send (seen with server 2.15.1). One region that is
denied another's pulls could then not pull from it, as soon as anybody anywhere subscribed to
more than one subject.

Everything here is pure: specifications in, text out. The text is JSON, which the server reads;
quoting is then nobody's invention. It holds passwords, so whoever writes it uses mode 0600.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import quote

from kcm_schemas import subjects
from kcm_schemas.names import is_name

from kcm_devsystem.errors import DevError, ImpossibleShapeError

LOOPBACK: Final = "127.0.0.1"
"""Where development brokers listen."""
LINK_RETRY: Final = "1s"
"""How often a region tries to reach the backbone: a kill waits for this link."""
PAYLOAD_MAX: Final = 1 << 20
"""Bytes in a message. Ours stop at 900 KiB, headers included."""
PING: Final = "5s"
"""A dead peer, or a link that carries nothing any more, is noticed after two of these."""
CONNECTIONS_MAX: Final = 1024
"""Client connections per development broker."""
STORE_BYTES_MAX: Final = 1 << 30
"""Bytes of streams on disk per development region."""
MEMORY_BYTES_MAX: Final = 64 << 20
"""Bytes of streams in memory per development region; ours are all on disk."""
LEAF_VERSION_MIN: Final = "2.12.7"
"""A backbone lets no older server in."""

_RESERVED: Final = frozenset({"ctl", "backbone"})
"""Names that a region cannot have: a token of the subjects, and the backbone's own name."""


class Account(StrEnum):
    """The two accounts of a region's broker."""

    REGION = "REGION"
    CONTROL = "CONTROL"


class Role(StrEnum):
    """Who connects to a region's broker."""

    CORE = "core"
    GATEWAY = "gateway"
    AUDITOR = "auditor"
    APP = "app"
    OPERATOR = "operator"


ROLES: Final[Mapping[Account, tuple[Role, ...]]] = {
    Account.REGION: tuple(Role),
    Account.CONTROL: (Role.CORE, Role.GATEWAY),
}
"""Which role has a user in which account. Who holds no key has no business in CONTROL."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Subjects allowed and denied. No ``allow`` means all but the denied ones."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a user may publish and subscribe to; ``responses`` bounds replies to requests it got."""

    publish: Rule = Rule()
    subscribe: Rule = Rule()
    responses: int = 0


@dataclass(frozen=True, slots=True)
class Login:
    """One user of a region's broker. ``permissions`` of none means the whole account."""

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
    """A region's own user on the backbone."""

    region: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """The backbone: it joins the regions' CONTROL accounts, and stores and serves nothing.

    It listens on ``host`` and is ``reached_as`` something else where that is a wildcard.
    ``port`` is one that the server insists on; no user may use it. ``monitor_port`` of none
    means that there is no HTTP monitoring.
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

    ``advertise`` is what the node tells others about itself; empty means where it listens.
    """

    port: int
    routes: tuple[str, ...]
    password: str = field(repr=False)
    advertise: str = ""


@dataclass(frozen=True, slots=True)
class RegionSpec:
    """One region's broker, or one node of it. ``leaf_url`` is the backbone's, without a password.

    Of a cluster this is the first node, and ``others`` are the rest of it.
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
    """The server's own name; empty means the region's."""
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
        """Find the user of a role in an account. Raises ``DevError`` when there is none."""
        for login in self.users:
            if (login.role, login.account) == (role, account):
                return login
        raise DevError(f"region {self.name} has no user {login_name(role, account)}")


def login_name(role: Role, account: Account) -> str:
    """Name the user of a role: ``core`` in REGION, ``core-control`` in CONTROL."""
    return role.value if account is Account.REGION else f"{role}-{account.lower()}"


def render_backbone(spec: BackboneSpec) -> str:
    """Write a backbone's configuration. It holds passwords."""
    regions = [region_name(leaf.region) for leaf in spec.leaves]
    if len(set(regions)) != len(regions):
        raise DevError("two regions of a backbone have the same name")
    return _text(
        {
            **_common(spec.name, spec.host, spec.port, spec.ports_dir, spec.monitor_port),
            "accounts": {leaf.region: _region_on_backbone(leaf, regions) for leaf in spec.leaves},
            "leafnodes": {
                "host": spec.host,
                "port": spec.leaf_port,
                "min_version": LEAF_VERSION_MIN,
                # Regions know where it is; what else it calls itself is none of their business.
                "no_advertise": True,
            },
        }
    )


def _region_on_backbone(leaf: LeafLogin, regions: Iterable[str]) -> dict[str, Any]:
    """Say what one region gives to the others and takes from them; nothing else passes."""
    others = [region for region in regions if region != leaf.region]
    return {
        "users": [
            {
                "user": leaf.region,
                "password": leaf.password,
                # Its password opens a link and nothing else: no client can use it.
                "allowed_connection_types": ["LEAFNODE"],
            }
        ],
        "exports": [
            *({"stream": said} for said in spoken_by(leaf.region)),
            # To each other region under its own name: who asks, and asks too much, is known.
            *({"service": subjects.pull(leaf.region, r), "accounts": [r]} for r in others),
        ],
        "imports": [
            *({"stream": {"account": r, "subject": said}} for r in others for said in spoken_by(r)),
            *(
                {"service": {"account": r, "subject": subjects.pull(r, leaf.region)}}
                for r in others
            ),
        ],
    }


def spoken_by(region: str) -> tuple[str, ...]:
    """Return the patterns of what a region, and nobody else, can say to all: it bears its name.

    No instance hears a ``probe``: it is for trying and measuring a link.
    """
    return tuple(f"{subjects.CTL}.{noun}.{region}.>" for noun in ("hold", "receipt", "probe"))


def render_region(spec: RegionSpec) -> str:
    """Write a region's configuration. It holds passwords."""
    region_name(spec.name)
    scheme, _, place = spec.leaf_url.partition("://")
    remote = f"{scheme}://{spec.leaf.region}:{quote(spec.leaf.password, safe='')}@{place}"
    return _text(
        {
            **_common(spec.server_name, spec.host, spec.port, spec.ports_dir, spec.monitor_port),
            **_cluster(spec),
            "jetstream": {
                "domain": spec.name,
                "store_dir": str(spec.store_dir),
                # The default acknowledges first and writes up to two minutes later.
                "sync_interval": "always",
                "max_memory_store": MEMORY_BYTES_MAX,
                "max_file_store": STORE_BYTES_MAX,
            },
            "accounts": {
                Account.REGION: {
                    "jetstream": "enabled",
                    "users": _users(spec.users, Account.REGION),
                },
                Account.CONTROL: {"users": _users(spec.users, Account.CONTROL)},
            },
            "leafnodes": {
                "reconnect": LINK_RETRY,
                "remotes": [{"url": remote, "account": Account.CONTROL}],
            },
        }
    )


def _cluster(spec: RegionSpec) -> dict[str, Any]:
    """A node's routes to the others; nothing for a server that is alone."""
    own = spec.cluster
    if own is None:
        return {}
    user, secret = "route", quote(own.password, safe="")
    settings: dict[str, Any] = {
        "name": spec.name,
        "host": spec.host,
        "port": own.port,
        "authorization": {"user": user, "password": own.password, "timeout": 5},
        "routes": [f"nats-route://{user}:{secret}@{place}" for place in own.routes],
        # One connection per pair: what is cut is cut as a whole.
        "pool_size": -1,
    }
    return {"cluster": settings | ({"advertise": own.advertise} if own.advertise else {})}


def region_name(name: str) -> str:
    """Return ``name`` if a region can be called so; raises ``ImpossibleShapeError`` otherwise."""
    if not is_name(name) or name in _RESERVED:
        raise ImpossibleShapeError(
            f"no region can be called {name}: a name has 1 to 63 characters of a-z, 0-9 and -, "
            f"and is none of {', '.join(sorted(_RESERVED))}"
        )
    return name


def _common(
    name: str, host: str, port: int, ports_dir: PurePath | None, monitor_port: int | None
) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "server_name": name,
        "host": host,
        "port": port,
        "max_payload": PAYLOAD_MAX,
        "max_connections": CONNECTIONS_MAX,
        "ping_interval": PING,
        "ping_max": 2,
    }
    if ports_dir is not None:
        settings["ports_file_dir"] = str(ports_dir)
    if monitor_port is not None:
        settings["http"] = f"{LOOPBACK}:{monitor_port}"
    return settings


def _users(logins: Iterable[Login], account: Account) -> list[dict[str, Any]]:
    return [
        {"user": login.user, "password": login.password}
        | ({} if login.permissions is None else {"permissions": _permissions(login.permissions)})
        for login in logins
        if login.account is account
    ]


def _permissions(permissions: Permissions) -> dict[str, Any]:
    block: dict[str, Any] = {
        "publish": _rule(permissions.publish),
        "subscribe": _rule(permissions.subscribe),
    }
    if permissions.responses:
        block["allow_responses"] = {"max": permissions.responses, "expires": "1m"}
    return {key: value for key, value in block.items() if value}


def _rule(rule: Rule) -> dict[str, list[str]]:
    return {
        key: list(value) for key, value in (("allow", rule.allow), ("deny", rule.deny)) if value
    }


def _text(settings: dict[str, Any]) -> str:
    """Write JSON, refusing what the server's reader and JSON understand differently."""
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    if "\\" in text or not text.replace("\n", "").isprintable():
        raise DevError("a broker's configuration cannot hold quotes, backslashes or control codes")
    return text + "\n"
