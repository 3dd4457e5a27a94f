"""Provisioning a region: its streams and buckets, made once, by the region's operator.

Services never make them, since to them a missing bucket is lost keys. The configuration names the
region, the operators' user of its broker and, for a cluster, the number of replicas:

    region = "eu-de"
    replicas = 3

    [region_bus]
    url = "tls://nats.eu-de.example:4222"
    user = "operator"
    password_file = "/etc/kcm/region-bus"
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
"""Seconds for a broker to come up and a cluster to agree on its leader."""
TELL_S: Final = 2.0
"""Seconds after which it says what it waits for."""
RETRY_SECONDS: Final = 0.5
"""Seconds between two attempts while JetStream is not there yet."""


class ProvisionConfig(Section):
    """Which region's streams to make, where, and on how many servers each."""

    region: Name
    region_bus: BusAddress
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    audit_bytes: Annotated[int, Field(ge=64 * 1024)] | None = None
    """Room for the audit stream; without it as much fits: see ``kcm_runtime.audit.stream_size``."""


async def provision(
    config: ProvisionConfig,
    within_s: float = PROVISION_SECONDS_MAX,
    tell: Callable[[str], object] = lambda _: None,
    tell_s: float = TELL_S,
) -> None:
    """Make what is missing of a region's streams and buckets, waiting for its broker.

    ``tell`` gets a line about what it waits for, after ``tell_s`` seconds. Raises
    ``NotProvisionedError`` when that took longer than ``within_s`` seconds, naming what was
    missing, and ``ProvisionError`` when the broker does not protect what it stores.
    """
    connection = Connection(config.region_bus, "provision")
    refused = ""

    async def why() -> str:
        return refused or (await why_not(config.region_bus, connection)).detail

    async def say() -> None:
        await asyncio.sleep(tell_s)
        left = max(0, round(within_s - tell_s))
        tell(f"{config.region}: {await why()}; trying for another {left} s")

    saying = asyncio.create_task(say())
    try:
        async with asyncio.timeout(within_s):
            await connection.start()
            while True:
                try:
                    await provision_region(
                        connection,
                        config.region,
                        replicas=config.replicas,
                        audit_bytes=config.audit_bytes,
                    )
                except KcmError as error:
                    if error.code is not Code.UNAVAILABLE:
                        raise
                    refused = error.detail
                except (nats_errors.Error, TimeoutError) as error:
                    # A cluster without a leader yet, or with too few servers for the replicas.
                    refused = f"JetStream does not make them ({type(error).__name__})"
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
        await connection.close()
