"""The files of ``compose.yaml``: a deployment of two regions, in the places of containers.

``setup`` mounts the volumes of all containers below one directory, and writes their bundles there
(``kcm_deployment.bundles``). ``authority/`` has the originals, and only setup mounts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from kcm_deployment.bundles import AUTHORITY, write_bundles
from kcm_deployment.deployment import Deployment, RegionPlan, Server
from kcm_deployment.layouts import Layout, Place, ServerPlace
from kcm_deployment.members import Member
from kcm_schemas.roster import Role

from kcm_devsystem import state
from kcm_devsystem.brokers import STORE_BYTES_MAX, region_name
from kcm_devsystem.identities import APP, OPERATOR, OPERATORS, SYSTEM

REGIONS: Final = ("eu-de", "us-east")
"""The regions of ``compose.yaml``."""
INSTANCES: Final = ("core-1", "core-2", "gateway-1", "auditor-1")
"""The instances in each region."""
CONFIG_DIR: Final = PurePosixPath("/etc/kcm")
"""A container's configuration volume, mounted read-only."""
STATE_DIR: Final = PurePosixPath("/var/lib/kcm")
"""The state directory of an instance."""
KEY_STORE: Final = PurePosixPath("/var/lib/kcm-keys")
"""The second store, which a region's Cores share."""
READY_FILE: Final = PurePosixPath("/run/kcm/ready")
"""The file for an instance's health check."""
STREAMS: Final = PurePosixPath("/data")
"""The streams of a region's broker, and the accounts that were pushed to it."""
MONITOR: Final = "127.0.0.1:8222"
"""Where a broker answers its health check, inside its container only."""
CUSTOMER: Final = PurePosixPath("/customer")
"""The customer's root key if it is a file; Cores mount it read-only."""
HSM: Final = PurePosixPath("/run/kcm-softhsm")
"""The directory that SoftHSM's container shares with the Cores: its socket and the user PIN."""
HSM_SOCKET: Final = HSM / "pkcs11"
"""The socket of that container's token (``p11-kit server``)."""
HSM_MODULE: Final = PurePosixPath("/usr/lib/kcm/hsm.so")
"""The module in a Core's image that forwards calls to the socket (``p11-kit-client.so``)."""

_ENVIRONMENT: Final = {
    "P11_KIT_SERVER_ADDRESS": f"unix:path={HSM_SOCKET}",
    "KCM_L1_MODULES": str(HSM_MODULE),
}
"""The environment of a Core's unsealer, for an image with the module."""

_PLACE: Final = Place(
    secrets=CONFIG_DIR,
    public=CONFIG_DIR,
    state_dir=STATE_DIR / "state",
    ready_file=READY_FILE,
    key_store=KEY_STORE,
    journal=STATE_DIR / "journal",
)

LAYOUT: Final = Layout(
    instance_bundle=lambda one: f"{one.region}/{one.role.value}-{one.number}",
    server_bundle=lambda region, _: f"{region}/broker" if region else "backbone",
    place=lambda _: _PLACE,
    server=ServerPlace(
        config=CONFIG_DIR,
        streams=STREAMS,
        accounts=STREAMS / "accounts",
        monitor=MONITOR,
        store_bytes=STORE_BYTES_MAX,
        memory_bytes=64 << 20,
    ),
    provision=CONFIG_DIR,
    operator_bundle=lambda name: "operator" if name == OPERATOR else f"authority/{name}",
    push=False,
)
"""The directories of ``compose.yaml``. The second operator has no container: its files stay with
the authority."""


def member(region: str, container: str) -> Member:
    """Return the instance of a container: ``core-2`` of ``eu-de`` is ``core-eu-de-2``."""
    role, _, number = container.rpartition("-")
    return Member(Role(role), region, int(number))


def deployment(regions: Sequence[str] = REGIONS) -> Deployment:
    """Return the deployment of ``compose.yaml``; raises ``DevError`` for a region's bad name."""
    return Deployment(
        SYSTEM,
        tuple(
            RegionPlan(
                region_name(name),
                (Server(name, f"nats-{name}"),),
                tuple(member(name, one) for one in INSTANCES),
            )
            for name in regions
        ),
        (Server("backbone", "backbone"),),
        OPERATORS,
        (APP,),
        development=True,
    )


def write_compose(directory: Path, now_ms: int, regions: Sequence[str] = REGIONS) -> bytes:
    """Write every container's files below ``directory`` and return the root's public key.

    ``now_ms``, in milliseconds of Unix time, is the date of a new roster. Raises ``DevError`` if
    another setup runs, and ``DeploymentError`` as ``write_bundles`` does.
    """
    wanted, authority = deployment(regions), directory / AUTHORITY
    authority.mkdir(mode=0o700, parents=True, exist_ok=True)
    with state.exclusive(authority):
        return write_bundles(directory, wanted, LAYOUT, now_ms, _ENVIRONMENT)
