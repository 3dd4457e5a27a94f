"""The one back-off schedule: doubled, bounded, with jitter, and begun again after a success."""

from kcm_runtime.backoff import Backoff


def waits(backoff, count):
    return [backoff.next_s() for _ in range(count)]


def test_waits_double_up_to_the_maximum():
    assert waits(Backoff(0.1, 1.0), 6) == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_a_success_begins_the_schedule_again():
    backoff = Backoff(0.5, 5.0)
    assert waits(backoff, 3) == [0.5, 1.0, 2.0]
    backoff.reset()
    assert waits(backoff, 2) == [0.5, 1.0]


def test_jitter_scales_each_wait_and_not_the_schedule():
    asked = []

    def uniform(low, high):
        asked.append((low, high))
        return high

    backoff = Backoff(1.0, 4.0, jitter=(0.5, 1.5), uniform=uniform)
    assert waits(backoff, 4) == [1.5, 3.0, 6.0, 6.0]
    assert asked == [(0.5, 1.5)] * 4


def test_without_jitter_nothing_is_drawn():
    def uniform(_low, _high):
        raise AssertionError

    assert Backoff(1.0, 1.0, uniform=uniform).next_s() == 1.0


async def test_it_sleeps_for_the_next_wait(monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    backoff = Backoff(0.2, 1.0)
    await backoff.wait()
    await backoff.wait()
    assert slept == [0.2, 0.4]
