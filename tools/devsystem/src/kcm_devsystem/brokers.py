"""Specifications of the backbone and of the regions' brokers, and their theory.

Each region has a separate broker with its own JetStream domain and three accounts. ``region`` has
requests, the control stream, registry and audit, and ``vault`` has the wrapped keys; neither has a
link to another region. ``control`` is linked to a small backbone that has no JetStream and no
clients. The link is a leaf node connection bound to ``control`` alone, so a mistake of a component
cannot send a request, a key or a payload out of a region.

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

from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from kcm_deployment.deployment import RESERVED
from kcm_schemas.names import is_name

from kcm_devsystem.errors import ImpossibleShapeError

LOOPBACK: Final = "127.0.0.1"
"""Where development brokers listen."""
STORE_BYTES_MAX: Final = 1 << 30
"""Bytes of streams on disk per development region."""


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """The backbone: it connects the regions' CONTROL accounts, and stores nothing.

    It listens on ``host``. If that is a wildcard, clients use ``reached_as``. The server requires
    a client ``port``; no user may use it. ``monitor_port`` of ``None`` disables HTTP monitoring.
    """

    host: str
    port: int
    leaf_port: int
    ports_dir: PurePath | None = None
    monitor_port: int | None = None
    reached_as: str = ""
    name: str = "backbone"

    @property
    def url(self) -> str:
        """Where leaf nodes connect."""
        return f"tls://{self.reached_as or self.host}:{self.leaf_port}"


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """A node's place in its region's cluster. ``routes`` are the other nodes.

    ``advertise`` is the address that the node sends to the others; empty: where it listens.
    """

    port: int
    routes: tuple[str, ...]
    advertise: str = ""


@dataclass(frozen=True, slots=True)
class RegionSpec:
    """One region's broker, or one node of it. ``leaf_url`` is the backbone's.

    In a cluster this is the first node, and ``others`` are the other nodes.
    """

    name: str
    host: str
    port: int
    store_dir: PurePath
    leaf_url: str
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
        """Where clients connect."""
        return f"tls://{self.reached_as or self.host}:{self.port}"


def region_name(name: str) -> str:
    """Return ``name`` if a region can have it; raises ``ImpossibleShapeError`` otherwise."""
    if not is_name(name) or name in RESERVED:
        raise ImpossibleShapeError(
            f"no region can be called {name}: a name has 1 to 63 characters of a-z, 0-9 and -, "
            f"and is not one of {', '.join(sorted(RESERVED))}"
        )
    return name
