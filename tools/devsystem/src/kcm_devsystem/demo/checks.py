"""What the demonstration checks: refusals, the journal, and whether all of it was as it should."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import nats
from kcm import Client, Code, KcmError
from kcm_gateway.config import GatewayConfig
from kcm_gateway.member import Member
from kcm_keymem.random import SystemKeyRandomness
from kcm_runtime.clock import SystemClock
from kcm_runtime.config import BusAddress, load
from kcm_runtime.instance import load_instance
from kcm_runtime.nats.login import Login
from kcm_schemas.roster import Role

KILLED: Final = "acme"
OTHER: Final = "globex"
SERVICE: Final = "records"

FILE_BYTES: Final = 64 << 20
"""Bytes of the file, which is encrypted in pieces of 1 MiB."""


async def served(client: Client, tenant: str, clock: SystemClock, until: float) -> None:
    """Wait until a grant has reached the Gateways; raises the last refusal."""
    while True:
        try:
            await client.encrypt_one(tenant, SERVICE, b"")
        except KcmError:
            if clock.elapsed() > until:
                raise
        else:
            return
        await asyncio.sleep(0.05)


async def refused_plaintext(client: Client, tenant: str) -> str:
    """Return the code with which a plaintext is refused."""
    try:
        await client.encrypt_one(tenant, SERVICE, b"")
    except KcmError as error:
        return error.code.value
    return Code.OK.value


async def refused(client: Client, record: bytes) -> str:
    """Return the code with which a record is refused."""
    try:
        await client.decrypt_one(KILLED, SERVICE, record)
    except KcmError as error:
        return error.code.value
    return Code.OK.value


async def refused_gateway(config: Path, record: bytes) -> str:
    """Return the code with which a Core refuses a Gateway that no application asks.

    It has everything that a thief of a Gateway has: identity, configuration and place on the bus.
    """
    settings, randomness = load(GatewayConfig, str(config)), SystemKeyRandomness()
    me = load_instance(settings, Role.GATEWAY, randomness)
    stolen = Member(settings, me, SystemClock(), randomness)
    try:
        await stolen.start()
        await stolen.engine.decrypt(KILLED, SERVICE, [record])
    except KcmError as error:
        return error.code.value
    finally:
        await stolen.close()
    return Code.OK.value


async def refused_by_broker(address: BusAddress, subject: str) -> str:
    """Return ``refused`` if a broker forbids this user to publish a subject, else ``published``."""
    said: list[str] = []

    async def on_error(error: Exception) -> None:
        said.append(str(error).lower())

    login = Login(address).options()
    client = await nats.connect(list(address.urls), error_cb=on_error, **login)
    try:
        await client.publish(subject, b"")
        # The library writes the first PING before what waits to be written, the second one after
        # it. The broker reports a violation before it answers that one.
        await client.flush()
        await client.flush()
    finally:
        await client.close()
    violated = any("permissions violation for publish" in one for one in said)
    return "refused" if violated else "published"


def audit(directory: Path, config: Path) -> dict[str, Any]:
    """Verify the journal offline, with the Auditor's program."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "kcm_auditor",
            "--verify",
            str(directory / "journal"),
            "--config",
            str(config),
        ],
        capture_output=True,
        check=False,
        timeout=120,
    )
    told = dict(line.split(None, 1) for line in done.stdout.decode().splitlines() if " " in line)
    return {
        "events": int(told.get("events", 0)),
        "chain_ok": done.returncode == 0,
        "incidents": int(told.get("incidents", 0)),
    }


def passed(result: dict[str, Any]) -> bool:
    """Return whether every part of the result is as it should be."""
    rows, kill, after = result["records"], result["kill"], result["after_kill"]
    file = result["file"]
    return all(
        (
            rows > 0 and result["round_trips_ok"] == rows,
            file.get("correct") == file.get("pieces") and file.get("bytes") == FILE_BYTES,
            result["without_credentials"] == "refused",
            result["without_grant"] == "forbidden",
            result["stolen_gateway"] == "forbidden",
            result["past_the_gateway"] == "refused",
            result["wrong_region"] == "wrong_region",
            kill["complete"] and kill["instances"] > 0,
            after["killed_tenant"] == "tenant_killed",
            after["other_tenant_errors"] == 0 and after["other_tenant_served"],
            after["wrong_answers"] == 0,
            result["after_restore"]["decrypted"] == rows,
            result["audit"]["chain_ok"] and result["audit"]["events"] > 0,
        )
    )
