"""Bringing the accounts of a region's broker to its running servers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Final

from kcm._internal.transport import why_not
from kcm.ops.errors import OperationError
from kcm_broker.claims import verify_account
from kcm_broker.resolver import NODES_MAX, OwnScope, Pusher, SystemAccount
from kcm_runtime.clock import Clock
from kcm_runtime.config import BusAddress, Section
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.stream_protection import Unfit
from kcm_schemas.codes import KcmError
from pydantic import Field

CONNECT_S: Final = 10.0
"""Seconds in which a server of the broker has to let the pusher in."""


class PushError(OperationError):
    """The accounts are not on every server."""

    code = "push"
    hint = "start every server of the region, then give the same command again"


class PushConfig(Section):
    """What ``kcm init`` writes to ``REGION/push``: tokens, and how the servers are reached."""

    operators: Annotated[tuple[str, ...], Field(min_length=1)]
    nodes: Annotated[int, Field(ge=1, le=NODES_MAX)]
    system_account: str
    pusher: str
    tokens: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]
    bus: BusAddress


@dataclass(frozen=True, slots=True)
class PushedAccount:
    """An account that all servers have; ``issued`` is in Unix seconds."""

    account: str
    issued: int
    nodes: tuple[str, ...]


async def push(config: PushConfig, clock: Clock) -> list[PushedAccount]:
    """Bring every token to every server, and check that each has it.

    Raises ``PushError``. A repetition changes nothing, and reaches servers that were down.
    """
    connection = Connection(config.bus, "push")
    try:
        async with asyncio.timeout(CONNECT_S):
            await connection.start()
    except TimeoutError:
        text = (await why_not(config.bus, connection)).detail
        await connection.close()
        raise PushError(text) from None
    except (Unfit, SecretFileError) as error:
        await connection.close()
        raise PushError(str(error)) from None
    try:
        own = OwnScope(config.system_account, config.pusher)
        pusher = Pusher(
            SystemAccount(connection.client, clock), config.operators, config.nodes, own
        )
        found = []
        # The system account comes last: it can end this connection.
        for token in sorted(config.tokens, key=lambda one: _is_system(one, config)):
            pushed = await pusher.push(token)
            found.append(PushedAccount(pushed.claims.name, pushed.claims.issued, pushed.nodes))
    except KcmError as error:
        raise PushError(f"{error.code}: {error.detail}") from None
    finally:
        await connection.close()
    return found


def _is_system(token: str, config: PushConfig) -> bool:
    return verify_account(token, config.operators).subject == config.system_account
