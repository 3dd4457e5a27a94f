"""The configuration files of the backbone and of the regions' brokers.

``kcm_broker.server_configuration`` makes the texts, for a development system as for any other one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from kcm_broker import server_configuration as configuration
from kcm_broker.roles import Account
from kcm_broker.server_configuration import Cluster, Link, Listening, Streams, Tls
from kcm_deployment.broker_files import BACKBONE, Brokers

from kcm_devsystem.brokers import LOOPBACK, STORE_BYTES_MAX, BackboneSpec, ClusterSpec, RegionSpec

CONNECTIONS_MAX: Final = 1024
"""Client connections per development broker."""
MEMORY_BYTES_MAX: Final = 64 << 20
"""Bytes of streams in memory per development region. All our streams are on disk."""


@dataclass(frozen=True, slots=True)
class ServerPaths:
    """Where a server finds its files. ``link_tls`` and ``link`` are for a region's link."""

    tls: Tls
    links_ca: PurePath
    """The authority of the regions' links, which a backbone trusts."""
    accounts: PurePath
    """The directory of the accounts that were pushed to it."""
    link_tls: Tls | None = None
    link: PurePath | None = None


def render_backbone(spec: BackboneSpec, brokers: Brokers, paths: ServerPaths) -> str:
    """Return a backbone's configuration."""
    return configuration.backbone_text(
        configuration.BackboneNode(
            _listening(spec, spec.name),
            paths.tls,
            brokers.trust(BACKBONE, paths.accounts),
            spec.host,
            spec.leaf_port,
            paths.links_ca,
        )
    )


def render_region(spec: RegionSpec, brokers: Brokers, paths: ServerPaths) -> str:
    """Return the configuration of a region's server."""
    assert paths.link_tls is not None
    assert paths.link is not None
    control = brokers.realm(spec.name).public(Account.CONTROL)
    own = spec.cluster
    return configuration.region_text(
        configuration.RegionNode(
            spec.name,
            _listening(spec, spec.server_name),
            paths.tls,
            brokers.trust(spec.name, paths.accounts),
            Streams(spec.store_dir, STORE_BYTES_MAX, MEMORY_BYTES_MAX),
            Link((spec.leaf_url,), control, paths.link, paths.link_tls),
            None if own is None else _cluster(own),
        )
    )


def _cluster(own: ClusterSpec) -> Cluster:
    return Cluster(own.port, tuple(f"tls://{place}" for place in own.routes), own.advertise)


def _listening(spec: BackboneSpec | RegionSpec, name: str) -> Listening:
    monitor = "" if spec.monitor_port is None else f"{LOOPBACK}:{spec.monitor_port}"
    return Listening(name, spec.host, spec.port, CONNECTIONS_MAX, spec.ports_dir, monitor)
