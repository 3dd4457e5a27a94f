"""An application that asks a Core for data keys, and the Gateways through which it asks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from kcm._internal.core_asks import CoreAsks
from kcm._internal.session_memory import SessionRandomness
from kcm_gateway.core_client import CoreClient, Unwrapping
from kcm_gateway.keys.asks import AppAsks, AskPart
from kcm_schemas import data_subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code
from kcm_schemas.data import Failure
from kcm_schemas.data_subjects import DataSubject
from kcm_schemas.roster import Role
from kcm_sessions.caller import Caller

from tests.unit.core_rig import VERIFIER, Core
from tests.unit.roster_changes import changed, signed_roster
from tests.vectors.families.messages import identity

BLOB, KEY = 72, 32


def service_gateways(core: Core, *names: str) -> None:
    """From the next roster on, these Gateways serve applications: they are not embedded."""
    core.me.rosters.take(
        signed_roster(changed({name: {"application": None} for name in names or ("gw-eu",)}))
    )


class Application:
    """An application with sessions at Cores; ``carry`` is a Gateway, which a test bends."""

    def __init__(self, *cores: Core, name: str = "shop", key: str = "") -> None:
        self.cores = {core.me.name: core for core in cores}
        self.carried: list[tuple[str, str]] = []
        self.bend: Any = lambda _core, _verb, _body, answer: answer
        clock = cores[0].world.clock
        me = Caller(
            name=name,
            region="eu",
            incarnation=os.urandom(16),
            sign=identity(key or name).sign_raw,
            verifier=lambda: VERIFIER,
            listen=lambda _: None,
            peers=Role.GATEWAY,
            subject_of=data_subjects.gateway_session,
        )
        self.asks = CoreAsks(me, self._carry, clock, SessionRandomness())
        self.name = name

    async def _carry(self, core: str, verb: str, body: bytes, timeout_s: float) -> bytes:
        self.carried.append((core, verb))
        subject = data_subjects.core_session("eu", core, verb)
        if core not in self.cores:
            return encode(Failure(v=1, error=Code.UNAVAILABLE, detail="not reached"))
        answer = await self.cores[core].answer(subject, body)
        return self.bend(core, verb, body, answer)

    async def part(
        self,
        blobs: bytes,
        *,
        gateway: str = "gw-eu",
        version: int = 1,
        place: str = "acme/crm",
        within_s: float = 5.0,
    ) -> AskPart:
        """What it asks for these keys, through one Gateway."""
        names = [version.to_bytes(4, "big") + one for one in each(blobs)]
        asked = DataSubject("decrypt", *place.split("/"))
        sessions = await self.asks.sessions()
        made = self.asks.asks(sessions, gateway, asked, names, within_s)
        part = AppAsks(self.name, made).part(0)
        assert part is not None
        return part


def each(blobs: bytes) -> list[bytes]:
    return [blobs[at : at + BLOB] for at in range(0, len(blobs), BLOB)]


async def unwrap(
    client: CoreClient,
    blobs: bytes,
    *parts: AskPart,
    counts: Sequence[int] = (),
    version: int = 1,
    place: str = "acme/crm",
) -> SimpleNamespace:
    """A Gateway's unwrap: the code of each position without a key, and the keys."""
    count = len(blobs) // BLOB
    out = memoryview(bytearray(count * KEY))
    sizes = counts or [count // max(1, len(parts))] * len(parts)
    pairs = list(zip(parts, sizes, strict=True))
    wanted = Unwrapping(*place.split("/"), "record", version, blobs, pairs)
    _, bad = await client.unwrap(wanted, out)
    return SimpleNamespace(bad=bad, keys=out.tobytes())
