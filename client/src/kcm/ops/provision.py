"""Provisioning of a region: its operator creates the streams and buckets once.

Components never create them, because to a component a missing bucket means lost keys. The
configuration names the region, the broker's user for this work, once for the wrapped keys
(``vault_bus``) and once for all else, and, for a cluster, the number of replicas:

    region = "eu-de"
    replicas = 3

    [region_bus]
    url = "tls://nats.eu-de.example:4222"
    ca = "/etc/kcm/broker-ca.pem"
    credentials = "/etc/kcm/region.creds"
    inbox = "_INBOX.provisioner"

    [vault_bus]
    url = "tls://nats.eu-de.example:4222"
    ca = "/etc/kcm/broker-ca.pem"
    credentials = "/etc/kcm/vault.creds"
    inbox = "_INBOX.provisioner"
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Final

from kcm_runtime.config import BusAddress, Section
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.provision import provision_region
from kcm_runtime.nats.stream_protection import Unfit
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import Name
from nats import errors as nats_errors
from pydantic import Field

from kcm._internal.transport import why_not
from kcm.ops.errors import NotProvisionedError, ProvisionError

PROVISION_SECONDS_MAX: Final = 120.0
"""Seconds for a broker to start and a cluster to elect its leader."""
TELL_S: Final = 2.0
"""Seconds after which the reason of the delay is reported."""
RETRY_SECONDS: Final = 0.5
"""Seconds between two attempts while JetStream is not available."""


class ProvisionConfig(Section):
    """The region, its broker, and the number of servers for each stream."""

    region: Name
    region_bus: BusAddress
    vault_bus: BusAddress
    """The account of the bucket of wrapped keys; all else is in that of ``region_bus``."""
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    audit_bytes: Annotated[int, Field(ge=64 * 1024)] | None = None
    """Bytes of the audit stream; without it, see ``kcm_runtime.audit.stream_size``."""


async def provision(
    config: ProvisionConfig,
    within_s: float = PROVISION_SECONDS_MAX,
    tell: Callable[[str], object] = lambda _: None,
    tell_s: float = TELL_S,
) -> None:
    """Create the missing streams and buckets of a region; wait for its broker.

    After ``tell_s`` seconds, ``tell`` gets a line with the reason of the delay. Raises
    ``NotProvisionedError`` with the reason after ``within_s`` seconds, and ``ProvisionError`` if
    the broker does not protect its streams and buckets as required.
    """
    region_bus = Connection(config.region_bus, "provision", bus="region_bus")
    vault_bus = Connection(config.vault_bus, "provision", bus="vault_bus")
    refused = ""

    async def why() -> str:
        return refused or await _why_not(config, region_bus, vault_bus)

    async def say() -> None:
        await asyncio.sleep(tell_s)
        left = max(0, round(within_s - tell_s))
        tell(f"{config.region}: {await why()}; retrying for another {left} s")

    saying = asyncio.create_task(say())
    try:
        async with asyncio.timeout(within_s):
            await region_bus.start()
            await vault_bus.start()
            while True:
                try:
                    await provision_region(
                        region_bus,
                        config.region,
                        vault_bus=vault_bus,
                        replicas=config.replicas,
                        audit_bytes=config.audit_bytes,
                    )
                except KcmError as error:
                    if error.code is not Code.UNAVAILABLE:
                        raise
                    refused = error.detail
                except (nats_errors.Error, TimeoutError) as error:
                    # A cluster without a leader yet, or with too few servers for the replicas.
                    refused = f"JetStream does not create them ({type(error).__name__})"
                else:
                    return
                await asyncio.sleep(RETRY_SECONDS)
    except Unfit as error:
        raise ProvisionError(f"{config.region}: {error}") from None
    except TimeoutError:
        text = f"{config.region} could not be provisioned: {await why()}"
        raise NotProvisionedError(text) from None
    finally:
        saying.cancel()
        await region_bus.close()
        await vault_bus.close()


async def _why_not(config: ProvisionConfig, region_bus: Connection, vault_bus: Connection) -> str:
    """Return why a connection is not established yet, and which one."""
    if region_bus.connected and not vault_bus.connected:
        return (await why_not(config.vault_bus, vault_bus)).detail + vault_bus.over
    over = "" if region_bus.connected else region_bus.over
    return (await why_not(config.region_bus, region_bus)).detail + over
