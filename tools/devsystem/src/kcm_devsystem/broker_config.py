"""The configuration files of the backbone and of the regions' brokers.

Everything here is pure: specifications in, text out. The text is JSON, which the server reads, so
the quoting is standard. It holds passwords; the caller writes it with mode 0600.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import quote

from kcm_schemas import subjects

from kcm_devsystem.brokers import (
    LEAF_VERSION_MIN,
    LOOPBACK,
    STORE_BYTES_MAX,
    Account,
    BackboneSpec,
    LeafLogin,
    Login,
    Permissions,
    RegionSpec,
    Rule,
    region_name,
)
from kcm_devsystem.errors import DevError

LINK_RETRY: Final = "1s"
"""Interval of a region's attempts to reach the backbone. A kill waits for this link."""
PAYLOAD_MAX: Final = 1 << 20
"""Bytes in a message. Our messages have 900 KiB at most, headers included."""
PING: Final = "5s"
"""The server detects a dead peer or link after two of these intervals."""
CONNECTIONS_MAX: Final = 1024
"""Client connections per development broker."""
MEMORY_BYTES_MAX: Final = 64 << 20
"""Bytes of streams in memory per development region. All our streams are on disk."""


def render_backbone(spec: BackboneSpec) -> str:
    """Return a backbone's configuration. It contains passwords."""
    regions = [region_name(leaf.region) for leaf in spec.leaves]
    if len(set(regions)) != len(regions):
        raise DevError("two regions of a backbone have the same name")
    return _text(
        {
            **_common(spec.name, spec.host, spec.port, spec.ports_dir, spec.monitor_port),
            "accounts": {leaf.region: _region_on_backbone(leaf, regions) for leaf in spec.leaves},
            "leafnodes": {
                "host": spec.host,
                "port": spec.leaf_port,
                "min_version": LEAF_VERSION_MIN,
                # The regions are configured with its address. It advertises no other one.
                "no_advertise": True,
            },
        }
    )


def _region_on_backbone(leaf: LeafLogin, regions: Iterable[str]) -> dict[str, Any]:
    """Return a region's account: its exports and imports. No other message passes."""
    others = [region for region in regions if region != leaf.region]
    return {
        "users": [
            {
                "user": leaf.region,
                "password": leaf.password,
                # The password is for the link alone: no client can use it.
                "allowed_connection_types": ["LEAFNODE"],
            }
        ],
        "exports": [
            *({"stream": said} for said in spoken_by(leaf.region)),
            # One subject for each other region, so that the sender of a pull is certain.
            *({"service": subjects.pull(leaf.region, r), "accounts": [r]} for r in others),
        ],
        "imports": [
            *({"stream": {"account": r, "subject": said}} for r in others for said in spoken_by(r)),
            *(
                {"service": {"account": r, "subject": subjects.pull(r, leaf.region)}}
                for r in others
            ),
        ],
    }


def spoken_by(region: str) -> tuple[str, ...]:
    """Return the subjects that a region, and no other one, can broadcast on.

    No instance subscribes to ``probe``. It serves to test and measure a link.
    """
    return tuple(f"{subjects.CTL}.{noun}.{region}.>" for noun in ("hold", "receipt", "probe"))


def render_region(spec: RegionSpec) -> str:
    """Return a region's configuration. It contains passwords."""
    region_name(spec.name)
    scheme, _, place = spec.leaf_url.partition("://")
    remote = f"{scheme}://{spec.leaf.region}:{quote(spec.leaf.password, safe='')}@{place}"
    return _text(
        {
            **_common(spec.server_name, spec.host, spec.port, spec.ports_dir, spec.monitor_port),
            **_cluster(spec),
            "jetstream": {
                "domain": spec.name,
                "store_dir": str(spec.store_dir),
                # By default the server acknowledges a message up to two minutes before its fsync.
                "sync_interval": "always",
                "max_memory_store": MEMORY_BYTES_MAX,
                "max_file_store": STORE_BYTES_MAX,
            },
            "accounts": {
                Account.REGION: {
                    "jetstream": "enabled",
                    "users": _users(spec.users, Account.REGION),
                },
                Account.CONTROL: {"users": _users(spec.users, Account.CONTROL)},
            },
            "leafnodes": {
                "reconnect": LINK_RETRY,
                "remotes": [{"url": remote, "account": Account.CONTROL}],
            },
        }
    )


def _cluster(spec: RegionSpec) -> dict[str, Any]:
    """Return a node's routes to the others; nothing for a single server."""
    own = spec.cluster
    if own is None:
        return {}
    user, secret = "route", quote(own.password, safe="")
    settings: dict[str, Any] = {
        "name": spec.name,
        "host": spec.host,
        "port": own.port,
        "authorization": {"user": user, "password": own.password, "timeout": 5},
        "routes": [f"nats-route://{user}:{secret}@{place}" for place in own.routes],
        # One connection per pair, so that a cut affects all accounts.
        "pool_size": -1,
    }
    return {"cluster": settings | ({"advertise": own.advertise} if own.advertise else {})}


def _common(
    name: str, host: str, port: int, ports_dir: PurePath | None, monitor_port: int | None
) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "server_name": name,
        "host": host,
        "port": port,
        "max_payload": PAYLOAD_MAX,
        "max_connections": CONNECTIONS_MAX,
        "ping_interval": PING,
        "ping_max": 2,
    }
    if ports_dir is not None:
        settings["ports_file_dir"] = str(ports_dir)
    if monitor_port is not None:
        settings["http"] = f"{LOOPBACK}:{monitor_port}"
    return settings


def _users(logins: Iterable[Login], account: Account) -> list[dict[str, Any]]:
    return [
        {"user": login.user, "password": login.password}
        | ({} if login.permissions is None else {"permissions": _permissions(login.permissions)})
        for login in logins
        if login.account is account
    ]


def _permissions(permissions: Permissions) -> dict[str, Any]:
    block: dict[str, Any] = {
        "publish": _rule(permissions.publish),
        "subscribe": _rule(permissions.subscribe),
    }
    if permissions.responses:
        block["allow_responses"] = {"max": permissions.responses, "expires": "1m"}
    return {key: value for key, value in block.items() if value}


def _rule(rule: Rule) -> dict[str, list[str]]:
    return {
        key: list(value) for key, value in (("allow", rule.allow), ("deny", rule.deny)) if value
    }


def _text(settings: dict[str, Any]) -> str:
    """Return JSON; refuse text that the server's parser and JSON read differently."""
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    if "\\" in text or not text.replace("\n", "").isprintable():
        raise DevError("a broker's configuration cannot hold quotes, backslashes or control codes")
    return text + "\n"
