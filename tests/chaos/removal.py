"""Removing a node from its cluster, which only the servers' own system account may ask for.

The product has no user with that right; an operator who runs the brokers has.
"""

from __future__ import annotations

import json
from pathlib import Path

import nats
from kcm_broker import tokens
from kcm_broker.key_files import kept_key
from kcm_broker.roles import Account
from kcm_broker.tokens import TokenKind
from kcm_deployment.broker_files import Brokers
from kcm_devsystem.brokers import LOOPBACK
from kcm_runtime.config import BusAddress
from kcm_runtime.nats import credentials
from kcm_runtime.nats.credentials import Credentials
from kcm_runtime.nats.login import Login
from kcm_runtime.nats.nkeys import KeyKind, SigningKey

USER = "chaos"
ANSWER_S = 8.0


def address(root: Path, region: str, config: Path) -> BusAddress:
    """How a user without limits enters the system account of a server, by its configuration."""
    port = int(json.loads(config.read_text())["port"])
    path = root / "users" / region / f"{USER}-{Account.SYSTEM}.creds"
    if not path.exists():
        _make(root, region, path)
    ca = Brokers(root, (region,), ()).certificates(region).ca
    return BusAddress(url=f"tls://{LOOPBACK}:{port}", credentials=path, ca=ca)


def _make(root: Path, region: str, path: Path) -> None:
    """Write a user that the account's own key signs, which has no template."""
    seed = root / "realms" / region / "accounts" / Account.SYSTEM / "account.seed"
    key = SigningKey.generate(KeyKind.USER)
    claims = {"name": USER, "iat": 1, "nats": dict.fromkeys(("subs", "data", "payload"), -1)}
    token = tokens.sign(kept_key(seed, KeyKind.ACCOUNT), TokenKind.USER, key.public, claims)
    credentials.write(path, Credentials(token, key))


async def remove(by: BusAddress, node: str) -> str:
    """Remove ``node`` by another node of its cluster; returns what went wrong, or nothing."""
    try:
        client = await nats.connect(by.url, allow_reconnect=False, **Login(by).options())
        try:
            body = json.dumps({"peer": node}).encode()
            answer = await client.request("$JS.API.SERVER.REMOVE", body, timeout=ANSWER_S)
        finally:
            await client.close()
    except (nats.errors.Error, OSError, TimeoutError) as error:
        return type(error).__name__
    return str(json.loads(answer.data).get("error", ""))
