"""No secret of a session, and no session key, is left in memory once it ended."""

from __future__ import annotations

from functools import partial

import pytest

from tests.security import hpke_keys
from tests.security.memory_child import COUNT
from tests.security.test_memory_keys import CORE_ALLOCATOR, leaked

KEYS = 3
"""Keys of a session, besides its secret."""

PRIVATE = 3
"""Keys as which the 96 bytes of a private session key are searched."""

searched = partial(leaked, allocator=CORE_ALLOCATOR, program="session_child")


def expanded(keys: list[bytes]) -> list[bytes]:
    """What follows from a private session key, which is told first."""
    parts = hpke_keys.expanded(keys[0], keys[2])
    return [parts["noise"], parts["vector"], parts["clamped"]]


def vector(keys: list[bytes]) -> list[bytes]:
    """The form in which the library keeps what it derived from a private session key."""
    return [hpke_keys.expanded(keys[0], keys[2])["vector"]]


def test_what_is_in_use_is_found() -> None:
    every = COUNT * KEYS + PRIVATE + 1
    assert searched("in_use", more=vector) == (every, every)


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("derived", COUNT), ("evicted", COUNT * (1 + KEYS)), ("expired", COUNT * (1 + KEYS))],
)
def test_nothing_is_left_of_sessions(pattern: str, told: int) -> None:
    assert searched(pattern) == (0, told)


@pytest.mark.parametrize(("pattern", "told"), [("replaced", COUNT), ("closed", COUNT * (1 + KEYS))])
def test_nothing_is_left_of_a_session_key_and_its_sessions(pattern: str, told: int) -> None:
    assert searched(pattern, more=expanded) == (0, told + 2 * PRIVATE)
