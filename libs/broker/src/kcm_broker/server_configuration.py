"""The configuration of the servers of a region and of the backbone, in operator mode.

Everything here is pure: specifications in, text out. The text is JSON, which the server reads, so
the quoting is standard. It holds no secrets: users are in no file of a server, and a server's key
and the credentials of the link are named by their paths.

``handshake_first`` keeps a man in the middle from removing TLS: neither side sends anything before
the handshake. A node that missed a revocation asks the others every ``RESOLVER_INTERVAL``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Final

from kcm_runtime.nats.nkeys import KeyKind, decode_public
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import is_name, is_region

RESOLVER_INTERVAL: Final = "2s"
"""How often a node compares its accounts with those of the other nodes. The default is two minutes,
for which a node that was down would accept a revoked user."""

CONTROL_LINE_MAX: Final = 64 << 10
"""Bytes of the line with which a client connects: it has the user's token."""

LINK_RETRY: Final = "1s"
"""Interval of a region's attempts to reach the backbone. A kill waits for this link."""

PAYLOAD_MAX: Final = 1 << 20
"""Bytes in a message. Our messages have 900 KiB at most, headers included."""

PING: Final = "5s"
"""The server detects a dead peer or link after two of these intervals."""

LEAF_VERSION_MIN: Final = "2.12.7"
"""The oldest server that a backbone accepts as a leaf node."""

RESOLVER_MODE: Final = 0o700
"""Mode of the resolver's directory, which the installation creates before the first start."""


@dataclass(frozen=True, slots=True)
class Tls:
    """A server's certificate, its key and its CA. ``verify``: clients need a certificate, too."""

    certificate: PurePath
    key: PurePath
    ca: PurePath
    verify: bool = False


@dataclass(frozen=True, slots=True)
class Trust:
    """The broker operator whose accounts a server accepts.

    ``preload`` has account tokens by public key, the system account's among them; a newer one in
    ``directory`` wins.
    """

    operator_token: str
    system_account: str
    preload: Mapping[str, str]
    directory: PurePath


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server listens for clients. ``ports_dir`` gets a file with its actual ports."""

    name: str
    host: str
    port: int
    connections_max: int = 4096
    ports_dir: PurePath | None = None
    monitor: str = ""
    """Where the server answers questions of monitoring over HTTP; empty: nowhere."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A node's place in its cluster; routes are ``tls://HOST:PORT``, authorized by certificate."""

    port: int
    routes: tuple[str, ...]
    advertise: str = ""
    """The address that the node sends to the others; empty: where it listens."""


@dataclass(frozen=True, slots=True)
class Streams:
    """Where a region's node stores its streams, and how many bytes of them."""

    directory: PurePath
    file_bytes: int = 64 << 30
    memory_bytes: int = 256 << 20


@dataclass(frozen=True, slots=True)
class Link:
    """A region's link to the backbone: only the account ``account`` (public key) uses it.

    ``tls`` has a certificate of the authority of links, and as ``ca`` that of the backbone.
    """

    urls: tuple[str, ...]
    account: str
    credentials: PurePath
    tls: Tls


@dataclass(frozen=True, slots=True)
class RegionNode:
    """One server of a region."""

    region: str
    listening: Listening
    tls: Tls
    trust: Trust
    streams: Streams
    link: Link | None = None
    cluster: Cluster | None = None
    cluster_tls: Tls | None = None
    """The certificate for the other nodes, if clients see one of an authority that is not ours."""


@dataclass(frozen=True, slots=True)
class BackboneNode:
    """One server of the backbone: it joins the regions' accounts, and stores nothing."""

    listening: Listening
    tls: Tls
    trust: Trust
    leaf_host: str
    leaf_port: int
    links_ca: PurePath
    """The authority of the regions' certificates, which is not that of the backbone's servers: with
    one for both, a region's server could join the cluster of the backbone."""
    cluster: Cluster | None = None
    name: str = field(default="backbone")


def region_text(node: RegionNode) -> str:
    """Return the configuration of a region's server; raises ``malformed``."""
    if not is_region(node.region):
        raise KcmError(Code.MALFORMED, "a region needs a name that is not reserved")
    settings = _common(node.listening, node.tls, node.trust) | _cluster(
        node.region, node.listening.host, node.cluster_tls or node.tls, node.cluster
    )
    settings["jetstream"] = {
        "domain": node.region,
        "store_dir": str(node.streams.directory),
        # By default the server acknowledges a message up to two minutes before its fsync.
        "sync_interval": "always",
        "max_memory_store": node.streams.memory_bytes,
        "max_file_store": node.streams.file_bytes,
    }
    if node.link is not None:
        decode_public(node.link.account, KeyKind.ACCOUNT)
        remote = {
            "urls": list(node.link.urls),
            "account": node.link.account,
            "credentials": str(node.link.credentials),
            "tls": _tls(node.link.tls) | {"handshake_first": True},
        }
        settings["leafnodes"] = {"reconnect": LINK_RETRY, "remotes": [remote]}
    return _text(settings)


def backbone_text(node: BackboneNode) -> str:
    """Return the configuration of a server of the backbone; raises ``malformed``."""
    # No client uses it, but the other servers do.
    settings = _common(node.listening, node.tls, node.trust) | _cluster(
        node.name, node.leaf_host, node.tls, node.cluster
    )
    settings["leafnodes"] = {
        "host": node.leaf_host,
        "port": node.leaf_port,
        "min_version": LEAF_VERSION_MIN,
        # The regions are configured with its address. It advertises no other one.
        "no_advertise": True,
        "tls": _tls(replace(node.tls, ca=node.links_ca))
        | {"verify": True, "handshake_first": True},
    }
    return _text(settings)


def _common(listening: Listening, tls: Tls, trust: Trust) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "server_name": _name(listening.name),
        "host": listening.host,
        "port": listening.port,
        "max_payload": PAYLOAD_MAX,
        "max_control_line": CONTROL_LINE_MAX,
        "max_connections": listening.connections_max,
        "ping_interval": PING,
        "ping_max": 2,
        "tls": _tls(tls) | {"handshake_first": True, "verify": tls.verify},
        **_trusted(trust),
    }
    if listening.ports_dir is not None:
        settings["ports_file_dir"] = str(listening.ports_dir)
    if listening.monitor:
        settings["http"] = listening.monitor
    return settings


def _trusted(trust: Trust) -> dict[str, Any]:
    for account in (trust.system_account, *trust.preload):
        decode_public(account, KeyKind.ACCOUNT)
    if trust.system_account not in trust.preload:
        raise KcmError(Code.MALFORMED, "the system account is not among the accounts")
    return {
        "operator": trust.operator_token,
        "system_account": trust.system_account,
        "resolver": {
            "type": "full",
            "dir": str(trust.directory),
            "allow_delete": False,
            "interval": RESOLVER_INTERVAL,
        },
        "resolver_preload": dict(trust.preload),
    }


def _tls(tls: Tls) -> dict[str, Any]:
    return {
        "cert_file": str(tls.certificate),
        "key_file": str(tls.key),
        "ca_file": str(tls.ca),
        "min_version": "1.3",
    }


def _cluster(name: str, host: str, tls: Tls, cluster: Cluster | None) -> dict[str, Any]:
    """Return a node's routes to the others; nothing for a single server.

    A node lets every server in that has a certificate of its authority: each region has its own.
    """
    if cluster is None:
        return {}
    settings: dict[str, Any] = {
        "name": name,
        "host": host,
        "port": cluster.port,
        "routes": list(cluster.routes),
        "tls": _tls(tls) | {"verify": True},
        # One connection per pair, so that a cut affects all accounts.
        "pool_size": -1,
    }
    return {"cluster": settings | ({"advertise": cluster.advertise} if cluster.advertise else {})}


def _name(name: str) -> str:
    if not is_name(name):
        raise KcmError(Code.MALFORMED, "a name needs 1 to 63 characters of a-z, 0-9 and -")
    return name


def _text(settings: dict[str, Any]) -> str:
    """Return JSON; refuse text that the server's parser and JSON read differently."""
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    if "\\" in text or not text.replace("\n", "").isprintable():
        raise KcmError(
            Code.MALFORMED,
            "a broker's configuration cannot hold quotes, backslashes or control codes",
        )
    return text + "\n"
