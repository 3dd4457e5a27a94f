"""Keys and a clock for tests of the broker's identities."""

from dataclasses import dataclass

from kcm_runtime.nats.nkeys import KeyKind, SigningKey

NOW = 1_800_000_000


@dataclass
class StoppedClock:
    """A clock that a test sets, in Unix seconds."""

    now: int = NOW

    def unix_ms(self):
        return self.now * 1000 + 999

    def elapsed(self):
        return float(self.now)


def operator():
    return SigningKey.generate(KeyKind.OPERATOR)


def account():
    return SigningKey.generate(KeyKind.ACCOUNT)


def user():
    return SigningKey.generate(KeyKind.USER)
