"""The fuzzer's targets, without the fuzzer: valid inputs, and inputs with a few changed bytes."""

from __future__ import annotations

import random

import pytest

from tests.fuzz import targets
from tests.fuzz.targets import TARGETS

CHANGES = 60
"""Changed inputs of each seed."""


def changed(seed: bytes, chance: random.Random) -> bytes:
    """The seed with one to three bytes changed, removed or added."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(3):
            case 0:
                data[at : at + 1] = bytes((chance.randrange(256),))
            case 1:
                del data[at : at + chance.randint(1, 4)]
            case _:
                data[at:at] = chance.randbytes(chance.randint(1, 4))
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds_and_what_is_near_to_them(name: str) -> None:
    target, chance = TARGETS[name], random.Random(7)
    seeds = list(target.seeds())
    assert seeds
    target.run(b"")
    for seed in seeds:
        target.run(seed)
        for _ in range(max(1, CHANGES // len(seeds))):
            target.run(changed(seed, chance))


@pytest.mark.parametrize(
    ("name", "broken"),
    [("messages", "decode"), ("records", "record"), ("uris", "parse_uri"), ("journal", "read")],
)
def test_a_reader_that_fails_is_noticed(name: str, broken: str, monkeypatch) -> None:
    class Broken:
        def __call__(self, *_: object) -> object:
            raise IndexError

        parse = __call__

    monkeypatch.setattr(targets, broken, Broken())
    with pytest.raises(IndexError):
        TARGETS[name].run(next(iter(TARGETS[name].seeds())))
