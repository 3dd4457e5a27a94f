"""The network delivers, delays, loses, repeats, reorders and holds back."""

import asyncio

import pytest
from kcm_schemas.codes import Code, KcmError

from tests.simulation.loop import SimLoop
from tests.simulation.network import Network, Weather


class Rig:
    def __init__(self, **weather):
        self.loop = SimLoop(3)
        self.network = Network(self.loop, ["eu", "us"], Weather(**weather))
        self.heard = []

    def connect(self, name, region, account="region", **more):
        return self.network.connect(self.loop.node(name), region, account, **more)

    async def listen(self, connection, subject, queue="", answer=None):
        async def hear(message):
            self.heard.append((connection.node.name, message.data))
            if answer is not None and message.reply:
                await connection.publish(message.reply, answer)

        await connection.subscribe(subject, hear, queue)

    def run(self, main):
        try:
            return self.loop.run(main)
        finally:
            self.loop.close()


def test_a_regions_account_stays_in_the_region_and_the_control_account_does_not():
    rig = Rig()

    async def main():
        for account in ("region", "control"):
            await rig.listen(rig.connect("far", "us", account), "a.*.>")
            await rig.listen(rig.connect("near", "eu", account), "a.*.>")
        await rig.connect("s", "eu").publish("a.b.c", b"region")
        await rig.connect("s", "eu", "control").publish("a.b.c.d", b"control")
        await rig.connect("s", "eu").publish("a.b", b"too short")
        await asyncio.sleep(1)

    rig.run(main())
    assert sorted(rig.heard) == [("far", b"control"), ("near", b"control"), ("near", b"region")]


def test_one_of_a_queue_group_answers_and_nobody_means_unavailable():
    rig = Rig()

    async def main():
        for name in ("a", "b"):
            await rig.listen(rig.connect(name, "eu"), "ask", "group", b"yes")
        asker = rig.connect("asker", "eu")
        for _ in range(20):
            assert await asker.request("ask", b"?", 1.0) == b"yes"
        with pytest.raises(KcmError) as refused:
            await asker.request("nothing", b"?", 1.0)
        assert refused.value.code is Code.UNAVAILABLE

    rig.run(main())
    assert len(rig.heard) == 20
    assert {name for name, _ in rig.heard} == {"a", "b"}


def test_order_is_kept_unless_the_weather_reorders():
    def sent(**weather):
        rig = Rig(late=0.3, late_s=1.0, **weather)

        async def main():
            await rig.listen(rig.connect("a", "eu"), "x")
            sender = rig.connect("s", "eu")
            for number in range(50):
                await sender.publish("x", bytes([number]))
            await asyncio.sleep(60)

        rig.run(main())
        return [data for _, data in rig.heard]

    assert sent() == sorted(sent())
    assert sent(reorder=True) != sorted(sent(reorder=True))
    assert len(sent(reorder=True)) == 50


def test_loss_and_repetition():
    rig = Rig(loss=0.3, twice=0.3)

    async def main():
        await rig.listen(rig.connect("a", "eu"), "x")
        sender = rig.connect("s", "eu")
        for number in range(200):
            await sender.publish("x", bytes([number]))
        await asyncio.sleep(10)

    rig.run(main())
    data = [one for _, one in rig.heard]
    assert 100 < len(set(data)) < 180
    assert len(data) > len(set(data))


@pytest.mark.parametrize("flush", [True, False])
def test_a_stalled_leaf_is_noticed_by_nobody_and_flushed_late_or_never(flush):
    rig = Rig()

    async def main():
        await rig.listen(rig.connect("a", "us", "control"), "x")
        sender = rig.connect("s", "eu", "control")
        rig.network.leaves["eu"].state = "stalled"
        await sender.publish("x", b"1")
        await sender.flush()
        await asyncio.sleep(30)
        assert rig.heard == []
        rig.network.leaves["eu"].mend(flush=flush)
        await asyncio.sleep(1)

    rig.run(main())
    assert rig.heard == ([("a", b"1")] if flush else [])


def test_a_cut_backbone_loses_and_a_request_times_out():
    rig = Rig()

    async def main():
        await rig.listen(rig.connect("a", "us", "control"), "x", answer=b"y")
        asker = rig.connect("s", "eu", "control")
        rig.network.leaves["us"].state = "cut"
        with pytest.raises(KcmError) as late:
            await asker.request("x", b"?", 1.5)
        assert late.value.code is Code.DEADLINE_EXCEEDED
        rig.network.leaves["us"].mend(flush=False)
        assert await asker.request("x", b"?", 1.5) == b"y"

    rig.run(main())


def test_a_client_that_knows_it_is_disconnected_keeps_nothing():
    rig = Rig()

    async def main():
        await rig.listen(rig.connect("a", "eu"), "x")
        sender = rig.connect("s", "eu")
        sender.disconnect()
        with pytest.raises(KcmError):
            await sender.publish("x", b"lost")
        sender.reconnect()
        await sender.publish("x", b"sent")
        await asyncio.sleep(1)

    rig.run(main())
    assert rig.heard == [("a", b"sent")]


def test_what_a_client_sent_into_a_dead_socket_arrives_much_later():
    rig = Rig()

    async def main():
        await rig.listen(rig.connect("a", "eu"), "x")
        sender = rig.connect("s", "eu")
        sender.leg.state = "stalled"
        await sender.publish("x", b"old")
        await asyncio.sleep(20)
        sender.leg.mend(flush=True)
        await asyncio.sleep(1)

    rig.run(main())
    assert rig.heard == [("a", b"old")]


def test_a_split_region_does_not_hear_itself():
    rig = Rig()

    async def main():
        await rig.listen(rig.connect("a", "eu", side=1), "x")
        await rig.listen(rig.connect("b", "eu", side=0), "x")
        rig.network.cut_sides.add("eu")
        await rig.connect("s", "eu").publish("x", b"1")
        await asyncio.sleep(1)

    rig.run(main())
    assert rig.heard == [("b", b"1")]


def test_a_slow_callback_drops_what_is_above_its_bound():
    rig = Rig(pending_max=3)

    async def main():
        slow = rig.connect("a", "eu")

        async def hear(message):
            await asyncio.sleep(1)
            rig.heard.append(message.data)

        await slow.subscribe("x", hear)
        for number in range(10):
            await rig.connect("s", "eu").publish("x", bytes([number]))
        await asyncio.sleep(20)

    rig.run(main())
    assert len(rig.heard) == 4
    assert rig.network.counts["callback dropped"] == 6


def test_a_paused_node_hears_later_and_a_dead_one_never():
    rig = Rig()

    async def main():
        one, other = rig.connect("a", "eu"), rig.connect("b", "eu")
        for connection in (one, other):
            await rig.listen(connection, "x")
        rig.loop.pause(one.node)
        rig.loop.kill(other.node)
        rig.network.drop(other.node)
        await rig.connect("s", "eu").publish("x", b"1")
        await asyncio.sleep(10)
        assert rig.heard == []
        rig.loop.resume(one.node)
        await asyncio.sleep(1)

    rig.run(main())
    assert rig.heard == [("a", b"1")]
