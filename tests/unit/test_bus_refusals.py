"""A flood of forgeries is on record, and does not fill the record."""

from kcm_bus.refusals import EVERY_S, Refusals


class Clock:
    now = 0.0

    def elapsed(self):
        return self.now

    def unix_ms(self):
        return 0


def test_the_first_is_recorded_and_the_rest_is_counted():
    clock, told = Clock(), []
    refusals = Refusals("control", lambda *args, **fields: told.append((args, fields)), clock)
    for _ in range(1000):
        refusals.record(ValueError("not signed"))
    assert [fields["count"] for _, fields in told] == [1]
    clock.now += EVERY_S
    refusals.record(ValueError("not signed"))
    assert [fields["count"] for _, fields in told] == [1, 1000]
    assert told[0][0] == ("trust.refused",)
