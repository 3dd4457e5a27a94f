"""The one-shot jobs of ``compose.yaml``, which a region's operator can run by hand, too.

    python -m kcm.dev.setup init --dir DIR
    python -m kcm.dev.setup provision --config FILE

``init`` writes every container's files. ``provision`` makes a region's streams and buckets where
they are missing, and adds protection that an existing one lacks; services never do, since to them a
missing bucket is lost keys. Its configuration names the region, the operators' user of its broker
and, for a cluster, the number of replicas:

    region = "eu-de"
    replicas = 3

    [region_bus]
    url = "tls://nats.eu-de.example:4222"
    user = "operator"
    password_file = "/etc/kcm/region-bus"

Exit codes: 0 done, 1 not possible now, 2 the arguments or the configuration cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

from kcm_bus.config import BusAddress, ConfigError, Section, load
from kcm_bus.connection import Connection
from kcm_bus.protection import Unfit
from kcm_bus.provision import provision_region
from kcm_crypto.secretfile import SecretFileError
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import Name
from nats import errors as nats_errors
from pydantic import Field

from kcm.dev.errors import DevError, NotProvisionedError
from kcm.dev.layouts import write_compose
from kcm.transport import why_not

PROVISION_SECONDS_MAX: Final = 120.0
"""Seconds for a broker to come up and a cluster to agree on its leader."""
TELL_S: Final = 2.0
"""Seconds after which it says what it waits for."""
RETRY_SECONDS: Final = 0.5
"""Seconds between two attempts while JetStream is not there yet."""

EXIT_FAULT: Final = 1
EXIT_CONFIG: Final = 2


class ProvisionConfig(Section):
    """Which region's streams to make, where, and on how many servers each."""

    region: Name
    region_bus: BusAddress
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    audit_bytes: Annotated[int, Field(ge=64 * 1024)] | None = None
    """Room for the audit stream; without it as much as fits, up to ``kcm_bus.audit_room``'s."""


async def provision(
    config: ProvisionConfig,
    within_s: float = PROVISION_SECONDS_MAX,
    tell: Callable[[str], object] = lambda _: None,
    tell_s: float = TELL_S,
) -> None:
    """Make what is missing of a region's streams and buckets, waiting for its broker.

    ``tell`` gets a line about what it waits for, after ``tell_s`` seconds. Raises ``DevError``:
    ``NotProvisionedError`` when that took longer than ``within_s`` seconds, naming what was
    missing, and another one when the broker does not protect what it stores.
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
        raise DevError(f"{config.region}: {error}") from None
    except TimeoutError:
        text = f"{config.region} could not be provisioned: {await why()}"
        raise NotProvisionedError(text) from None
    finally:
        saying.cancel()
        await connection.close()


def main(arguments: Sequence[str]) -> int:
    """Run one job and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kcm.dev.setup")
    jobs = parser.add_subparsers(dest="job", required=True)
    init = jobs.add_parser("init", help="write every container's files")
    init.add_argument("--dir", type=Path, required=True)
    streams = jobs.add_parser("provision", help="make a region's streams and buckets")
    streams.add_argument("--config", required=True)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.job == "init":
            public = write_compose(chosen.dir, time.time_ns() // 1_000_000)
            return _tell(f"every container has its files; the operator root is {public.hex()}")
        config = load(ProvisionConfig, chosen.config)
        asyncio.run(provision(config, tell=_tell))
        return _tell(f"{config.region} has its streams and buckets")
    except (ConfigError, SecretFileError) as error:
        return _tell(str(error), EXIT_CONFIG)
    except (DevError, KcmError) as error:
        return _tell(str(error), EXIT_FAULT)


def _tell(text: str, code: int = 0) -> int:
    sys.stderr.write(text + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
