"""The bundles of a deployment's servers: their configurations and certificates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

from kcm_broker import server_configuration as configuration
from kcm_broker.roles import Account
from kcm_broker.server_configuration import Cluster, Link, Listening, Streams, Tls
from kcm_runtime.files.private_files import copy_files, write_private

from kcm_deployment.broker_files import BACKBONE, LINKS, Brokers
from kcm_deployment.deployment import Deployment, RegionPlan, Server
from kcm_deployment.layouts import CLIENT_PORT, CLUSTER_PORT, LEAF_PORT, SERVER_CONFIG, Layout


@dataclass(frozen=True, slots=True)
class ServerBundles:
    """The bundles of the servers of the backbone and of all regions, below ``directory``."""

    directory: Path
    deployment: Deployment
    layout: Layout
    brokers: Brokers

    def write(self) -> None:
        """Write every bundle; certificates are made if they are missing or end soon."""
        for server in self.deployment.backbone:
            self._write_backbone(server)
        for region in self.deployment.regions:
            for server in region.servers:
                self._write_server(region, server)

    def _write_backbone(self, server: Server) -> None:
        place = self.layout.server
        own = self.brokers.tls(BACKBONE, server.name, [server.host])
        target = self.directory / self.layout.server_bundle("", server)
        node = configuration.BackboneNode(
            # The server needs a port for clients, and no client may use it.
            Listening(server.name, "127.0.0.1", CLIENT_PORT, monitor=place.monitor),
            _tls(place.config, "server", "ca.pem"),
            self.brokers.trust(BACKBONE, place.accounts),
            place.host,
            LEAF_PORT,
            place.config / "links-ca.pem",
            _cluster(self.deployment.backbone, server),
        )
        links = {"links-ca.pem": self.brokers.certificates(LINKS).ca}
        copy_files(target, _certificate(own, "server", "ca.pem") | links)
        write_private(target / SERVER_CONFIG, configuration.backbone_text(node))

    def _write_server(self, region: RegionPlan, server: Server) -> None:
        place, addresses = self.layout.server, [server.host]
        own = self.brokers.tls(region.name, server.name, addresses)
        seen = "clients" if region.ca else "server"
        link = self.brokers.link_tls(server.name, addresses)
        target = self.directory / self.layout.server_bundle(region.name, server)
        control = self.brokers.realm(region.name).public(Account.CONTROL)
        backbone = tuple(f"tls://{one.host}:{LEAF_PORT}" for one in self.deployment.backbone)
        node = configuration.RegionNode(
            region.name,
            Listening(server.name, place.host, CLIENT_PORT, monitor=place.monitor),
            _tls(place.config, seen, f"{seen}-ca.pem" if region.ca else "ca.pem"),
            self.brokers.trust(region.name, place.accounts),
            Streams(place.streams, place.store_bytes, place.memory_bytes),
            Link(
                backbone,
                control,
                place.config / "link.creds",
                _tls(place.config, "link", "link-ca.pem"),
            ),
            _cluster(region.servers, server),
            _tls(place.config, "server", "ca.pem"),
        )
        sources = {"link.creds": self.brokers.link_file(region.name)}
        sources |= _certificate(own, "server", "ca.pem") | _certificate(link, "link", "link-ca.pem")
        if region.ca:
            sources["clients-ca.pem"] = region.ca
        copy_files(target, sources)
        write_private(target / SERVER_CONFIG, configuration.region_text(node))


def _cluster(servers: tuple[Server, ...], own: Server) -> Cluster | None:
    others = tuple(f"tls://{one.host}:{CLUSTER_PORT}" for one in servers if one != own)
    return Cluster(CLUSTER_PORT, others) if others else None


def _tls(place: PurePath, name: str, ca: str) -> Tls:
    return Tls(place / f"{name}.pem", place / f"{name}.key", place / ca)


def _certificate(made: Tls, name: str, ca: str) -> dict[str, Path]:
    files = (made.certificate, made.key, made.ca)
    return dict(zip((f"{name}.pem", f"{name}.key", ca), map(Path, files), strict=True))
