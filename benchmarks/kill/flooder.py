"""Somebody that a broker lets in, in a process of its own: sends what nobody believes, steadily.

On the control account: nests of lists that declare thousands of items, and forged holds and
receipts in the name of somebody on the roster. On the region's account: the same as data requests.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

import uvloop
from kcm_deployment.members import Member
from kcm_runtime.config import BusAddress
from kcm_schemas import data_subjects, limits, subjects
from kcm_schemas.codec import encode
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind, Signature, Signed
from nats.aio.client import Client as Nats

from benchmarks.bare import connected
from benchmarks.kill.talking import Lines, say

BOMB: Final = (b"\xdc" + limits.ITEMS_MAX.to_bytes(2, "big")) * 1000
"""3 KB that took 0.2 s to refuse, once."""

PAUSE_S: Final = 0.02
BOMBS: Final = 2
FORGED: Final = 4
"""Of each kind in every pause: 300 KB/s of bombs, ten times what made two regions dark."""


class Flood:
    """Sends while it is told to."""

    def __init__(self, region: str, signer: str, control: Nats, data: Nats) -> None:
        self._region: Final = region
        self._signer: Final = signer
        self._control: Final = control
        self._data: Final = data
        self.on: Final = asyncio.Event()

    async def run(self) -> None:
        """Send for ever."""
        gateway = data_subjects.gateway(self._region, "encrypt", "t00000", "records")
        core = data_subjects.core(
            self._region, Member(Role.CORE, self._region, 1).name, "unwrap", "t00000", "records"
        )
        while True:
            await self.on.wait()
            for _ in range(BOMBS):
                await self._control.publish(self._subject("hold"), BOMB)
                await self._control.publish(self._subject("receipt"), BOMB)
                for subject in (gateway, core):
                    await self._data.publish(subject, BOMB, reply=self._data.new_inbox())
            for _ in range(FORGED):
                await self._control.publish(self._subject("hold"), self._forged(Kind.HOLD))
                await self._control.publish(self._subject("receipt"), self._forged(Kind.RECEIPT))
            await asyncio.sleep(PAUSE_S)

    def _subject(self, noun: str) -> str:
        hold_id = os.urandom(limits.ID_SIZE)
        if noun == "receipt":
            return subjects.receipt(self._region, hold_id)
        return subjects.broadcast_hold(self._region, "tenant", hold_id)

    def _forged(self, kind: Kind) -> bytes:
        signature = Signature(signer=self._signer, signature=os.urandom(64))
        body = os.urandom(200)
        return encode(Signed(system="dev", kind=kind, body=body, signatures=[signature]))


async def serve() -> None:
    """Flood from ``start`` to ``stop`` until standard input ends."""
    lines = await Lines.open()
    settings = await lines.next()
    assert settings is not None
    addresses = [BusAddress.model_validate(settings[name]) for name in ("control", "data")]
    async with connected(addresses[0]) as control, connected(addresses[1]) as data:
        flood = Flood(settings["region"], settings["signer"], control, data)
        running = asyncio.create_task(flood.run())
        say(ready="flooder")
        while (line := await lines.next()) is not None:
            if line["do"] == "start":
                flood.on.set()
            else:
                flood.on.clear()
            say(done=line["do"])
        running.cancel()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
