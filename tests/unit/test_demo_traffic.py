"""The traffic of the demonstration ends with the block that it runs in."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
from kcm_devsystem.demo.traffic import Stream, running
from kcm_runtime.clock import SystemClock
from kcm_schemas.codes import Code


class Losing:
    """A client that loses the first cancellation, as ``asyncio.wait_for`` of Python 3.11 can."""

    def __init__(self) -> None:
        self.waits = asyncio.Event()
        self.after = 0

    async def encrypt(self, tenant, service, plaintexts, **_):
        if self.waits.is_set():
            self.after += 1
            assert self.after < 100, "the traffic goes on"
        self.waits.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0 if self.after else 3600)
        return SimpleNamespace(values=plaintexts, codes=[Code.OK])

    async def decrypt(self, tenant, service, values, **_):
        return SimpleNamespace(values=values, codes=[Code.OK])


async def interrupted(client: Losing) -> None:
    async with running([Stream(client, "acme", "records", SystemClock())]):
        await client.waits.wait()
        raise ConnectionError


async def test_it_ends_although_a_request_loses_the_cancellation():
    with pytest.raises(ExceptionGroup) as caught:
        await interrupted(Losing())
    assert [type(error) for error in caught.value.exceptions] == [ConnectionError]
