"""What a Core clears of the control stream, and what it leaves to others."""

import asyncio
from types import SimpleNamespace

from kcm_killswitch.replica import entry_expiry
from kcm_killswitch.replica.entry_expiry import EntryExpiry
from kcm_runtime.nats.ports import Entry, NotAllowed
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role


class Stream:
    """A stream of which some subjects belong to others, and which fails once."""

    def __init__(self, *, foreign=(), failing=()):
        self.foreign, self.failing, self.cleared = set(foreign), set(failing), []

    async def put(self, subject, body, *, expected, ttl):
        if subject in self.foreign:
            raise NotAllowed
        if subject in self.failing:
            self.failing.discard(subject)
            raise KcmError(Code.UNAVAILABLE)
        assert body == b""
        self.cleared.append(subject)
        return expected + 1


async def cleared(stream, *places):
    host = SimpleNamespace(
        me=SimpleNamespace(role=Role.CORE),
        randomness=SimpleNamespace(public=lambda _: b"\0"),
    )
    counts = asyncio.get_running_loop().create_future()
    expiry = EntryExpiry(host, stream=stream, done=counts.set_result)
    for sequence, subject in enumerate(places, 1):
        assert expiry.clear(Entry(sequence, subject, b"junk"))
    return await asyncio.wait_for(counts, 20)


async def test_an_entry_that_only_another_instance_may_write_keeps_no_other_one_waiting():
    stream = Stream(foreign={"lease.gateway-1.x"})
    assert await cleared(stream, "lease.gateway-1.x", "hold.tenant.1") == 1
    assert stream.cleared == ["hold.tenant.1"]


async def test_an_entry_that_could_not_be_written_is_tried_again(monkeypatch):
    monkeypatch.setattr(entry_expiry, "RETRY_S", 0.0)
    stream = Stream(failing={"hold.tenant.1"})
    assert await cleared(stream, "hold.tenant.1", "hold.tenant.2") == 2
    assert stream.cleared == ["hold.tenant.1", "hold.tenant.2"]
