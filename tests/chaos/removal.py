"""Removing a node from its cluster, which only the servers' own system account may ask for.

The product has no user there; an operator who runs the brokers has.
"""

from __future__ import annotations

import json
from pathlib import Path

import nats
from kcm_devsystem.brokers import LOOPBACK

ACCOUNT = "$SYS"
USER = "chaos"
PASSWORD = "chaos"
ANSWER_S = 8.0


def allow(config: Path) -> None:
    """Give a server's configuration a user of the system account; the server reads it anew."""
    settings = json.loads(config.read_text())
    settings["accounts"][ACCOUNT] = {"users": [{"user": USER, "password": PASSWORD}]}
    config.write_text(json.dumps(settings, indent=2))


def port_of(config: Path) -> int:
    """Where the server of a configuration listens for clients."""
    return int(json.loads(config.read_text())["port"])


async def remove(port: int, node: str) -> str:
    """Remove ``node`` by another node of its cluster; returns what went wrong, or nothing."""
    try:
        client = await nats.connect(
            f"nats://{LOOPBACK}:{port}", user=USER, password=PASSWORD, allow_reconnect=False
        )
        try:
            body = json.dumps({"peer": node}).encode()
            answer = await client.request("$JS.API.SERVER.REMOVE", body, timeout=ANSWER_S)
        finally:
            await client.close()
    except (nats.errors.Error, OSError, TimeoutError) as error:
        return type(error).__name__
    return str(json.loads(answer.data).get("error", ""))
