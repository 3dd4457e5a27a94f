"""The brokers of ``compose.yaml``: the same configurations, at the places that containers have.

``setup`` mounts every container's configuration volume below one directory, and this writes into
it: ``backbone/nats.conf``, ``<region>/broker/nats.conf``. Passwords are kept below ``authority/``,
which nothing else mounts; ``layouts`` copies to each instance the ones it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from kcm_devsystem import brokers, topology
from kcm_devsystem.files import write_private
from kcm_devsystem.topology import PermissionsOf, Place, Topology, whole_account

REGIONS: Final = ("eu-de", "us-east")
"""The regions that ``compose.yaml`` has."""
INSTANCES: Final = ("core-1", "core-2", "gateway-1", "auditor-1")
"""The services that it has in each of them."""
AUTHORITY: Final = "authority"
"""Where setup, and nobody else, keeps what everything is copied from; the operator root, too."""
OPERATOR: Final = "operator"
"""What the command line mounts."""
PROVISION: Final = "provision"
"""What the job mounts that makes a region's streams."""
ANY: Final = "0.0.0.0"  # noqa: S104 - a container's own networks are what it listens on
"""Where a container's broker listens."""
CLIENT_PORT: Final = 4222
"""Where a broker's clients connect."""
LEAF_PORT: Final = 7422
"""Where the backbone's leaf nodes connect."""
CONFIG_DIR: Final = PurePosixPath("/etc/kcm")
"""Where a container sees its configuration volume, read-only."""
STATE_DIR: Final = PurePosixPath("/var/lib/kcm")
"""Where a service keeps what it must remember."""
KEY_STORE: Final = PurePosixPath("/var/lib/kcm-keys")
"""Where a region's Cores share the second store of wrapped keys."""
READY_FILE: Final = PurePosixPath("/run/kcm/ready")
"""What a service's health check looks for."""
STREAMS: Final = PurePosixPath("/data")
"""Where a region's broker keeps its streams."""
CUSTOMER: Final = PurePosixPath("/customer")
"""Where the customer's root key lies when it is a file; Cores see it read-only."""
HSM: Final = PurePosixPath("/run/kcm-softhsm")
"""What the container of SoftHSM shares with the Cores: its socket and the user PIN."""
HSM_SOCKET: Final = HSM / "pkcs11"
"""Where that container serves its token (``p11-kit server``)."""
HSM_MODULE: Final = PurePosixPath("/usr/lib/kcm/hsm.so")
"""The module in a Core's image that passes calls on to the socket (``p11-kit-client.so``)."""


def broker_host(region: str) -> str:
    """Name the container of a region's broker; the backbone's for an empty name."""
    return f"nats-{region}" if region else "backbone"


def instance_dir(root: Path, region: str, instance: str) -> Path:
    """Name the directory in which setup sees the configuration volume of an instance."""
    return root / region / instance


def write_brokers(
    root: Path,
    regions: Sequence[str] = REGIONS,
    permissions: PermissionsOf = whole_account,
) -> Topology:
    """Write the brokers' configurations below ``root`` and return what they are.

    Done again, it keeps the passwords. Raises ``DevError`` for a region's bad name.
    """
    plan = topology.plan(root / AUTHORITY, regions, permissions, place=_place)
    write_private(root / "backbone" / "nats.conf", brokers.render_backbone(plan.backbone))
    for spec in plan.regions:
        write_private(root / spec.name / "broker" / "nats.conf", brokers.render_region(spec))
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
