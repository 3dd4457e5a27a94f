"""The floor opens what it says, with one key and with a key each."""

import pytest
from kcm_schemas import record

from benchmarks.floor import Floor

PLAINS = [b"", b"a" * 100, b"b" * 5000]


@pytest.mark.parametrize("shared", [False, True])
def test_the_floor_gives_the_plaintexts(shared):
    start = record.prefix("eu-de", "acme", "crm", 1)
    records = [record.build(start, bytes(72), at) + bytes(16) for at in range(len(PLAINS))]
    floor = Floor(PLAINS, records, shared=shared)
    for _ in range(2):
        assert floor.decrypt() == PLAINS
