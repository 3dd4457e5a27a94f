"""The follower's start: it ends once everything that was stored before is delivered."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace

from kcm_runtime.clock import SystemClock
from kcm_runtime.nats.stream_follower import Follower, SequentialFollower

HEARTBEAT = SimpleNamespace(
    headers={"Status": "100", "Nats-Last-Consumer": "0"}, data=b"", subject=""
)


@dataclass
class Idle:
    """A broker that counts one message as still to come, which has expired before it came."""

    pending: list[int]
    made: int = 0
    names: list = field(default_factory=list)
    callbacks: list = field(default_factory=list)

    def jetstream(self):
        return self

    @property
    def client(self):
        return self

    def new_inbox(self):
        return f"inbox.n{self.made}"

    def on_reconnect(self, callback):
        pass

    async def subscribe(self, inbox, cb):
        self.callbacks.append(cb)
        return self

    async def unsubscribe(self):
        pass

    async def stream_info(self, stream):
        return SimpleNamespace(created=None, state=SimpleNamespace(last_seq=1))

    async def add_consumer(self, stream, config):
        self.made += 1
        self.names.append(config.name)
        pending = self.pending.pop(0)
        asyncio.get_running_loop().create_task(self.beat())
        return SimpleNamespace(num_pending=pending)

    async def beat(self):
        while True:
            await self.callbacks[-1](HEARTBEAT)
            await asyncio.sleep(0.1)


async def test_what_expired_before_it_was_delivered_is_not_waited_for():
    broker = Idle(pending=[1, 0])
    follower = Follower(broker, "S", "s.>", SequentialFollower(lambda _: None), SystemClock())
    await asyncio.wait_for(follower.start(), 5)
    assert broker.made == 2
    assert broker.names == ["n0", "n1"]  # each consumer has a name of its own
    await follower.close()
