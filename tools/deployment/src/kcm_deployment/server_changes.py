"""What a plan changes about servers that were made before.

A server's name is its broker and its place in the list, and its streams' replicas are known by that
name. So a list may grow at its end, and a server may move to another machine. A list in another
order would exchange servers' names, and one without a server would leave replicas behind: both are
refused. The certificates among the originals say which servers there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kcm_broker.certificate_files import addresses_of

from kcm_deployment.broker_files import BACKBONE
from kcm_deployment.deployment import Deployment, Server
from kcm_deployment.errors import DeploymentError


def moved_servers(authority: Path, deployment: Deployment) -> list[str]:
    """Return what the plan changes about servers that exist: one text for each that moves.

    Raises ``DeploymentError`` for servers that are left out or in another order.
    """
    brokers = {BACKBONE: deployment.backbone}
    brokers |= {region.name: region.servers for region in deployment.regions}
    told = []
    for broker, servers in brokers.items():
        directory = authority / "certificates" / broker
        before = _made(directory)
        _check_order(before, servers)
        _check_all(directory, before, servers)
        told += [
            f"{server.name} moves from {before[server.name]} to {server.host}: stop the old server"
            " before the new one starts"
            for server in servers
            if before.get(server.name, server.host) != server.host
        ]
    return told


def _check_order(before: Mapping[str, str], servers: tuple[Server, ...]) -> None:
    names = {host: name for name, host in before.items()}
    for server in servers:
        known = names.get(server.host, server.name)
        if known != server.name:
            raise DeploymentError(
                f"{server.host} is the server {known}, and the plan has it as {server.name}",
                hint="keep the order of the servers in the plan, and add new ones at the end",
            )


def _check_all(directory: Path, before: Mapping[str, str], servers: tuple[Server, ...]) -> None:
    left = [name for name in before if name not in {server.name for server in servers}]
    for name in left:
        raise DeploymentError(
            f"the server {name} at {before[name]} is not in the plan",
            hint="put it back; or, when it has left its cluster (docs/deployment.md), remove"
            f" {directory / name}.pem and {name}.key, and give the command again",
        )


def _made(directory: Path) -> dict[str, str]:
    """Return the servers that have a certificate, and the host of each."""
    found = {}
    for path in sorted(directory.glob("*.pem")):
        if path.stem != "ca":
            addresses = addresses_of(path.read_bytes())
            if addresses:
                found[path.stem] = addresses[0]
    return found
