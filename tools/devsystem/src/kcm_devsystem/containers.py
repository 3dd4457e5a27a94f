"""The brokers of ``compose.yaml``: the same configurations, with the addresses of containers.

``setup`` mounts the configuration volumes of all containers below one directory. This module writes
``backbone/nats.conf`` and ``<region>/broker/nats.conf`` there. Passwords are stored below
``authority/``, which only setup mounts. ``layouts`` copies to each instance those that it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from kcm_devsystem import broker_config, topology
from kcm_devsystem.files import write_private
from kcm_devsystem.topology import Place, Topology

REGIONS: Final = ("eu-de", "us-east")
"""The regions of ``compose.yaml``."""
INSTANCES: Final = ("core-1", "core-2", "gateway-1", "auditor-1")
"""The instances in each region."""
AUTHORITY: Final = "authority"
"""The directory of the originals, the operator root included, which only setup sees."""
OPERATOR: Final = "operator"
"""The directory that the command line mounts."""
PROVISION: Final = "provision"
"""The directory of the job that creates a region's streams."""
ANY: Final = "0.0.0.0"  # noqa: S104 - a container listens on its own networks only
"""The address on which a container's broker listens."""
CLIENT_PORT: Final = 4222
"""The port for a broker's clients."""
LEAF_PORT: Final = 7422
"""The backbone's port for leaf nodes."""
CONFIG_DIR: Final = PurePosixPath("/etc/kcm")
"""A container's configuration volume, mounted read-only."""
STATE_DIR: Final = PurePosixPath("/var/lib/kcm")
"""The state directory of an instance."""
KEY_STORE: Final = PurePosixPath("/var/lib/kcm-keys")
"""The second store, which a region's Cores share."""
READY_FILE: Final = PurePosixPath("/run/kcm/ready")
"""The file for an instance's health check."""
STREAMS: Final = PurePosixPath("/data")
"""The streams of a region's broker."""
CUSTOMER: Final = PurePosixPath("/customer")
"""The customer's root key if it is a file; Cores mount it read-only."""
HSM: Final = PurePosixPath("/run/kcm-softhsm")
"""The directory that SoftHSM's container shares with the Cores: its socket and the user PIN."""
HSM_SOCKET: Final = HSM / "pkcs11"
"""The socket of that container's token (``p11-kit server``)."""
HSM_MODULE: Final = PurePosixPath("/usr/lib/kcm/hsm.so")
"""The module in a Core's image that forwards calls to the socket (``p11-kit-client.so``)."""


def broker_host(region: str) -> str:
    """Return the container of a region's broker, or of the backbone for an empty name."""
    return f"nats-{region}" if region else "backbone"


def instance_dir(root: Path, region: str, instance: str) -> Path:
    """Return the directory in which setup sees the configuration volume of an instance."""
    return root / region / instance


def write_brokers(
    root: Path,
    regions: Sequence[str] = REGIONS,
) -> Topology:
    """Write the brokers' configurations below ``root`` and return their specifications.

    Existing passwords are kept. Raises ``DevError`` for a region's bad name.
    """
    plan = topology.plan(root / AUTHORITY, regions, place=_place)
    write_private(root / "backbone" / "nats.conf", broker_config.render_backbone(plan.backbone))
    for spec in plan.regions:
        write_private(root / spec.name / "broker" / "nats.conf", broker_config.render_region(spec))
    return plan


def _place(region: str) -> Place:
    return Place(
        host=ANY,
        port=CLIENT_PORT,
        leaf_port=LEAF_PORT,
        store_dir=STREAMS,
        ports_dir=None,
        reached_as=broker_host(region),
    )
